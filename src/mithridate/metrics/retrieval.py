"""Ranks of retrieval: where targets stand for the queries of an attack, and each item's own for utility."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from mithridate.metrics.names import PRECISION_AT


@dataclass(frozen=True)
class TargetRanks:
    """Of q queries: 0-based rank of the best of t targets among g, and how many targets are in the first ten."""

    rank: Int[np.ndarray, " q"]
    in_top: Int[np.ndarray, " q"]
    targets: int
    gallery: int

    def hit(self, k: int) -> float:
        """Hit@K: share of queries with a target among the first K."""
        return float((self.rank < k).mean())


def target_ranks(
    query: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], targets: Int[np.ndarray, " t"]
) -> TargetRanks:
    """Rank the gallery for every query; `targets` are rows of it. Ties count against the targets."""
    from mithridate.metrics.ranks import ranks_and_top  # loads torch

    rank, in_top = ranks_and_top(query, gallery, targets, (PRECISION_AT,))
    return TargetRanks(rank, in_top[:, 0], len(targets), len(gallery))


@runtime_checkable
class PairedEmbeddings(Protocol):
    """Unit embeddings of m images and n captions, and the image of each caption (n,)."""

    @property
    def image(self) -> np.ndarray: ...
    @property
    def text(self) -> np.ndarray: ...
    @property
    def image_index(self) -> np.ndarray: ...


@dataclass(frozen=True)
class RetrievalRanks:
    """0-based ranks, multi-caption throughout. `image_to_text` (m,): best own caption of each image among all
    captions; `text_to_image` (n,): each caption's image among all images."""

    image_to_text: Int[np.ndarray, " m"]
    text_to_image: Int[np.ndarray, " n"]


def retrieval_ranks(embeddings: PairedEmbeddings) -> RetrievalRanks:
    """Rank both ways. Ties count against the right answer."""
    from mithridate.metrics.ranks import ranks_both_ways

    index = embeddings.image_index.astype(np.int64)
    text_to_image, image_to_text = ranks_both_ways(embeddings.text, embeddings.image, index)
    return RetrievalRanks(image_to_text, text_to_image)


def recall(ranks: RetrievalRanks, k: int) -> dict[str, float]:
    """Recall@K of text retrieval (`tr`) and image retrieval (`ir`) over all images and captions."""
    return {"tr": float((ranks.image_to_text < k).mean()), "ir": float((ranks.text_to_image < k).mean())}
