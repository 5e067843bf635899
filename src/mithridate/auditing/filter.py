"""From embeddings to a verdict on each pair."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mithridate.auditing.cosine import CosineDistance
from mithridate.auditing.scores import Detector, Progress, Scores, _silent
from mithridate.auditing.threshold import Above, Threshold
from mithridate.data.columns import refuse_duplicates
from mithridate.encoder.embeddings import Embeddings
from mithridate.errors import FilterError
from mithridate.randomness import stream


@dataclass(frozen=True)
class Filtered:
    """`scores` of n pairs, `keep` (n,) which stay, `level` that no pair that stays exceeds; and what decided.

    `image_index` (n,) says which pairs share an image, `reference` are the scores of the clean pairs where some were
    given. `encoder` and `weights` name what embedded the pairs.
    """

    scores: Scores
    keep: np.ndarray
    level: float
    image_index: np.ndarray
    detector: Detector
    threshold: Threshold
    seed: int
    encoder: str
    weights: str | None
    reference: Scores | None = None

    @property
    def removed(self) -> int:
        return int((~self.keep).sum())

    @property
    def kept_uids(self) -> pa.ChunkedArray:
        return self.scores.uid.filter(pa.array(self.keep))


def filter(
    embeddings: Embeddings,
    detector: Detector | None = None,
    *,
    threshold: Threshold | None = None,
    clean: Embeddings | None = None,
    seed: int = 0,
    progress: Progress = _silent,
) -> Filtered:
    """Score all pairs and say which stay. By default the filter of mmPoison: cosine distance above 0.8 goes.

    `clean`: embeddings of pairs known to be clean, by the same encoder; they are scored among the data, so that a
    detector that is fitted or compares pairs sees one set. Raises `FilterError` where nothing would be left.
    """
    detector = CosineDistance() if detector is None else detector
    if threshold is None:
        if detector.own_level is None:
            raise FilterError(
                f"{detector.name} has no threshold of its own; give an absolute level, a clean quantile or a budget"
            )
        threshold = Above(detector.own_level)
    scores, reference = _score(embeddings, clean, detector, stream(seed, "detector"), progress)
    cut = threshold.cut(scores, reference)
    if not cut.keep.any():
        low, high = (round(float(end), 4) for end in (scores.suspicion.min(), scores.suspicion.max()))
        raise FilterError(
            f"the threshold removes all {len(scores)} pairs: suspicions lie between {low} and {high}; give a higher "
            "level or a smaller budget"
        )
    return Filtered(
        scores,
        cut.keep,
        cut.level,
        embeddings.image_index,
        detector,
        threshold,
        seed,
        embeddings.encoder,
        embeddings.weights,
        reference,
    )


def _score(
    embeddings: Embeddings, clean: Embeddings | None, detector: Detector, rng: np.random.Generator, progress: Progress
) -> tuple[Scores, Scores | None]:
    n = len(embeddings)
    if n < 2:
        raise FilterError(f"a filter needs at least two pairs, got {n}")
    refuse_duplicates(embeddings.uid, "the embeddings", "give every pair a uid of its own, and embed the data again")
    shown = {"progress": progress} if "progress" in inspect.signature(detector.suspicion).parameters else {}
    if clean is None:
        return Scores(embeddings.uid, detector.suspicion(embeddings, rng, **shown)), None
    together = detector.suspicion(joined(embeddings, clean), rng, **shown)
    return Scores(embeddings.uid, together[:n]), Scores(clean.uid, together[n:])


def joined(data: Embeddings, clean: Embeddings) -> Embeddings:
    """Both sets as one. A clean pair that is also among the data counts twice."""
    if not len(clean):
        raise FilterError("the clean embeddings hold no pairs")
    known = data.weights is not None and clean.weights is not None
    if (data.weights != clean.weights) if known else (data.text.shape[1] != clean.text.shape[1]):
        raise FilterError(
            f"the clean pairs were embedded by another encoder ({clean.encoder}) than the data ({data.encoder}), so "
            "their suspicions cannot be compared; embed both by one"
        )
    return Embeddings(
        pa.chunked_array([*data.uid.chunks, *clean.uid.chunks], pa.string()),
        np.concatenate([data.image, clean.image]),
        np.concatenate([data.image_index.astype(np.int64), clean.image_index + np.int64(len(data.image))]),
        np.concatenate([data.text, clean.text]),
        data.encoder,
        data.weights,
    )
