"""How hard values are by nature: a count among the worst is held against their spread, not against one share for all.

An encoder finds some words harder than others, so the images of a word are among the worst more or less often than the
corpus, poison or not. The log odds of it are taken as normal over values, with the corpus' share at the middle, and
their standard deviation is fitted: an empirical null (Efron 2004), as a binomial model with random effects.
"""

import numpy as np
from jaxtyping import Float, Int

_LN10 = float(np.log(10))
_SPREADS = np.array([0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0])
_MIDDLES = np.linspace(-1.0, 0.4, 8)  # of the log odds, about those of the share: hard values pull the share up
_ODDS = np.linspace(-12.0, 8.0, 401)
_STEPS = np.linspace(-6.0, 10.0, 81)  # standard deviations
_BLOCK = 4096  # distinct counts at once


def alike(hits: Int[np.ndarray, " g"], images: Int[np.ndarray, " g"], share: float) -> Float[np.ndarray, " g"]:
    """The probability of so many `hits` of `images` or more where all values have the same `share`."""
    from scipy.special import bdtrc

    return bdtrc(hits - 1.0, images, share)


def fitted_spread(hits: Int[np.ndarray, " g"], images: Int[np.ndarray, " g"], share: float) -> float:
    """The standard deviation of the log odds of g values, of whose `images` `hits` are among the worst `share`.

    By maximum likelihood; what the typical value has is fitted beside it.
    """
    counts, weight = np.unique(np.stack([hits, images]), axis=1, return_counts=True)
    middle = np.log(share / (1 - share)) + _MIDDLES
    prior = np.exp(-(((_ODDS[:, None, None] - middle[:, None]) / _SPREADS) ** 2) / 2)  # (odds, middle, spread)
    prior /= prior.sum(axis=0)
    total = np.zeros(prior.shape[1:])
    for low in range(0, len(weight), _BLOCK):
        part = slice(low, low + _BLOCK)
        likelihood = _log_likelihood(counts[0, part], counts[1, part], _ODDS)
        likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
        total += np.einsum("g,gms->ms", weight[part], np.log(np.tensordot(likelihood, prior, 1) + 1e-300))
    return float(_SPREADS[total.max(axis=0).argmax()])


def tail_strength(
    hits: Int[np.ndarray, " g"],
    images: Int[np.ndarray, " g"],
    clean_hits: Int[np.ndarray, " g"],
    clean_images: Int[np.ndarray, " g"],
    *,
    share: float,
    spread: float,
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, " g"]]:
    """(-log10 of the probability of so many `hits` of `images`, the hits expected) of g values.

    A value's log odds lie normally about those of `share`, with the standard deviation `spread`; what clean images with
    the value do is what is known of its own. Never more than where there is no spread, and no clean image.
    """
    from scipy.special import bdtrc, expit
    from scipy.stats import binom

    counts, which = np.unique(np.stack([hits, images, clean_hits, clean_images]), axis=1, return_inverse=True)
    odds = np.log(share / (1 - share)) + spread * _STEPS
    strength, expected = np.empty(counts.shape[1]), np.empty(counts.shape[1])
    for low in range(0, counts.shape[1], _BLOCK):
        part = slice(low, low + _BLOCK)
        h, m, clean_h, clean_m = counts[:, part]
        weight = _log_likelihood(clean_h, clean_m, odds) - _STEPS**2 / 2
        weight = np.exp(weight - weight.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        tail = (weight * bdtrc(h[:, None] - 1.0, m[:, None], expit(odds))).sum(axis=1)
        plain = -binom.logsf(h - 1, m, share) / _LN10
        strength[part] = np.minimum(-np.log10(np.maximum(tail, 1e-300)), plain)
        expected[part] = m * np.maximum(share, weight @ expit(odds))
    which = which.reshape(-1)
    return np.maximum(strength, 0.0)[which], expected[which]


def _log_likelihood(
    hits: Int[np.ndarray, " g"], images: Int[np.ndarray, " g"], odds: Float[np.ndarray, " k"]
) -> Float[np.ndarray, "g k"]:
    """Of `hits` of `images` at each log odds, but for a constant."""
    return hits[:, None] * odds - images[:, None] * np.logaddexp(0.0, odds)
