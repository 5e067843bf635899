"""What a study file shows and claims: tables, figures and claims, their axes and measures held against the grid."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, get_type_hints

from mithridate.metrics.names import PROBE_ASR, RECALL_AT, Z_SCORE
from mithridate.studies.spec.build import value_of
from mithridate.studies.spec.located import Located, shown, suggestion
from mithridate.studies.spec.study import (
    INSPECTION_TABLES,
    Claim,
    Floor,
    Label,
    Show,
    ShowFigure,
    ShowInspections,
    ShowMatrix,
    ShowSlopes,
    ShowTable,
    Where,
)

MODELS = ("poisoned", "clean", "start", "repaired")
VIEWS = ("model", "epoch")  # axes that every cell has several labels of
MEASURES = (
    *(f"Hit@{k}" for k in (1, 5, 10, 20, 30, 50)),
    *("MinRank", "ASR", "PSR", "IR@10", "TR@10", "IR@10 other classes", "zero-shot", "probe", "shift image"),
    *(PROBE_ASR, Z_SCORE),
    *("shift text", "shift image ratio", "shift text ratio", "AUROC", "poison removed", "clean pairs lost", *RECALL_AT),
    *("pairs", "count", "rate", "class_share", "seconds"),
)
_SUCCESS = re.compile(r"(Hit@\d+|ASR|PSR)( .+)?")
_OF_A_GOAL = re.compile(r"(Hit@\d+|MinRank|ASR|PSR) .+")
Axes = Mapping[str, Sequence[Label]]


SHOWS = {
    "table": ShowTable,
    "figure": ShowFigure,
    "inspections": ShowInspections,
    "matrix": ShowMatrix,
    "slopes": ShowSlopes,
}


def read_show(node: Located, axes: Axes, floor: Floor | None = None) -> Show:
    """A `table`, a `figure`, `inspections`, a `matrix` or `slopes`; `floor` is that of the experiment.

    Raises `StudyError` for axes, measures and labels that the experiment does not have.
    """
    given = node.items("show")
    if len(given) != 1 or next(iter(given)) not in SHOWS:
        forms = ", ".join(f"`{name}: {{...}}`" for name in SHOWS)
        node.fail(f"an entry of show must be one of {forms}, got {shown(list(given))}")
    (name,) = given
    found = _read(SHOWS[name], given[name], name, axes, floor=floor)
    if isinstance(found, ShowFigure):
        _refuse_incomplete(found, given[name])
    return found


def read_floor(node: Located) -> Floor:
    """The utility that a claim of robustness asks for. Raises `StudyError` where it is not one number of a measure."""
    floor = _read(Floor, node, "floor", {})
    if (floor.above is None) == (floor.times_chance is None):
        node.fail("a floor needs `above` (a number) or `times_chance` (a multiple of chance), and not both")
    return floor


def read_claim(node: Located, axes: Axes, floor: Floor | None = None) -> Claim:
    """A claim; `floor` is that of the experiment. Raises `StudyError` as `read_show` does."""
    claim = _read(Claim, node, "claim", axes, rename={"is": "is_"})
    if claim.is_ == "below" and _SUCCESS.fullmatch(claim.measure) and claim.of.get("model", "poisoned") == "poisoned":
        claim = replace(claim, floor=claim.floor or floor)
        if claim.floor is None:
            node.fail(
                f"a claim that {claim.measure} is below something needs a floor, as a model that has learned nothing "
                "resists everything: say what it must still be able to do, as `floor: "
                "{measure: IR@10, times_chance: 3}` in the claim, its experiment or the study"
            )
    _refuse_wrong_slopes(claim, node)
    if claim.is_ in ("rising", "falling") and claim.along is None:
        node.fail(f"a claim that {claim.measure} is {claim.is_} needs `along`: the axis with numbers")
    if claim.is_ in ("rising", "falling") and (claim.than is not None or claim.value is not None):
        node.fail(f"a claim that {claim.measure} is {claim.is_} takes neither `than` nor `value`")
    if claim.along is not None and claim.along in axes and any(isinstance(label, str) for label in axes[claim.along]):
        node.fail(f"along: the labels of {claim.along} are not numbers")
    return claim


def _refuse_wrong_slopes(claim: Claim, node: Located) -> None:
    if (claim.slope is None) != (not claim.regress):
        node.fail("a claim about a slope needs both `regress` (the axes) and `slope` (one of them)")
    for name, axis in (("slope", claim.slope), ("than_slope", claim.than_slope)):
        if axis is not None and axis not in claim.regress:
            node.fail(f"{name}: {axis!r} is none of the axes of regress; {suggestion(axis, claim.regress)}")
    if claim.slope is not None and (claim.than is not None or claim.is_ in ("rising", "falling")):
        node.fail("a claim about a slope is held against `than_slope` or `value`, and is above, below or equal")


_AXES = ("rows", "series", "along", "every", "regress", "slope", "than_slope")
_WHERES = ("where", "of", "than")


def _read(
    kind: Any,
    node: Located,
    what: str,
    axes: Axes,
    rename: Mapping[str, str] | None = None,
    floor: Floor | None = None,
) -> Any:
    given = node.items(what)
    hints, known = get_type_hints(kind), [field.name for field in fields(kind)]
    back = {new: old for old, new in (rename or {}).items()}
    values: dict[str, Any] = {}
    for name, entry in given.items():
        field = (rename or {}).get(name, name)
        if field not in known or name in back:
            entry.fail(f"a {what} has no field {name!r}; {suggestion(name, [back.get(n, n) for n in known])}")
        if field in _WHERES:
            values[field] = None if entry.value is None else _where(entry, f"{what}.{name}", axes)
        elif field == "floor":
            values[field] = read_floor(entry)
        elif field in ("rows", "measures", "series", "every", "success", "utility", "regress", "tables"):
            values[field] = entry.words(f"{what}.{name}")
        else:
            values[field] = value_of(hints[field], entry, f"{what}.{name}")
        if field in _AXES:
            for axis in entry.words(f"{what}.{name}"):
                _refuse_unknown_axis(axis, entry, f"{what}.{name}", axes)
            if field == "regress" and (wrong := _not_numbers(entry.words(f"{what}.{name}"), axes)):
                entry.fail(f"{what}.{name}: the labels of {wrong} are not numbers above 0")
        elif field in ("measure", "measures", "z", "than_measure", "success", "utility"):
            for measure in entry.words(f"{what}.{name}"):
                _refuse_unknown_measure(measure, entry, f"{what}.{name}")
        elif field == "tables":
            for table in entry.words(f"{what}.{name}"):
                if table not in INSPECTION_TABLES:
                    near = suggestion(table, INSPECTION_TABLES)
                    entry.fail(f"{what}.{name}: no table is called {shown(table)}; {near}")
    required = ("rows", "measures", "kind", "says", "measure", "is_", *(() if kind is Claim else ("regress",)))
    if missing := [n for n in known if n in required and n not in values]:
        node.fail(f"a {what} needs {back.get(missing[0], missing[0])!r}")
    if kind is ShowMatrix:
        for axis in ("attack", "defence"):
            _refuse_unknown_axis(axis, node, what, axes)
        values.setdefault("floor", floor)
        if values["floor"] is None:
            node.fail("a matrix needs a floor: what a model must still be able to do for its defence to be ranked")
    if kind is ShowFigure:
        _refuse_wrong_sides(values, given, axes)
    return kind(**values)


def _not_numbers(named: Sequence[str], axes: Axes) -> str | None:
    """The first of the axes whose labels have no logarithm."""
    wrong = (a for a in named if not all(isinstance(label, int | float) and label > 0 for label in axes.get(a, [""])))
    return next(wrong, None)


def _refuse_wrong_sides(values: Mapping[str, Any], given: Mapping[str, Located], axes: Axes) -> None:
    """x and y of a figure are axes or measures, as its kind has it."""
    kind = values["kind"]
    sides = {
        "line": ("axis", "measure"),
        "heat": ("axis", "axis"),
        "points": ("measure", "measure"),
        "path": ("measure", "measure"),
    }
    for side, of in zip(("x", "y"), sides.get(kind, ())):
        if values.get(side):
            if of == "axis":
                _refuse_unknown_axis(values[side], given[side], f"figure.{side}", axes)
            else:
                _refuse_unknown_measure(values[side], given[side], f"figure.{side}")


def _refuse_incomplete(figure: ShowFigure, node: Located) -> None:
    needed = {"heat": ("x", "y", "z"), "report": ("name",)}
    for side in needed.get(figure.kind, ("x", "y")):
        if not getattr(figure, side):
            node.fail(f"a figure of kind {figure.kind} needs {side!r}")


def _refuse_unknown_axis(axis: str, node: Located, what: str, axes: Axes) -> None:
    known = [*axes, *VIEWS]
    if axis not in known:
        node.fail(f"{what}: this experiment has no axis {axis!r}; {suggestion(axis, known)}")


def _refuse_unknown_measure(measure: str, node: Located, what: str) -> None:
    if measure not in MEASURES and not _OF_A_GOAL.fullmatch(measure):
        node.fail(f"{what}: unknown measure {measure!r}; {suggestion(measure, MEASURES)}")


def _where(node: Located, what: str, axes: Axes) -> Where:
    found: dict[str, Any] = {}
    for axis, wanted in node.items(what).items():
        _refuse_unknown_axis(axis, wanted, what, axes)
        inner = wanted
        if axis == "epoch" and isinstance(wanted.value, dict) and "until" in wanted.value:
            found[axis] = _until(wanted, f"{what}.epoch")
            continue
        if isinstance(wanted.value, dict):
            if list(wanted.value) != ["not"]:
                wanted.fail(
                    f"{what}.{axis} must be a label, a list of labels or {{not: label}}, got {shown(wanted.plain())}"
                )
            inner = wanted.value["not"]
        labels = inner.value if isinstance(inner.value, list) else [inner]
        for label in labels:
            _refuse_unknown_label(label, axis, what, axes)
        found[axis] = wanted.plain()
    return found


def _until(node: Located, what: str) -> dict[str, Any]:
    """`{until: {measure, at}}`, checked; `at` may be left out in `than`."""
    given = node.value["until"].items(f"{what}.until")
    if not what.startswith(("claim.of.", "claim.than.")):
        node.fail(f"{what}: only a claim's `of` and `than` stop at an epoch until which a measure was reached")
    for name, entry in given.items():
        if name not in ("measure", "at"):
            entry.fail(f"{what}.until has no field {name!r}; {suggestion(name, ('measure', 'at'))}")
    if "measure" not in given or ("at" not in given and not what.startswith("claim.than.")):
        node.fail(f"{what}.until needs a measure, and `at`: the number to be reached (`than` may leave it out)")
    measure = given["measure"].text(f"{what}.until.measure")
    _refuse_unknown_measure(measure, given["measure"], f"{what}.until.measure")
    at = given["at"].value if "at" in given else None
    if at is not None and (isinstance(at, bool) or not isinstance(at, int | float)):
        given["at"].fail(f"{what}.until.at must be a number, got {shown(at)}")
    return {"until": {"measure": measure, "at": at}}


def _refuse_unknown_label(node: Located, axis: str, what: str, axes: Axes) -> None:
    label = node.value
    if axis == "epoch":
        if not isinstance(label, int) or isinstance(label, bool):
            node.fail(f"{what}.epoch must be an integer, got {shown(node.plain())}")
        return
    known = MODELS if axis == "model" else axes[axis]
    # `null` stands for what is not there, and reads as its label
    if not any(str(label) == str(one) or (not isinstance(label, str) and label == one) for one in known):
        node.fail(f"{what}: {axis} has no label {shown(node.plain())}; {suggestion(str(label), map(str, known))}")
