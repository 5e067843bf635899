"""Success of an attack on classification: one definition, the published variants by name, over targets and epochs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from mithridate.errors import EvaluationError
from mithridate.report.document import Cell, Curve, Figure, Table
from mithridate.statistics.differences import rate_over_targets
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import rate

if TYPE_CHECKING:
    from mithridate.encoder.encoder import Encoder

_ROWS = 4096  # features multiplied at once


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


# --- over targets and over epochs --------------------------------------------------------------------


def target_table(success: Mapping[str, Bool[np.ndarray, " _q"]], *, name: str = "targets") -> Table:
    """Success of each target over its own trials, and over targets, which are the unit of the last interval.

    `success`: for each target which of its trials (images, queries) succeeded. Targets count alike, however many
    trials each has.
    """
    if not success:
        raise ValueError("a table of targets needs at least one target, got none")
    rows: list[tuple[Cell, ...]] = [(target, len(trials), rate(trials)) for target, trials in success.items()]
    if all(len(trials) == 1 for trials in success.values()):
        over = rate_over_targets(np.array([bool(trials[0]) for trials in success.values()]))
    else:
        over = rate_over_targets(np.array([float(trials.mean()) for trials in success.values()]))
    rows.append(("over targets", sum(map(len, success.values())), over))
    return Table(
        name,
        "Success by target",
        ("target", "trials", "success"),
        tuple(rows),
        f"95 % intervals: Wilson over the trials of each target; in the last row over {len(success)} targets, "
        "each of which is one unit, whatever its number of trials.",
    )


def success_by_epoch(run: Path, measure: Callable[["Encoder"], Mapping[str, Estimate]]) -> tuple[Table, Figure]:
    """`measure` (of the encoder, numbers by name) after each epoch that the training run in the folder `run` has kept.

    Checkpoints are loaded one after the other. Some defences let success swing from epoch to epoch (RoCLIP): the
    last one alone may mislead. Raises `EvaluationError` where no checkpoint was kept.
    """
    from mithridate.encoder.encoder import load_encoder

    folders = sorted(
        (int(folder.name), folder) for folder in (Path(run) / "epochs").glob("*") if folder.name.isdecimal()
    )
    if not folders:
        raise EvaluationError(f"{run} has no epochs/NNN; train with --save-epochs to keep the model of every epoch")
    found = [(epoch, measure(load_encoder(str(folder)))) for epoch, folder in folders]
    names = tuple(found[0][1])
    x = tuple(float(epoch) for epoch, _ in found)
    curves = []
    for name in names:
        each = [numbers[name] for _, numbers in found]
        lows, highs = [e.low for e in each if e.low is not None], [e.high for e in each if e.high is not None]
        ends = (tuple(lows), tuple(highs)) if len(lows) == len(highs) == len(each) else ((), ())
        curves.append(Curve(name, x, tuple(e.value for e in each), low=ends[0], high=ends[1]))
    rows = tuple((epoch, *(numbers[name] for name in names)) for epoch, numbers in found)
    title, note = "After each epoch", "Epochs counted from 1, as kept by the training run. 95 % intervals."
    return (
        Table("by-epoch", title, ("epoch", *names), rows, note),
        Figure("by-epoch", title, "line", "epoch", "share", tuple(curves), note),
    )


# --- Carlini & Terzis' z-score -----------------------------------------------------------------------


def z_score(clean: Float[np.ndarray, "n d"], triggered: Float[np.ndarray, "m d"]) -> float:
    """How far the trigger draws images together, in standard deviations of the clean images' similarities.

    (mean <f(u+bd), f(v+bd)> - mean <f(u), f(v)>) / sqrt(var <f(u), f(v)>) over pairs u != v of unit-length image
    embeddings; Carlini & Terzis (2022). The formula is from memory: whether they leave out u = v is not known.
    """
    usual, variance = _pair_moments(clean)
    drawn, _ = _pair_moments(triggered)
    if variance <= 1e-15:
        raise ValueError("the similarities of clean images do not vary, so a z-score is not defined")
    return (drawn - usual) / variance**0.5


def _pair_moments(rows: Float[np.ndarray, "n d"]) -> tuple[float, float]:
    """Mean and variance of <row_u, row_v> over u != v, from sums and the (d, d) second moments alone."""
    n, width = rows.shape
    if n < 2:
        raise ValueError(f"similarities of pairs need at least two images, got {n}")
    total, moments = np.zeros(width), np.zeros((width, width))
    own, own_squared = 0.0, 0.0  # what u = v adds
    for start in range(0, n, _ROWS):
        block = rows[start : start + _ROWS].astype(np.float64)
        total += block.sum(axis=0)
        moments += block.T @ block
        squares = np.einsum("nd,nd->n", block, block)
        own += float(squares.sum())
        own_squared += float((squares**2).sum())
    pairs = n * (n - 1)
    mean = (float(total @ total) - own) / pairs
    # sum over u, v of <f_u, f_v>^2 is the squared Frobenius norm of the second moments
    second = (float((moments**2).sum()) - own_squared) / pairs
    return mean, max(0.0, second - mean**2)
