"""Published numbers, to stand beside ours: one file a set in published/, each number with where it was read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from mithridate.errors import DataError
from mithridate.report.document import Published
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.select import same_label
from mithridate.studies.spec.study import Label

# what a file may say, and what each of its rows may: name -> kinds; those without a default are needed
_OF_SET = {"set": str, "paper": str, "version": str, "note": str, "rows": list}
_OF_ROW = {
    "where": dict,
    "dataset": str,
    "measure": str,
    "model": str,
    "value": float | int | None,
    "source": str,
    "tag": str,
    "about": bool,
    "note": str,
}
_OPTIONAL = {"note", "about"}


@dataclass(frozen=True)
class PublishedNumber:
    """One number. `value` None: the paper has the experiment, but not this number, or it was not at hand.

    `where`: the labels of the cells that it speaks of. `source`: table or figure. `tag`: how it was read
    (docs/studies.md). `about`: read off prose that says *about*.
    """

    where: Mapping[str, Label]
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
    """The numbers of one table or figure of a paper."""

    name: str
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
    return parse_published(json.loads(path.read_text(encoding="utf-8")), name)


def parse_published(raw: object, name: str) -> PublishedSet:
    """The set that a file's content says. Raises `DataError` that names the row and the field."""
    content = _checked(raw, _OF_SET, name)
    if content["set"] != name:
        raise DataError(f"{name}: `set` should be the name of the file, got {content['set']!r}")
    rows = tuple(_number(_checked(row, _OF_ROW, f"{name}, row {i}")) for i, row in enumerate(content["rows"], start=1))
    seen: set[str] = set()
    for i, row in enumerate(rows, start=1):
        key = json.dumps([dict(row.where), row.dataset, row.measure, row.model], sort_keys=True)
        if key in seen:
            raise DataError(f"{name}, row {i}: the same number twice")
        if not all(isinstance(label, str | int | float) for label in row.where.values()):
            raise DataError(f"{name}, row {i}: labels of `where` are words or numbers")
        seen.add(key)
    return PublishedSet(name, content["paper"], content["version"], rows, content.get("note", ""))


def _number(row: dict) -> PublishedNumber:
    value = row["value"]
    return PublishedNumber(**{**row, "value": None if value is None else float(value)})


def _checked(raw: object, kinds: Mapping[str, object], where: str) -> dict:
    if not isinstance(raw, dict):
        raise DataError(f"{where}: expected fields, got {type(raw).__name__}")
    if unknown := raw.keys() - kinds.keys():
        raise DataError(f"{where}: no field {min(unknown)!r}; there are {', '.join(kinds)}")
    if lacking := kinds.keys() - raw.keys() - _OPTIONAL:
        raise DataError(f"{where}: needs {min(lacking)!r}")
    for field, value in raw.items():
        if not isinstance(value, kinds[field]) or (isinstance(value, bool) and field == "value"):  # type: ignore[arg-type]
            raise DataError(f"{where}: {field} cannot be {value!r}")
    return raw


def _folder():
    return resources.files("mithridate.studies").joinpath("published")


def sources(found: Sequence[PublishedNumber]) -> str:
    """Where these numbers stand: `T4 [ICML T3]; T5 [ICML T4]`."""
    return "; ".join(dict.fromkeys(number.source for number in found if number.value is not None))
