"""A mixture of two normal distributions over similarity: which pairs belong to the less similar one."""

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.errors import FilterError


@dataclass(frozen=True, kw_only=True)
class GaussianMixture:
    """Log-odds of the less similar of two normal components (the split of SafeCLIP, Yang et al., ICML 2024).

    *The trap.* With unequal variances the posterior is not monotone in similarity. Far enough out the wider component
    wins on both sides: where the clean component is the wider one, the least similar pairs of all get a high
    posterior of being clean; where it is the narrower one, the most similar pairs get a low one. Between the two
    means the log-odds fall strictly, so there they are taken as they are, and beyond each mean they go on as a
    straight line with the slope that they have at it. The suspicion is then strictly decreasing in similarity.

    It therefore ranks pairs as cosine distance does, and what it adds is a threshold fitted to the data: SafeCLIP
    keeps a posterior of the clean component above 0.9, log-odds of -2.2 here. (A posterior itself would be 1 for all of
    the most suspicious pairs, and rank them no more.) Limit: two components are found in any data. Where poison is a
    per cent of the pairs, or overlaps with them, both describe clean pairs.
    """

    name: ClassVar[str] = "gmm"
    measures: ClassVar[str] = "log-odds of the less similar component"
    own_level: ClassVar[float | None] = -2.1972245773362196  # log(0.1 / 0.9)
    needs: ClassVar[tuple[Need, ...]] = ()

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        similarity = corpus.embeddings.similarity().astype(np.float64)
        return Evidence(monotone_log_odds(similarity, *_fit(similarity, seed=int(rng.integers(2**31)))))


def monotone_log_odds(
    similarity: Float[np.ndarray, " n"],
    mean: Float[np.ndarray, " 2"],
    variance: Float[np.ndarray, " 2"],
    weight: Float[np.ndarray, " 2"],
) -> Float[np.ndarray, " n"]:
    """Log-odds of the first component, the one with the smaller mean; beyond the means along the tangent there."""

    def log_odds(x: np.ndarray) -> np.ndarray:
        square = (x[:, None] - mean) ** 2 / variance
        logs = np.log(weight) - (np.log(variance) + square) / 2
        return logs[:, 0] - logs[:, 1]

    inside = np.clip(similarity, *mean)
    # of d/dx, at each mean one component's term is zero
    slope = np.where(similarity < mean[0], (mean[0] - mean[1]) / variance[1], (mean[0] - mean[1]) / variance[0])
    return log_odds(inside) + slope * (similarity - inside)


def _fit(similarity: Float[np.ndarray, " n"], *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means in ascending order, variances and weights of the components: (2,) each."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture as Mixture

    if np.ptp(similarity) < 1e-6:
        raise FilterError(
            f"a mixture needs pairs of different similarity, all {len(similarity)} have "
            f"{round(float(similarity[0]), 4)}; use more pairs, or another encoder"
        )
    with warnings.catch_warnings():
        # a fit that still creeps after 500 steps is as good as it gets
        warnings.simplefilter("ignore", ConvergenceWarning)
        # sorted: the start of the fit must not depend on how the pairs lie
        fitted: Any = Mixture(2, random_state=seed, max_iter=500).fit(np.sort(similarity)[:, None])
    order = np.argsort(fitted.means_[:, 0])
    return fitted.means_[order, 0], fitted.covariances_[order, 0, 0], fitted.weights_[order]
