"""Which outcomes a `Where` names, and their numbers over seeds with an interval."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from typing import Any, TypeVar

import numpy as np

from mithridate.randomness import stream
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import bootstrap_mean, rate, score_interval
from mithridate.statistics.seeds import hierarchical_bootstrap
from mithridate.studies.analysis.outcomes import Outcome
from mithridate.studies.spec.study import Label, Where

VIEWS = ("model", "epoch")
"""Axes that one cell has several labels of: what was measured on which model, after which epoch."""

MODELS = ("poisoned", "clean", "start", "repaired")

T = TypeVar("T")

Group = tuple[Outcome, ...]
"""Outcomes that are alike but for their seed, or that are taken together."""


def same_label(label: Any, wanted: Any) -> bool:
    """Whether two labels are one: numbers by value, whatever else by what it reads."""
    numbers = [value for value in (label, wanted) if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == 2:
        return isclose(label, wanted, rel_tol=1e-9)
    return str(label) == str(wanted)


def admits(wanted: Any, label: Any) -> bool:
    """Whether `label` is what a `Where` asks of its axis: a label, one of a list, or none of `{not: ...}`."""
    if isinstance(wanted, Mapping):
        return not admits(wanted["not"], label)
    if isinstance(wanted, list | tuple):
        return any(same_label(label, one) for one in wanted)
    return same_label(label, wanted)


def chosen(outcomes: Iterable[Outcome], where: Where) -> list[Outcome]:
    """The outcomes whose axes `where` admits. What a cell has no axis of, it does not have."""
    asked = {axis: wanted for axis, wanted in where.items() if axis not in VIEWS}
    return [
        outcome
        for outcome in outcomes
        if all(axis in outcome.cell.axis and admits(wanted, outcome.cell.axis[axis]) for axis, wanted in asked.items())
    ]


def models(outcomes: Sequence[Outcome], measures: Sequence[str], where: Where) -> list[str]:
    """The models that `where` names; by default, of the cell's and the clean one, those with one of the measures."""
    known = {model for outcome in outcomes for model, _, measure in outcome.values if measure in measures}
    asked = where.get("model")
    return [m for m in MODELS if m in known and (admits(asked, m) if asked is not None else m != "start")]


def epochs(outcomes: Sequence[Outcome], measure: str, model: str, where: Where) -> list[int]:
    """The epochs with a measure of a model that `where` admits; all of them where it does not say."""
    known = sorted({epoch for o in outcomes for name, epoch, m in o.values if (name, m) == (model, measure)})
    return [epoch for epoch in known if "epoch" not in where or admits(where["epoch"], epoch)]


def last_epoch(outcome: Outcome, measure: str, model: str) -> int:
    """The last epoch of the cell; of a model that was measured at others only (the start), the last of those."""
    if (model, outcome.last, measure) in outcome.values:
        return outcome.last
    return max((epoch for name, epoch, m in outcome.values if (name, m) == (model, measure)), default=outcome.last)


@dataclass(frozen=True)
class Until:
    """The first epoch after which the mean of a measure is at least `at`: one number, or one a seed."""

    measure: str
    at: float | Mapping[int, float]

    def epoch(self, outcome: Outcome, model: str) -> int | None:
        """That epoch of a cell; None where it was never reached, or the level of its seed is not known."""
        level = self.at.get(outcome.cell.seed) if isinstance(self.at, Mapping) else self.at
        if level is None:
            return None
        known = sorted(epoch for name, epoch, m in outcome.values if (name, m) == (model, self.measure))
        reached = (e for e in known if outcome.values[model, e, self.measure].mean() >= level)
        return next(reached, None)


def labels(outcomes: Sequence[Outcome], axis: str) -> list[Label]:
    """The labels of an axis: numbers in rising order, names in the order of the outcomes."""
    found: list[Label] = []
    for outcome in outcomes:
        label = outcome.cell.axis.get(axis)
        if label is not None and not any(same_label(label, one) for one in found):
            found.append(label)
    numbers = [label for label in found if isinstance(label, int | float)]
    return sorted(numbers) if len(numbers) == len(found) else found


def grouped(outcomes: Sequence[Outcome], axes: Sequence[str]) -> dict[tuple[Label, ...], Group]:
    """The outcomes with each combination of labels of `axes` that there is, in the order of the labels."""
    groups: dict[tuple[Label, ...], list[Outcome]] = {}
    order = {axis: labels(outcomes, axis) for axis in axes}
    for outcome in outcomes:
        if all(axis in outcome.cell.axis for axis in axes):
            groups.setdefault(tuple(outcome.cell.axis[axis] for axis in axes), []).append(outcome)

    def rank(key: tuple[Label, ...]) -> list[int]:
        return [
            next(i for i, one in enumerate(order[axis]) if same_label(one, label)) for axis, label in zip(axes, key)
        ]

    return {key: tuple(groups[key]) for key in sorted(groups, key=rank)}


# --- numbers ----------------------------------------------------------------------------------------


def units(
    outcomes: Sequence[Outcome], measure: str, model: str, epoch: int | Until | None = None
) -> dict[int, np.ndarray]:
    """seed -> (units,) of a measure; several cells of a seed are taken together.

    Cells with as many units are averaged position by position: right where the units are the same ones (what is hard
    is hard for both), and right where they are not (the variance of the mean is the same). Cells with unlike units
    are joined. Seeds that lack one of the cells are left out where others have them all.
    """
    found: dict[int, list[tuple[tuple[tuple[str, Label], ...], np.ndarray]]] = {}
    for outcome in outcomes:
        at = epoch.epoch(outcome, model) if isinstance(epoch, Until) else epoch
        if at is None and epoch is None:
            at = last_epoch(outcome, measure, model)
        values = None if at is None else outcome.values.get((model, at, measure))
        if values is not None and len(values):
            found.setdefault(outcome.cell.seed, []).append((outcome.cell.axes, np.asarray(values)))
    most = max((len({axes for axes, _ in cells}) for cells in found.values()), default=0)
    return {
        seed: _together([values for _, values in cells])
        for seed, cells in sorted(found.items())
        if len({axes for axes, _ in cells}) == most
    }


def _together(arrays: list[np.ndarray]) -> np.ndarray:
    if len(arrays) == 1:
        return arrays[0]
    if len({len(array) for array in arrays}) == 1:
        return np.mean(np.stack(arrays).astype(np.float64), axis=0)
    return np.concatenate([array.astype(np.float64) for array in arrays])


def same_units(outcomes: Sequence[Outcome], values: Mapping[int, np.ndarray]) -> bool:
    """Whether position i is the same unit for every seed."""
    return all(outcome.same_units for outcome in outcomes) and len({len(array) for array in values.values()}) <= 1


def is_rate(values: Iterable[np.ndarray]) -> bool:
    """Whether all numbers are 0 or 1."""
    return all(((array == 0) | (array == 1)).all() for array in values)


def estimate_of(values: Mapping[int, np.ndarray], *, same: bool) -> Estimate | None:
    """The mean over seeds and units, with its interval; None where there are none.

    One seed: Wilson's interval for what is 0 or 1, else the bootstrap over units. Several: `hierarchical_bootstrap`;
    where it has no width (every unit of every seed is 0, or is 1) Wilson's for the units that differ from each other.
    """
    arrays = list(values.values())
    if not arrays:
        return None
    rng, rates = stream(0, "mean over seeds and units"), is_rate(arrays)
    if len(arrays) == 1:
        return rate(arrays[0] == 1) if rates else bootstrap_mean(arrays[0].astype(np.float64), rng=rng)
    found = hierarchical_bootstrap(arrays, rng=rng, same_units=same)
    assert found.low is not None
    assert found.high is not None
    if rates and found.high - found.low < 1e-9:
        n = len(arrays[0]) if same else sum(map(len, arrays))
        return Estimate(found.value, *score_interval(found.value, n), len(arrays))
    if found.low < 0 and all((array >= 0).all() for array in arrays):  # no mean of ranks or distances is below 0
        return replace(found, low=0.0)
    return found


def combine(
    outcomes: Sequence[Outcome], measure: str, model: str = "poisoned", epoch: int | Until | None = None
) -> Estimate | None:
    """A measure over the seeds of these outcomes, with an interval; None where it was not measured.

    Measures of units: see `units` and `estimate_of`. An estimate of the cell (AUROC): its own interval with one seed,
    Student's t over the seeds' values with several. A number of the cell (pairs): the mean, without an interval. What
    belongs to the cell is that of its own model: there is none of the clean one.
    """
    values = units(outcomes, measure, model, epoch)
    if values:
        return estimate_of(values, same=same_units(outcomes, values))
    if model != "poisoned":
        return None
    estimates = _per_seed(outcomes, lambda outcome: outcome.estimates.get(measure))
    if estimates:
        if len(estimates) == 1 and len(next(iter(estimates.values()))) == 1:
            return next(iter(estimates.values()))[0]
        means = {seed: np.array([np.mean([e.value for e in found])]) for seed, found in estimates.items()}
        if len(means) == 1:
            return Estimate(float(next(iter(means.values()))[0]), n=1)
        return hierarchical_bootstrap(list(means.values()), rng=stream(0, "mean over seeds"), same_units=False)
    numbers = _per_seed(outcomes, lambda outcome: outcome.numbers.get(measure))
    if not numbers:
        return None
    return Estimate(float(np.mean([np.mean(found) for found in numbers.values()])), n=len(numbers))


def _per_seed(outcomes: Sequence[Outcome], read: Callable[[Outcome], T | None]) -> dict[int, list[T]]:
    found: dict[int, list[T]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.cell.seed):
        value = read(outcome)
        if value is not None:
            found.setdefault(outcome.cell.seed, []).append(value)
    return found


def chance(outcomes: Sequence[Outcome], measure: str) -> float | None:
    """The chance level of a measure, mean over the outcomes that have one."""
    found = [outcome.chance[measure] for outcome in outcomes if measure in outcome.chance]
    return None if not found else found[0] if len(set(found)) == 1 else float(np.mean(found))
