"""The nearest row of a pool for each query, a chunk of the pool at a time."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CHUNK = 2048  # at CLIP's widths a chunk and its scores stay in a core's cache
_KEPT = 8  # of the bf16 product, scored again in float32


@torch.no_grad()
def nearest(
    query: Float[Tensor, "b d"], pool: Float[Tensor, "p d"], *, low_precision: bool = False
) -> Int[Tensor, " b"]:
    """The row of `pool` with the largest product with each query; the first of equal ones.

    `low_precision`: products in bf16, the best few of each query scored again in float32. Only a chunk of the pool is
    ever converted.
    """
    return _nearest_bf16(query, pool) if low_precision else _nearest_float(query, pool)


def _nearest_float(query: Tensor, pool: Tensor) -> Tensor:
    best = query.new_full((len(query),), -torch.inf)
    at = torch.zeros(len(query), dtype=torch.int64, device=query.device)
    for low in range(0, len(pool), _CHUNK):
        score, row = (query @ pool[low : low + _CHUNK].T).max(dim=1)
        better = score > best
        best = torch.where(better, score, best)
        at = torch.where(better, row + low, at)
    return at


def _nearest_bf16(query: Tensor, pool: Tensor) -> Tensor:
    small = query.bfloat16()
    scores, rows = [], []
    for low in range(0, len(pool), _CHUNK):
        chunk = pool[low : low + _CHUNK].bfloat16()
        score, row = (small @ chunk.T).topk(min(4, len(chunk)), dim=1)
        scores.append(score)
        rows.append(row + low)
    found = torch.cat(rows, dim=1)
    kept = torch.cat(scores, dim=1).topk(min(_KEPT, found.shape[1]), dim=1).indices
    found = found.gather(1, kept).sort(dim=1).values  # of equal ones the first
    exact = torch.einsum("bkd,bd->bk", pool[found], query)
    return found.gather(1, exact.argmax(dim=1, keepdim=True))[:, 0]
