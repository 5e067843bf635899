"""Where targets stand in a ranking of a gallery by similarity: blockwise, exact, one rule for ties."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK_BYTES = 64 * 2**20


def best_ranks(
    query: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], targets: Int[np.ndarray, "..."]
) -> Int[np.ndarray, " q"]:
    """0-based position of each query's best target in the descending ranking of the gallery (mmPoison, section 3).

    `targets` are columns of the gallery, distinct: (t,) the same for all queries, or (q, t) for each its own, padded
    with -1. **Ties count against the targets**: the position is the number of non-targets whose similarity is at
    least the best target's. A model that embeds everything to one point thus retrieves nothing.
    Raises `ValueError` where a query has no target.
    """
    ranks = np.empty(len(query), dtype=np.int64)
    for rows, similarity, found in _blocks(query, gallery, targets):
        best = found.max(dim=1, keepdim=True).values
        # targets never stand in a target's way: those at the best similarity are taken out of the count again
        ahead = (similarity >= best).sum(dim=1) - (found >= best).sum(dim=1)
        ranks[rows] = ahead.cpu().numpy()
    return ranks


def targets_in_top(
    query: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    targets: Int[np.ndarray, " t"],
    ks: tuple[int, ...],
) -> Int[np.ndarray, "q k"]:
    """How many of the targets are among the first K of the ranking, for each K: the numerator of Precision@K.

    Ties count against the targets, as in `best_ranks`.
    """
    deepest = max(ks)
    counts = np.empty((len(query), len(ks)), dtype=np.int64)
    for rows, similarity, found in _blocks(query, gallery, targets):
        others = similarity.clone()
        others[:, torch.from_numpy(targets).to(others.device)] = -torch.inf
        # only what is ahead of position K matters, on either side
        others = others.topk(min(deepest, others.shape[1]), dim=1).values
        mine = found.topk(min(deepest, found.shape[1]), dim=1).values
        ahead = (others[:, None, :] >= mine[:, :, None]).sum(dim=2)
        position = ahead + torch.arange(mine.shape[1], device=ahead.device)
        counts[rows] = torch.stack([(position < k).sum(dim=1) for k in ks], dim=1).cpu().numpy()
    return counts


def top(
    query: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], k: int
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """The k most similar columns of the gallery for each query, best first, and their similarities."""
    similarity = torch.from_numpy(query) @ torch.from_numpy(gallery).T
    found = similarity.topk(min(k, len(gallery)), dim=1)
    return found.indices.numpy(), found.values.numpy()


def _blocks(
    query: np.ndarray, gallery: np.ndarray, targets: np.ndarray
) -> Iterator[tuple[slice, Float[Tensor, "b g"], Float[Tensor, "b t"]]]:
    """(rows, similarities to the whole gallery, similarities to the targets) of as many queries as fit in memory.

    The targets' similarities are taken from the same product: another one may round otherwise, and turn a tie.
    """
    if targets.size == 0 or (targets.ndim == 2 and (targets < 0).all(axis=1).any()):
        raise ValueError("a query has no target, so its rank is not defined")
    distinct, copy_of = _distinct(np.ascontiguousarray(gallery))
    columns = torch.from_numpy(distinct).T
    index = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.int64))
    size = max(1, _BLOCK_BYTES // (4 * max(1, len(gallery))))
    for low in range(0, len(query), size):
        rows = slice(low, min(low + size, len(query)))
        similarity = torch.from_numpy(np.ascontiguousarray(query[rows])) @ columns  # (b, g)
        if len(distinct) < len(gallery):
            similarity = similarity[:, copy_of]
        if index.ndim == 1:
            found = similarity[:, index]
        else:
            own = index[rows]
            found = similarity.gather(1, own.clamp(min=0)).masked_fill(own < 0, -torch.inf)
        yield rows, similarity, found


def _distinct(rows: Float[np.ndarray, "g d"]) -> tuple[Float[np.ndarray, "u d"], Int[Tensor, " g"]]:
    """The distinct rows, and which of them each row is; the rows as they are where no two are equal.

    A product rounds equal columns differently, by where they stand: what is equal must be multiplied once to tie.
    """
    keys = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).reshape(-1)
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return rows, torch.arange(len(rows))
    return rows[first], torch.from_numpy(index)
