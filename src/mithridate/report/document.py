"""What a measurement gives back: named tables of numbers with provenance, and what figures are drawn from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mithridate.errors import DataError
from mithridate.statistics.estimate import Estimate, Number

if TYPE_CHECKING:
    from pydantic import ValidationError

FORMAT = "mithridate-report/2"

# A file from a stranger must not exhaust the stack of whoever renders it.
MAX_DEPTH = 32


class _Strict:
    """Read back by pydantic: no other fields, no conversions."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class Published(_Strict):
    """A published number beside ours: `difference` is ours minus theirs, `inside` whether it lies in our interval.

    None is missing: not published, or (the last two) nothing of ours to hold it against.
    """

    published: Number | None
    difference: Number | None = None
    inside: bool | None = None


Cell = Estimate | Published | bool | float | int | str | None


@dataclass(frozen=True)
class Table(_Strict):
    """One table: `columns` (c,) names, `rows` (r, c) cells; None is missing. `note` says what is counted."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.name!r} has {len(self.columns)} columns, got a row of {len(row)} cells")


@dataclass(frozen=True)
class Curve(_Strict):
    """A line of a figure: y against x, both (p,).

    `series` says which colour, by default the curve's number in its figure; -1 is grey, behind the others. `marker`
    is how a point of a `scatter` looks. `low` and `high` are the ends of the intervals of y, `x_low` and `x_high` of
    x: (p,) each, or empty where there are none. `bracketed`: the columns of a `heat` whose numbers stand in brackets.
    """

    label: str
    x: tuple[Number, ...]
    y: tuple[Number, ...]
    series: int | None = None
    marker: Literal["dot", "cross"] = "dot"
    low: tuple[Number, ...] = ()
    high: tuple[Number, ...] = ()
    x_low: tuple[Number, ...] = ()
    x_high: tuple[Number, ...] = ()
    bracketed: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"curve {self.label!r} has {len(self.x)} x, got {len(self.y)} y")
        for name in ("low", "high", "x_low", "x_high"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.x):
                raise ValueError(f"curve {self.label!r} has {len(self.x)} x, got {len(getattr(self, name))} {name}")


@dataclass(frozen=True)
class Mark(_Strict):
    """A vertical line in a figure: a threshold."""

    label: str
    x: Number


@dataclass(frozen=True)
class Figure(_Strict):
    """What a figure shows, not how it looks.

    `kind`: `line`; `density` (x are the left ends of bins); `step` (a cumulative share on a logarithmic axis:
    y from x onwards, 0 before the first x); `scatter` (points, nothing joins them); `points` (few points, each with
    the intervals of both); `heat` (a matrix: curve i is row i, named by its label, and y its numbers, of `z_label`).
    `ticks` names the places 0, 1, 2 ... of x where x is not a number; `log`: the x axis of a `line` is logarithmic.
    """

    name: str
    title: str
    kind: Literal["line", "density", "step", "scatter", "points", "heat"]
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    note: str = ""
    marks: tuple[Mark, ...] = ()
    ticks: tuple[str, ...] = ()
    z_label: str = ""
    log: bool = False

    def __post_init__(self) -> None:
        if self.kind == "heat" and any(len(row.y) != len(self.ticks) for row in self.curves):
            raise ValueError(f"figure {self.name!r} has {len(self.ticks)} ticks, got a row of another length")


@dataclass(frozen=True)
class Hit(_Strict):
    """One retrieved image: thumbnail (base64 of a JPEG), labels, cosine similarity, is it a target."""

    thumbnail: str
    labels: tuple[str, ...]
    similarity: Number
    is_target: bool


@dataclass(frozen=True)
class Retrieval(_Strict):
    """What one text query retrieves, by model name: for each the first few images, best first."""

    query: str
    hits: dict[str, tuple[Hit, ...]]


@dataclass(frozen=True)
class Triggered(_Strict):
    """A test image with a trigger: thumbnail (base64 of a JPEG), the goal, its class, what each model takes it for,
    and whether that is what the attack wants."""

    thumbnail: str
    goal: str
    label: str
    taken: dict[str, str]
    wanted: str


@dataclass(frozen=True)
class Headline(_Strict):
    """One measure that a report opens with, by model or method; measures of one `group` are shown together."""

    group: str
    measure: str
    values: Mapping[str, Cell]


@dataclass(frozen=True)
class Warning(_Strict):
    """A premise that does not hold: `code` is the heading in docs/warnings.md, `means` and `do` what stands there."""

    code: str
    message: str
    means: str = ""
    do: str = ""


@dataclass(frozen=True)
class Effect(_Strict):
    """One difference that a claim is judged by, with its interval: above 0 is the way that the claim says, where it
    says one."""

    label: str
    value: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class JudgedClaim(_Strict):
    """A claim that was tested: the sentence, what came out, why, where the claim is from, and the differences."""

    claim: str
    verdict: Literal["held", "refuted", "open", "not learned", "not measured"]
    explanation: str
    source: str = ""
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True)
class Section(_Strict):
    """One part of a report that has several: its question, the verdicts on its claims, what it shows.

    `cells` are the runs that its numbers come from, `commands` make them again: what each makes, and the command line.
    `failures`: what is missing, and why.
    """

    name: str
    title: str
    question: str = ""
    claims: tuple[JudgedClaim, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    cells: Table | None = None
    commands: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report(_Strict):
    """Named tables of numbers with provenance; `report.json` is this, other forms are rendered from it."""

    title: str
    summary: tuple[str, ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...] = ()
    retrievals: tuple[Retrieval, ...] = ()
    triggered: tuple[Triggered, ...] = ()
    warnings: tuple[Warning, ...] = ()
    about: str = ""
    sections: tuple[Section, ...] = ()
    headlines: tuple[Headline, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def table(self, name: str) -> Table:
        """The table called `name`. Raises `KeyError` with the names there are."""
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(f"no table {name!r}; there are {', '.join(table.name for table in self.tables)}")

    @property
    def headline(self) -> dict[str, dict[str, dict[str, Any]]]:
        """{group: {model: {measure: number}}} of the headlines, which `--json` prints; estimates are dicts."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for each in self.headlines:
            for model, cell in each.values.items():
                number = asdict(cell) if isinstance(cell, Estimate | Published) else cell
                found.setdefault(each.group, {}).setdefault(model, {})[each.measure] = number
        return found

    def groups(self) -> dict[str, list[Headline]]:
        """The headlines by group."""
        found: dict[str, list[Headline]] = {}
        for each in self.headlines:
            found.setdefault(each.group, []).append(each)
        return found

    def to_json(self) -> str:
        text = json.dumps({"format": FORMAT, **_finite(asdict(self))}, indent=1, ensure_ascii=False)
        return text.encode(errors="replace").decode()  # a path that is not UTF-8 comes as half a surrogate pair


@dataclass(frozen=True)
class _File(Report):
    """What `report.json` holds: the fields of a report, and the format."""

    format: Literal["mithridate-report/2"] = FORMAT

    def report(self) -> Report:
        return Report(**{each.name: getattr(self, each.name) for each in fields(Report)})


def _finite(value: Any, depth: int = 0) -> Any:
    """JSON has no NaN: a missing number is null."""
    if depth > MAX_DEPTH:
        raise ValueError(f"a report is nested at most {MAX_DEPTH} deep")
    if isinstance(value, dict):
        return {key: _finite(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_report(path: Path) -> Report:
    """The report in `path` (a `report.json`, or the folder that holds one). Raises `DataError`."""
    from pydantic import TypeAdapter, ValidationError

    path = Path(path)
    path = path / "report.json" if path.is_dir() else path
    try:
        raw = _finite(json.loads(path.read_text(encoding="utf-8")))
        # half a surrogate pair can be read but not written
        plain = json.dumps(raw, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a report: {error}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise DataError(f"{path} is not a report of format {FORMAT}; run the command that wrote it again")
    try:
        return TypeAdapter(_File).validate_json(plain).report()
    except ValidationError as error:
        raise DataError(f"{path} is damaged: {_first(error)}; run the command that wrote it again") from error


def _first(error: ValidationError) -> str:
    """The first fault and where it is; a wrong field says more than one that is missing."""
    faults = error.errors(include_url=False, include_input=False)
    first = next((fault for fault in faults if fault["type"] != "missing"), faults[0])
    where = "".join(
        f".{part}" if isinstance(part, str) and part.isidentifier() else f"[{part!r}]" for part in first["loc"]
    )
    return f"{where.removeprefix('.')}: {first['msg'].removeprefix('Value error, ')}"
