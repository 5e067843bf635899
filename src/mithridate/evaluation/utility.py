"""What the model is still good for: retrieval of each image's own captions, and of each caption's own image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from mithridate.encoder.embeddings import Embeddings
from mithridate.metrics.ranks import ranks_both_ways
from mithridate.report.document import Cell
from mithridate.statistics.differences import rate_over

RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class RetrievalRanks:
    """0-based ranks, multi-caption throughout. `image_to_text` (m,): best own caption of each image among all
    captions; `text_to_image` (n,): each caption's image among all images."""

    image_to_text: Int[np.ndarray, " m"]
    text_to_image: Int[np.ndarray, " n"]


def retrieval_ranks(embeddings: Embeddings) -> RetrievalRanks:
    """Rank both ways. Ties count against the right answer."""
    index = embeddings.image_index.astype(np.int64)
    text_to_image, image_to_text = ranks_both_ways(embeddings.text, embeddings.image, index)
    return RetrievalRanks(image_to_text, text_to_image)


def own_captions(image_index: Int[np.ndarray, " n"]) -> Int[np.ndarray, "m c"]:
    """For each image the rows of its captions, padded with -1 to the largest number of them."""
    order = np.argsort(image_index, kind="stable")
    counts = np.bincount(image_index)
    start = np.concatenate([[0], np.cumsum(counts)[:-1]])
    own = np.full((len(counts), counts.max()), -1, dtype=np.int64)
    own[image_index[order], np.arange(len(order)) - start[image_index[order]]] = order
    return own


def recall(ranks: RetrievalRanks, k: int) -> dict[str, float]:
    """Recall@K of text retrieval (`tr`) and image retrieval (`ir`) over all images and captions."""
    return {"tr": float((ranks.image_to_text < k).mean()), "ir": float((ranks.text_to_image < k).mean())}


def utility_columns() -> tuple[str, ...]:
    """Column names of a utility table."""
    both = [f"{way}@{k}" for way in ("TR", "IR") for k in RECALLS]
    return ("model", "images of", "images", "captions", *both)


def utility_row(
    model: str, group: str, ranks: RetrievalRanks, *, pairs: Bool[np.ndarray, " n"], image_index: Int[np.ndarray, " n"]
) -> tuple[Cell, ...]:
    """Recall over the queries of one group; `pairs` (n,) marks it, the galleries stay whole. Intervals: over images."""
    images = np.unique(image_index[pairs])
    ways = ((ranks.image_to_text[images], images), (ranks.text_to_image[pairs], image_index[pairs]))
    cells = [rate_over(way < k, image) if len(way) else None for way, image in ways for k in RECALLS]
    return (model, group, len(images), int(pairs.sum()), *cells)
