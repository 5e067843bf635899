"""A group of pairs that share something, and how surprising it is that so many of them look wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LN10 = float(np.log(10))
STRONGEST = 300.0  # beyond it tails have no number


@dataclass(frozen=True)
class Group:
    """Pairs that share `value`, an attribute of a `kind` (word, image cluster, domain, shard, patch, residual ...).

    Of `images` that have it, `hits` are among the worst `level` of the corpus where `expected` would be by chance;
    `strength` is -log10 of the tail. `rows`: all its pairs; `tail`: those that speak for it.
    `crop`: of a patch, an image that has it and the top and left of it there.
    """

    kind: str
    value: str
    strength: float
    images: int
    hits: int
    expected: float
    level: float
    rows: np.ndarray
    tail: np.ndarray
    crop: tuple[int, int, int] | None = None


def recurrence_strength(hits: int, images: int, clean_hits: int, clean_images: int, tried: int) -> tuple[float, float]:
    """How surprising it is that `hits` of `images` share a thing that `clean_hits` of `clean_images` have.

    (-log10 of the binomial tail at the clean share, less log10 of how many things were tried, and the hits expected.)
    The clean share starts from half an image, so that a small clean set gives small strengths.
    """
    from scipy.stats import binom

    share = (clean_hits + 0.5) / (clean_images + 1)
    strength = -float(binom.logsf(hits - 1, images, share)) / _LN10 - float(np.log10(max(tried, 1)))
    return min(max(0.0, strength), STRONGEST), share * images


def filter_strength(hits: int, images: int, *, rate: float) -> float:
    """How surprising it is that some filter has `hits` among `images`, where each answers with probability `rate`.

    -log10 of the binomial tail, times the filters that might have been made: one an image.
    """
    from scipy.stats import binom

    tail = -binom.logsf(hits - 1, images, rate) / _LN10
    return float(np.clip(tail - np.log10(images), 0.0, STRONGEST))


def scan_strength(counts: np.ndarray, mean: float) -> tuple[float, int]:
    """How surprising the largest of m counts are where each is at most Poisson of `mean`: (strength, how many of them).

    The largest j are taken together, for the j at which it is most surprising; all ways to choose j of m are paid for.
    """
    from scipy.special import gammaln
    from scipy.stats import poisson

    ordered = np.sort(counts)[::-1][: max(1, len(counts) // 5)]
    tails = np.cumsum(-poisson.logsf(ordered - 1, mean))
    j = np.arange(1, len(ordered) + 1)
    m = len(counts)
    strength = (tails - (gammaln(m + 1) - gammaln(j + 1) - gammaln(m - j + 1))) / _LN10
    best = int(strength.argmax())
    return min(max(0.0, float(strength[best])), STRONGEST), best + 1
