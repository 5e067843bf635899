"""What a repair costs and what it brings: attack success against utility, one point an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mithridate.errors import EvaluationError
from mithridate.report.document import Cell, Curve, Figure, Ranking, Report, Table, Warning
from mithridate.statistics.differences import rate_over
from mithridate.statistics.estimate import Estimate

# a ranking's name begins with: how far down its target may stand, and what that is called
_SUCCESS = {"attack ": (10, "Hit@10"), "text-trigger ": (10, "Hit@10"), "backdoor": (1, "ASR"), "targeted": (1, "PSR")}
_UTILITY = {"ir": "IR@10", "tr": "TR@10"}


def success_outcomes(report: Report, model: str) -> dict[str, np.ndarray]:
    """For each attack of a report, by measure: (q,) whether a query or image of it succeeded on `model`."""
    return {measure: np.array(r.ranks[model]) < within for measure, (within, r) in _attacks(report, model).items()}


def _attacks(report: Report, model: str) -> dict[str, tuple[int, Ranking]]:
    """By measure: how far down the target may stand, and the ranking."""
    found = {}
    for ranking in report.rankings:
        for beginning, (within, measure) in _SUCCESS.items():
            if ranking.name.startswith(beginning) and model in ranking.ranks:
                found[f"{measure} {ranking.name.removeprefix('attack ')}"] = within, ranking
    if not found:
        raise EvaluationError(f"the report has no attack measured on the {model} model; evaluate with a manifest")
    return found


def _utility(report: Report) -> dict[str, Ranking]:
    return {_UTILITY[ranking.name]: ranking for ranking in report.rankings if ranking.name in _UTILITY}


def utility_outcomes(report: Report, model: str) -> dict[str, np.ndarray]:
    """For both ways of retrieval: (n,) whether the own caption, or image, is among the first ten."""
    return {measure: np.array(ranking.ranks[model]) < 10 for measure, ranking in _utility(report).items()}


def _share(ranking: Ranking, model: str, within: int) -> Estimate:
    """Share of queries with the target among the first `within`; captions of one image are one unit."""
    return rate_over(np.array(ranking.ranks[model]) < within, np.array(ranking.image) if ranking.image else None)


def zero_shot_accuracy(report: Report, model: str) -> Estimate | None:
    """Accuracy on untouched test images, where the report has it."""
    found = report.headline.get("zero-shot", {}).get(model)
    return None if found is None else Estimate(**found["accuracy"])


@dataclass(frozen=True)
class Point:
    """One evaluated model: `strength` of the repair ("" for a model that was not repaired), steps of it, measures."""

    strength: str
    epoch: int
    steps: int
    success: dict[str, Estimate]
    utility: dict[str, Estimate]

    @property
    def worst(self) -> float:
        """The most successful attack."""
        return max(estimate.value for estimate in self.success.values())


def measured_point(report: Report, model: str, *, strength: str, epoch: int, steps: int) -> Point:
    """The point of a model in a report."""
    success = {name: _share(r, model, within) for name, (within, r) in _attacks(report, model).items()}
    return Point(strength, epoch, steps, success, measured_utility(report, model))


def measured_utility(report: Report, model: str) -> dict[str, Estimate]:
    """Recall@10 both ways, and zero-shot accuracy where the report has it."""
    utility = {name: _share(ranking, model, 10) for name, ranking in _utility(report).items()}
    accuracy = zero_shot_accuracy(report, model)
    return utility if accuracy is None else {**utility, "zero-shot": accuracy}


def measures(report: Report, model: str) -> dict[str, Estimate]:
    """Success of every attack of a report, where it has any, and utility: shares of queries or images."""
    attacked = any(r.name.startswith(tuple(_SUCCESS)) and model in r.ranks for r in report.rankings)
    success = measured_point(report, model, strength="", epoch=0, steps=0).success if attacked else {}
    return success | measured_utility(report, model)


def utility_loss(point: Point, start: Point) -> float:
    """The largest fall of any measure of utility since `start`; nought where all rose."""
    return max(0.0, *(start.utility[name].value - estimate.value for name, estimate in point.utility.items()))


def best_point(points: Sequence[Point], start: Point, *, max_loss: float) -> Point | None:
    """Of the points that lose at most `max_loss` of any utility the one of least success, then of fewest steps."""
    kept = [point for point in points if utility_loss(point, start) <= max_loss]
    return min(kept, key=lambda point: (point.worst, point.steps), default=None)


def tradeoff_report(
    start: Point, points: Sequence[Point], *, varied: str, title: str, max_loss: float, clean: Point | None = None
) -> Report:
    """The table, the figure and the best point of a repair. `varied` says what a strength is of."""
    best = best_point(points, start, max_loss=max_loss)
    rows = [_row("as it was", start, start, None)]
    rows += [_row("", point, start, best) for point in points]
    if clean is not None:
        rows.append(_row("clean", clean, start, None))
    measures = (*start.success, *start.utility)
    table = Table(
        "repair",
        title,
        ("model", varied, "epoch", "steps", *measures, "utility lost", "chosen"),
        tuple(rows),
        f"Utility lost: the largest fall of {', '.join(start.utility)} since the model as it was. Chosen: the least "
        f"attack success of those that lose at most {max_loss:g}. 95 % Wilson intervals, over images.",
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
    told = "No point" if best is None else f"{varied} {best.strength} after {best.steps} steps"
    line = f"{told} keeps utility within {max_loss:g} of the model as it was"
    line += "." if best is None else f", with attack success {best.worst:.3f} (it was {start.worst:.3f})."
    warnings = (
        ()
        if start.worst > 0.1
        else (
            Warning(
                "nothing-to-repair",
                f"the attack succeeds in {start.worst:.3f} of cases before any repair: there is little to remove",
            ),
        )
    )
    chosen = None if best is None else {"strength": best.strength, "epoch": best.epoch, "steps": best.steps}
    values = {"as it was": start, "repaired": best, "clean": clean}
    return Report(
        title=title,
        summary=(line,),
        tables=(table,),
        figures=(figure,),
        warnings=warnings,
        headline={"repair": {n: _plain(point, start) for n, point in values.items() if point is not None}},
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


def _plain(point: Point, start: Point) -> dict[str, float]:
    measures = {name: estimate.value for name, estimate in (point.success | point.utility).items()}
    return {**measures, "utility lost": utility_loss(point, start)}
