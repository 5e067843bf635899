"""Similarity, less what image and caption have with anybody."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.auditing.stranger_batches import neg_clip_loss
from mithridate.errors import FilterError

_MOST_DRAWS = 1000


@dataclass(frozen=True, kw_only=True)
class NegClipLoss:
    """CLIP's loss of each pair in random batches, as a similarity: negCLIPLoss with its sign turned (2405.19547).

    With similarity s and temperature t the suspicion is R - s, where R is the mean of t log mean_j exp(s_ij / t) over
    the captions j of a batch and of the same over its images, averaged over `draws` random batches. An image or a
    caption that is similar to everything has a large R. The paper sums where this takes the mean: t log(batch) is
    between them, the same for all pairs.

    Corrected: other captions of the same image are left out, as they are no strangers to it; with five captions an
    image and few images they would be a large part of R. Defaults: batch and temperature are those that OpenAI's
    models were trained with (Radford et al. 2021, table 18: 32,768, and a scale of at most 100); ten draws are chosen
    here. Limit: with fewer pairs than `batch` there is one batch of all.
    """

    batch: int = 32_768
    """Pairs in a random batch."""
    draws: int = 10
    """How often all pairs are dealt out into batches."""
    temperature: float = 0.01
    """What similarities are divided by."""

    name: ClassVar[str] = "neg-clip-loss"
    measures: ClassVar[str] = "similarity to strangers less that of the pair"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ()

    def __post_init__(self) -> None:
        if self.batch < 2 or not 1 <= self.draws <= _MOST_DRAWS:
            raise FilterError(
                f"expected batch >= 2 and draws from 1 to {_MOST_DRAWS}, got {self.batch} and {self.draws}"
            )
        if not 0 < self.temperature < float("inf"):
            raise FilterError(f"temperature must be positive, got {self.temperature}")

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        return Evidence(
            neg_clip_loss(
                corpus.embeddings,
                rng,
                batch=self.batch,
                draws=self.draws,
                temperature=self.temperature,
                progress=corpus.progress,
            )
        )
