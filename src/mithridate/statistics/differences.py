"""Differences and means with intervals and p-values. What the unit is, and what covers, is in docs/statistics.md."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import (
    bootstrap_mean,
    expanded,
    rate,
    resampled_means,
    score_interval,
    student_quantile,
)

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
_EXACT = 2**20  # different sign flips, up to which all of them are counted
_BLOCK = 2**24  # draws in memory at once
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A mean difference over n units with its 95 % interval and two-sided p-value.

    `exact`: the p-value counts all sign flips, none is drawn. `corrected` is the p-value after Holm's correction
    for the family that it was looked at in.
    """

    value: float
    low: float
    high: float
    n: int
    p: float
    exact: bool = False
    corrected: float | None = None

    @property
    def estimate(self) -> Estimate:
        return Estimate(self.value, self.low, self.high, self.n)


# --- paired: two models on the same queries ----------------------------------------------------------


def paired_difference(
    values: Shaped[np.ndarray, " n"],
    reference: Shaped[np.ndarray, " _n"],
    *,
    rng: np.random.Generator,
    cluster: Int[np.ndarray, " n"] | None = None,
    resamples: int = 2000,
    flips: int = 9999,
) -> Difference:
    """Mean of `values - reference` over the same n queries.

    `cluster` names the unit of each query where queries are not independent (captions of one image): units are then
    resampled and flipped whole. Interval: of Bonett and Price (2012) for true and false, else the expanded bootstrap.
    p-value: sign flips, that is, the two models are as likely to be exchanged on every unit; for true and false this
    is McNemar's exact test.
    """
    if len(values) != len(reference) or not len(values):
        raise ValueError(f"a paired difference needs the same queries, got {len(values)} and {len(reference)}")
    difference = values.astype(np.float64) - reference.astype(np.float64)
    value = float(difference.mean())
    binary = values.dtype == np.bool_ and reference.dtype == np.bool_
    if cluster is None:
        units, sums = len(difference), difference
        ends = (
            _binary_ends(difference, units)
            if binary
            else expanded(value, resampled_means(difference, rng=rng, resamples=resamples), units=units)
        )
    else:
        sums, sizes = _cluster_sums(difference, cluster)
        units = len(sums)
        # where the models never differ, resampling knows nothing of how rarely they might
        ends = (
            _binary_ends(difference[:units], units)
            if binary and not difference.any()
            else expanded(value, _resampled_ratios(sums, sizes, rng=rng, resamples=resamples), units=units)
        )
    p, exact = _sign_flips(sums, rng=rng, flips=flips)
    return Difference(value, *ends, units, p, exact)


def _sign_flips(difference: Float[np.ndarray, " n"], *, rng: np.random.Generator, flips: int) -> tuple[float, bool]:
    """p-value of the hypothesis that each difference is as likely to have the other sign, and whether it is exact.

    All flips are counted where that is at most a million different ones (differences of one size are alike: how many
    are positive is binomial), else `flips` are drawn: (hits + 1) / (flips + 1), which is never zero.
    """
    if not np.isfinite(difference).all():
        raise ValueError("a sign-flip test needs finite differences")
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    reached = abs(float(difference.sum())) * (1 - 1e-9)  # sums in another order may round below
    outcomes = 1
    for count in counts.tolist():
        outcomes *= count + 1
        if outcomes > _EXACT:
            return _drawn_flips(sizes, counts, reached, rng=rng, flips=flips), False
    sums, shares = np.zeros(1), np.ones(1)
    for size, count in zip(sizes, counts.tolist()):
        moves = size * (2 * np.arange(count + 1) - count)
        sums = np.add.outer(sums, moves).ravel()
        shares = np.multiply.outer(shares, _binomial(count)).ravel()
    return min(1.0, float(shares[np.abs(sums) >= reached].sum())), True


def _drawn_flips(
    sizes: Float[np.ndarray, " u"],
    counts: Int[np.ndarray, " u"],
    reached: float,
    *,
    rng: np.random.Generator,
    flips: int,
) -> float:
    hits, done = 0, 0
    while done < flips:
        drawn = min(flips - done, max(1, _BLOCK // len(sizes)))
        positive = rng.binomial(counts, 0.5, size=(drawn, len(sizes)))
        hits += int((np.abs((2 * positive - counts) @ sizes) >= reached).sum())
        done += drawn
    return (hits + 1) / (flips + 1)


def _binomial(n: int) -> Float[np.ndarray, " outcomes"]:
    """Probabilities of 0, 1, ..., n heads of n fair coins."""
    from scipy.stats import binom  # takes half a second

    return binom.pmf(np.arange(n + 1), n, 0.5)


def _binary_ends(difference: Float[np.ndarray, " n"], n: int) -> tuple[float, float]:
    """Bonett and Price: Wald's interval after one query has been added to each way of differing."""
    value = float(difference.mean())
    up, down = (float((difference == sign).sum() + 1) / (n + 2) for sign in (1, -1))
    centre, half = up - down, _Z * sqrt(max(0.0, up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, min(value, centre - half)), min(1.0, max(value, centre + half))


# --- units that are not single queries ---------------------------------------------------------------


def cluster_bootstrap(
    values: Shaped[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Estimate:
    """Mean over n queries with a bootstrap over what they belong to: the captions of one image stay together.

    `n` of the estimate is the number of clusters. Raises `ValueError` for fewer than two of them.
    """
    sums, sizes = _cluster_sums(values.astype(np.float64), cluster)
    if len(sums) < 2:
        raise ValueError(f"a bootstrap over clusters needs at least two, got {len(sums)}")
    value = float(values.mean())
    low, high = expanded(value, _resampled_ratios(sums, sizes, rng=rng, resamples=resamples), units=len(sums))
    return Estimate(value, max(low, float(values.min())), min(high, float(values.max())), len(sums))


def rate_over(hit: Bool[np.ndarray, " n"], cluster: Int[np.ndarray, " n"] | None = None) -> Estimate:
    """Share of n queries with Wilson's interval; `cluster` says which belong together, as captions of one image.

    With clusters: for the number of independent queries that would spread as much (the effective sample size, which
    Korn and Graubard 1998 put into the exact interval and SAS's SURVEYFREQ into its "modified Wilson"), never more than
    there are, with Student's quantile of the clusters. Where nothing spreads (no hit, or all) the clusters are counted.
    `n` of the estimate is the number of clusters.
    """
    if cluster is None:
        return rate(hit)
    sums, sizes = _cluster_sums(hit.astype(np.float64), cluster)
    units, n = len(sums), len(hit)
    if units == n or units < 1:
        return rate(hit)
    value = float(hit.mean())
    if units < 2:
        return Estimate(value, *score_interval(value, 1), 1)
    variance = float(np.square(sums - value * sizes).sum()) * units / (units - 1) / n**2
    most = value * (1 - value)
    effective = min(n, most / variance) if variance > 1e-15 and most > 1e-12 else units
    return Estimate(value, *score_interval(value, effective, quantile=student_quantile(units - 1)), units)


def mean_over(
    values: Shaped[np.ndarray, " n"], cluster: Int[np.ndarray, " n"] | None = None, *, rng: np.random.Generator
) -> Estimate:
    """Mean over n queries with a bootstrap over them, or over the clusters that they belong to.

    Of one cluster no interval is known.
    """
    if cluster is None or len(np.unique(cluster)) == len(values):
        return bootstrap_mean(values, rng=rng)
    if cluster.min() == cluster.max():
        return Estimate(float(values.mean()), n=1)
    return cluster_bootstrap(values, cluster, rng=rng)


def _cluster_sums(
    values: Float[np.ndarray, " n"], cluster: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " c"], Int[np.ndarray, " c"]]:
    if len(values) != len(cluster):
        raise ValueError(f"each of the {len(values)} queries belongs to one cluster, got {len(cluster)}")
    _, index, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    return np.bincount(index, weights=values, minlength=len(sizes)), sizes


def _resampled_ratios(
    sums: Float[np.ndarray, " c"], sizes: Int[np.ndarray, " c"], *, rng: np.random.Generator, resamples: int
) -> Float[np.ndarray, " resamples"]:
    found = []
    for start in range(0, resamples, max(1, _BLOCK // len(sums))):
        drawn = min(resamples - start, max(1, _BLOCK // len(sums)))
        chosen = rng.integers(len(sums), size=(drawn, len(sums)))
        found.append(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1))
    return np.concatenate(found)


# --- families of tests, and what they say ------------------------------------------------------------


def holm(p: Sequence[float]) -> list[float]:
    """The p-values after Holm's correction (1979): all errors in the family together stay below the level."""
    if not all(0 <= value <= 1 for value in p):
        raise ValueError(f"p-values lie in [0, 1], got {list(p)}")
    found, least = [0.0] * len(p), 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[at]))
        found[at] = least
    return found


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """The same differences, each with its p-value corrected for all of them."""
    return [replace(d, corrected=p) for d, p in zip(differences, holm([d.p for d in differences]))]


def inside_noise(difference: Difference) -> bool:
    """Whether the difference is not significant: the (corrected) p-value is at least 0.05, or the interval holds 0."""
    p = difference.p if difference.corrected is None else difference.corrected
    return p >= LEVEL or difference.low <= 0 <= difference.high
