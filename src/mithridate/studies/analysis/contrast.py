"""Differences of a measure between sets of outcomes: paired wherever both sides have the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import erfc, sqrt

import numpy as np

from mithridate.randomness import stream
from mithridate.statistics.differences import Difference, paired_difference
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.seeds import bootstrap_difference, hierarchical_bootstrap, hierarchical_difference
from mithridate.studies.analysis.outcomes import Outcome
from mithridate.studies.analysis.select import Until, combine, is_rate, same_units, units

Values = Mapping[int, np.ndarray]
"""seed -> (units,) numbers."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    estimate: Estimate | None
    values: Values
    of_units: bool  # else one number a seed
    same: bool  # the units of every seed are the same ones


def side_of(outcomes: Sequence[Outcome], measure: str, model: str, epoch: int | Until | None) -> Side:
    """A measure of these outcomes on a model, after an epoch (None: the last)."""
    estimate, values = combine(outcomes, measure, model, epoch), units(outcomes, measure, model, epoch)
    if values:
        return Side(estimate, values, True, same_units(outcomes, values))
    if model == "poisoned":  # what a cell has one of: a number a seed
        single = {
            seed: combine([o for o in outcomes if o.cell.seed == seed], measure)
            for seed in sorted({o.cell.seed for o in outcomes})
        }
        values = {seed: np.array([found.value]) for seed, found in single.items() if found is not None}
    return Side(estimate, values, False, False)


def side_of_numbers(values: Values) -> Side:
    """One number a seed, (1,) each, with Student's t over the seeds; without an interval where there is one seed."""
    if len(values) < 2:
        estimate = Estimate(float(next(iter(values.values()))[0]), n=1) if values else None
    else:
        estimate = hierarchical_bootstrap(list(values.values()), rng=stream(0, "mean over seeds"), same_units=False)
    return Side(estimate, values, False, False)


def difference(first: Side, second: Side) -> Difference:
    """The first minus the second, with interval and p-value.

    Both with the same seeds: the differences of each seed, unit by unit where both have as many (`units` says why that
    is right), else of its means. Other seeds: those that both have where these are two or more, else both as
    independent groups. One seed: `paired_difference`, else the bootstrap over both.
    """
    assert first.estimate is not None
    assert second.estimate is not None
    common = sorted(first.values.keys() & second.values.keys())
    if len(common) >= 2 or (common and first.values.keys() == second.values.keys()):
        a, b = ([side.values[seed] for seed in common] for side in (first, second))
        if all(len(x) == len(y) for x, y in zip(a, b)) and (first.of_units or len(common) > 1):
            found = paired(dict(zip(common, a)), dict(zip(common, b)), same=first.same and second.same)
            return _not_flat(found, first.estimate, second.estimate)
        if len(common) > 1:
            found = paired(_means(first.values, common), _means(second.values, common), same=False)
            return _not_flat(found, first.estimate, second.estimate)
    groups = [list(side.values.values()) for side in (first, second)]
    rng = stream(0, "difference of groups")
    if min(map(len, groups)) >= 2:
        same = first.same and second.same and len({len(v) for group in groups for v in group}) == 1
        found = hierarchical_difference(*groups, rng=rng, same_units=same)
    elif min(sum(map(len, group)) for group in groups) >= 2:
        found = bootstrap_difference(*(np.concatenate(group) for group in groups), rng=rng)
    else:
        return from_intervals(first.estimate, second.estimate)
    return _not_flat(found, first.estimate, second.estimate)


def against(side: Side, value: float) -> Difference:
    """The measure minus a fixed number."""
    assert side.estimate is not None
    fixed = Estimate(value, value, value)
    arrays = list(side.values.values())
    if not side.of_units and len(arrays) == 1:
        return from_intervals(side.estimate, fixed)
    if side.of_units and is_rate(arrays) and (len(arrays) == 1 or len(np.unique(np.concatenate(arrays))) == 1):
        n = sum(map(len, arrays)) if not side.same else len(arrays[0])
        return _score(side.estimate, value, n, len(arrays))
    constant = {seed: np.full(len(array), value) for seed, array in side.values.items()}
    return _not_flat(paired(side.values, constant, same=side.same), side.estimate, fixed)


def rise(sides: Sequence[Side]) -> Difference | None:
    """How much a measure rises from the first to the last of these, on the straight line through all of them.

    The slope against their order times the steps between first and last, for each seed that has them all: with two of
    them the last minus the first. A weighted sum of the units, so it is tested as a paired difference is.
    """
    seeds = sorted(set.intersection(*(set(side.values) for side in sides)))
    if not seeds or len(sides) < 2:
        return None
    position = np.arange(len(sides)) - (len(sides) - 1) / 2
    weights = position / (position**2).sum() * (len(sides) - 1)
    alike = all(len({len(side.values[seed]) for side in sides}) == 1 for seed in seeds)
    if not alike and len(seeds) == 1:
        return None
    found = {}
    for seed in seeds:
        columns = [side.values[seed] if alike else side.values[seed].mean(keepdims=True) for side in sides]
        found[seed] = np.tensordot(weights, np.stack(columns).astype(np.float64), axes=1)
    if len(seeds) == 1 and len(found[seeds[0]]) < 2:
        return None
    zeros = {seed: np.zeros(len(array)) for seed, array in found.items()}
    risen = paired(found, zeros, same=alike and all(side.same for side in sides))
    first, last = sides[0].estimate, sides[-1].estimate
    assert first is not None
    assert last is not None
    return _not_flat(risen, last, first)


def paired(first: Values, second: Values, *, same: bool) -> Difference:
    """Mean of `first - second`, which have the same seeds and units. `n` is the number of seeds."""
    rng = stream(0, "paired difference")
    if len(first) == 1:
        (a,), (b,) = first.values(), second.values()
        if is_rate([a, b]):
            a, b = a == 1, b == 1
        return replace(paired_difference(a, b, rng=rng), n=1)
    gaps = [a.astype(np.float64) - b.astype(np.float64) for a, b in zip(first.values(), second.values())]
    found = hierarchical_difference(gaps, [np.zeros(len(gap)) for gap in gaps], rng=rng, same_units=same)
    if is_rate([*first.values(), *second.values()]):  # no two rates are further apart
        found = replace(found, low=max(-1.0, found.low), high=min(1.0, found.high))
    return replace(found, n=len(gaps))


def from_intervals(first: Estimate, second: Estimate) -> Difference:
    """The difference of two independent estimates, from their intervals (MOVER, Zou and Donner 2008).

    The p-value is derived here: the distance from 0 in half-widths of the nearer side, as a normal deviate.
    """
    value = first.value - second.value
    ends = [end if end is not None else e.value for e in (first, second) for end in (e.low, e.high)]
    low = value - sqrt((first.value - ends[0]) ** 2 + (ends[3] - second.value) ** 2)
    high = value + sqrt((ends[1] - first.value) ** 2 + (second.value - ends[2]) ** 2)
    nearer = value - low if value > 0 else high - value  # the side on which 0 lies
    p = erfc(1.96 * abs(value) / nearer / sqrt(2)) if nearer > 0 else 1.0
    return Difference(value, low, high, 1, p)


def _not_flat(found: Difference, first: Estimate, second: Estimate) -> Difference:
    """Where nothing varies on either side, the interval that the estimates' own give."""
    if found.high - found.low > 1e-9:
        return found
    ends = from_intervals(first, second)
    return replace(found, low=found.value + ends.low - ends.value, high=found.value + ends.high - ends.value, p=ends.p)


def _score(estimate: Estimate, value: float, n: int, seeds: int) -> Difference:
    """A rate minus a fixed one: Wilson's interval and the score test, which belong together."""
    gap, spread = estimate.value - value, sqrt(max(0.0, value * (1 - value)) / n)
    p = erfc(abs(gap) / spread / sqrt(2)) if spread > 0 else float(gap == 0)
    low, high = (end if end is not None else estimate.value for end in (estimate.low, estimate.high))
    return Difference(gap, low - value, high - value, seeds, p)


def _means(values: Values, seeds: Sequence[int]) -> dict[int, np.ndarray]:
    return {seed: values[seed].mean(keepdims=True) for seed in seeds}
