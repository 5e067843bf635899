"""The k nearest rows of a gallery for each query: exact, a block of queries and a chunk of the gallery at a time.

Products are in bf16 where the processor multiplies it. What is left out after them is bounded: a row can only be among
the k nearest if its rounded product is within the rounding error of them, so the few candidates that are scored again
in float32 either prove to hold the answer, or the query is searched again in float32.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_QUERIES = 512  # whose products with the whole gallery are in memory at once: 1 GiB for a million rows in bf16
_CHUNK, _GROUPS = 4096, 128  # rows of the gallery in one product, and groups of them, each represented by its best
_SPARE = 16  # candidates beyond k that are scored again


def nearest_neighbours(
    query: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    k: int,
    *,
    own: Int[np.ndarray, " q"] | None = None,
    low_precision: bool | None = None,
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """Rows of the gallery with the largest products with each query, best first, and the products.

    `own` names a row for each query that does not count: itself, where a set is searched for its own neighbours.
    `low_precision`: whether the first products are in bf16, by default where that is fast; the result is the same but
    for rows whose products differ by less than float32 tells apart. Raises `ValueError` where the gallery has fewer
    than k rows that count.
    """
    if not 1 <= k <= len(gallery) - (own is not None):
        raise ValueError(f"k must lie between 1 and the rows that count ({len(gallery) - (own is not None)}), got {k}")
    if low_precision is None:
        low_precision = multiplies_bf16()
    rows, left = torch.from_numpy(gallery), torch.from_numpy(query)
    small = rows.bfloat16() if low_precision else rows
    norm = _largest_norm(rows)
    lost = _largest_norm(rows, small) if low_precision else 0.0
    # one for all blocks: memory that is given back and taken again is filled with zeros each time
    space = small.new_empty(-(-len(rows) // _CHUNK), min(_QUERIES, len(query)), _CHUNK // _GROUPS, _GROUPS)
    ids, scores = np.empty((len(query), k), np.int64), np.empty((len(query), k), np.float32)
    with torch.no_grad():
        for low in range(0, len(query), _QUERIES):
            block = left[low : low + _QUERIES]
            without = None if own is None else torch.from_numpy(own[low : low + _QUERIES])
            found, values, proven = _search(block, rows, small, k, without, norm, lost, space)
            again = torch.nonzero(~proven)[:, 0]
            if len(again):
                rest = None if without is None else without[again]
                wide = rows.new_empty(len(space), len(again), *space.shape[2:])
                found[again], values[again], _ = _search(block[again], rows, rows, k, rest, norm, 0.0, wide)
            ids[low : low + len(block)], scores[low : low + len(block)] = found.numpy(), values.numpy()
    return ids, scores


def multiplies_bf16() -> bool:
    """Whether the processor has instructions for products in bf16; without them they are emulated, and slow."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def _largest_norm(rows: Float[Tensor, "g d"], rounded: Tensor | None = None) -> float:
    """The largest length of a row; with `rounded`, of what rounding took from one."""
    blocks = range(0, len(rows), _CHUNK)
    taken = (rows[i : i + _CHUNK] - (0 if rounded is None else rounded[i : i + _CHUNK].float()) for i in blocks)
    return max(float(block.norm(dim=1).max()) for block in taken)


def _search(
    query: Float[Tensor, "b d"],
    gallery: Float[Tensor, "g d"],
    small: Float[Tensor, "g d"],
    k: int,
    own: Int[Tensor, " b"] | None,
    norm: float,
    lost: float,
    space: Float[Tensor, "chunks q size groups"],
) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k"], Tensor]:
    """Neighbours by products with `small`, scored again with `gallery`; and for which queries they are proven."""
    left = query.to(small.dtype)
    rows, rounded = best_products(left, small, min(k + _SPARE, len(gallery)), space, own=own)
    exact = torch.bmm(gallery[rows], query[:, :, None])[:, :, 0]
    exact.masked_fill_(rounded == -torch.inf, -torch.inf)  # what does not count, or only fills the last chunk up
    values, at = exact.topk(k, dim=1)
    if small.dtype == gallery.dtype or rows.shape[1] == len(gallery):
        return rows.gather(1, at), values, torch.ones(len(query), dtype=torch.bool)
    # |ab - a'b'| <= |a - a'||b| + |a'||b - b'|; then the product was rounded to eight bits, its sum to 24
    length, last = query.norm(dim=1), rounded[:, -1].float()
    error = (query - left.float()).norm(dim=1) * norm + left.float().norm(dim=1) * lost
    error += last.abs() * 2.0**-8 + length * norm * 1e-5
    return rows.gather(1, at), values, last + error < values[:, -1]


def best_products(
    query: Float[Tensor, "b d"],
    gallery: Float[Tensor, "g d"],
    kept: int,
    space: Float[Tensor, "chunks q size groups"],
    *,
    own: Int[Tensor, " b"] | None = None,
) -> tuple[Int[Tensor, "b kept"], Float[Tensor, "b kept"]]:
    """The `kept` largest products of each query, largest first: rows in order, products as computed into `space`.

    Products are of the type of `query`; of the gallery a chunk of `size * groups` rows at a time is converted. The best
    few are in the best few groups, so that most products are only compared within their group.
    """
    b, (chunks, room, size, groups) = len(query), space.shape
    width, device = size * groups, query.device
    best = query.new_empty(b, chunks, groups)
    every = torch.arange(b, device=device)
    for c in range(chunks):
        chunk = gallery[c * width : (c + 1) * width].to(query.dtype)
        product = space[c, :b].view(b, width)
        if len(chunk) == width:
            torch.mm(query, chunk.T, out=product)
        else:
            product.fill_(-torch.inf)[:, : len(chunk)] = query @ chunk.T
        if own is not None:
            here = (own >= c * width) & (own < (c + 1) * width)
            product[every[here], own[here] - c * width] = -torch.inf
        best[:, c] = space[c, :b].amax(dim=1)
    at = best.view(b, -1).topk(min(kept, chunks * groups), dim=1).indices[:, :, None]
    c, group = at // groups, at % groups
    inside = group + groups * torch.arange(size, device=device)  # (b, kept, size) rows of the chunk
    found = space.view(-1)[(c * room + every[:, None, None]) * width + inside].view(b, -1)
    value, place = found.topk(kept, dim=1)
    # what fills the last chunk up is never among the k best: it stands for the last row
    return (c * width + inside).view(b, -1).gather(1, place).clamp(max=len(gallery) - 1), value
