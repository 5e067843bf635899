"""Zero-shot classification with prompt ensembles, and what is counted of any classification."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mithridate.data.labelled import class_index, match_classes, refuse_templates
from mithridate.data.pairs import Pairs
from mithridate.data.prompts import TEMPLATE_SETS, prompts, templates
from mithridate.encoder.embed import Progress, _silent, embed_images, embed_tokens, image_source
from mithridate.encoder.encoder import Encoder
from mithridate.errors import DataError, EvaluationError
from mithridate.report.document import Cell, Table
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import score_interval, wilson

_CLASSES_AT_ONCE = 64
_MATRIX = 12  # a confusion matrix of more classes is no table to read
_PAIRS = 20

TEMPLATES: dict[str, tuple[str, ...]] = {name: templates(name) for name in TEMPLATE_SETS}


def zero_shot_weights(
    encoder: Encoder,
    class_names: Sequence[str],
    templates: Sequence[str] | None = None,
    *,
    progress: Progress = _silent,
) -> Float[np.ndarray, "c d"]:
    """Of each class the mean of its prompts' unit-length embeddings, brought to unit length again (Radford 2021).

    `templates`: the 80 of OpenAI for ImageNet by default, any strings with `{}`. Raises `DataError` for others.
    """
    templates = TEMPLATES["openai"] if templates is None else templates
    refuse_templates(templates)
    if not class_names:
        raise DataError("zero-shot classification needs at least one class, got none")
    # always in one order: what shares a batch moves the last bit of an embedding
    names, index = np.unique(np.array(class_names, dtype=object), return_inverse=True)
    blocks = []
    for start in range(0, len(names), _CLASSES_AT_ONCE):
        block = names[start : start + _CLASSES_AT_ONCE]
        tokens, rows = _prompt_tokens(encoder.tokenizer, tuple(block), tuple(templates))
        each = embed_tokens(encoder, tokens)[rows].reshape(len(block), len(templates), -1)
        blocks.append(unit_length(each.mean(axis=1)))
        progress("embedding classes", start + len(block), len(names))
    return np.concatenate(blocks)[index]


@lru_cache(maxsize=16)
def _prompt_tokens(
    tokenizer: Callable[[Sequence[str]], Tensor], names: tuple[str, ...], templates: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the distinct prompts (t, length), and which of them each class's each template gives.

    Kept, as studies ask every model for the same classes, and tokenising prompts takes as long as embedding them.
    """
    every = [prompt for name in names for prompt in prompts(name, templates)]
    at = {prompt: row for row, prompt in enumerate(dict.fromkeys(every))}
    return tokenizer(list(at)).to(torch.int32).numpy(), np.array([at[prompt] for prompt in every])


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


def top_k_accuracy(scores: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"], k: int) -> Estimate:
    """Share of images whose own class is among the first k, with Wilson's interval; ties count against it."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    hit = true_ranks(scores, labels) < k
    return wilson(int(hit.sum()), len(hit))


@dataclass(frozen=True)
class Classified:
    """n images of c classes as one method scored them: `labels` (n,) positions in `classes`, `scores` (n, c)."""

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


def zero_shot(
    encoder: Encoder,
    pairs: Pairs,
    *,
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    cache: Any = "default",
    cache_limit: int | None = None,
    progress: Progress = _silent,
) -> Classified:
    """The images of `pairs` (`read_labelled`) by which class's prompts they are nearest to."""
    names = match_classes(pairs, classes)
    weights = zero_shot_weights(encoder, names, templates, progress=progress)
    source = image_source(encoder, pairs.images, cache=cache, limit=cache_limit, progress=progress)
    refuse_bad_images(source.bad, len(pairs.images))
    image = embed_images(encoder, source, len(pairs.images), progress=progress)[pairs.image_index]
    return Classified("zero-shot", names, class_index(pairs, names), class_scores(image, weights))


def refuse_bad_images(bad: dict[int, str], count: int) -> None:
    """Raise `DataError` where images do not decode: leaving them out would change every share."""
    if bad:
        raise DataError(
            f"{len(bad)} of {count} images do not decode ({'; '.join(list(bad.values())[:3])}); remove them"
        )


# --- presented -----------------------------------------------------------------------------------------------


def chance(k: int, classes: int) -> float:
    """Top-k accuracy of a random order of the classes, however many images each has."""
    return min(k, classes) / classes


def classification_tables(results: Sequence[Classified]) -> tuple[Table, ...]:
    """Accuracy, recall by class and confusions, one row or column for each method; all of the same images."""
    first = results[0]
    c = len(first.classes)
    ks = (1, 5) if c >= 5 else (1,)
    rows: list[tuple[Cell, ...]] = [
        (r.name, len(r.labels), c, *(r.accuracy(k) for k in ks), r.mean_per_class_recall()) for r in results
    ]
    rows.append(("chance", None, c, *(chance(k, c) for k in ks), 1 / c))
    accuracy = Table(
        "accuracy",
        "Classification",
        ("method", "images", "classes", *(f"top-{k}" for k in ks), "mean recall"),
        tuple(rows),
        "Top-K: share of images whose own class is among the first K of all classes; ties count against it. Mean "
        "recall: mean over classes of the share of its images that are right. 95 % Wilson intervals.",
    )
    recalls = [r.recalls() for r in results]
    by_class = Table(
        "classes",
        "Recall by class",
        ("class", "images", *(r.name for r in results), "most often taken for"),
        tuple(
            (name, int(first.images[i]), *(each[i] for each in recalls), _mistaken(first, i))
            for i, name in enumerate(first.classes)
        ),
        f"Share of the images of a class that are taken for it; the mistakes of {first.name}. 95 % Wilson intervals.",
    )
    return (accuracy, by_class, *(_confusion_table(r) for r in results))


def _mistaken(result: Classified, i: int) -> str | None:
    others = result.confusion[i].copy()
    others[i] = 0
    return f"{result.classes[int(others.argmax())]} ({others.max():,})" if others.max() else None


def _confusion_table(result: Classified) -> Table:
    name, title = f"confusion-{result.name.replace(' ', '-')}", f"Confusion, {result.name}"
    matrix = result.confusion
    if len(result.classes) <= _MATRIX:
        rows = tuple((own, *map(int, matrix[i])) for i, own in enumerate(result.classes))
        return Table(
            name, title, ("class", *result.classes), rows, "Images of the class in the row by what they are taken for."
        )
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
    pairs = [(int(at) // len(matrix), int(at) % len(matrix)) for at in order]
    rows = tuple(
        (result.classes[i], result.classes[j], int(wrong[i, j]), wilson(int(wrong[i, j]), int(result.images[i])))
        for i, j in pairs
        if wrong[i, j]
    )
    note = f"The {_PAIRS} most frequent mistakes; share: of the images of the class."
    return Table(name, title, ("class", "taken for", "images", "share"), rows, note)


def clip_benchmark_metrics(
    result: Classified, *, dataset: str, model: str, pretrained: str = "", task: str = "zeroshot_classification"
) -> dict[str, Any]:
    """The result as CLIP_benchmark writes it; acc5 is null below five classes."""
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
