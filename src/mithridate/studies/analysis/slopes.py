"""How success rises with what is varied: slopes of its logit against the logarithms of axes, with seeds as units."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from mithridate.studies.analysis.outcomes import Outcome
from mithridate.studies.analysis.select import is_rate, last_epoch

_FLAT = 1e-9
_SEPARATED = 20.0  # a slope a unit of log: where success is divided sharply, the best one has no end


def slopes(
    outcomes: Sequence[Outcome], measure: str, axes: Sequence[str], model: str = "poisoned"
) -> dict[int, np.ndarray]:
    """seed -> (axes,) the slopes of the logit of `measure`, of units that are 0 or 1, against log of each axis.

    One logistic regression a seed, by maximum likelihood. Seeds are left out in which an axis does not vary, the units
    are all 0 or all 1, or an axis divides them.
    """
    rows: dict[int, list[tuple[np.ndarray, list[float]]]] = {}
    for outcome in outcomes:
        values = outcome.values.get((model, last_epoch(outcome, measure, model), measure))
        if values is None or not is_rate([values]):
            continue
        at = [float(outcome.cell.axis[axis]) for axis in axes]
        rows.setdefault(outcome.cell.seed, []).append((values, at))
    found: dict[int, np.ndarray] = {}
    for seed, cells in sorted(rows.items()):
        hit = np.concatenate([values for values, _ in cells]).astype(np.int64)
        x = np.log(np.concatenate([np.tile(at, (len(values), 1)) for values, at in cells]))
        fitted = logistic_slopes(hit, x)
        if fitted is not None:
            found[seed] = fitted
    return found


def logistic_slopes(hit: Int[np.ndarray, " n"], x: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"] | None:
    """The slopes of a logistic regression with an intercept, by maximum likelihood; None where there are none."""
    from sklearn.linear_model import LogisticRegression

    if hit.min() == hit.max() or (np.ptp(x, axis=0) < _FLAT).any():
        return None
    middle, spread = x.mean(axis=0), x.std(axis=0)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=200)
    model.fit((x - middle) / spread, hit)
    found = model.coef_[0] / spread
    return None if (np.abs(found) > _SEPARATED).any() else found


def of_axis(found: Mapping[int, np.ndarray], place: int) -> dict[int, np.ndarray]:
    """seed -> (1,) the slope at a place."""
    return {seed: fitted[place : place + 1] for seed, fitted in found.items()}
