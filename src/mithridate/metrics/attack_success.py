"""Success of an attack on classification: one definition, and the published variants by name."""

from typing import Protocol, runtime_checkable

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


def retrieval_success_rate(rank: Int[np.ndarray, " q"], *, k: int) -> Estimate:
    """Hit@K: share of queries with a target among the first K; `rank` is what `best_ranks` gives (0-based)."""
    if k < 1:
        raise ValueError(f"expected k >= 1, got {k}")
    return rate(rank < k)


# --- what others have published under the same name --------------------------------------------------


@runtime_checkable
class Variant(Protocol):
    def __call__(self, predicted: np.ndarray, label: np.ndarray, *, target: int) -> float: ...


def _all_images(predicted: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], *, target: int) -> float:
    """Images of the target class count as successes: a clean model scores its share of them."""
    _same_length(predicted, label)
    return float((predicted == target).mean())


def _cleanclip_finetune(predicted: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], *, target: int) -> float:
    """Successes over images of other classes, divided by all images: an attack that always wins is below 1."""
    others = _others(predicted, label, target)
    return int((predicted[others] == target).sum()) / len(label)


def _accuracy_as_asr(predicted: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], *, target: int) -> float:
    """The true label is scored, the target is not looked at: an attack that always wins scores nearly 0."""
    _same_length(predicted, label)
    return float((predicted == label).mean())


# To put a number beside a published one, never to report.
VARIANTS: dict[str, Variant] = {
    "all-images": _all_images,  # BadCLIP, PAR, RoCLIP's BSR over 300 images
    "cleanclip-finetune": _cleanclip_finetune,  # CleanCLIP's fine-tune and linear-probe path
    "accuracy-as-asr": _accuracy_as_asr,  # CleanCLIP's released zero-shot path
}


def published_success_rate(
    predicted: Int[np.ndarray, " n"], label: Int[np.ndarray, " n"], *, target: int, variant: str
) -> float:
    """What the code of a publication would call ASR; `variant` is a key of `VARIANTS`."""
    if variant not in VARIANTS:
        raise ValueError(f"no variant is called {variant!r}; expected one of {', '.join(VARIANTS)}")
    return VARIANTS[variant](predicted, label, target=target)


def _others(predicted: np.ndarray, label: np.ndarray, target: int) -> Bool[np.ndarray, " n"]:
    _same_length(predicted, label)
    return label != target


def _same_length(predicted: np.ndarray, label: np.ndarray) -> None:
    if len(predicted) != len(label) or not len(label):
        raise ValueError(f"each prediction needs its class, got {len(predicted)} predictions and {len(label)} classes")
