"""Similarity, less what image and caption have with anybody."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from mithridate.auditing.scores import Progress, _silent, uid_order
from mithridate.encoder.embeddings import Embeddings
from mithridate.errors import FilterError

_BLOCK = 1024  # images compared at once with all captions of a batch


@dataclass(frozen=True, kw_only=True)
class NegClipLoss:
    """CLIP's loss of each pair in random batches, as a similarity: negCLIPLoss with its sign turned (2405.19547).

    With similarity s and temperature t the suspicion is R - s, where R is the mean of t log mean_j exp(s_ij / t) over
    the captions j of a batch and of the same over its images, averaged over `draws` random batches. An image or a
    caption that is similar to everything has a large R. The paper sums where this takes the mean: t log(batch) is
    between them, the same for all pairs.

    Corrected: other captions of the same image are left out, as they are no strangers to it; with five captions an
    image and few images they would be a large part of R. Default batch and draws are the paper's, the temperature is
    that of OpenAI's models (all three from memory). Limit: with fewer pairs than `batch` there is one batch of all.
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

    def __post_init__(self) -> None:
        if self.batch < 2 or self.draws < 1:
            raise FilterError(f"expected batch >= 2 and draws >= 1, got {self.batch} and {self.draws}")
        if not 0 < self.temperature < float("inf"):
            raise FilterError(f"temperature must be positive, got {self.temperature}")

    def suspicion(self, embeddings: Embeddings, rng: np.random.Generator, progress: Progress = _silent) -> np.ndarray:
        similarity = embeddings.similarity().astype(np.float64)
        group = self._groups(embeddings, rng)
        return self._to_strangers(embeddings, group, progress) - similarity

    def _groups(self, embeddings: Embeddings, rng: np.random.Generator) -> Int[np.ndarray, "draws n"]:
        """The batch of each pair in each draw: batches of one size, give or take a pair."""
        n = len(embeddings)
        order = uid_order(embeddings.uid)  # dealt out by uid: the place of a pair must not decide
        if n <= self.batch:
            return np.zeros((1, n), np.int64)
        parts = -(-n // self.batch)
        found = np.empty((self.draws, n), np.int64)
        for draw in range(self.draws):
            for part, rows in enumerate(np.array_split(order[rng.permutation(n)], parts)):
                found[draw, rows] = draw * parts + part
        return found

    def _to_strangers(
        self, embeddings: Embeddings, group: Int[np.ndarray, "draws n"], progress: Progress
    ) -> Float[np.ndarray, " n"]:
        """(n,) the mean over draws of what `promiscuity` says within each batch."""
        image, text, index = embeddings.image, embeddings.text, embeddings.image_index
        groups, (n, width) = int(group.max()) + 1, text.shape
        # all pairs at once, or batch by batch: whichever multiplies less
        if len(image) * (width + 2 * groups) <= len(group) * n * width / (groups / len(group)):
            from mithridate.auditing.strangers import stranger_similarity  # loads torch

            found = stranger_similarity(
                image,
                text,
                index,
                group,
                temperature=self.temperature,
                progress=lambda done, total: progress("comparing with strangers", done, total),
            )
            if found is not None:
                return found
        total = np.zeros(n)
        for number in range(groups):
            rows = np.flatnonzero((group == number).any(axis=0))
            total[rows] += promiscuity(image[index[rows]], text[rows], index[rows], temperature=self.temperature)
            progress("comparing with strangers", number + 1, groups)
        return total / len(group)


def promiscuity(
    image: Float[np.ndarray, "b d"],
    text: Float[np.ndarray, "b d"],
    image_index: Int[np.ndarray, " b"],
    *,
    temperature: float,
) -> Float[np.ndarray, " b"]:
    """Soft maximum of the similarity of each pair's image to all captions, and of its caption to all images, halved.

    Soft maximum: t log of the mean of exp(s / t). A pair counts itself, and no other pair of its image.
    """
    b = len(image)
    by_image, peak, sums, counts = np.empty(b), np.full(b, -np.inf, np.float32), np.zeros(b), np.zeros(b)
    for low in range(0, b, _BLOCK):
        rows = np.arange(low, min(low + _BLOCK, b))
        block = image[rows] @ text.T  # (rows, b)
        own = image_index[rows][:, None] == image_index
        own[np.arange(len(rows)), rows] = False
        block[own] = -np.inf
        top = block.max(axis=1)
        by_image[rows] = top + temperature * np.log(
            np.exp((block - top[:, None]) / temperature).sum(axis=1, dtype=np.float64) / (b - own.sum(axis=1))
        )
        # columns are met block by block: what was summed is brought to the new peak first
        new = np.maximum(peak, block.max(axis=0))
        new = np.where(np.isfinite(new), new, -1).astype(np.float32)  # no stranger so far: any finite value will do
        sums *= np.exp((peak.astype(np.float64) - new) / temperature)
        sums += np.exp((block - new) / temperature).sum(axis=0, dtype=np.float64)
        counts += len(rows) - own.sum(axis=0)
        peak = new
    return (by_image + peak + temperature * np.log(sums / counts)) / 2
