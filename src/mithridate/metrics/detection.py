"""How well suspicion tells poisoned pairs from clean ones, with intervals over images.

Every measure is a mean over pairs, or a smooth function of such means. How much each pair moves it (its influence,
Efron's infinitesimal jackknife) is known in closed form; influences are summed over the pairs of one image, which are
poisoned or clean together, and their squares give the variance. One sort, no resampling: it holds for millions of
pairs. The interval is Wilson's, for the number of independent images that would spread as much. How
often it holds the truth is in docs/filtering.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mithridate.errors import EvaluationError
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import score_interval, student_quantile

BUDGETS = (0.001, 0.002, 0.01, 0.1)
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Detection:
    """A detector held against the truth, over n pairs of which k are poisoned.

    `auroc`: the probability that a poisoned pair is more suspicious than a clean one. `average_precision`: the mean
    over poisoned pairs of the share of poison among the pairs at least as suspicious. `recall`: for each alert budget
    (share of all pairs looked at, most suspicious first) the share of poison among them. `cost`: for each recall the
    level that gives it, and the clean pairs above it. Every rate has the number of images with such pairs as `n`.
    """

    pairs: int
    poisoned: int
    auroc: Estimate
    average_precision: Estimate
    recall: dict[float, Estimate]
    cost: dict[float, tuple[float, Estimate]]


@dataclass(frozen=True)
class Losses:
    """A keep mask held against the truth: shares of poisoned and of clean pairs that go, and of poison in what goes.

    `precision` is None where nothing goes.
    """

    poison_removed: Estimate
    clean_lost: Estimate
    precision: Estimate | None
    poison_left: int


def detection(
    suspicion: Float[np.ndarray, " n"],
    poisoned: Bool[np.ndarray, " n"],
    cluster: Int[np.ndarray, " n"] | None = None,
    *,
    budgets: Sequence[float] = BUDGETS,
    recalls: Sequence[float] = RECALLS,
) -> Detection:
    """Measure `suspicion` against the truth. `cluster` names the image of each pair; by default each pair has its own.

    Raises `EvaluationError` where all pairs are poisoned, or none.
    """
    _need_both(poisoned)
    cluster = np.arange(len(poisoned)) if cluster is None else cluster
    units = np.unique(cluster, return_inverse=True)[1].reshape(-1)
    return Detection(
        len(poisoned),
        int(poisoned.sum()),
        estimate(*roc_area(suspicion, poisoned), units, of=poisoned),
        estimate(*average_precision(suspicion, poisoned), units, of=poisoned),
        {b: _recall_at(suspicion, poisoned, units, b) for b in budgets},
        {r: _cost_of(suspicion, poisoned, units, r) for r in recalls},
    )


def losses(
    keep: Bool[np.ndarray, " n"], poisoned: Bool[np.ndarray, " n"], cluster: Int[np.ndarray, " n"] | None = None
) -> Losses:
    """What a keep mask takes away. Raises `EvaluationError` where all pairs are poisoned, or none."""
    _need_both(poisoned)
    cluster = np.arange(len(poisoned)) if cluster is None else cluster
    units = np.unique(cluster, return_inverse=True)[1].reshape(-1)
    gone = (~keep).astype(np.float64)
    return Losses(
        _share(gone, poisoned, units),
        _share(gone, ~poisoned, units),
        _share(poisoned.astype(np.float64), ~keep, units) if not keep.all() else None,
        int((keep & poisoned).sum()),
    )


# --- measures: a value, and how much each pair moves it ----------------------------------------------


def roc_area(
    suspicion: Float[np.ndarray, " n"], poisoned: Bool[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, " n"]]:
    """Area under the ROC curve, ties counted half, and the influence of each pair (DeLong's components)."""
    k, clean = int(poisoned.sum()), int((~poisoned).sum())
    order = np.sort(suspicion[~poisoned])
    below = np.searchsorted(order, suspicion[poisoned], "left") + np.searchsorted(order, suspicion[poisoned], "right")
    order = np.sort(suspicion[poisoned])
    above = 2 * k - np.searchsorted(order, suspicion[~poisoned], "left")
    above = above - np.searchsorted(order, suspicion[~poisoned], "right")
    value = float(below.mean() / (2 * clean))
    influence = np.empty(len(suspicion))
    influence[poisoned] = (below / (2 * clean) - value) / k
    influence[~poisoned] = (above / (2 * k) - value) / clean
    return value, influence


def average_precision(
    suspicion: Float[np.ndarray, " n"], poisoned: Bool[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, " n"]]:
    """Mean over poisoned pairs of the precision at their suspicion, and the influence of each pair."""
    k = int(poisoned.sum())
    _, group = np.unique(-suspicion, return_inverse=True)  # equal suspicions are one step
    group = group.reshape(-1)
    hits = np.bincount(group, weights=poisoned)
    found = np.cumsum(hits)  # poison at least as suspicious
    alerts = np.cumsum(np.bincount(group))
    value = float((hits * found / alerts).sum() / k)
    # a pair moves the precision of all steps from its own on
    more_poison = np.cumsum((hits * (alerts - found) / alerts**2)[::-1])[::-1] / k
    more_clean = -np.cumsum((hits * found / alerts**2)[::-1])[::-1] / k
    own = ((found / alerts)[group] - value) / k
    return value, np.where(poisoned, own + more_poison[group], more_clean[group])


def estimate(
    value: float,
    influence: Float[np.ndarray, " n"],
    units: Int[np.ndarray, " n"],
    *,
    of: Bool[np.ndarray, " n"],
) -> Estimate:
    """`value` in [0, 1] with a 95 % interval; `units` (n,) whole numbers say which pairs belong together.

    Wilson's interval at the effective sample size: the number of all-or-nothing units that would spread as much. (The
    substitution is that of Korn and Graubard 1998, who make it in the exact binomial interval; simulations in
    PMC6690503 favour Wilson's.) With Student's quantile for the units that hold a pair `of` (n,): it has a width where
    nothing varies, and stays in [0, 1].
    """
    m = len(np.unique(units[of]))
    quantile = student_quantile(max(m - 1, 1))
    variance = float(np.square(np.bincount(units, weights=influence)).sum()) * (m / (m - 1) if m > 1 else 1.0)
    most = value * (1 - value)
    effective = most / variance if variance > 1e-15 and most > 1e-12 else float(m)
    return Estimate(value, *score_interval(value, effective, quantile=quantile), m)


def _share(hit: Float[np.ndarray, " n"], of: Bool[np.ndarray, " n"], units: Int[np.ndarray, " n"]) -> Estimate:
    """Mean of `hit` over the pairs `of`."""
    value = float(hit[of].mean())
    return estimate(value, np.where(of, hit - value, 0.0) / int(of.sum()), units, of=of)


def _recall_at(suspicion: np.ndarray, poisoned: np.ndarray, units: np.ndarray, budget: float) -> Estimate:
    """Recall among the `budget` most suspicious, rounded down but one pair at least.

    Pairs tied at the cut count by the share of them that the budget holds. The interval takes the cut as given.
    """
    n, k = len(suspicion), int(poisoned.sum())
    alerts = max(1, int(budget * n))
    level = np.partition(suspicion, n - alerts)[n - alerts]
    above, tied = suspicion > level, suspicion == level
    hit = above + tied * ((alerts - above.sum()) / tied.sum())
    found = _share(hit, poisoned, units)
    assert found.low is not None and found.high is not None
    # a budget of ten alerts holds ten poisoned pairs at most
    return Estimate(found.value, found.low, max(found.value, min(found.high, alerts / k)), found.n)


def _cost_of(suspicion: np.ndarray, poisoned: np.ndarray, units: np.ndarray, recall: float) -> tuple[float, Estimate]:
    """The highest level at which at least `recall` of the poison is at or above it, and the clean pairs there."""
    among = -np.sort(-suspicion[poisoned])
    level = float(among[int(np.ceil(recall * len(among) - 1e-9)) - 1])
    return level, _share((suspicion >= level).astype(np.float64), ~poisoned, units)


def _need_both(poisoned: Bool[np.ndarray, " n"]) -> None:
    if poisoned.all() or not poisoned.any():
        which = "all" if len(poisoned) and poisoned.all() else "none"
        raise EvaluationError(f"a detector is measured on poisoned and clean pairs, got {which} of them poisoned")
