"""The nearest row of a pool for each query, a chunk of the pool at a time."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mithridate.encoder.neighbours import best_products

_CHUNK, _GROUPS = 2048, 64  # rows of the pool, which at CLIP's widths stay in a core's cache, and groups of them
_KEPT = 8  # of the bf16 product, scored again in float32
_QUERIES = 1024  # whose scores are in memory at once


@torch.no_grad()
def nearest(
    query: Float[Tensor, "b d"], pool: Float[Tensor, "p d"], *, low_precision: bool = False
) -> Int[Tensor, " b"]:
    """The row of `pool` with the largest product with each query; the first of equal ones.

    `low_precision`: products in bf16, the best few of each query scored again in float32. Only a chunk of the pool is
    ever converted.
    """
    if not low_precision:
        return _nearest_float(query, pool)
    return torch.cat([_nearest_bf16(block, pool) for block in query.split(_QUERIES)])


def _nearest_float(query: Tensor, pool: Tensor) -> Tensor:
    best = query.new_full((len(query),), -torch.inf)
    at = torch.zeros(len(query), dtype=torch.int64, device=query.device)
    for low in range(0, len(pool), _CHUNK):
        score, row = (query @ pool[low : low + _CHUNK].T).max(dim=1)
        better = score > best
        best = torch.where(better, score, best)
        at = torch.where(better, row + low, at)
    return at


@lru_cache(maxsize=2)
def _space(chunks: int, b: int, device: torch.device) -> Tensor:
    """Room for all products, kept from step to step: memory taken anew is filled with zeros first, a sixth of the time.

    Only what a call has written itself is read.
    """
    return torch.empty(chunks, b, _CHUNK // _GROUPS, _GROUPS, dtype=torch.bfloat16, device=device)


def _nearest_bf16(query: Tensor, pool: Tensor) -> Tensor:
    space = _space(-(-len(pool) // _CHUNK), len(query), query.device)
    rows = best_products(query.bfloat16(), pool, min(_KEPT, len(pool)), space)[0].sort(dim=1).values
    exact = torch.bmm(pool[rows], query[:, :, None])[:, :, 0]
    return rows.gather(1, exact.argmax(dim=1, keepdim=True))[:, 0]  # of equal ones the first
