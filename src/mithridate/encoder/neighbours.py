"""The k nearest rows of a gallery for each query, or of a set for each of its own: exact, a block at a time.

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
_TILE = 4096  # rows whose products with as many others are in memory at once, where a set is searched for its own
_SPARE = 16  # candidates beyond k that are scored again


def nearest_neighbours(
    query: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    k: int,
    *,
    low_precision: bool | None = None,
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """Rows of the gallery with the largest products with each query, best first, and the products.

    `low_precision`: whether the first products are in bf16, by default where that is fast; the result is the same but
    for rows whose products differ by less than float32 tells apart. Raises `ValueError` where the gallery has fewer
    than k rows.
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must lie between 1 and the {len(gallery)} rows of the gallery, got {k}")
    rows, left = torch.from_numpy(gallery), torch.from_numpy(query)
    exact = _Exact(rows, k, low_precision)
    ids, scores = np.empty((len(query), k), np.int64), np.empty((len(query), k), np.float32)
    # one for all blocks: memory that is given back and taken again is filled with zeros each time
    space = _space(exact.small, min(_QUERIES, len(query)))
    with torch.no_grad():
        for low in range(0, len(query), _QUERIES):
            block = left[low : low + _QUERIES]
            found, rounded = best_products(block.to(space.dtype), exact.small, exact.kept, space)
            found, values = exact.scored(block, found, rounded)
            ids[low : low + len(block)], scores[low : low + len(block)] = found.numpy(), values.numpy()
    return ids, scores


def neighbours_within(
    rows: Float[np.ndarray, "n d"], k: int, *, low_precision: bool | None = None
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """The k nearest others of every row of a set, best first, and the products; else as `nearest_neighbours`.

    Each product is taken once, for both of its rows. Raises `ValueError` where there are fewer than k others.
    """
    if not 1 <= k < len(rows):
        raise ValueError(f"k must lie between 1 and the {len(rows) - 1} other rows, got {k}")
    every = torch.from_numpy(rows)
    exact = _Exact(every, k, low_precision, others=True)
    ids, scores = np.empty((len(rows), k), np.int64), np.empty((len(rows), k), np.float32)
    with torch.no_grad():
        found, rounded = _best_within(exact.small, exact.kept)
        for low in range(0, len(rows), _QUERIES):
            here = slice(low, low + _QUERIES)
            block, values = exact.scored(every[here], found[here], rounded[here], first=low)
            ids[here], scores[here] = block.numpy(), values.numpy()
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


class _Exact:
    """A gallery, with what is multiplied in its place, and how the few that are found so become the exact k.

    `others`: queries are rows of the gallery, which do not count themselves.
    """

    def __init__(self, rows: Float[Tensor, "g d"], k: int, low_precision: bool | None, *, others: bool = False) -> None:
        low = multiplies_bf16() if low_precision is None else low_precision
        self.rows, self.k, self.others = rows, k, others
        self.small = rows.bfloat16() if low else rows
        self.kept = min(k + _SPARE, len(rows) - others) if low else k
        self.norm, self.lost = (_largest_norm(rows), _largest_norm(rows, self.small)) if low else (0.0, 0.0)

    def scored(
        self,
        query: Float[Tensor, "b d"],
        found: Int[Tensor, "b kept"],
        rounded: Float[Tensor, "b kept"],
        first: int = 0,
    ) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k"]]:
        """The k nearest of each query, of the candidates `found` with products `rounded`; `first`: its own row."""
        if self.small is self.rows:
            return found, rounded
        exact = torch.bmm(self.rows[found], query[:, :, None])[:, :, 0]
        values, at = exact.topk(self.k, dim=1)
        ids = found.gather(1, at)
        if self.kept == len(self.rows) - self.others:
            return ids, values
        # |ab - a'b'| <= |a - a'||b| + |a'||b - b'|; then the product was rounded to eight bits, its sum to 24
        left = query.to(self.small.dtype).float()
        length, last = query.norm(dim=1), rounded[:, -1].float()
        error = (query - left).norm(dim=1) * self.norm + left.norm(dim=1) * self.lost
        error += last.abs() * 2.0**-8 + length * self.norm * 1e-5
        again = torch.nonzero(last + error >= values[:, -1])[:, 0]
        if len(again):
            ids[again], values[again] = self._in_float32(query[again], again + first)
        return ids, values

    def _in_float32(
        self, query: Float[Tensor, "b d"], own: Int[Tensor, " b"]
    ) -> tuple[Int[Tensor, "b k"], Float[Tensor, "b k"]]:
        found, values = best_products(query, self.rows, self.k + self.others, _space(self.rows, len(query)))
        if not self.others:
            return found, values
        # last in line: the row itself, or what comes after the k others where it is not among the nearest
        turn = (found == own[:, None]).int().argsort(dim=1, stable=True)[:, : self.k]
        return found.gather(1, turn), values.gather(1, turn)


def _space(gallery: Float[Tensor, "g d"], queries: int) -> Float[Tensor, "chunks q size groups"]:
    return gallery.new_empty(-(-len(gallery) // _CHUNK), queries, _CHUNK // _GROUPS, _GROUPS)


def _best_within(rows: Float[Tensor, "n d"], kept: int) -> tuple[Int[Tensor, "n kept"], Float[Tensor, "n kept"]]:
    """The others with the `kept` largest products with each row, largest first; a tile of rows by rows at a time."""
    n = len(rows)
    best, ids = rows.new_full((n, kept), -torch.inf), torch.zeros(n, kept, dtype=torch.int64)
    tiles = [slice(low, min(low + _TILE, n)) for low in range(0, n, _TILE)]
    space = rows.new_empty(_TILE * _TILE)
    # each tile among itself first: from then on few products are larger than the smallest that is kept
    for apart in range(len(tiles)):
        for one, other in zip(tiles, tiles[apart:]):
            b, w = one.stop - one.start, other.stop - other.start
            product = torch.mm(rows[one], rows[other].T, out=space[: b * w].view(b, w))
            if not apart:
                few = min(kept, b - 1)
                values, at = product.fill_diagonal_(-torch.inf).topk(few, dim=1)
                best[one, :few], ids[one, :few] = values, at + one.start
                continue
            row, column = (product > best[one, -1:]).nonzero(as_tuple=True)
            later = (product > best[other, -1]).nonzero(as_tuple=True)
            turn = later[1].argsort(stable=True)
            back, up = later[0][turn], later[1][turn]
            _take(best[one], ids[one], row, column + other.start, product[row, column])
            _take(best[other], ids[other], up, back + one.start, product[back, up])
    return ids, best


def _take(
    best: Float[Tensor, "b kept"],
    ids: Int[Tensor, "b kept"],
    row: Int[Tensor, " m"],
    found: Int[Tensor, " m"],
    value: Float[Tensor, " m"],
) -> None:
    """Take `value`, product of `row` (ascending) with the row `found` of the set, among the best of `row`, in place."""
    kept, count = best.shape[1], torch.bincount(row, minlength=len(best))
    room = int(count.max())
    place = kept + torch.arange(len(row)) - (count.cumsum(0) - count)[row]
    values, at = best.new_full((len(best), kept + room), -torch.inf), ids.new_zeros(len(best), kept + room)
    values[:, :kept], at[:, :kept] = best, ids
    values[row, place], at[row, place] = value, found
    best[:], turn = values.topk(kept, dim=1)
    ids[:] = at.gather(1, turn)


def best_products(
    query: Float[Tensor, "b d"],
    gallery: Float[Tensor, "g d"],
    kept: int,
    space: Float[Tensor, "chunks q size groups"],
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
        best[:, c] = space[c, :b].amax(dim=1)
    at = best.view(b, -1).topk(min(kept, chunks * groups), dim=1).indices[:, :, None]
    c, group = at // groups, at % groups
    inside = group + groups * torch.arange(size, device=device)  # (b, kept, size) rows of the chunk
    found = space.view(-1)[(c * room + every[:, None, None]) * width + inside].view(b, -1)
    value, place = found.topk(kept, dim=1)
    # what fills the last chunk up is never among the k best: it stands for the last row
    return (c * width + inside).view(b, -1).gather(1, place).clamp(max=len(gallery) - 1), value
