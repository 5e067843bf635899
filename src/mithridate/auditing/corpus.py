"""What detectors look at: how an encoder sees pairs, which are known to be clean, and what else is at hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from mithridate.auditing.scores import Progress, silent, uid_order
from mithridate.auditing.stranger_batches import neg_clip_loss
from mithridate.data.arrays import release, working_array
from mithridate.data.pairs import Pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.errors import FilterError
from mithridate.randomness import stream

if TYPE_CHECKING:
    from mithridate.auditing.pixels import PixelFeatures

_BLOCK = 8192  # rows copied at once
_SMALL, _SAMPLE = 64, 20_000  # directions that images are compared in at first, and images that these are found by

Need = Literal["pairs", "pixels", "lengths", "trained encoder"]
"""What a detector may need besides embeddings: captions and provenance, images, the lengths of the vectors before they
were made unit vectors, and an encoder that was trained on these very pairs."""

_LACKS = {
    "pairs": "the captions are not at hand",
    "pixels": "the images are not at hand",
    "lengths": "the embeddings have no lengths, and unit vectors are blind to a trigger that the encoder learned from "
    "these pairs; embed the data again",
    "trained encoder": "the encoder was not trained on these pairs",
}


@dataclass(frozen=True)
class Corpus:
    """n pairs over m images, of which `clean` (n,) are known to be clean and scored among the others.

    `pairs`: the n pairs themselves, None where only embeddings are given. `pixels`: what the pixel detectors read of
    the m images, None where they are not at hand. `trained`: the encoder was trained on these pairs. A detector that is
    fitted or compares pairs sees all n: its scores then are exchangeable over clean pairs, which calibration needs
    (AdaDetect, Marandon et al. 2024).
    """

    embeddings: Embeddings
    clean: np.ndarray
    pairs: Pairs | None = None
    pixels: PixelFeatures | None = None
    trained: bool = False
    progress: Progress = silent

    def __post_init__(self) -> None:
        n = len(self.embeddings)
        if self.clean.shape != (n,) or (self.pairs is not None and len(self.pairs) != n):
            raise FilterError(f"a corpus of {n} embeddings needs as many pairs and marks of clean ones")

    def __len__(self) -> int:
        return len(self.embeddings)

    def lacks(self, needs: Iterable[Need]) -> str | None:
        """Why a detector with such needs cannot be run, None where it can."""
        e = self.embeddings
        there = {
            "pairs": self.pairs is not None,
            "pixels": self.pixels is not None,
            "lengths": e.image_length is not None,
            "trained encoder": self.trained,
        }
        return next((_LACKS[need] for need in needs if not there[need]), None)

    @property
    def known_pairs(self) -> Pairs:
        """The pairs. Raises `FilterError` where there are embeddings alone."""
        if self.pairs is None:
            raise FilterError(f"{_LACKS['pairs']}; give the data that were embedded")
        return self.pairs

    @property
    def known_pixels(self) -> PixelFeatures:
        """What was read of the images. Raises `FilterError` where there are embeddings alone."""
        if self.pixels is None:
            raise FilterError(f"{_LACKS['pixels']}; audit the data with `mithridate audit`")
        return self.pixels

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
        return uid_order(self.embeddings.uid)

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
        return neg_clip_loss(self.embeddings, stream(0, "audit mismatch"), batch=2048, draws=2, progress=self.progress)

    @cached_property
    def small_images(self) -> np.ndarray:
        """The images' vectors in their 64 principal directions, or fewer: (m, up to 64) float32.

        No two lie further apart than the vectors do, so what is near among these is a candidate.
        """
        import faiss

        rows, sample = self.embeddings.image, self.image_order[:: max(1, self.images // _SAMPLE)]
        width = min(_SMALL, rows.shape[1], max(1, len(sample) - 1))  # n images span n - 1 directions about their mean
        project = faiss.PCAMatrix(rows.shape[1], width)
        project.train(np.ascontiguousarray(rows[sample], np.float32))
        found = np.empty((self.images, width), np.float32)
        for low in range(0, self.images, _BLOCK):
            found[low : low + _BLOCK] = project.apply(np.ascontiguousarray(rows[low : low + _BLOCK], np.float32))
        return found

    def per_pair(self, of_image: np.ndarray) -> np.ndarray:
        """A number of each image (m,) as one of each pair (n,)."""
        return of_image[self.image_index]


def corpus_of(
    data: Embeddings,
    clean: Embeddings | None = None,
    *,
    pairs: Pairs | None = None,
    clean_pairs: Pairs | None = None,
    pixels: PixelFeatures | None = None,
    trained: bool = False,
    progress: Progress = silent,
) -> Corpus:
    """Embedded pairs and, after them, those known to be clean, as one corpus.

    The images of `pixels` are those of both. A clean pair that is also among the data counts twice. Raises
    `FilterError` where the two were embedded by different encoders.
    """
    if clean is None:
        return Corpus(data, np.zeros(len(data), bool), pairs, pixels, trained, progress)
    both = joined(data, clean)
    if pairs is not None and clean_pairs is not None:
        columns = [name for name in pairs.table.column_names if name in clean_pairs.table.column_names]
        tables = [part.table.select(columns) for part in (pairs, clean_pairs)]
        pairs = Pairs(pa.concat_tables(tables, promote_options="default"))
    else:
        pairs = None
    return Corpus(both, np.arange(len(both)) >= len(data), pairs, pixels, trained, progress)


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
        _stacked(data.image, clean.image),
        np.concatenate([data.image_index.astype(np.int64), clean.image_index + np.int64(len(data.image))]),
        _stacked(data.text, clean.text),
        data.encoder,
        data.weights,
        _both(data.image_length, clean.image_length),
        _both(data.text_length, clean.text_length),
    )


def _stacked(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    both = working_array((len(first) + len(second), first.shape[1]))
    for start, rows in ((0, first), (len(first), second)):
        for low in range(0, len(rows), _BLOCK):
            both[start + low : start + low + _BLOCK][: len(rows) - low] = rows[low : low + _BLOCK]
            release(both, rows)
    return both


def _both(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    return None if first is None or second is None else np.concatenate([first, second])
