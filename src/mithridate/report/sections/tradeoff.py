"""A repair as a report: the table, the figure and the point that is chosen."""

from collections.abc import Sequence

from mithridate.evaluation.measurement import Warning
from mithridate.evaluation.tradeoff import Point, best_point, utility_loss
from mithridate.report.document import Cell, Curve, Figure, Headline, Report, Table
from mithridate.report.numbers import show
from mithridate.report.sections.warnings import worded

LITTLE = 0.1  # success below which there is little to repair


def tradeoff_report(
    start: Point, points: Sequence[Point], *, varied: str, title: str, max_loss: float, clean: Point | None = None
) -> Report:
    """Attack success against utility lost, from the model as it was. `varied` says what a strength is of."""
    best = best_point(points, start, max_loss=max_loss)
    rows = [_row("as it was", start, start, None)]
    rows += [_row("", point, start, best) for point in points]
    if clean is not None:
        rows.append(_row("clean", clean, start, None))
    measures = (*start.success, *start.utility)
    limit = show(max_loss)
    table = Table(
        "repair",
        title,
        ("model", varied, "epoch", "steps", *measures, "utility lost", "chosen"),
        tuple(rows),
        f"Utility lost: the largest fall of {', '.join(start.utility)} since the model as it was. Chosen: the least "
        f"attack success of those that lose at most {limit}. 95 % Wilson intervals, over images.",
    )
    curves = []
    for strength in dict.fromkeys(point.strength for point in points):
        path = [start, *(point for point in points if point.strength == strength)]
        x = tuple(utility_loss(point, start) for point in path)
        curves.append(Curve(f"{varied} {strength}", x, tuple(point.worst for point in path)))
    if clean is not None:
        curves.append(Curve("clean", (utility_loss(clean, start),), (clean.worst,)))
    figure = Figure(
        "repair",
        "Attack success against utility lost",
        "line",
        "utility lost",
        "attack success",
        tuple(curves),
        "One point an epoch, from the model as it was; further down and left is better."
        + (" The most successful of several attacks." if len(start.success) > 1 else ""),
    )
    which = "No point" if best is None else f"{varied} {best.strength} after {best.steps} steps"
    line = f"{which} keeps utility within {limit} of the model as it was"
    line += "." if best is None else f", with attack success {show(best.worst)} (it was {show(start.worst)})."
    little = [Warning(code="nothing-to-repair", values={"success": start.worst})] if start.worst <= LITTLE else []
    chosen = None if best is None else {"strength": best.strength, "epoch": best.epoch, "steps": best.steps}
    values = {"as it was": start, "repaired": best, "clean": clean}
    return Report(
        title=title,
        summary=(line,),
        tables=(table,),
        figures=(figure,),
        warnings=worded(little),
        headlines=_headlines({name: point for name, point in values.items() if point is not None}, start),
        provenance={"chosen": chosen, "max_loss": max_loss},
    )


def _row(name: str, point: Point, start: Point, best: Point | None) -> tuple[Cell, ...]:
    return (
        name or "repaired",
        point.strength or None,
        point.epoch if point.strength else None,
        point.steps if point.strength else None,
        *(point.success.get(measure) for measure in start.success),
        *(point.utility.get(measure) for measure in start.utility),
        utility_loss(point, start) if point is not start else None,
        "yes" if point is best else "",
    )


def _headlines(points: dict[str, Point], start: Point) -> tuple[Headline, ...]:
    measures = {
        name: {n: p.success.get(name) or p.utility.get(name) for n, p in points.items()}
        for name in (*start.success, *start.utility)
    }
    found = [
        Headline("repair", name, {n: estimate.value for n, estimate in values.items() if estimate is not None})
        for name, values in measures.items()
    ]
    return (*found, Headline("repair", "utility lost", {n: utility_loss(p, start) for n, p in points.items()}))
