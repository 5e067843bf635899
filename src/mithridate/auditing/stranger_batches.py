"""How similar each pair is to the strangers in random batches: what negCLIPLoss takes away."""

import numpy as np
from jaxtyping import Float, Int

from mithridate.auditing.scores import Progress, silent, uid_order
from mithridate.data.arrays import release
from mithridate.encoder.embeddings import Embeddings

_BLOCK = 1024  # images compared at once with all captions of a batch


def neg_clip_loss(
    embeddings: Embeddings,
    rng: np.random.Generator,
    *,
    batch: int,
    draws: int,
    temperature: float = 0.01,
    progress: Progress = silent,
) -> Float[np.ndarray, " n"]:
    """Similarity to strangers less that of the pair, in batches dealt out by uid; see the detector `NegClipLoss`."""
    similarity = embeddings.similarity().astype(np.float64)
    group = _groups(embeddings, rng, batch, draws)
    return _to_strangers(embeddings, group, temperature, progress) - similarity


def _groups(embeddings: Embeddings, rng: np.random.Generator, batch: int, draws: int) -> Int[np.ndarray, "draws n"]:
    """The batch of each pair in each draw: batches of one size, give or take a pair."""
    n = len(embeddings)
    order = uid_order(embeddings.uid)  # dealt out by uid: the place of a pair must not decide
    if n <= batch:
        return np.zeros((1, n), np.int64)
    parts = -(-n // batch)
    found = np.empty((draws, n), np.int64)
    for draw in range(draws):
        for part, rows in enumerate(np.array_split(order[rng.permutation(n)], parts)):
            found[draw, rows] = draw * parts + part
    return found


def _to_strangers(
    embeddings: Embeddings, group: Int[np.ndarray, "draws n"], temperature: float, progress: Progress
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
            temperature=temperature,
            progress=lambda done, total: progress("comparing with strangers", done, total),
        )
        if found is not None:
            return found
    total = np.zeros(n)
    for number in range(groups):
        rows = np.flatnonzero((group == number).any(axis=0))
        total[rows] += promiscuity(image[index[rows]], text[rows], index[rows], temperature=temperature)
        release(image, text)
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
