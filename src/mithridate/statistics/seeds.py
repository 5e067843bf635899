"""Means and differences over two levels: seeds, and units within or across them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from jaxtyping import Float, Shaped

from mithridate.statistics.differences import Difference
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import resampled_means, student_quantile

_BLOCK = 2**24  # draws in memory at once


@dataclass(frozen=True)
class _Spread:
    """Resampled means and the two parts of the variance of the mean, each with its degrees of freedom."""

    value: float
    draws: np.ndarray
    parts: tuple[tuple[float, int], ...]


def hierarchical_bootstrap(
    values: Sequence[Shaped[np.ndarray, " _n"]],
    *,
    rng: np.random.Generator,
    same_units: bool = True,
    resamples: int = 2000,
) -> Estimate:
    """Mean over seeds, of the mean over units of each, with an interval that holds for other seeds and other units.

    `values` has one array a seed. `same_units`: position i is the same query for every seed, so that a hard query is
    hard for all of them; seeds and queries are then resampled independently (Owen 2007). Otherwise units are
    resampled within seeds. The bootstrap says how the interval leans, Student's t of each level, in quadrature
    (Howe 1974), how wide it is: three seeds are few, and the bootstrap alone would not say so.
    `n` of the estimate is the number of seeds. Raises `ValueError` for fewer than two.
    """
    spread = _spread(values, rng=rng, same_units=same_units, resamples=resamples)
    low, high = _student_ends([spread])
    if all(((v >= 0) & (v <= 1)).all() for v in values):  # rates
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(spread.value, low, high, len(values))


def hierarchical_difference(
    values: Sequence[Shaped[np.ndarray, " _n"]],
    reference: Sequence[Shaped[np.ndarray, " _n"]],
    *,
    rng: np.random.Generator,
    same_units: bool = True,
    resamples: int = 2000,
) -> Difference:
    """Mean of `values` minus mean of `reference`, each over seeds of its own; see `hierarchical_bootstrap`.

    `same_units`: both were measured on the same queries with every seed. Seeds that belong together pairwise are
    compared by giving `hierarchical_bootstrap` the differences. `n` is the number of seeds of both.
    The p-value is the level at which the interval, were it symmetric, would just reach zero.
    """
    spreads = [
        _spread(group, rng=rng, same_units=same_units, resamples=resamples, units=not same_units)
        for group in (values, reference)
    ]
    if same_units:
        first, second = (np.mean(np.stack(list(group)).astype(np.float64), axis=0) for group in (values, reference))
        if len(first) != len(second):
            raise ValueError(f"the same units are needed for both, got {len(first)} and {len(second)}")
        spreads.append(_over_units(first - second, rng=rng, resamples=resamples))
    value = spreads[0].value - spreads[1].value
    signed = [spreads[0], replace(spreads[1], value=-spreads[1].value, draws=-spreads[1].draws), *spreads[2:]]
    if same_units:  # the part over units is a deviation around zero
        signed[2] = replace(signed[2], value=0.0, draws=signed[2].draws - signed[2].value)
    return Difference(value, *_student_ends(signed), len(values) + len(reference), _student_p(signed))


def bootstrap_difference(
    values: Shaped[np.ndarray, " n"],
    reference: Shaped[np.ndarray, " m"],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Difference:
    """Difference of two means over different units, with a bootstrap over both; see `hierarchical_difference`."""
    if min(len(values), len(reference)) < 2:
        raise ValueError(f"each side needs at least two units, got {len(values)} and {len(reference)}")
    first = _over_units(values.astype(np.float64), rng=rng, resamples=resamples)
    second = _over_units(reference.astype(np.float64), rng=rng, resamples=resamples)
    both = [first, replace(second, value=-second.value, draws=-second.draws)]
    value = first.value - second.value
    return Difference(value, *_student_ends(both), len(values) + len(reference), _student_p(both))


def _over_units(values: Float[np.ndarray, " n"], *, rng: np.random.Generator, resamples: int) -> _Spread:
    draws = resampled_means(values, rng=rng, resamples=resamples)
    freedom = max(1, len(values) - 1)
    return _Spread(
        float(values.mean()), draws, ((float(values.var(ddof=min(1, len(values) - 1))) / len(values), freedom),)
    )


def _spread(
    values: Sequence[np.ndarray], *, rng: np.random.Generator, same_units: bool, resamples: int, units: bool = True
) -> _Spread:
    """`units` False leaves out what the common units add: the difference of two models has that part once."""
    if len(values) < 2:
        raise ValueError(f"an interval over seeds needs at least two of them, got {len(values)}")
    if any(len(v) < 1 for v in values) or (same_units and len({len(v) for v in values}) > 1):
        raise ValueError(f"seeds need the same units, or at least one each, got {[len(v) for v in values]}")
    seeds = len(values)
    means = np.array([float(np.mean(v)) for v in values])
    value, variance = float(means.mean()), float(means.var(ddof=1)) / seeds
    if not same_units:
        # the seeds' means hold what the units of each add
        return _Spread(value, _nested_means(values, rng=rng, resamples=resamples), ((variance, seeds - 1),))
    table = np.stack(list(values)).astype(np.float64)  # (seeds, units)
    n = table.shape[1]
    rest = table - means[:, None] - table.mean(axis=0) + value
    noise = float((rest**2).sum()) / max(1, (seeds - 1) * (n - 1)) / (seeds * n)
    over_seeds = (max(0.0, variance - noise), seeds - 1)
    chosen = rng.integers(seeds, size=(resamples, seeds))
    weights = np.stack([(chosen == seed).mean(axis=1) for seed in range(seeds)], axis=1)  # (resamples, seeds)
    if not units:
        return _Spread(value, weights @ means, (over_seeds,))
    draws = np.concatenate(
        [
            np.take_along_axis(block @ table, rng.integers(n, size=(len(block), n)), axis=1).mean(axis=1)
            for block in np.array_split(weights, max(1, -(-resamples * n // _BLOCK)))
        ]
    )
    over_units = (float(table.mean(axis=0).var(ddof=min(1, n - 1))) / n, max(1, n - 1))
    return _Spread(value, draws, (over_seeds, over_units))


def _nested_means(values: Sequence[np.ndarray], *, rng: np.random.Generator, resamples: int) -> np.ndarray:
    total = np.zeros(resamples)
    for _ in values:
        chosen = rng.integers(len(values), size=resamples)
        for seed, units in enumerate(values):
            rows = np.flatnonzero(chosen == seed)
            if len(rows):
                total[rows] += resampled_means(units, rng=rng, resamples=len(rows))
    return total / len(values)


def _student_ends(spreads: list[_Spread]) -> tuple[float, float]:
    """Ends of the sum of independent parts: widths of Student's t in quadrature, the lean of the resamples."""
    value = sum(spread.value for spread in spreads)
    half = sqrt(_squared_half(spreads, 0.05))
    low, high = np.quantile(np.sum([spread.draws for spread in spreads], axis=0), [0.025, 0.975])
    below, above = max(0.0, value - float(low)), max(0.0, float(high) - value)
    lean = below / (below + above) if below + above > 0 else 0.5
    return value - 2 * half * lean, value + 2 * half * (1 - lean)


def _student_p(spreads: list[_Spread]) -> float:
    """The level at which an interval of that width, without lean, would just reach zero."""
    value = sum(spread.value for spread in spreads)
    low, high = 0.0, 1.0
    for _ in range(20):  # p to one in a million
        middle = (low + high) / 2
        low, high = (middle, high) if _squared_half(spreads, middle) > value**2 else (low, middle)
    return high


def _squared_half(spreads: list[_Spread], tail: float) -> float:
    parts = [part for spread in spreads for part in spread.parts]
    return sum(
        (student_quantile(freedom, tail=tail) ** 2 * variance for variance, freedom in parts if variance > 0), 0.0
    )
