"""Which files of a folder go to a hub: those that a reader of the data set or of the model needs, and no others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mithridate.errors import OutputError

Kind = Literal["dataset", "model"]

# What is not named here stays: an unknown file may be a key, a cache, or the half of something.
_DATA = re.compile(r"data/.*\.(parquet|arrow|csv|tsv|json|jsonl|txt|tar|jpe?g|png|webp)", re.IGNORECASE)
_IMAGES = re.compile(r"images/.*\.(jpe?g|png|webp)", re.IGNORECASE)
_MODEL = re.compile(
    r"(open_clip_(config\.json|model\.safetensors)|model(-\d+-of-\d+)?\.safetensors|config\.json|preprocessor_config\.json|"
    r"(tokenizer|special_tokens_map|vocab|added_tokens)[a-z_]*\.(json|txt)|merges\.txt|[a-z_]*\.(model|spm))"
)
MANIFEST, RUN, FINDINGS, CARD = "manifest.json", "run.json", "findings.json", "README.md"


@dataclass(frozen=True)
class Chosen:
    """What would be uploaded: `files` by their names in the repository; `left_out`: all else in the folder."""

    kind: Kind
    files: dict[str, Path]
    left_out: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())


def choose(folder: Path) -> Chosen:
    """The files of `folder`, a poisoned set or a model (a run's folder, or one with open_clip's layout).

    Links are not followed, hidden files and folders not entered; what a run keeps to go on (checkpoints, TensorBoard's
    events) stays. Raises `OutputError` where the folder is neither.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OutputError(f"{folder} is no folder; give what mithridate poison, train or repair wrote")
    if (folder / MANIFEST).is_file() and (folder / "data").is_dir():
        kind, home = "dataset", folder
    elif (folder / "model" / "open_clip_config.json").is_file():
        kind, home = "model", folder / "model"  # a run: `hf-hub:REPO` looks for the model at the root
    elif (folder / "open_clip_config.json").is_file():
        kind, home = "model", folder
    else:
        raise OutputError(
            f"{folder} is neither a poisoned set (manifest.json, data/) nor a model (open_clip_config.json); give what "
            "mithridate poison, train or repair wrote"
        )
    files, left_out = {}, []
    for path in sorted(_inside(folder)):
        name = path.relative_to(folder).as_posix()
        target = _target(kind, path, name, home)
        if target is None:
            left_out.append(name)
        else:
            files[target] = path
    return Chosen(kind, dict(sorted(files.items())), tuple(left_out))


def _inside(folder: Path) -> list[Path]:
    """All files below `folder`; a link is one file, whatever it points at."""
    found: list[Path] = []
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            found += _inside(path)
        else:
            found.append(path)
    return found


def _target(kind: Kind, path: Path, name: str, home: Path) -> str | None:
    """The name of a file in the repository; None where it stays."""
    if path.is_symlink() or not path.is_file() or any(part.startswith((".", "__")) for part in Path(name).parts):
        return None
    if kind == "dataset":
        return name if name == MANIFEST or _DATA.fullmatch(name) or _IMAGES.fullmatch(name) else None
    if name in (RUN, FINDINGS):
        return name
    return path.name if path.parent == home and _MODEL.fullmatch(path.name) else None
