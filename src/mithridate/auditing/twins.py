"""Images that share what is left of them when the picture is taken away: a pattern blended in, a patch in one place."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.auditing.pixels import SIDE
from mithridate.auditing.shared_patterns import shared_patterns
from mithridate.data.arrays import working_array
from mithridate.errors import FilterError
from mithridate.randomness import stream

_WHOLE, _LISTED = 10_000, 200_000  # more images are searched by projection, and still more by inverted lists
_BLOCK, _COMPARED = 1024, 128  # images made residuals of, and compared with their candidates in full, at once
_PROJECTED, _PROBES = 256, 8
_FOUND = 10  # neighbours of each image: copies of it are among them


@dataclass(frozen=True, kw_only=True)
class ResidualTwins:
    """Correlation of an image's whitened residual with that of its `fellows`-th most similar other image.

    The grey copy (64x64) is divided, at every frequency, by the corpus' mean amplitude, which leaves what is unusual
    of it; values are clipped at `clip` standard deviations. Derived here. Limit: the trigger must lie in the same
    place and phase, in more than `fellows` images.
    """

    fellows: int = 3
    """Which of the most similar other images counts."""
    clip: float = 3.0
    """Standard deviations at which a residual is cut."""

    name: ClassVar[str] = "residual-twins"
    measures: ClassVar[str] = "correlation of its residual with that of other images"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ("pixels",)

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        rows = residuals(corpus.known_pixels.grey, clip=self.clip)
        k = min(self.fellows, len(rows) - 1)
        if k < 1:
            raise FilterError(f"residual-twins needs at least two images, got {len(rows)}")
        similarity, found = nearest_residuals(rows, max(k, min(_FOUND, len(rows) - 1)), corpus.image_order)
        score, twin = similarity[:, k - 1], found[:, 0]
        uid = corpus.embeddings.uid.take(np.unique(corpus.image_index, return_index=True)[1]).to_pylist()
        reason = np.array([f"shares its residual with {k} images, {uid[t]} among them" for t in twin], object)
        groups = shared_patterns(corpus, rows, similarity, found, fellows=k)
        return Evidence(corpus.per_pair(score), corpus.per_pair(reason), groups=groups)


def residuals(grey: np.ndarray, *, clip: float = 3.0) -> np.ndarray:
    """Whitened residuals of unit length: (m, 4096) float32."""
    mean, count = np.zeros((SIDE, SIDE // 2 + 1)), 0
    blocks = [slice(low, low + _BLOCK) for low in range(0, len(grey), _BLOCK)]
    for part in blocks:
        mean += np.abs(_spectrum(grey[part])).sum(axis=0)
        count += len(grey[part])
    mean = np.maximum(mean / count, 1e-6)
    found = working_array((len(grey), SIDE * SIDE))
    for part in blocks:
        left = np.fft.irfft2(_spectrum(grey[part]) / mean, s=(SIDE, SIDE)).reshape(-1, SIDE * SIDE)
        spread = np.maximum(left.std(axis=1, keepdims=True), 1e-12)
        left = np.clip(left, -clip * spread, clip * spread)
        found[part] = left / np.maximum(np.linalg.norm(left, axis=1, keepdims=True), 1e-12)
    return found


def _spectrum(grey: np.ndarray) -> np.ndarray:
    values = grey.astype(np.float32)
    return np.fft.rfft2(values - values.mean(axis=(1, 2), keepdims=True))


def nearest_residuals(rows: np.ndarray, k: int, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each image the correlations with its k nearest other images, largest first, and which they are: (m, k) twice.

    Exact up to 10,000 images; beyond, among candidates that are nearest in 256 random directions, which then are
    compared in full; of more than 200,000 images those that inverted lists find.
    """
    import faiss

    if len(rows) <= _WHOLE:
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)  # type: ignore[call-arg]
        similarity, found = index.search(rows, k + 1)  # type: ignore[call-arg]
    else:
        small = _projected(rows)
        index = faiss.IndexFlatIP(_PROJECTED)
        if len(rows) > _LISTED:
            index = faiss.IndexIVFFlat(index, _PROJECTED, int(4 * len(rows) ** 0.5), faiss.METRIC_INNER_PRODUCT)
            index.nprobe = _PROBES
            index.train(small[order[:: max(1, len(rows) // 100_000)]])
        index.add(small)  # type: ignore[call-arg]
        candidates = index.search(small, 4 * (k + 1))[1]  # type: ignore[call-arg]
        similarity, found = np.empty((len(rows), k + 1), np.float32), np.empty((len(rows), k + 1), np.int64)
        for low in range(0, len(rows), _COMPARED):
            part = slice(low, low + _COMPARED)
            alike = np.einsum("md,mkd->mk", rows[part], rows[np.maximum(candidates[part], 0)])
            alike[candidates[part] < 0] = -1
            best = np.argsort(-alike, axis=1, kind="stable")[:, : k + 1]
            similarity[part] = np.take_along_axis(alike, best, 1)
            found[part] = np.take_along_axis(candidates[part], best, 1)
    itself = found == np.arange(len(rows))[:, None]
    # equal images may push an image from the first place of its own search
    lost = ~itself.any(axis=1)
    itself[lost, -1] = True
    return similarity[~itself].reshape(len(rows), k).astype(np.float64), found[~itself].reshape(len(rows), k)


def _projected(rows: np.ndarray) -> np.ndarray:
    """The rows (m, d) in 256 random directions, at unit length."""
    basis = stream(0, "residual projection").standard_normal((rows.shape[1], _PROJECTED)).astype(np.float32)
    small = np.concatenate([rows[low : low + _BLOCK] @ basis for low in range(0, len(rows), _BLOCK)])
    return small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-12)
