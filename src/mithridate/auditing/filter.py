"""From embeddings to a verdict on each pair."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.auditing.corpus import corpus_of
from mithridate.auditing.cosine import CosineDistance
from mithridate.auditing.evidence import Detector
from mithridate.auditing.scores import Progress, Scores, silent
from mithridate.auditing.threshold import Above, Threshold
from mithridate.data.columns import refuse_duplicates
from mithridate.data.pairs import Pairs
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
    pairs: Pairs | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Filtered:
    """Score all pairs and say which stay. By default the filter of mmPoison: cosine distance above 0.8 goes.

    `clean`: embeddings of pairs known to be clean, by the same encoder; they are scored among the data, so that a
    detector that is fitted or compares pairs sees one set. `pairs`: those that were embedded, for a detector that reads
    captions. Raises `FilterError` where nothing would be left, and where the detector needs what is not given.
    """
    detector = CosineDistance() if detector is None else detector
    if threshold is None:
        if detector.own_level is None:
            raise FilterError(
                f"{detector.name} has no threshold of its own; give an absolute level, a clean quantile or a budget"
            )
        threshold = Above(detector.own_level)
    scores, reference = _score(embeddings, clean, pairs, detector, stream(seed, "detector"), progress)
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
    embeddings: Embeddings,
    clean: Embeddings | None,
    pairs: Pairs | None,
    detector: Detector,
    rng: np.random.Generator,
    progress: Progress,
) -> tuple[Scores, Scores | None]:
    n = len(embeddings)
    if n < 2:
        raise FilterError(f"a filter needs at least two pairs, got {n}")
    refuse_duplicates(embeddings.uid, "the embeddings", "give every pair a uid of its own, and embed the data again")
    if pairs is not None and not pairs.uid.equals(embeddings.uid):
        place = pc.index_in(embeddings.uid, value_set=pairs.uid.combine_chunks())
        pairs = None if place.null_count else pairs.take(place.to_numpy())
    # whoever names a detector says that the encoder is one for it
    corpus = corpus_of(embeddings, clean, pairs=pairs, trained=True, progress=progress)
    lacking = corpus.lacks(detector.needs)
    if lacking is not None:
        raise FilterError(f"{detector.name} cannot score these pairs: {lacking}")
    found = detector.examine(corpus, rng).suspicion
    return Scores(embeddings.uid, found[:n]), None if clean is None else Scores(clean.uid, found[n:])
