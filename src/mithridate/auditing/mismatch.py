"""Image and caption disagree."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """negCLIPLoss (see `NegClipLoss`) under an encoder that was not trained on the corpus.

    Limit: an encoder that was trained on the poison agrees with it, and poison that agrees by itself passes.
    """

    name: ClassVar[str] = "mismatch"
    measures: ClassVar[str] = "similarity to strangers less that of the pair"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ()

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        similarity = corpus.embeddings.similarity()
        said, which = np.unique(np.rint(100 * similarity).astype(np.int64), return_inverse=True)
        reason = np.array([f"similarity {value / 100}" for value in said.tolist()], object)[which]
        return Evidence(corpus.mismatch, reason)
