"""What several commands share: how data are named, how options are parsed, how results are printed."""

import argparse
import inspect
import io
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa
import tyro
from tyro.conf import Positional
from tyro.constructors import PrimitiveConstructorSpec

from mithridate.auditing.keep import read_keep_list
from mithridate.cli.examples import example
from mithridate.cli.help_text import without_none
from mithridate.cli.options import early, options_of, read_config, refuse_unknown, with_values
from mithridate.data.pairs import Pairs
from mithridate.data.read import read_pairs
from mithridate.engine.calls import Engine
from mithridate.errors import DataError, MithridateError, OutputError
from mithridate.folders import claim
from mithridate.plugins import load_installed_plugins, load_plugins
from mithridate.remote.paths import RemotePath, location
from mithridate.remote.uploads import workplace
from mithridate.text import say, visible_json
from mithridate.threads import use_threads

if TYPE_CHECKING:
    from mithridate.encoder.encoder import Encoder

T = TypeVar("T")

CLAIMS = ExitStack()
"""What the command that runs has to itself: its output folder."""

# largest value of an option beyond which there is only memory or time to lose
_MOST: dict[str, int] = {
    "seed": 2**64 - 1,
    "seeds": 2**64 - 1,
    "size": 4096,
    "jobs": 1024,
    "threads": 4096,
    "context_length": 2**16,
    "probe_folds": 2**20,
}
_ELSE: int = 2**53

Plugins = Annotated[
    tuple[Path, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        name="plugin", metavar="FILE", help="Python file with methods of your own (see check-plugin); repeatable."
    ),
]
"""`--plugin FILE`, which `with_plugins` reads before the other options are known."""

Data = Annotated[Positional[str], tyro.conf.arg(metavar="DATA")]
_PLACE = PrimitiveConstructorSpec(
    nargs=1,
    metavar="PATH|URL",
    instance_from_str=lambda words: location(words[0]),
    is_instance=lambda value: isinstance(value, Path),
    str_from_instance=lambda value: [str(value)],
)
Place = Annotated[Path, _PLACE]
"""A file or folder that may also be remote (`s3://bucket/folder`); a plain `Path` may not."""
Threads = Annotated[
    int | None,
    tyro.conf.arg(help="Threads to work with; by default $OMP_NUM_THREADS, else as many as affinity and cgroup allow."),
]


@dataclass(frozen=True)
class ReadOptions:
    """How the pairs are read."""

    split: str | None = None
    """Only the pairs of this split (train, val, test)."""
    image_root: Place | None = None
    """Where relative image paths start; by default the table's folder."""
    caption_field: str | None = None
    """Column, json field or ending of the members with the captions, where it has an unusual name."""
    label_field: str | None = None
    """Column or json field with the classes, where it has an unusual name."""
    image_field: str | None = None
    """Column with the images, or ending of the members that are images, where it has an unusual name."""
    encoding: str | None = None
    """Encoding of captions that are not UTF-8 (cp1252, utf-16, gb18030)."""
    allow_outside: bool = False
    """Read images that a table names outside its folder and --image-root."""
    label_rule: Literal["random-instance", "largest-object", "named-in-caption"] = "random-instance"
    """How COCO's instances become a class."""
    exclude_coco: bool = False
    """Leave out Visual Genome images that are COCO images."""

    def read(self, path: str, *, split: str | None = None, engine: Engine = Engine()) -> Pairs:  # noqa: B008 (frozen)
        """The pairs at `path`; `split` takes the place of the option's."""
        return read_pairs(path, **{**vars(self), "split": split or self.split}, engine=engine)


@dataclass(frozen=True)
class CacheOptions:
    """Where decoded images are kept."""

    cache: Path | None = None
    """Folder of the image and token cache; by default $MITHRIDATE_CACHE or ~/.cache/mithridate."""
    cache_limit: float | None = None
    """GiB of images to cache at most; a larger set is decoded at every use, with the same result."""

    def __post_init__(self) -> None:
        if self.cache_limit is not None and not 0 <= self.cache_limit < float("inf"):
            raise MithridateError(f"cache_limit must be 0 GiB (cache nothing) or more, got {self.cache_limit}")

    @property
    def folder(self) -> Path | str:
        return self.cache or "default"

    @property
    def limit(self) -> int | None:
        return None if self.cache_limit is None else int(self.cache_limit * 2**30)


def with_plugins(argv: Sequence[str]) -> list[str]:
    """Load installed plugins and every `--plugin FILE` of `argv`, so that what they add can be named there.

    Gives back `argv` with these options at its end. Raises `PluginError`.
    """
    paths = early(argv, "plugin")["plugin"]
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--plugin", action="append", default=[])
    _, rest = first.parse_known_args(list(argv))
    load_installed_plugins()
    load_plugins(paths)
    return [*rest, *(word for path in paths for word in ("--plugin", path))]


def parse(kind: Callable[..., T], argv: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """`argv` and its `--config` file as a value of the dataclass `kind`; exits with 2 for wrong usage.

    Help and complaints are tyro's. Raises `MithridateError` for values that cannot be.
    """
    config, options = read_config(argv), options_of(kind)
    refuse_unknown(config.argv, options, prog)
    if config.values:
        default = with_values(kind, config, options, default=default)
    extra: dict[str, Any] = {} if default is None else {"default": default}
    with _visible_complaints(argv):
        value = tyro.cli(
            kind, args=config.argv, prog=f"mithridate {prog}", description=description(kind, prog), **extra
        )
    _refuse_absurd(value)
    _find_addresses(value)
    out = getattr(value, "out", None)
    if isinstance(out, Path) and not getattr(kind, "shared", False) and os.environ.get("RANK", "0") == "0":
        CLAIMS.enter_context(claim(workplace(out), command=repr((Path.cwd(), prog, config))))
    if getattr(value, "overwrite", False):
        _refuse_to_replace_input(value, config.file)
    if hasattr(value, "threads"):
        if value.threads is not None and value.threads < 1:
            raise MithridateError(f"threads must be at least 1, got {value.threads}")
        use_threads(value.threads)
    return value


def description(kind: Any, prog: str) -> str:
    """What the help of a command begins with: what it does, and how it is called."""
    text, shown = inspect.cleandoc((get_origin(kind) or kind).__doc__ or ""), example(prog)
    return "\n".join(
        [
            *(text, ""),
            *([f"Example: {shown}"] if shown else []),
            "--config FILE reads options from a YAML file; the command line wins.",
        ]
    )


@contextmanager
def _visible_complaints(argv: Sequence[str]) -> Iterator[None]:
    """What tyro says of arguments that hold what a terminal would obey is said as everything else is, and so is help,
    whose first lines it does not fold."""
    if all(argument.isprintable() for argument in argv) and not {"-h", "--help"} & set(argv):
        yield
        return
    said, complained = _held(sys.stdout), _held(sys.stderr)
    try:
        with redirect_stdout(said), redirect_stderr(complained):
            yield
    finally:
        for held, stderr in ((said, False), (complained, True)):
            held.seek(0)
            say(*without_none(held.read().splitlines()), stderr=stderr)


def _held(stream: TextIO) -> io.TextIOWrapper:
    """What is written here is kept; its encoding is that of `stream`, by which boxes are drawn."""
    return io.TextIOWrapper(io.BytesIO(), encoding=stream.encoding or "utf-8", errors="replace")


def _refuse_absurd(options: Any) -> None:
    """Raise `MithridateError` for a number that would take memory or years before anything else refuses it."""
    for name, value in vars(options).items():
        if is_dataclass(value):
            _refuse_absurd(value)
            continue
        for number in value if isinstance(value, tuple) else (value,):
            low = 0 if name in ("seed", "seeds") else -(2**53)
            high = _MOST.get(name, _ELSE)
            if isinstance(number, int) and not low <= number <= high:
                bound = f"at least {low}" if number < low else f"at most {high}"
                raise MithridateError(f"{name} must be {bound}, got {number}")
            if isinstance(number, float) and math.isnan(number):
                raise MithridateError(f"{name} must be a number, got nan")


def _find_addresses(options: Any) -> None:
    """Make remote paths of the addresses that a `--config` file gives for a `Place`. Raises `MithridateError` for an
    address where a path of this machine is expected."""
    for name, value in vars(options).items():
        if is_dataclass(value):
            _find_addresses(value)
        elif isinstance(value, Path) and type(value) is type(Path()) and _ADDRESS.match(str(value)):
            hint = get_type_hints(type(options), include_extras=True)[name]
            if _PLACE not in get_args(hint) and Place not in get_args(hint):
                raise MithridateError(f"{name} must be a path of this machine, got the address {value}; copy it")
            object.__setattr__(options, name, location(str(value).replace(":/", "://", 1)))


_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # as `Path` leaves it


def _refuse_to_replace_input(command: Any, file: Path | None) -> None:
    """Raise `OutputError` where the folder to be replaced holds something that the command reads."""
    if isinstance(command.out, RemotePath):
        inside = f"{command.out}/"
        for given in _paths(command):
            if any(f"{part}/".startswith(inside) for part in given.split("::")):
                raise OutputError(f"{command.out} holds {given}, which this command reads; choose another --out")
        return
    out = Path(command.out).resolve()
    for given in (*_paths(command), *([] if file is None else [str(file)])):
        # the fixed beginning of a pattern; what is no path does not exist
        start = Path(re.split(r"[{*?\[]", given.removeprefix("local-dir:"))[0] or ".")
        if start.exists() and (start.resolve() == out or out in start.resolve().parents):
            raise OutputError(f"{command.out} holds {given}, which this command reads; choose another --out")


def _paths(options: Any) -> Iterator[str]:
    """All texts and paths among options but `out`."""
    for name, value in vars(options).items():
        if is_dataclass(value):
            yield from _paths(value)
        elif isinstance(value, str | Path) and name != "out":
            yield str(value)


def emit(value: dict[str, Any], *, as_json: bool, then: Sequence[object] = ()) -> None:
    """Print a result as `name: value` lines and the command to run next, or as one JSON object on the last line."""
    if as_json:
        say(visible_json(value))
        return
    for name, item in value.items():
        say(f"{name}: {item if not isinstance(item, dict) else visible_json(item)}")
    suggest(*then)


def suggest(*then: object) -> None:
    """Print the arguments of the mithridate command that usually comes next, if there are any."""
    if then:
        say(f"next: mithridate {shlex.join(map(str, then))}")


def only_kept(pairs: Pairs, keep: Path | None, start: "Encoder") -> Pairs:
    """The pairs on the keep-list; a warning on standard error where its filter looked through the encoder `start`."""
    if keep is None:
        return pairs
    from mithridate.encoder.encoder import weights_fingerprint

    listed = read_keep_list(keep)
    kept = listed.apply(pairs)
    say(f"mithridate: {len(kept)} of {len(pairs)} pairs are on the keep-list", stderr=True)
    warning = listed.same_encoder(start.name, weights_fingerprint(start.model))
    if warning is not None:
        say(f"mithridate: warning {warning}", stderr=True)
    return kept


def refuse_poison(pairs: Pairs, manifest: Path | None) -> None:
    """Raise `DataError` where pairs are as the `manifest` says they were poisoned: what repairs must be clean."""
    if manifest is None:
        return
    from mithridate.poisoning.leftover import poisoned_rows
    from mithridate.poisoning.manifest import read_manifest

    left = poisoned_rows(pairs, read_manifest(manifest))
    if len(left):
        first = ", ".join(pairs.uid.take(pa.array(left[:3])).to_pylist()) + (", ..." if len(left) > 3 else "")
        raise DataError(
            f"{len(left)} of {len(pairs)} pairs are poisoned, by {manifest}: {first}; clean pairs are needed: leave "
            "these out, or use other data"
        )


def refuse_poison_in(data: str, pairs: Pairs) -> None:
    """`refuse_poison` by the manifest that lies beside `data` in a folder that mithridate poison wrote, if it does."""
    given = Path(data).absolute()
    for folder in (given, *given.parents[:2]):
        inside = given == folder or (folder / "data") in (given, *given.parents)
        if inside and (folder / "data").is_dir() and (folder / "manifest.json").is_file():
            refuse_poison(pairs, folder / "manifest.json")


def pick(registry: dict[str, T], name: str, what: str) -> T:
    """The entry `name`; a `MithridateError` lists the names there are."""
    if name not in registry:
        raise MithridateError(f"no {what} is called {name!r}; expected one of {', '.join(registry)}")
    return registry[name]
