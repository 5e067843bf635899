"""The nearest row of a pool for each query, a chunk of the pool at a time."""

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CHUNK = 2048  # rows of the pool; at CLIP's widths they stay in a core's cache
_GROUPS = 64  # of a chunk's rows, each represented by its best
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
def _space(chunks: int, b: int, size: int, device: torch.device) -> Tensor:
    """Room for all products, kept from step to step: memory taken anew is filled with zeros first, a sixth of the time.

    Only what a call has written itself is read.
    """
    return torch.empty(chunks, b, size, _GROUPS, dtype=torch.bfloat16, device=device)


def _nearest_bf16(query: Tensor, pool: Tensor) -> Tensor:
    """The best few are in the best few groups: most scores are only compared within their group."""
    b, chunks, size = len(query), -(-len(pool) // _CHUNK), _CHUNK // _GROUPS
    small = query.bfloat16()
    scores = _space(chunks, b, size, query.device)
    best = small.new_empty(b, chunks, _GROUPS)
    for c in range(chunks):
        chunk = pool[c * _CHUNK : (c + 1) * _CHUNK].bfloat16()
        product = scores[c].view(b, _CHUNK)
        if len(chunk) == _CHUNK:
            torch.mm(small, chunk.T, out=product)
        else:
            product.fill_(-torch.inf)[:, : len(chunk)] = small @ chunk.T
        best[:, c] = scores[c].amax(dim=1)
    at = best.view(b, -1).topk(_KEPT, dim=1).indices[:, :, None]  # (b, kept, 1)
    c, group = at // _GROUPS, at % _GROUPS
    inside = group + _GROUPS * torch.arange(size, device=query.device)  # (b, kept, size) rows of the chunk
    every = torch.arange(b, device=query.device)[:, None, None]
    found = scores.view(-1)[(c * b + every) * _CHUNK + inside].view(b, -1)
    kept = found.topk(_KEPT, dim=1).indices
    # what fills the last chunk up stands for the last row
    rows = (c * _CHUNK + inside).view(b, -1).gather(1, kept).clamp(max=len(pool) - 1).sort(dim=1).values
    exact = torch.bmm(pool[rows], query[:, :, None])[:, :, 0]
    return rows.gather(1, exact.argmax(dim=1, keepdim=True))[:, 0]  # of equal ones the first
