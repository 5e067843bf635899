"""YAML in which every value knows its line: bounded, without tags, and without YAML 1.1's surprises.

`on`, `yes` and `12:30` are words here, `1e-3` is a number; true, false and null are what they look like.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from mithridate.errors import StudyError

MAX_BYTES = 2**20
MAX_VALUES = 50_000  # what aliases point at counts each time
MAX_DEPTH = 24

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


@dataclass(frozen=True)
class Located:
    """A value of a file and where it stands: a scalar, a list of `Located`, or a dict of them."""

    value: Any
    line: int
    file: str

    def fail(self, message: str) -> NoReturn:
        """Raise `StudyError` that names the file and the line."""
        raise StudyError(f"{self.file}, line {self.line}: {message}")

    def items(self, what: str) -> dict[str, "Located"]:
        """A mapping's entries. Raises `StudyError` where it is none."""
        if not isinstance(self.value, dict):
            self.fail(f"{what} should be a mapping (name: value), got {shown(self.plain())}")
        return self.value

    def entries(self, what: str) -> list["Located"]:
        """A list's entries. Raises `StudyError` where it is none."""
        if not isinstance(self.value, list):
            self.fail(f"{what} should be a list, got {shown(self.plain())}")
        return self.value

    def text(self, what: str) -> str:
        """A word or sentence. Raises `StudyError` where it is none."""
        if not isinstance(self.value, str):
            self.fail(f"{what} should be a word or a sentence, got {shown(self.plain())}")
        return self.value

    def words(self, what: str) -> tuple[str, ...]:
        """A list of words; one alone may stand without brackets."""
        if isinstance(self.value, str):
            return (self.value,)
        return tuple(entry.text(f"an entry of {what}") for entry in self.entries(what))

    def plain(self) -> Any:
        """The value as lists, dicts and scalars."""
        if isinstance(self.value, dict):
            return {name: entry.plain() for name, entry in self.value.items()}
        if isinstance(self.value, list):
            return [entry.plain() for entry in self.value]
        return self.value


def shown(value: Any) -> str:
    """A value as a message shows it."""
    shown = "nothing" if value is None else repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def suggestion(word: str, known: Iterable[str]) -> str:
    """`did you mean x?`, or what there is to choose from."""
    known = [str(name) for name in known]
    found = difflib.get_close_matches(str(word).lower(), [name.lower() for name in known], n=1, cutoff=0.4)
    if found:
        right = next(name for name in known if name.lower() == found[0])
        return f"did you mean {right}?"
    shown = ", ".join(known[:30])
    return f"expected one of {shown}" if known else "none is defined"


def read_located(path: Path, name: str | None = None) -> Located:
    """The one document in `path`; `name` is what messages call it. Raises `StudyError`."""
    name = name or str(path)
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise StudyError(f"{name} has {size} bytes; such a file may have at most {MAX_BYTES}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise StudyError(f"{name} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise StudyError(f"{name} cannot be read: {error.strerror or error}") from error
    return parse_located(text, name)


def parse_located(text: str, name: str) -> Located:
    """The one document in `text`. Raises `StudyError`."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise StudyError(f"{name}{where}: invalid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise StudyError(f"{name} is invalid YAML: {str(error).splitlines()[0]}") from error
    if root is None:
        raise StudyError(f"{name} is empty")
    return _Reader(name).located(root, 0)


class _Loader(yaml.SafeLoader):
    """Gives every plain scalar the tag of a string: what it is, `_scalar` decides."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012 (PyYAML's own form)


@dataclass
class _Reader:
    name: str
    values: int = 0

    def located(self, node: yaml.Node, depth: int) -> Located:
        line = node.start_mark.line + 1
        here = Located(None, line, self.name)
        self.values += 1
        if self.values > MAX_VALUES:
            here.fail(f"such a file may have at most {MAX_VALUES} values; what aliases point at counts each time")
        if depth > MAX_DEPTH:
            here.fail(f"values may be nested at most {MAX_DEPTH} deep")
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.rpartition(":")[2] not in ("str", "map", "seq"):
            here.fail(f"tags are not allowed, got {node.tag}; leave it out")
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Located] = {}
            for key, value in node.value:
                name = self.located(key, depth + 1)
                if not isinstance(key, yaml.ScalarNode):
                    name.fail("a name must be one word, got a list or a mapping")
                if key.value in found:
                    name.fail(f"{key.value!r} is given twice, first in line {found[key.value].line}")
                found[key.value] = self.located(value, depth + 1)
            return Located(found, line, self.name)
        if isinstance(node, yaml.SequenceNode):
            return Located([self.located(entry, depth + 1) for entry in node.value], line, self.name)
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return Located(_scalar(node.value) if plain else node.value, line, self.name)


def _scalar(text: str) -> Any:
    """A plain scalar: nothing, true, false, a number, or the word itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) < 40:
        return int(text.replace("_", ""))
    return float(text.replace("_", "")) if _FLOAT.fullmatch(text) else text
