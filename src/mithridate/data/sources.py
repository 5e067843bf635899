"""From what a user writes (a path, a pattern, a list) to the files it means."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from mithridate.errors import DataError
from mithridate.remote.paths import RemotePath, forget, location
from mithridate.remote.uploads import refuse_half

MAX_FILES = 1_000_000
_ASKED_AT_ONCE = 16  # whether they exist

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def find_sources(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files and folders that `source` names, also remote ones; a `DataError` where one does not exist."""
    forget()
    paths = _find(source)
    remote = [path for path in paths if isinstance(path, RemotePath)]
    refuse_half(folder for path in remote for folder in ((path, path.parent) if path.is_dir() else (path.parent,)))
    return paths


def _find(source: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(source, str | Path):
        if "\0" in str(source):
            raise DataError(f"{str(source)[:200]!r} is no name of a file: it holds a NUL character")
        # a name that exists is meant as it stands, whatever signs are in it
        if not isinstance(source, RemotePath) and _exists(Path(source).expanduser()):
            return [Path(source).expanduser()]
        return [path for part in str(source).split("::") for path in _match(part)]
    if not source:
        raise DataError("the list of sources is empty; give at least one file or folder")
    return [path for part in source for path in _find(part)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a long list of sources is too long for a name
        return False


def _match(pattern: str) -> list[Path]:
    paths = [path for name in expand_braces(pattern) for path in _glob(location(name))]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        missing = [path for path, there in zip(paths, pool.map(lambda path: path.exists(), paths)) if not there]
    if missing and len(paths) > 1:
        raise DataError(f"{len(missing)} of the {len(paths)} files of {pattern} do not exist, as {missing[0]}")
    if missing:
        raise DataError(f"{pattern} does not exist; expected a file or folder of image-text pairs")
    return paths


def _glob(name: Path) -> list[Path]:
    remote = isinstance(name, RemotePath)
    if not (re.search(r"[*[]", str(name)) if remote else glob.has_magic(str(name))):
        return [name]
    if not remote and name.exists():
        return [name]
    # Path.glob takes no absolute pattern
    found = name.matches() if remote else [Path(path) for path in sorted(glob.glob(str(name), recursive=True))]  # noqa: PTH207
    if not found:
        raise DataError(f"nothing matches {name}; expected files or folders of image-text pairs")
    return found


def expand_braces(pattern: str) -> list[str]:
    """`a{000..002}.tar` and `{x,y}.tar` written out, as a shell does; zeros on the left are kept."""
    alternatives, texts, end = [], [], 0
    for match in _BRACES.finditer(pattern):
        choices = _choices(match[1])
        if choices:
            texts.append(pattern[end : match.start()])
            alternatives.append(choices)
            end = match.end()
    texts.append(pattern[end:])
    if any("{" in text or "}" in text for text in texts):
        raise DataError(f"the braces of {pattern} do not read as {{000..012}} or {{a,b}}; separate sources by ::")
    total = 1
    for choices in alternatives:
        total *= len(choices)
    if total > MAX_FILES:
        raise DataError(f"{pattern} stands for {total} files; at most {MAX_FILES} are read")
    return ["".join(_interleave(texts, chosen)) for chosen in product(*alternatives)]


def _choices(inside: str) -> Sequence[str]:
    match = _RANGE.fullmatch(inside)
    if match is None:
        return inside.split(",") if "," in inside else []
    first, last = int(match[1]), int(match[2])
    if abs(last - first) >= MAX_FILES:
        raise DataError(f"{{{inside}}} stands for {abs(last - first) + 1} files; at most {MAX_FILES} are read")
    padded = any(len(text) > 1 and text[0] == "0" for text in match.groups())
    width = max(map(len, match.groups())) if padded else 0
    step = 1 if last >= first else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def _interleave(texts: Sequence[str], chosen: Sequence[str]) -> list[str]:
    return [piece for pair in zip(texts, (*chosen, "")) for piece in pair]
