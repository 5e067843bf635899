"""95 % intervals, and what pure chance would give. Which covers where is in docs/statistics.md."""

from math import comb, sqrt

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import special

from mithridate.statistics.estimate import Estimate

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson(successes: int, n: int) -> Estimate:
    """Share of successes with Wilson's score interval (1927). Raises `ValueError` for n = 0."""
    if n < 1:
        raise ValueError("a rate needs at least one unit, got 0")
    p = successes / n
    return Estimate(p, *score_interval(p, n), n)


def score_interval(p: float, n: float | int, *, quantile: float = _Z) -> tuple[float, float]:
    """Wilson's ends for a share p of n units; n need not be whole."""
    centre = (p + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    half = quantile / (1 + quantile**2 / n) * sqrt(p * (1 - p) / n + quantile**2 / (4 * n**2))
    # at 0 and 1 rounding may put an end a hair beyond the value, or beyond 0 and 1
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def rate(hit: Bool[np.ndarray, " n"]) -> Estimate:
    """Share of true values with Wilson's interval."""
    return wilson(int(hit.sum()), len(hit))


def bootstrap_mean(values: Shaped[np.ndarray, " n"], *, rng: np.random.Generator, resamples: int = 2000) -> Estimate:
    """Mean over n queries with the expanded percentile bootstrap over them. Raises `ValueError` for n = 0.

    Resampled means spread too little at small n; Hesterberg (2015) widens the interval by as much as Student's t
    does. An end never leaves the range of the values.
    """
    n = len(values)
    if n < 1:
        raise ValueError("a mean needs at least one unit, got 0")
    value = float(values.mean())
    draws = resampled_means(values, rng=rng, resamples=resamples)
    low, high = expanded(value, draws, units=n)
    return Estimate(value, max(low, float(values.min())), min(high, float(values.max())), n)


def resampled_means(
    values: Shaped[np.ndarray, " n"], *, rng: np.random.Generator, resamples: int
) -> Float[np.ndarray, " resamples"]:
    """Means of n values drawn from `values` with replacement."""
    n = len(values)
    return np.concatenate(
        [
            values[rng.integers(n, size=(count, n))].mean(axis=1)
            # blocks of at most 16 million draws
            for count in _split(resamples, max(1, 2**24 // n))
        ]
    )


def expanded(value: float, draws: Shaped[np.ndarray, " resamples"], *, units: int) -> tuple[float, float]:
    """Ends of the percentile interval of `draws`, as far again from `value` as so few `units` ask for."""
    low, high = np.quantile(draws, [0.025, 0.975])
    if units < 2:
        return float(low), float(high)
    factor = student_quantile(units - 1) / _Z * sqrt(units / (units - 1))
    return value + factor * (float(low) - value), value + factor * (float(high) - value)


def student_quantile(freedom: int, *, tail: float = 0.05) -> float:
    """What |t| exceeds with probability `tail`: for 0.05, 12.706 with one degree of freedom, 1.960 with many."""
    return -float(special.stdtrit(freedom, tail / 2))


def _split(total: int, size: int) -> list[int]:
    return [min(size, total - done) for done in range(0, total, size)]


def chance_hit(k: int, *, targets: int, gallery: int) -> float:
    """Probability that a random ranking of `gallery` items has one of `targets` among its first k."""
    return 1 - comb(gallery - targets, k) / comb(gallery, k) if k <= gallery else 1.0


def chance_min_rank(*, targets: int, gallery: int) -> float:
    """Expected 0-based position of the best of `targets` in a random ranking of `gallery` items."""
    return (gallery - targets) / (targets + 1)
