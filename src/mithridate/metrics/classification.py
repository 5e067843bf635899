"""What is counted of a classification: ranks of the own class, accuracies, recalls, confusions."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mithridate.errors import EvaluationError
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import score_interval, wilson


def unit_length(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Each row over its length; a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def class_scores(image: Float[np.ndarray, "n d"], weights: Float[np.ndarray, "c d"]) -> Float[np.ndarray, "n c"]:
    """Cosine similarity of each image to each class, both of unit length. Raises `EvaluationError` for NaN.

    The order of the classes moves no bit of it, and equal classes have equal scores.
    """
    for name, rows in (("image", image), ("class", weights)):
        wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(wrong):
            raise EvaluationError(
                f"{len(wrong)} {name} embeddings are not finite (rows {', '.join(map(str, wrong[:5]))}); the model "
                "diverged, or the file is damaged"
            )
    # a product rounds columns by where they stand: one order for all, and what is equal is multiplied once
    distinct, index = np.unique(weights, axis=0, return_inverse=True)
    return (image @ distinct.T)[:, index.reshape(-1)]


def true_ranks(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """0-based rank of each image's own class; **ties count against it**, as in `ranks.best_ranks`.

    A model that scores all classes alike has thus no image right. Raises `EvaluationError` for NaN.
    """
    if len(scores) != len(labels):
        raise ValueError(f"expected one label an image, got {len(labels)} for {len(scores)} images")
    if len(labels) and not (labels.min() >= 0 and labels.max() < scores.shape[1]):
        raise ValueError(f"labels must lie in 0..{scores.shape[1] - 1}, got {labels.min()}..{labels.max()}")
    if np.isnan(scores).any():
        raise EvaluationError(f"the scores of {int(np.isnan(scores).any(axis=1).sum())} images are not numbers")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    return (scores >= own).sum(axis=1) - 1


def top_ks(classes: int) -> tuple[int, ...]:
    """The K of Top-K that say something of so many classes."""
    return (1, 5) if classes >= 5 else (1,)


def chance_accuracy(k: int, classes: int) -> float:
    """Top-k accuracy of a random order of the classes, however many images each has."""
    return min(k, classes) / classes


@dataclass(frozen=True)
class ClassScores:
    """What one method says of n images: `labels` (n,) positions in the c `classes`, `scores` (n, c), high is near."""

    name: str
    classes: tuple[str, ...]
    labels: Int[np.ndarray, " n"]
    scores: Float[np.ndarray, "n c"]

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.labels), len(self.classes)):
            wanted = (len(self.labels), len(self.classes))
            raise ValueError(f"scores must be {wanted} (images, classes), got {self.scores.shape}")
        empty = [name for name, count in zip(self.classes, self.images) if count == 0]
        if empty:
            raise EvaluationError(f"class {empty[0]!r} has no image, so its recall is not defined; leave it out")

    @cached_property
    def ranks(self) -> Int[np.ndarray, " n"]:
        return true_ranks(self.scores, self.labels)

    @property
    def images(self) -> Int[np.ndarray, " c"]:
        """How many images each class has."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def accuracy(self, k: int = 1) -> Estimate:
        """Share of images whose own class is among the first k."""
        return wilson(int((self.ranks < k).sum()), len(self.ranks))

    @cached_property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """The class of the highest score; in a tie with an image's own class, the other."""
        others = self.scores.astype(np.float64)
        np.put_along_axis(others, self.labels[:, None], -np.inf, axis=1)
        return np.where(self.ranks == 0, self.labels, others.argmax(axis=1))

    @cached_property
    def confusion(self) -> Int[np.ndarray, "c c"]:
        """How many images of each class (row) are taken for each (column)."""
        c = len(self.classes)
        return np.bincount(self.labels * c + self.predicted, minlength=c * c).reshape(c, c)

    def recalls(self) -> tuple[Estimate, ...]:
        """Of each class the share of its images that are taken for it."""
        return tuple(wilson(int(hit), int(n)) for hit, n in zip(np.diag(self.confusion), self.images))

    def mean_per_class_recall(self) -> Estimate:
        """Mean of the classes' recalls, each class counting alike (scikit-learn's balanced accuracy).

        Interval: Wilson's, at the number of images that a plain share would need to vary as little. The variance
        is that of a mean over fixed classes, from rates drawn to the middle by half an image ((x + 1/2)/(n + 1)),
        as a class of few images that are all right does not vary in the sample.
        """
        hits, n = np.diag(self.confusion).astype(np.float64), self.images.astype(np.float64)
        value = float((hits / n).mean())
        drawn = (hits + 0.5) / (n + 1)
        size = drawn.mean() * (1 - drawn.mean()) / (drawn * (1 - drawn) / n).sum() * len(n) ** 2
        low, high = score_interval(value, float(size))
        return Estimate(value, low, high, len(self.labels))


def clip_benchmark_metrics(
    result: ClassScores, *, dataset: str, model: str, pretrained: str = "", task: str = "zeroshot_classification"
) -> dict[str, Any]:
    """The result in CLIP_benchmark's format (`metrics.json`); acc5 is None below five classes."""
    acc5 = result.accuracy(5).value if len(result.classes) >= 5 else None
    metrics = {
        "acc1": result.accuracy(1).value,
        "acc5": acc5,
        "mean_per_class_recall": result.mean_per_class_recall().value,
    }
    return {
        "dataset": dataset,
        "model": model,
        "pretrained": pretrained,
        "task": task,
        "metrics": metrics,
        "language": "en",
    }
