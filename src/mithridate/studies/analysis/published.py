"""Published numbers, to stand beside ours: one file a set in published/, each number with where it was read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from mithridate.errors import DataError
from mithridate.report.document import Published
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.select import same_label
from mithridate.studies.spec.study import Label

_STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class PublishedNumber:
    """One number. `value` None: the paper has the experiment, but not this number, or it was not at hand.

    `where`: the labels of the cells that it speaks of. `source`: table or figure. `tag`: how it was read
    (docs/studies.md). `about`: read off prose that says *about*.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    where: dict[str, Label]
    dataset: str
    measure: str
    model: str
    value: float | None
    source: str
    tag: str
    about: bool = False
    note: str = ""


@dataclass(frozen=True)
class PublishedSet:
    """The numbers of one table or figure of a paper. `set` is its name, that of its file."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    set: str
    paper: str
    version: str
    rows: tuple[PublishedNumber, ...]
    note: str = ""

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.dataset for row in self.rows))

    def find(self, axes: Mapping[str, Label], measure: str, model: str, dataset: str) -> PublishedNumber | None:
        """The number of a row of ours: all that `where` names is so there. Of several, the one that names most."""
        found = [
            row
            for row in self.rows
            if (row.measure, row.model, row.dataset) == (measure, model, dataset)
            and all(axis in axes and same_label(axes[axis], label) for axis, label in row.where.items())
        ]
        return max(found, key=lambda row: len(row.where), default=None)


def beside(number: PublishedNumber | None, ours: Estimate | None) -> Published | None:
    """The cell beside ours: the number, ours minus it, and whether it lies in our interval. None: not published."""
    if number is None or number.value is None:
        return None
    if ours is None:
        return Published(number.value)
    inside = None if ours.low is None or ours.high is None else ours.low <= number.value <= ours.high
    return Published(number.value, ours.value - number.value, inside)


def published_names() -> list[str]:
    """The names of all sets."""
    return sorted(path.name.removesuffix(".json") for path in _folder().iterdir() if path.name.endswith(".json"))


@cache
def read_published(name: str) -> PublishedSet:
    """The set called `name`. Raises `DataError` with the names there are, or with what is wrong in the file."""
    path = _folder().joinpath(f"{name}.json")
    if name not in published_names():
        raise DataError(f"no published numbers are called {name!r}; there are {', '.join(published_names())}")
    return parse_published(path.read_text(encoding="utf-8"), name)


def parse_published(text: str, name: str) -> PublishedSet:
    """The set in a file's content. Raises `DataError` that names the row and the field."""
    try:
        content = TypeAdapter(PublishedSet).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{name}: {where}: {first['msg']}, got {first['input']!r}") from error
    if content.set != name:
        raise DataError(f"{name}: `set` should be the name of the file, got {content.set!r}")
    keys = [(*sorted(row.where.items()), row.dataset, row.measure, row.model) for row in content.rows]
    if twice := [i for i, key in enumerate(keys) if key in keys[:i]]:
        raise DataError(f"{name}: rows.{twice[0]}: the same number twice")
    return content


def _folder():
    return resources.files("mithridate.studies").joinpath("published")


def sources(found: Sequence[PublishedNumber]) -> str:
    """Where these numbers stand: `T4 [ICML T3]; T5 [ICML T4]`."""
    return "; ".join(dict.fromkeys(number.source for number in found if number.value is not None))
