"""How long the encoder made an image's vector."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.errors import FilterError


@dataclass(frozen=True, kw_only=True)
class RawLength:
    """Length of the image's vector before it was made a unit vector.

    An encoder that learned a trigger from this corpus gives images that carry it longer vectors; that, and not their
    density, is most of what k-distance, SLOF and DAO see on raw vectors (derived here: docs/audit.md). Limit: says
    nothing under an encoder that was not trained on these pairs.
    """

    name: ClassVar[str] = "raw-length"
    measures: ClassVar[str] = "length of the image's vector"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ("lengths", "trained encoder")

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        length = corpus.embeddings.image_length
        if length is None:
            raise FilterError("the embeddings have no lengths; embed the data again")
        usual = float(np.median(length))
        reason = np.array([f"length {round(float(x), 2)}, usually {round(usual, 2)}" for x in length], object)
        return Evidence(corpus.per_pair(length.astype(np.float64)), corpus.per_pair(reason))
