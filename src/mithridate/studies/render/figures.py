"""What a study file wants shown as figures: lines over an axis, matrices, trade-offs, and what evaluations drew."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from mithridate.errors import DataError
from mithridate.evaluation.evaluation_file import read_evaluation
from mithridate.report.document import Curve, Figure
from mithridate.report.numbers import show
from mithridate.report.sections.curves import distribution_figure
from mithridate.report.sections.evaluation import evaluation_report
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.outcomes import Outcome
from mithridate.studies.analysis.select import (
    VIEWS,
    Group,
    chance,
    chosen,
    combine,
    epochs,
    grouped,
    labels,
    models,
    same_label,
)
from mithridate.studies.render.tables import over, pooled
from mithridate.studies.render.words import axes_in_words
from mithridate.studies.spec.study import Label, ShowFigure

MAX_POINTS = 1500
"""Points of a scatter figure that are kept on a study's page, which has many figures."""


def study_figure(shown: ShowFigure, outcomes: Sequence[Outcome], *, name: str) -> Figure | None:
    """The figure; None where nothing of it was measured."""
    cells = chosen(outcomes, shown.where)
    if not cells:
        return None
    draw = {"line": _line, "heat": _heat, "points": _points, "path": _path, "report": _drawn}[shown.kind]
    figure = draw(shown, cells)
    return None if figure is None or not figure.curves else replace(figure, name=name)


def _series(shown: ShowFigure, cells: Sequence[Outcome], measure: str) -> list[tuple[dict[str, Label], Group]]:
    """What tells one line from another, and its outcomes."""
    axes = [axis for axis in shown.series if axis not in VIEWS]
    named = models(cells, [measure], shown.where)
    asked = named if "model" in shown.series or "model" in shown.where else ["poisoned"]
    found: list[tuple[dict[str, Label], Group]] = []
    for key, group in grouped(cells, axes).items():
        known = (
            [{"epoch": e} for e in epochs(group, measure, "poisoned", shown.where)] if "epoch" in shown.series else [{}]
        )
        for model, epoch in product(asked or ["poisoned"], known):
            found.append(({**dict(zip(axes, key)), "model": model, **epoch}, group))
    return found


def _named(shown: ShowFigure, series: Mapping[str, Label]) -> str:
    """The label of a line: its labels, without the axis where it is a name."""
    named = {axis: label for axis, label in series.items() if axis in shown.series}
    words = [
        f"{label} model" if axis == "model" else axes_in_words({axis: label}) if not isinstance(label, str) else label
        for axis, label in named.items()
    ]
    return ", ".join(words) or f"{series['model']} model"


def with_ends(estimate: Estimate | None) -> tuple[float, float, float]:
    """The value and the ends of its interval, which are the value where it has none; NaN where nothing was measured."""
    if estimate is None:
        return np.nan, np.nan, np.nan
    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    return estimate.value, low, high


def _line(shown: ShowFigure, cells: Sequence[Outcome]) -> Figure | None:
    series = _series(shown, cells, shown.y)
    if shown.x == "epoch":
        ticks: list[Label] = sorted({e for s, g in series for e in epochs(g, shown.y, str(s["model"]), shown.where)})
    else:
        ticks = labels(cells, shown.x)
    named = not all(isinstance(label, int | float) for label in ticks)
    curves = []
    for line, group in series:
        at: list[float] = []
        found: list[tuple[float, float, float]] = []
        for i, label in enumerate(ticks):
            estimate = _at(shown, line, group, label)
            if estimate is not None:
                at.append(float(i) if named else float(label))
                found.append(with_ends(estimate))
        if found:
            y, low, high = (tuple(column) for column in zip(*found))
            curves.append(Curve(_named(shown, line), tuple(at), y, low=low, high=high))
    if not curves:
        return None
    curves = _chance_curve(shown, cells, curves, ticks, named=named)
    return Figure(
        "", shown.title or f"{shown.y} against {shown.x}", "line", shown.x, shown.y, tuple(curves),
        _note(shown, cells, "Bars: intervals. "), ticks=tuple(map(str, ticks)) if named else (), log=shown.log,
    )  # fmt: skip


def _at(shown: ShowFigure, line: Mapping[str, Label], group: Group, label: Label) -> Estimate | None:
    """The measure of a line at one label of x."""
    model = str(line["model"])
    if shown.x == "epoch":
        return combine(group, shown.y, model, int(label))
    epoch = line.get("epoch", shown.where.get("epoch"))
    there = [outcome for outcome in group if same_label(outcome.cell.axis.get(shown.x), label)]
    return combine(there, shown.y, model, epoch if isinstance(epoch, int) else None)


def _chance_curve(
    shown: ShowFigure, cells: Sequence[Outcome], curves: list[Curve], ticks: Sequence[Label], *, named: bool
) -> list[Curve]:
    """The curves, and chance behind them where it is known."""
    if shown.x == "epoch":
        level = chance(cells, shown.y)
        levels = [level] * len(ticks)
    else:
        levels = [chance([o for o in cells if same_label(o.cell.axis.get(shown.x), p)], shown.y) for p in ticks]
    known = [
        (float(i) if named else float(label), level) for i, (label, level) in enumerate(zip(ticks, levels)) if level
    ]
    if not known:
        return curves
    x, y = zip(*known)
    return [*curves, Curve("chance", x, y, series=-1)]


def _heat(shown: ShowFigure, cells: Sequence[Outcome]) -> Figure | None:
    columns, rows = labels(cells, shown.x), labels(cells, shown.y)
    if set(columns) == set(rows):
        columns = rows  # a matrix of the same classes has its diagonal
    model = (models(cells, [shown.z], shown.where) or ["poisoned"])[0]
    found = {key: combine(group, shown.z, model) for key, group in grouped(cells, (shown.x, shown.y)).items()}
    if not any(found.values()):
        return None
    curves = [
        Curve(
            str(row),
            tuple(float(i) for i in range(len(columns))),
            tuple(with_ends(found.get((column, row)))[0] for column in columns),
        )
        for row in rows
    ]
    z = f"{shown.z}, {model} model"
    return Figure(
        "", shown.title or f"{shown.z} by {shown.y} and {shown.x}", "heat", shown.x, shown.y, tuple(curves),
        _note(shown, cells, ""), ticks=tuple(map(str, columns)), z_label=z,
    )  # fmt: skip


def _points(shown: ShowFigure, cells: Sequence[Outcome]) -> Figure | None:
    curves = []
    for line, group in _series(shown, cells, shown.y):
        model = str(line["model"])
        axes = list(dict.fromkeys(axis for o in group for axis, _ in o.cell.axes))
        found = []
        for single in grouped(group, axes).values():
            x, y = combine(single, shown.x, model), combine(single, shown.y, model)
            if x is not None and y is not None:
                found.append((*with_ends(x), *with_ends(y)))
        if found:
            x, x_low, x_high, y, low, high = (tuple(column) for column in zip(*found))
            curves.append(Curve(_named(shown, line), x, y, low=low, high=high, x_low=x_low, x_high=x_high))
    title = shown.title or f"{shown.y} against {shown.x}"
    note = _note(shown, cells, "One point a cell; bars: intervals of both. ", pool=False)
    return Figure("", title, "points", shown.x, shown.y, tuple(curves), note)


def _path(shown: ShowFigure, cells: Sequence[Outcome]) -> Figure | None:
    """Both measures after every epoch, joined in the order of epochs: what two objectives leave at equal utility."""
    curves = []
    for line, group in _series(shown, cells, shown.y):
        model = str(line["model"])
        both = ((combine(group, shown.x, model, e), combine(group, shown.y, model, e))
                for e in epochs(group, shown.y, model, shown.where))  # fmt: skip
        found = [(x.value, *with_ends(y)) for x, y in both if x is not None and y is not None]
        if found:
            x, y, low, high = (tuple(column) for column in zip(*found))
            curves.append(Curve(_named(shown, line), x, y, low=low, high=high))
    title = shown.title or f"{shown.y} against {shown.x}, epoch by epoch"
    note = _note(shown, cells, "One point an epoch; bars: intervals. ")
    return Figure("", title, "line", shown.x, shown.y, tuple(curves), note)


def _drawn(shown: ShowFigure, cells: Sequence[Outcome]) -> Figure | None:
    """A figure of the first cell's evaluation, or the densities of what its filter or audit measured under the encoder
    that it chose with. Raises `DataError` where there is none of that name."""
    first = min(cells, key=lambda outcome: outcome.cell.seed)
    try:
        report = evaluation_report(read_evaluation(first.evaluation))
    except DataError as error:  # a page names no folder
        raise DataError("its evaluation cannot be read") from error
    figures = {figure.name: figure for figure in [*report.figures, *_of_the_choice(first)]}
    if shown.name not in figures:
        raise DataError(f"the evaluation has no figure {shown.name!r}; it has {', '.join(figures) or 'none'}")
    figure = figures[shown.name]
    where = axes_in_words({**first.cell.axis, "seed": first.cell.seed})
    figure = replace(figure, title=shown.title or figure.title, note=f"{figure.note} Of {where}.".strip())
    return thinned(figure, MAX_POINTS)


def _of_the_choice(outcome: Outcome) -> list[Figure]:
    found = outcome.suspicion
    if not found:
        return []
    medians = ", ".join(f"{d.group} {show(d.median)}" for d in found)
    note = f"Under the encoder that chose which pairs go. Medians: {medians}."
    return [distribution_figure("suspicion", "Suspicion of clean and poisoned pairs", found[0].metric, found, note)]


def thinned(figure: Figure, most: int) -> Figure:
    """A scatter with at most about `most` points, every so many of each curve; it says so."""
    total = sum(len(curve.x) for curve in figure.curves)
    if figure.kind != "scatter" or total <= most:
        return figure
    step = -(-total // most)
    curves = tuple(replace(curve, x=curve.x[::step], y=curve.y[::step]) for curve in figure.curves)
    return replace(figure, curves=curves, note=f"{figure.note} One point in {step} is shown.".strip())


def _note(shown: ShowFigure, cells: Sequence[Outcome], begin: str, *, pool: bool = True) -> str:
    said = (shown.x, shown.y, *shown.series, *shown.where)
    together = pooled(cells, said) if pool else []
    words = f" Every number takes all of {', '.join(together)} together." if together else ""
    return f"{begin}{over(cells)}{words}"
