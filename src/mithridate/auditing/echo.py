"""Nearness to the captions of the pairs that disagree most."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.data.arrays import release
from mithridate.errors import FilterError

_BLOCK = 4096  # captions compared at once


@dataclass(frozen=True, kw_only=True)
class Echo:
    """Mismatch, plus how much nearer a caption is to captions of the most inconsistent pairs than to any others.

    The sum of two standardised numbers: negCLIPLoss, and the mean similarity to the `neighbours` nearest captions among
    the `share` most inconsistent pairs of other images, less the same among `background` random captions. In kind as
    the two-stage detector of Chen, Li, Wu and Zhou (2608.04052), of which only the abstract is public. Limit: an attack
    on one target has one sort of caption; several targets dilute it.
    """

    share: float = 0.002
    """Share of the corpus that the reference is made of."""
    neighbours: int = 5
    """How many of the nearest captions count."""
    background: int = 1000
    """Random captions to compare with."""

    name: ClassVar[str] = "echo"
    measures: ClassVar[str] = "mismatch and nearness to the captions of the worst, in standard deviations"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ()

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.neighbours < 1 or self.background < self.neighbours:
            raise FilterError(
                f"echo expects share in (0, 1) and background >= neighbours >= 1, got share {self.share}, neighbours "
                f"{self.neighbours}, background {self.background}"
            )

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        mismatch = corpus.mismatch
        rank = np.empty(len(corpus), np.int64)
        rank[corpus.order] = np.arange(len(corpus))
        count = min(len(corpus), max(4 * self.neighbours, round(self.share * len(corpus))))
        reference = np.lexsort((rank, -mismatch))[:count]
        drawn = rng.choice(len(corpus), size=min(self.background, len(corpus)), replace=False)
        others = corpus.order[np.sort(drawn)]
        nearness = self._nearest(corpus, reference) - self._nearest(corpus, others)
        return Evidence(_standard(mismatch) + _standard(nearness))

    def _nearest(self, corpus: Corpus, rows: Int[np.ndarray, " r"]) -> Float[np.ndarray, " n"]:
        """Mean similarity of each caption to its nearest captions at `rows`, those of its own image left out."""
        text, index = corpus.embeddings.text, corpus.image_index
        few = np.asarray(text[rows])
        found = np.empty(len(corpus))
        k = min(self.neighbours, len(rows))
        for low in range(0, len(corpus), _BLOCK):
            block = text[low : low + _BLOCK] @ few.T
            block[index[low : low + _BLOCK, None] == index[rows]] = -1.0
            found[low : low + _BLOCK] = np.partition(block, -k, axis=1)[:, -k:].mean(axis=1)
            release(text)
        return found


def _standard(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    spread = values.std()
    return (values - values.mean()) / (spread if spread > 0 else 1.0)
