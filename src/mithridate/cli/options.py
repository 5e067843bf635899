"""The options of a command, read off its dataclass: what a `--config` file may name, and what a wrong name is like."""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import Positional

from mithridate.errors import MithridateError
from mithridate.text import say

_POSITIONAL = get_args(Positional[str])[1]


class Option(NamedTuple):
    """One option: the fields that lead to it from the command's dataclass down, its type, and how it is given."""

    path: tuple[str, ...]
    type: Any
    positional: bool

    @property
    def choices(self) -> tuple[str, ...]:
        """The values there are, where they are few words."""
        return tuple(map(str, get_args(self.type))) if get_origin(self.type) is Literal else ()


def options_of(kind: Any) -> dict[str, Option]:
    """Every option of the dataclass `kind`, those of its parts too, by its name on the command line (`batch-size`)."""
    found: dict[str, Option] = {}
    for name, (bare, positional) in _fields(kind).items():
        if _has_parts(bare):
            parts = options_of(bare).items()
            found |= {inner: option._replace(path=(name, *option.path)) for inner, option in parts}
        else:
            found[name.replace("_", "-")] = Option((name,), bare, positional)
    return found


def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Type of each field of a dataclass, without tyro's markers and type variables, and whether it is positional."""
    cls = get_origin(kind) or kind
    known: dict[Any, Any] = dict(zip(getattr(cls, "__parameters__", ()), get_args(kind)))
    found = {}
    for name, hint in get_type_hints(cls, include_extras=True).items():
        bare, *markers = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        bare = known.get(bare, bare) if isinstance(bare, TypeVar) else bare
        found[name] = bare, any(marker is _POSITIONAL for marker in markers)
    return {field.name: found[field.name] for field in fields(cls)}


def _has_parts(kind: Any) -> bool:
    return is_dataclass(get_origin(kind) or kind)


def flag(name: str) -> str:
    """How an option is written: tyro gives one letter one hyphen."""
    return f"-{name}" if len(name) == 1 else f"--{name}"


def nearest(word: str, known: Sequence[str]) -> str:
    """The end of a sentence about a name that nothing has."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"


def refuse_unknown(argv: Sequence[str], options: Mapping[str, Option], command: str) -> None:
    """End with 2 and one sentence where `argv` holds an option that the command lacks."""
    known = ["help", "config"]
    for name, option in options.items():
        if not option.positional:
            known += [name, f"no-{name}"] if option.type is bool else [name]
    for word in argv:
        if word == "--":
            return
        name = word[2:].partition("=")[0].replace("_", "-")
        if word.startswith("--") and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean --{close[0]}?" if close else f"mithridate {command} --help lists what it has"
            say(f"mithridate: mithridate {command} has no option --{name}; {hint}", stderr=True)
            raise SystemExit(2)


# --- --config FILE ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """What a file says of options, by name. `argv` is the command line without `--config FILE`."""

    argv: list[str]
    values: dict[str, Any]  # of `Located`, so that a message names the line
    file: Path | None = None


def read_config(argv: Sequence[str]) -> Config:
    """The file that `argv` names by `--config`, without the options that `argv` gives itself: the command line wins.

    Raises `MithridateError` for a file that cannot be read, and where there are two.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", action="append", default=[], type=Path)
    known, rest = first.parse_known_args(list(argv))
    if not known.config:
        return Config(list(argv), {})
    if len(known.config) > 1:
        raise MithridateError(f"expected one --config FILE, got {len(known.config)}; put the options into one file")
    from mithridate.studies.spec.located import read_located

    located = read_located(known.config[0])
    values = {} if located.value is None else located.items("a file of options")
    values = {name.replace("_", "-"): value for name, value in values.items()}
    said = {
        word.lstrip("-").partition("=")[0].replace("_", "-").removeprefix("no-") for word in rest if word[:1] == "-"
    }
    return Config(rest, {name: value for name, value in values.items() if name not in said}, known.config[0])


def early(argv: Sequence[str], *names: str) -> dict[str, list[str]]:
    """What `argv`, or else its `--config` file, says of options that decide which others there are."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        first.add_argument(f"--{name}", action="append", default=[])
    known, _ = first.parse_known_args(list(argv))
    found = {name: getattr(known, name) for name in names}
    for name, value in read_config(argv).values.items():
        if name in names and value.plain() is not None:
            plain = value.plain()
            found[name] = [str(each) for each in (plain if isinstance(plain, list) else [plain])]
    return found


def with_values(kind: Any, config: Config, options: Mapping[str, Option], *, default: Any) -> Any:
    """A default of the dataclass `kind` that holds what the file says; what nobody gave yet is `tyro.MISSING`.

    Raises `MithridateError`, with the line, for a key that is no option and a value that an option cannot have.
    """
    values: dict[tuple[str, ...], Any] = {}
    for name, located in config.values.items():
        if name not in options:
            located.fail(f"there is no option {name}; {nearest(name, list(options))}")
        values[options[name].path] = _value(name, options[name].type, located)
    return _filled(kind, default, values)


def _value(name: str, kind: Any, located: Any) -> Any:
    from pydantic import TypeAdapter, ValidationError

    plain = located.plain()
    if get_origin(kind) is tuple and not isinstance(plain, list):
        plain = [plain]  # one alone may stand without brackets
    try:
        return TypeAdapter(kind).validate_python(plain)
    except ValidationError as error:
        wrong = error.errors()[0]
        return located.fail(f"{name}: {wrong['msg'][:1].lower()}{wrong['msg'][1:]}, got {wrong['input']!r:.60}")


def _filled(kind: Any, default: Any, values: Mapping[tuple[str, ...], Any]) -> Any:
    """Not by the constructor, whose checks are of the whole: the command line may add what the file lacks."""
    cls, types = get_origin(kind) or kind, _fields(kind)
    made = object.__new__(cls)
    for field in fields(cls):
        value = _default(field) if default is None else getattr(default, field.name)
        if _has_parts(types[field.name][0]):
            inner = {path[1:]: each for path, each in values.items() if path[0] == field.name}
            value = _filled(types[field.name][0], value if is_dataclass(value) else None, inner)
        object.__setattr__(made, field.name, values.get((field.name,), value))
    return made


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return tyro.MISSING if field.default is MISSING else field.default
