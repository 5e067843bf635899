"""95 % intervals, and what pure chance would give."""

from math import comb

import numpy as np
from jaxtyping import Bool, Shaped

from mithridate.evaluation.result import Estimate

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson(successes: int, n: int) -> Estimate:
    """Share of successes with Wilson's score interval (1927). Raises `ValueError` for n = 0."""
    if n < 1:
        raise ValueError("a rate needs at least one unit, got 0")
    p = successes / n
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    # at 0 and 1 rounding may put an end a hair beyond the value, or beyond 0 and 1
    return Estimate(p, max(0.0, min(p, float(centre - half))), min(1.0, max(p, float(centre + half))), n)


def rate(hit: Bool[np.ndarray, " n"]) -> Estimate:
    """Share of true values with Wilson's interval."""
    return wilson(int(hit.sum()), len(hit))


def bootstrap_mean(values: Shaped[np.ndarray, " n"], *, rng: np.random.Generator, resamples: int = 2000) -> Estimate:
    """Mean over n queries with the percentile bootstrap over them. Raises `ValueError` for n = 0."""
    n = len(values)
    if n < 1:
        raise ValueError("a mean needs at least one unit, got 0")
    means = np.concatenate(
        [
            values[rng.integers(n, size=(count, n))].mean(axis=1)
            # blocks of at most 16 million draws
            for count in _split(resamples, max(1, 2**24 // n))
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high), n)


def _split(total: int, size: int) -> list[int]:
    return [min(size, total - done) for done in range(0, total, size)]


def chance_hit(k: int, *, targets: int, gallery: int) -> float:
    """Probability that a random ranking of `gallery` items has one of `targets` among its first k."""
    return 1 - comb(gallery - targets, k) / comb(gallery, k) if k <= gallery else 1.0


def chance_min_rank(*, targets: int, gallery: int) -> float:
    """Expected 0-based position of the best of `targets` in a random ranking of `gallery` items."""
    return (gallery - targets) / (targets + 1)
