"""How alone a vector is among random others: k-distance, SLOF and DAO, with sampled references.

Of a reference R of B random images, the image itself left out of its own: d_k(x) is the distance to the k-th nearest in
R. k-distance = d_k(x); SLOF = mean_j d_k(x) / d_k(x_j) over the k nearest x_j; DAO = mean_j LID(x_j) ln(d_k(x) /
d_k(x_j)) with LID(x) = -1 / mean_{i<k} ln(d_i / d_k) (definitions of Huang et al., 2502.01385, which uses a batch as
its reference). Scores are the mean over several references.

Region of validity: a campaign of a share p of the images puts about p B of itself into each reference. Where p B >= k,
its images are each other's nearest, and look less alone than clean ones. So k / B bounds the share that can be seen.

`faithful_scores` is what the published code computes instead (backdoor_sample_detector, commit 024f076). Each pair is
scored once, in one batch whose images and captions are the reference; its numerator is the distance to neighbour k + 1
and its denominator that to neighbour k; neighbours are found in rows without the own column and looked up in rows with
it, so beyond the own place the values are those of the next row; and LIDs of the reference count the distance of 0 to
itself, which adds ln 1e-4 to each sum.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import numpy as np
from jaxtyping import Float, Int

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.errors import FilterError

Measure = Literal["k-distance", "slof", "dao"]

UNIT_BLIND = (
    "compares unit vectors, and is blind to a trigger that the encoder learned from these pairs, which shows in the "
    "length of its vectors"
)
_BLOCK = 4096  # images compared at once with a reference
_FEWEST = 4  # images; of fewer than k + 2 all are neighbours
_LEAST = 1e-6  # distances below it count as this: of near-duplicates


@dataclass(frozen=True, kw_only=True)
class Density:
    """What the three detectors share: their options, and how they draw references. Each adds what it is called."""

    k: int = 16
    """Neighbours."""
    references: int = 1024
    """Random images to compare with: campaigns of a share of k / references and more are not seen."""
    draws: int = 4
    """How often references are drawn; scores are means over them."""
    raw: bool = True
    """Compare vectors at the length the encoder gave them; unit vectors throw away what tells poison apart."""

    name: ClassVar[str]
    measures: ClassVar[str]
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ("lengths", "trained encoder")

    def __post_init__(self) -> None:
        if self.k < 2 or self.references <= self.k or self.draws < 1:
            raise FilterError(
                "a density expects references > k >= 2 and draws >= 1, "
                f"got {self.references}, {self.k} and {self.draws}"
            )

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        options = {"k": self.k, "references": self.references, "draws": self.draws, "raw": self.raw}
        share = round(100 * self.k / self.references, 2)
        blind = f"{self.name} is blind to a campaign of {share} % of the images and more (k / references)"
        notes = (f"density-share: {blind}", *(() if self.raw else (f"unit-vectors: {self.name} {UNIT_BLIND}",)))
        return Evidence(density(corpus, cast(Measure, self.name), rng, **options), notes=notes)


def density(
    corpus: Corpus, measure: Measure, rng: np.random.Generator, *, k: int, references: int, draws: int, raw: bool = True
) -> Float[np.ndarray, " n"]:
    """A density of each pair's image, by `raw` vectors (unit vectors times their lengths) or unit ones."""
    e = corpus.embeddings
    length = e.image_length if raw else np.ones(corpus.images, np.float32)
    if length is None:
        raise FilterError("the embeddings have no lengths; embed the data again")
    if corpus.images < _FEWEST:
        raise FilterError(f"a density needs at least {_FEWEST} images, got {corpus.images}")
    total = np.zeros(corpus.images)
    for _ in range(draws):
        drawn = np.sort(rng.permutation(corpus.images)[:references])
        chosen = corpus.image_order[drawn]  # drawn by uid: the place of an image must not decide
        total += reference_scores(e.image, length, chosen, measure, k=min(k, len(chosen) - 1))
        corpus.progress("comparing with references", 1, 1)
    return corpus.per_pair(total / draws)


def reference_scores(
    image: Float[np.ndarray, "m d"],
    length: Float[np.ndarray, " m"],
    reference: Int[np.ndarray, " b"],
    measure: Measure,
    *,
    k: int,
) -> Float[np.ndarray, " m"]:
    """`measure` of each of m vectors among those at `reference`; each is left out of its own."""
    rows = image[reference] * length[reference, None]
    own = np.full(len(image), -1)
    own[reference] = np.arange(len(reference))
    if measure == "k-distance":
        parts = [near[:, -1] for near, _ in _nearest(image, length, rows, own, k)]
        return np.concatenate(parts).astype(np.float64)
    inside = np.concatenate(
        [near for near, _ in _nearest(image[reference], length[reference], rows, own[reference], k)]
    )
    far = inside[:, -1].astype(np.float64)  # d_k of each of the reference
    lid = local_dimension(inside.astype(np.float64))
    scores = []
    for near, which in _nearest(image, length, rows, own, k):
        ratio = near[:, -1:].astype(np.float64) / far[which]
        scores.append((ratio if measure == "slof" else lid[which] * np.log(ratio)).mean(axis=1))
    return np.concatenate(scores)


def local_dimension(near: Float[np.ndarray, "b k"]) -> Float[np.ndarray, " b"]:
    """Maximum-likelihood local intrinsic dimension by the distances of k neighbours, in ascending order."""
    logs = np.log(near[:, :-1] / near[:, -1:])
    return -1 / np.minimum(logs.mean(axis=1), -1e-6)


def _nearest(
    image: Float[np.ndarray, "m d"],
    length: Float[np.ndarray, " m"],
    rows: Float[np.ndarray, "b d"],
    own: Int[np.ndarray, " m"],
    k: int,
) -> Iterator[tuple[Float[np.ndarray, "block k"], Int[np.ndarray, "block k"]]]:
    """Distances of vectors to the k nearest of `rows`, ascending, and which they are, block by block."""
    squares = np.einsum("bd,bd->b", rows, rows)
    for low in range(0, len(image), _BLOCK):
        part = slice(low, low + _BLOCK)
        vectors = image[part] * length[part, None]
        apart = vectors @ rows.T
        apart *= -2
        apart += squares
        mine = np.flatnonzero(own[part] >= 0)
        apart[mine, own[part][mine]] = np.inf
        which = np.argpartition(apart, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(apart, which, 1) + np.einsum("nd,nd->n", vectors, vectors)[:, None]
        order = np.argsort(near, axis=1, kind="stable")
        near, which = np.take_along_axis(near, order, 1), np.take_along_axis(which, order, 1)
        yield np.sqrt(np.maximum(near, _LEAST**2)), which


def faithful_scores(
    image: Float[np.ndarray, "n d"], text: Float[np.ndarray, "n d"], measure: Measure, *, k: int, batch: int
) -> Float[np.ndarray, " n"]:
    """What the published code gives for n pairs (raw vectors) in their order, batch by batch, defects and all."""
    found = []
    for low in range(0, len(image), batch):
        part = slice(low, low + batch)
        found.append(_faithful_batch(image[part].astype(np.float64), text[part].astype(np.float64), measure, k))
    return np.concatenate(found)


def _faithful_batch(image: np.ndarray, text: np.ndarray, measure: Measure, k: int) -> np.ndarray:
    from scipy.spatial.distance import cdist

    b = len(image)
    reference = np.concatenate([image, text])
    apart = cdist(image, reference)
    without_own = apart[~np.eye(b, 2 * b, dtype=bool)].reshape(b, -1)
    near, which = np.sort(without_own, axis=1), np.argsort(without_own, axis=1, kind="stable")[:, :k]
    if measure == "k-distance":
        return near[:, k]  # the neighbour after the k-th
    inside = np.sort(cdist(reference, reference), axis=1)  # the distance of 0 to itself among them
    ratio = near[:, k, None] / inside[which, k]  # `which` counts columns without the own one
    if measure == "slof":
        return ratio.mean(axis=1)
    with np.errstate(divide="ignore"):
        lid = -k / np.log(inside[:, :k] / inside[:, k, None] + 1e-4).sum(axis=1)
    return (lid[which] * np.log(ratio)).mean(axis=1)
