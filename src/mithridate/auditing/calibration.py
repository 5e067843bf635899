"""From suspicions to p-values, by clean pairs that were scored among the others."""

import numpy as np
from jaxtyping import Bool, Float, Int


def conformal(
    suspicion: Float[np.ndarray, " n"], calibration: Float[np.ndarray, " c"], rng: np.random.Generator
) -> Float[np.ndarray, " n"]:
    """p = (1 + number of clean suspicions at least as large) / (c + 1), ties broken at random.

    Marginally valid for pairs exchangeable with the clean ones (Bates et al. 2023). The least value is 1/(c + 1).
    """
    ordered = np.sort(calibration)
    above = len(ordered) - np.searchsorted(ordered, suspicion, side="right")
    equal = np.searchsorted(ordered, suspicion, side="right") - np.searchsorted(ordered, suspicion, side="left")
    return (1 + above + np.floor(rng.random(len(suspicion)) * (equal + 1))) / (len(ordered) + 1)


def ranking_p(suspicion: Float[np.ndarray, " n"], clean: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """A p-value for ranking alone: conformal with the middle of ties, and below the floor in the order of suspicions.

    A detector that says nothing of most pairs ties them: the middle, 0.5, says nothing in a combination either. What
    lies above all clean pairs shares 1/(c + 1) of a conformal p-value; here it is spread over (0, 1/(c + 1)) by rank,
    so that a combination does not tie all of it.
    """
    ordered = np.sort(suspicion[clean])
    below = np.searchsorted(ordered, suspicion, side="left"), np.searchsorted(ordered, suspicion, side="right")
    p = (len(ordered) - np.mean(below, axis=0) + 0.5) / (len(ordered) + 1)
    beyond = np.flatnonzero(suspicion > ordered[-1])
    values, code = np.unique(-suspicion[beyond], return_inverse=True)
    p[beyond] = (code + 1) / (len(values) + 1) / (len(ordered) + 1)
    return p


def surprise(p: Float[np.ndarray, "k n"]) -> Float[np.ndarray, " n"]:
    """The sum of -log10 of k p-values of each pair (Fisher): larger is more suspicious."""
    return -np.log10(p).sum(axis=0)


def enrichment(suspicion: Float[np.ndarray, " n"], clean: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """log10 of how many times as many pairs of the corpus as of clean ones look at least as suspicious; at least 0.

    -log10 of a q-value (Storey 2002): of thresholds up to the pair's own suspicion the best counts. Of the clean pairs,
    which are no part of the corpus, one more is counted, so that the top is not infinite. A detector that sees what
    clean pairs never have outweighs one whose worst pairs are as in clean data.
    """
    order = np.argsort(suspicion, kind="stable")
    ascending = suspicion[order]
    from_here = np.searchsorted(ascending, ascending, side="left")  # ties are one threshold
    corpus = np.cumsum(~clean[order][::-1])[::-1][from_here] / (~clean).sum()
    usual = (1 + np.cumsum(clean[order][::-1])[::-1][from_here]) / (clean.sum() + 1)
    found = np.empty(len(suspicion))
    with np.errstate(divide="ignore"):  # above all pairs of the corpus
        found[order] = np.maximum.accumulate(np.maximum(np.log10(corpus / usual), 0.0))
    return found


def benjamini_hochberg(p: Float[np.ndarray, " n"], q: float) -> Bool[np.ndarray, " n"]:
    """Which of n tests are rejected at false discovery rate q."""
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= q * np.arange(1, len(p) + 1) / len(p))
    found = np.zeros(len(p), bool)
    if len(passed):
        found[order[: passed[-1] + 1]] = True
    return found


def fewest_alerts(n: int, calibration: int, q: float) -> int:
    """How many p-values at the floor Benjamini-Hochberg needs before it rejects any: n / (q (c + 1)), rounded up."""
    return int(np.ceil(n / (q * (calibration + 1))))


def halves(
    image: Int[np.ndarray, " n"], clean: Bool[np.ndarray, " n"], rng: np.random.Generator
) -> Bool[np.ndarray, " n"]:
    """Which clean pairs are in the first half; the pairs of an image stay together."""
    images = np.unique(image[clean])
    first = rng.permutation(images)[: (len(images) + 1) // 2]
    return clean & np.isin(image, first)
