"""Success of an attack on classification, by its one definition."""

import numpy as np
from jaxtyping import Bool, Int

from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import rate


def attack_success_rate(predicted: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], *, target: int) -> Estimate:
    """Share of triggered images of other classes that are taken for `target`, with Wilson's interval.

    Images of the target class are in neither numerator nor denominator. Raises `ValueError` where there are no others.
    """
    others = _others(predicted, label, target)
    if not others.any():
        raise ValueError(f"attack success needs images of other classes than {target}, got none")
    return rate(predicted[others] == target)


def poison_success_rate(predicted: Int[np.ndarray, " m"], adversarial: Int[np.ndarray, " m"]) -> Estimate:
    """Share of m target images that are taken for their adversarial class; the target is the unit.

    Sixteen targets give steps of 6.25 points.
    """
    _same_length(predicted, adversarial)
    return rate(predicted == adversarial)


def _others(predicted: np.ndarray, label: np.ndarray, target: int) -> Bool[np.ndarray, " n"]:
    _same_length(predicted, label)
    return label != target


def _same_length(predicted: np.ndarray, label: np.ndarray) -> None:
    if len(predicted) != len(label) or not len(label):
        raise ValueError(f"each prediction needs its class, got {len(predicted)} predictions and {len(label)} classes")
