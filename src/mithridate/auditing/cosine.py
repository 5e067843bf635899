"""The filter of mmPoison: pairs whose image and caption lie far apart."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need


@dataclass(frozen=True, kw_only=True)
class CosineDistance:
    """1 - cosine of image and caption (Yang et al., ICML 2023, section 5; CLIPScore with its sign turned).

    The paper's threshold of 0.8 was read off the densities of CLIP ViT-B/16; another encoder has other densities.
    Limit: a pair made to agree, or a caption that fits its poisoned image, looks like any other.
    """

    name: ClassVar[str] = "cosine-distance"
    measures: ClassVar[str] = "cosine distance of image and caption"
    own_level: ClassVar[float | None] = 0.8
    needs: ClassVar[tuple[Need, ...]] = ()

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        return Evidence(1 - corpus.embeddings.similarity().astype(np.float64))
