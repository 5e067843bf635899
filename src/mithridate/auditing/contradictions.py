"""One image with more captions than others have, one caption with more images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.auditing.groups import Group, scan_strength
from mithridate.auditing.near_captions import near_captions
from mithridate.errors import FilterError

_QUERIES = 4096
_FLAG = 6.0  # -log10 of the level at which a count is more than natural, as groups are flagged
_WHOLE, _PROBES = 20_000, 8  # images that are searched whole, and lists looked into where there are more
_FOLDED = 65_536  # captions that are Python objects at once
_COMPARED = 50_000  # pairs of images compared in full at once


@dataclass(frozen=True, kw_only=True)
class Contradictions:
    """How many distinct captions an image has, near-duplicates counted as one image, or how many images a caption has.

    The larger of the two, each divided by its median over the corpus. Near-duplicates: PDQ hashes within `bits` where
    the images are at hand, else embeddings of at least `cosine`. Captions count as one after folding case and spaces;
    among the worst `share` of the corpus by negCLIPLoss, where a campaign that rewords its caption is unless it fits,
    those that are nearly one (MinHash, at least `jaccard`) make groups too. The suspicion does not count them.
    Captions and images do repeat on the web: a group is what has more than an image or a caption of the clean pairs,
    and a caption also more images than its own count among the clean pairs allows, none among them included: fewer
    clean pairs allow more. Derived here.
    """

    bits: int = 31
    """Largest Hamming distance of two PDQ hashes of one image (PDQ's own recommendation)."""
    least_quality: int = 50
    """Images with a lower PDQ quality are compared by embeddings."""
    cosine: float = 0.98
    """Least similarity of two embeddings of one image."""
    jaccard: float = 0.75
    """Least similarity of two captions that are nearly one; 0.7 to 0.8 is usual."""
    share: float = 0.1
    """Of the corpus, by negCLIPLoss: captions that are nearly one are looked for among so many of the worst."""

    name: ClassVar[str] = "contradictions"
    measures: ClassVar[str] = "captions of its image or images of its caption, of the median"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ("pairs",)

    def __post_init__(self) -> None:
        if not 0 <= self.bits <= 256 or not 0 < self.cosine <= 1:
            raise FilterError(f"expected bits in 0..256 and cosine in (0, 1], got {self.bits} and {self.cosine}")
        if not 0 < self.jaccard <= 1 or not 0 < self.share <= 1:
            raise FilterError(f"expected jaccard and share in (0, 1], got {self.jaccard} and {self.share}")

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        same = near_duplicates(corpus, bits=self.bits, least_quality=self.least_quality, cosine=self.cosine)
        image, caption = same[corpus.image_index], caption_codes(corpus)
        captions, images = _distinct(image, caption), _distinct(caption, image)
        by_image, by_caption = captions / np.median(captions), images / np.median(images)
        more = by_image >= by_caption
        said, which = np.unique(np.where(more, captions, -images), return_inverse=True)  # one text for all that say so
        reason = np.array(
            [f"its image has {c} captions" if c > 0 else f"its caption has {-c} images" for c in said.tolist()], object
        )[which]
        every, ratio = np.arange(len(corpus)), _ratio(corpus.clean, image)
        groups = [
            *_most(corpus, every, image, captions, "captions of one image"),
            *_most(
                corpus,
                every,
                caption,
                images,
                "images of one caption",
                natural=_natural(corpus.clean, caption, image, ratio),
            ),
            *self._nearly_one(corpus, caption, image),
        ]
        return Evidence(np.maximum(by_image, by_caption), reason, groups=tuple(groups))

    def _nearly_one(self, corpus: Corpus, caption: np.ndarray, image: np.ndarray) -> Iterator[Group]:
        """Captions that are nearly one and have surprisingly many images, among the worst of all and of clean pairs."""
        rows = np.flatnonzero(corpus.mismatch >= np.quantile(corpus.mismatch[~corpus.clean], 1 - self.share))
        _, first, which = np.unique(caption[rows], return_index=True, return_inverse=True)
        texts = _folded(corpus.known_pairs.text.take(pa.array(rows[first])))
        near = near_captions(texts.to_pylist(), jaccard=self.jaccard)[which]
        natural = _natural(corpus.clean[rows], near, image[rows], _ratio(corpus.clean, image))
        yield from _most(
            corpus, rows, near, _distinct(near, image[rows]), "images of nearly one caption", natural=natural
        )


def _most(
    corpus: Corpus,
    rows: np.ndarray,
    of: np.ndarray,
    count: np.ndarray,
    kind: str,
    *,
    natural: np.ndarray | float = 0.0,
) -> Iterator[Group]:
    """The things that have surprisingly many, as one group. What speaks for it are pairs that do not fit either.

    `of`, `count` and `natural` are those of the pairs at `rows`.
    """
    clean = corpus.clean[rows]
    ours = rows[~clean]
    things, first = np.unique(of[~clean], return_index=True)
    counts = np.where(count > natural, count, 0)[~clean][first]
    usual = count[clean] if clean.any() else counts
    strength, many = scan_strength(counts, float(usual.mean()))
    if strength == 0:
        return
    most = np.argsort(-counts, kind="stable")[:many]
    members = ours[np.isin(of[~clean], things[most])]
    tail = members[corpus.mismatch[members] > np.median(corpus.mismatch)]
    value = corpus.known_pairs.text[int(members[0])].as_py() or ""
    yield Group(kind, value, strength, many, int(counts[most].min()), float(usual.mean()), 0.0, members, tail)


def caption_codes(corpus: Corpus) -> np.ndarray:
    """A number for each distinct caption, case and spaces folded: (n,)."""
    folded = _folded(corpus.known_pairs.text).dictionary_encode().unify_dictionaries().combine_chunks()
    return folded.indices.to_numpy().astype(np.int64)


def _folded(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Captions with case and spaces folded."""
    parts = [pa.array([], pa.string())]
    for low in range(0, len(texts), _FOLDED):
        some = texts.slice(low, _FOLDED).to_pylist()
        parts.append(pa.array([" ".join((text or "").lower().split()) for text in some], pa.string()))
    return pa.chunked_array(parts)


def near_duplicates(corpus: Corpus, *, bits: int, least_quality: int, cosine: float) -> np.ndarray:
    """For each image the number of the group of near-duplicates that it is in: (m,)."""
    import faiss

    if corpus.pixels is None:
        return similar_images(corpus, cosine)
    hashed = np.flatnonzero(corpus.pixels.quality >= least_quality)
    index = faiss.IndexBinaryFlat(256)
    index.add(corpus.pixels.hash[hashed])  # type: ignore[call-arg]
    edges = []
    for low in range(0, len(hashed), _QUERIES):
        limits, _, hit = index.range_search(corpus.pixels.hash[hashed[low : low + _QUERIES]], bits + 1)
        query = np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64))) + low
        edges.append(np.stack([hashed[query], hashed[hit]]))
    return _components(edges, corpus.images)


def similar_images(corpus: Corpus, cosine: float) -> np.ndarray:
    """Groups of images whose embeddings are at least so similar, joined transitively: (m,).

    Candidates are near in few directions, which embeddings so similar always are; beyond 20,000 images they are looked
    for in the nearest of inverted lists, where some may be missed.
    """
    import faiss

    small, rows = corpus.small_images, corpus.embeddings.image
    index = faiss.IndexFlatL2(small.shape[1])
    if len(small) > _WHOLE:
        index = faiss.IndexIVFFlat(index, small.shape[1], min(int(4 * len(small) ** 0.5), len(small) // 64))
        index.nprobe = _PROBES
        index.train(small[corpus.image_order[:: max(1, len(small) // 100_000)]])
    index.add(small)
    edges = []
    for low in range(0, len(small), _QUERIES):
        limits, _, hit = index.range_search(small[low : low + _QUERIES], 2 * (1 - cosine) + 1e-5)
        query = np.repeat(np.arange(len(limits) - 1), np.diff(limits.astype(np.int64))) + low
        query, hit = query[query != hit], hit[query != hit]
        for start in range(0, len(hit), _COMPARED):
            first, second = query[start : start + _COMPARED], hit[start : start + _COMPARED]
            alike = np.einsum("pd,pd->p", rows[first], rows[second]) >= cosine
            edges.append(np.stack([first[alike], second[alike]]))
    return _components(edges, len(small))


def _components(edges: list[np.ndarray], count: int) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first, second = np.concatenate(edges, axis=1) if edges else np.empty((2, 0), np.int64)
    graph = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _ratio(clean: np.ndarray, image: np.ndarray) -> float:
    """How many images there are for each clean one."""
    return len(np.unique(image)) / max(1, len(np.unique(image[clean])))


def _natural(clean: np.ndarray, caption: np.ndarray, image: np.ndarray, ratio: float) -> np.ndarray:
    """How many images the caption of each pair may have by its images among the `clean` pairs: (n,), 0 without them.

    The upper limit of a Poisson count at the level at which groups are flagged, scaled from the clean images to all
    (`ratio`).
    """
    from scipy.stats import chi2

    if not clean.any():
        return np.zeros(len(caption))
    of, what = caption[clean], image[clean]
    count = np.bincount(_both(of, what)[0], minlength=int(caption.max()) + 1)
    return (ratio * chi2.isf(10.0**-_FLAG, 2 * (count + 1)) / 2)[caption]


def _distinct(of: np.ndarray, what: np.ndarray) -> np.ndarray:
    """For each pair, how many distinct `what` its `of` has: (n,)."""
    return np.bincount(_both(of, what)[0], minlength=int(of.max()) + 1)[of]


def _both(of: np.ndarray, what: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct pairs of numbers in two arrays."""
    size = int(what.max()) + 1
    return np.divmod(np.unique(of * size + what), size)
