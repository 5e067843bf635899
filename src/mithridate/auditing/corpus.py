"""What an audit looks at: pairs, how an encoder sees them, and which of them are known to be clean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mithridate.auditing.neg_clip_loss import NegClipLoss
from mithridate.auditing.scores import uid_order
from mithridate.data.pairs import Pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.errors import FilterError
from mithridate.randomness import stream

if TYPE_CHECKING:
    from mithridate.auditing.pixels import PixelFeatures


@dataclass(frozen=True)
class Corpus:
    """n pairs over m images, of which `clean` (n,) are known to be clean and scored among the others.

    `embeddings` has the same n pairs over the same m images. `pixels`: what the pixel detectors read, None where the
    images are not at hand. A detector that is fitted or compares pairs sees all n: its scores then are exchangeable
    over clean pairs, which calibration needs (AdaDetect, Marandon et al. 2024).
    """

    pairs: Pairs
    embeddings: Embeddings
    clean: np.ndarray
    pixels: PixelFeatures | None = None

    def __post_init__(self) -> None:
        n = len(self.pairs)
        if len(self.embeddings) != n or self.clean.shape != (n,):
            raise FilterError(f"a corpus of {n} pairs needs as many embeddings, got {len(self.embeddings)}")

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def image_index(self) -> np.ndarray:
        """For each pair the position of its image: (n,) int64."""
        return self.embeddings.image_index.astype(np.int64)

    @property
    def images(self) -> int:
        """How many images there are: m."""
        return len(self.embeddings.image)

    @cached_property
    def order(self) -> np.ndarray:
        """Rows in the order of their uids, (n,): what is drawn by it does not depend on how the pairs lie."""
        return uid_order(self.pairs.uid)

    @cached_property
    def image_order(self) -> np.ndarray:
        """Images in the order of the first of their uids: (m,)."""
        rank = np.empty(len(self), np.int64)
        rank[self.order] = np.arange(len(self))
        first = np.full(self.images, len(self), np.int64)
        np.minimum.at(first, self.image_index, rank)
        return np.argsort(first)

    @cached_property
    def clean_image(self) -> np.ndarray:
        """Which images belong to a clean pair: (m,) bool."""
        found = np.zeros(self.images, bool)
        found[self.image_index[self.clean]] = True
        return found

    @cached_property
    def mismatch(self) -> np.ndarray:
        """negCLIPLoss of each pair, (n,): computed once for all detectors that start from it."""
        return NegClipLoss(batch=2048, draws=2).suspicion(self.embeddings, stream(0, "audit mismatch"))

    def per_pair(self, of_image: np.ndarray) -> np.ndarray:
        """A number of each image (m,) as one of each pair (n,)."""
        return of_image[self.image_index]
