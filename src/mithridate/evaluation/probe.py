"""Linear probes: what a frozen image tower's features hold, read out by a linear classifier."""

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import nn

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import ImageSource, Progress, _in_batches, _silent, image_source
from mithridate.encoder.encoder import Encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation.zeroshot import refuse_bad_images
from mithridate.metrics.classification import unit_length

_log = logging.getLogger(__name__)


@runtime_checkable
class Probe(Protocol):
    """A linear classifier on features that are not trained."""

    def fit_predict(
        self,
        train_features: Float[np.ndarray, "m d"],
        train_labels: Int[np.ndarray, " m"],
        test_features: Float[np.ndarray, "n d"],
        rng: np.random.Generator,
    ) -> Float[np.ndarray, "n c"]:
        """Scores of the test images for each of the c classes of the training images, all of which must occur."""
        ...


@dataclass(frozen=True, kw_only=True)
class LbfgsProbe:
    """Logistic regression by L-BFGS, its penalty chosen on a validation split (Radford et al. 2021, appendix A.3).

    The inverse penalty C is searched from 1e-6 to 1e6: first every two decades, then the step around the best is
    halved until there are eight a decade (96 in all, of which 15 are tried). Equal accuracies: the smaller C. The
    chosen C is then fitted to all training images. Limit: the paper's features are those before the projection;
    here they are what is given.
    """

    validation: float = 0.2
    """Share of each class's training images that C is chosen on."""
    max_iter: int = 1000
    """Iterations of a fit at most."""
    unit_length: bool = False
    """Bring features to unit length first."""

    def fit_predict(
        self,
        train_features: Float[np.ndarray, "m d"],
        train_labels: Int[np.ndarray, " m"],
        test_features: Float[np.ndarray, "n d"],
        rng: np.random.Generator,
    ) -> Float[np.ndarray, "n c"]:
        """Log-odds up to a constant of each row."""
        _class_count(train_labels)
        if not 0 < self.validation < 1:
            raise ValueError(f"validation must lie in (0, 1), got {self.validation}")
        train, test = (self._prepare(rows) for rows in (train_features, test_features))
        held = self._held_out(train_labels, rng)
        if not held.any():
            raise EvaluationError("no class has two training images, so there is none to choose the penalty on")
        accuracy: dict[float, float] = {}

        def best(exponents: Sequence[float]) -> float:
            for exponent in exponents:
                if exponent not in accuracy:
                    model = self._fit(train[~held], train_labels[~held], exponent)
                    accuracy[exponent] = float(model.score(train[held], train_labels[held]))
            return max(accuracy, key=lambda exponent: (accuracy[exponent], -exponent))

        step = 2.0
        chosen = best([float(e) for e in range(-6, 7, 2)])
        while step > 1 / 8:
            step /= 2
            chosen = best([e for e in (chosen - step, chosen + step) if -6 <= e <= 6])
        model = self._fit(train, train_labels, chosen)
        if model.n_iter_.max() >= self.max_iter:
            _log.warning(
                "a linear probe reached its %d iterations before it converged; they are the protocol's limit, and its "
                "accuracy may be a little low",
                self.max_iter,
            )
        found = model.decision_function(test)
        return np.stack([-found, found], axis=1) / 2 if found.ndim == 1 else found

    def _prepare(self, rows: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
        rows = _finite(rows)
        return (unit_length(rows) if self.unit_length else rows).astype(np.float64)

    def _held_out(self, labels: Int[np.ndarray, " m"], rng: np.random.Generator) -> np.ndarray:
        held = np.zeros(len(labels), dtype=bool)
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            # one image at least on each side, where there are two
            held[rows[: min(len(rows) - 1, max(1, round(self.validation * len(rows))))]] = True
        return held

    def _fit(self, features: np.ndarray, labels: np.ndarray, exponent: float) -> LogisticRegression:
        with warnings.catch_warnings():  # the protocol's limit of iterations, met where a penalty is weak
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LogisticRegression(C=10.0**exponent, max_iter=self.max_iter).fit(features, labels)


@dataclass(frozen=True, kw_only=True)
class AdamWProbe:
    """The linear probe of the RoCLIP code (its data module trains on the Flowers102 test split; see `refuse_overlap`).

    A linear layer on features of the length they have, cross-entropy, AdamW without warm-up, cosine to 0 over all
    steps, no decay on the bias. Limit: nothing is chosen on a validation split. Its steps are counted in batches, so
    a set of a few batches is left half learned, and features of another scale are learned at another speed.
    """

    epochs: int = 32
    lr: float = 5e-3
    weight_decay: float = 0.01
    batch_size: int = 512

    def fit_predict(
        self,
        train_features: Float[np.ndarray, "m d"],
        train_labels: Int[np.ndarray, " m"],
        test_features: Float[np.ndarray, "n d"],
        rng: np.random.Generator,
    ) -> Float[np.ndarray, "n c"]:
        """Logits."""
        classes = _class_count(train_labels)
        x, y = torch.from_numpy(_finite(train_features)).float(), torch.from_numpy(train_labels)
        width = x.shape[1]
        bound = 1 / math.sqrt(width)  # as nn.Linear draws its own, but from `rng`
        weight, bias = (
            nn.Parameter(torch.from_numpy(rng.uniform(-bound, bound, shape)).float())
            for shape in ((classes, width), (classes,))
        )
        decayed = [{"params": [weight], "weight_decay": self.weight_decay}, {"params": [bias], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(decayed, lr=self.lr)
        steps = self.epochs * math.ceil(len(x) / self.batch_size)
        step = 0
        for _ in range(self.epochs):
            order = torch.from_numpy(rng.permutation(len(x)))
            for rows in order.split(self.batch_size):
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * (1 + math.cos(math.pi * step / steps)) / 2
                optimizer.zero_grad()
                nn.functional.cross_entropy(nn.functional.linear(x[rows], weight, bias), y[rows]).backward()
                optimizer.step()
                step += 1
        with torch.no_grad():
            return nn.functional.linear(torch.from_numpy(_finite(test_features)).float(), weight, bias).numpy()


PROBES: dict[str, type[LbfgsProbe] | type[AdamWProbe]] = {"lbfgs": LbfgsProbe, "adamw": AdamWProbe}


def _class_count(labels: Int[np.ndarray, " m"]) -> int:
    if len(labels) == 0:
        raise EvaluationError("a probe needs training images, got none")
    counts = np.bincount(labels)
    if (counts == 0).any():
        raise EvaluationError(
            f"class {int(counts.argmin())} has no training image; give the probe images of every class"
        )
    if len(counts) < 2:
        raise EvaluationError("a probe needs images of at least two classes, got one")
    return len(counts)


def _finite(rows: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m d"]:
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise EvaluationError(f"{len(wrong)} features are not finite (rows {', '.join(map(str, wrong[:5]))})")
    return rows


def cross_fit(
    probe: Probe,
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    *,
    folds: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n c"]:
    """Scores of every image from a probe that was trained on the other folds; each class is spread over all folds."""
    fold = draw_folds(labels, folds, rng)
    scores = np.empty((len(labels), int(labels.max()) + 1), dtype=np.float64)
    for number in range(folds):
        test = fold == number
        scores[test] = probe.fit_predict(features[~test], labels[~test], features[test], rng)
    return scores


def draw_folds(labels: Int[np.ndarray, " n"], folds: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """A fold for every image: drawn, of sizes that differ by one at most, in all and within each class."""
    fewest = int(np.bincount(labels).min()) if len(labels) else 0
    if not 2 <= folds <= len(labels) or fewest < 2:
        raise EvaluationError(
            f"cross-validation needs at least two folds, at most as many as images, and two images of every class; got "
            f"{folds} folds, {len(labels)} images and a class of {fewest}"
        )
    fold, start = np.empty(len(labels), dtype=np.int64), 0
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        fold[rows] = (start + np.arange(len(rows))) % folds
        start += len(rows)
    return fold


def image_features(
    encoder: Encoder,
    pairs: Pairs,
    *,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    batch_size: int = 256,
    progress: Progress = _silent,
) -> Float[np.ndarray, "m d"]:
    """Embeddings of the images of `pairs` (m,) at the length the model gives them; over that they are `embed`'s."""
    source = image_source(encoder, pairs.images, cache=cache, limit=cache_limit, progress=progress)
    refuse_bad_images(source.bad, len(pairs.images))
    return source_features(encoder, source, len(pairs.images), batch_size=batch_size, progress=progress)


def source_features(
    encoder: Encoder, source: ImageSource, count: int, *, batch_size: int = 256, progress: Progress = _silent
) -> Float[np.ndarray, "m d"]:
    """As `image_features`, of the `count` images of a source."""

    def encode(rows: np.ndarray) -> torch.Tensor:
        return encoder.image_embedding(torch.from_numpy(source.gather(rows)).to(encoder.device))

    unit, length = _in_batches(encoder, count, batch_size, encode, "embedding images", progress)
    return unit * length[:, None]
