"""Ranks of a gallery by similarity: blockwise, exact, one rule for ties.

Similarities are computed in tiles of one shape and compared while a tile is in the processor's cache; whatever is
asked of the same embeddings (an attack's targets, recall both ways) is answered from one product: see `sweep`.

How a target is compared. Its similarity is taken from a product of the very tile that it stands in, never from another
product: a library rounds otherwise for another shape, always to the same side for nearly equal vectors, so that an
encoder that has all but collapsed would get perfect ranks, or none. Where a tile is computed a second time, what was
read from it first is written back into it, so every similarity is compared as one and the same number even if the
library does not repeat itself. What is equal to the last bit is multiplied once, and so ties.
"""

from collections.abc import Iterator
from itertools import pairwise
from math import isqrt

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK_BYTES = 4 * 2**20  # a tile of 1024 x 1024: smaller products are slower, a larger one leaves the cache


def best_ranks(
    query: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], targets: Int[np.ndarray, "..."]
) -> Int[np.ndarray, " q"]:
    """0-based position of each query's best target in the descending ranking of the gallery (mmPoison, section 3).

    `targets` are columns of the gallery, distinct: (t,) the same for all queries, or (q, t) for each its own, padded
    with -1. **Ties count against the targets**: the position is the number of non-targets whose similarity is at
    least the best target's. A model that embeds everything to one point thus retrieves nothing.
    Raises `ValueError` where a query has no target.
    """
    return sweep(query, gallery, targets=targets)[0]


def ranks_both_ways(
    text: Float[np.ndarray, "n d"], image: Float[np.ndarray, "m d"], index: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """(rank of each text's own image among the images, rank of each image's best own text among the texts).

    `index` (n,) names the image of each text; every image has one text at least. Both ways come from one product.
    """
    return sweep(text, image, own=index)[1:]


def targets_in_top(
    query: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    targets: Int[np.ndarray, " t"],
    ks: tuple[int, ...],
) -> Int[np.ndarray, "q k"]:
    """How many of the targets are among the first K of the ranking, for each K: the numerator of Precision@K.

    Ties count against the targets, as in `best_ranks`.
    """
    return ranks_and_top(query, gallery, targets, ks)[1]


def ranks_and_top(
    query: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    targets: Int[np.ndarray, " t"],
    ks: tuple[int, ...],
) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, "q k"]]:
    """`best_ranks` and `targets_in_top` of one product."""
    columns = _Side(gallery, _first(targets, len(gallery)))
    rows = _Side(query, np.arange(len(query)))
    question = _Targets(columns, targets, len(query), deepest=max(ks))
    _run(rows, columns, question, None)
    position = question.ahead_of_each() + np.arange(min(max(ks), len(targets)))  # (q, r)
    return question.ahead.numpy(), np.stack([(position < k).sum(axis=1) for k in ks], axis=1)


def sweep(
    query: Float[np.ndarray, "q d"],
    gallery: Float[np.ndarray, "g d"],
    *,
    targets: Int[np.ndarray, "..."] | None = None,
    own: Int[np.ndarray, " q"] | None = None,
) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"], Int[np.ndarray, " c"]]:
    """Two questions to one product: `best_ranks` for `targets`, `ranks_both_ways` for `own`; empty what is not asked.

    Takes the time of the bare product and a few per cent, and the memory of a copy of both sides.
    """
    none = np.empty(0, np.int64)
    columns = _Side(gallery, _first(none if targets is None else targets, len(gallery)))
    nearest = columns.place[own if own is not None else _padded(targets, len(query))[:, 0]]
    rows = _Side(query, np.argsort(nearest, kind="stable"))  # queries of a tile have their targets in few tiles
    asked = None if targets is None else _Targets(columns, targets, len(query))
    both = None if own is None else _BothWays(rows, columns, own)
    _run(rows, columns, asked, both)
    return (
        none if asked is None else asked.ahead.numpy(),
        none if both is None else both.ahead.numpy(),
        none if both is None else both.behind.numpy(),
    )


def top(
    query: Float[np.ndarray, "q d"], gallery: Float[np.ndarray, "g d"], k: int
) -> tuple[Int[np.ndarray, "q k"], Float[np.ndarray, "q k"]]:
    """The k most similar columns of the gallery for each query, best first, and their similarities."""
    similarity = torch.from_numpy(query) @ torch.from_numpy(gallery).T
    found = similarity.topk(min(k, len(gallery)), dim=1)
    return found.indices.numpy(), found.values.numpy()


class _Side:
    """Queries or gallery: the distinct rows in tiles of one size, and which rows of the input each stands for."""

    def __init__(self, vectors: Float[np.ndarray, "n d"], order: Int[np.ndarray, " n"]) -> None:
        first, copy_of = _distinct(vectors)
        appeared = np.unique(copy_of[order], return_index=True)[1]  # (u,)
        sequence = np.argsort(appeared)
        place = np.empty(len(first), np.int64)
        place[sequence] = np.arange(len(first))
        self.place: Int[np.ndarray, " n"] = place[copy_of]
        self.side = max(1, isqrt(_BLOCK_BYTES // 4))
        self.tiles = -(-len(first) // self.side)
        self.size = -(-len(first) // max(1, self.tiles))
        # the last tile is filled up with zeros: all products have one shape
        self.vectors = torch.zeros(self.tiles * self.size, vectors.shape[1], dtype=torch.from_numpy(vectors[:1]).dtype)
        for low in range(0, len(first), self.size):
            chosen = first[sequence[low : low + self.size]]
            self.vectors[low : low + len(chosen)] = torch.from_numpy(vectors[chosen])
        by_place = np.argsort(self.place, kind="stable")
        bounds = np.searchsorted(self.place[by_place], np.arange(self.tiles + 1) * self.size)
        self._members = [by_place[low:high] for low, high in pairwise(bounds)]

    def tile(self, number: int) -> Float[Tensor, "size d"]:
        return self.vectors[number * self.size : (number + 1) * self.size]

    def members(self, number: int) -> Int[np.ndarray, " k"]:
        """Rows of the input whose vectors are in this tile, in order of place."""
        return self._members[number]

    def parts(self, number: int, tile: Tensor, dim: int) -> Iterator[tuple[Int[Tensor, " k"], Tensor]]:
        """Rows of the input with their similarities: first one for each place, then the copies, if any."""
        rows = self._members[number]
        position = self.place[rows] - number * self.size
        leads = np.diff(position, prepend=-1) > 0
        yield torch.from_numpy(rows[leads]), tile.narrow(dim, 0, int(leads.sum()))
        copies = np.flatnonzero(~leads)
        # not `size` at once: of a collapsed encoder it is 1
        for low in range(0, len(copies), self.side):
            chosen = copies[low : low + self.side]
            yield torch.from_numpy(rows[chosen]), tile.index_select(dim, torch.from_numpy(position[chosen]))


class _Targets:
    """How many others are ahead of each query's best target: `ahead` (q,).

    With `deepest`, for targets that all queries share: also how many are ahead of each of the first `deepest`.
    """

    def __init__(self, columns: _Side, targets: np.ndarray, queries: int, *, deepest: int = 0) -> None:
        self._columns, self._targets = columns, _padded(targets, queries)
        self.best = torch.empty(queries, dtype=columns.vectors.dtype)
        self.ahead = torch.zeros(queries, dtype=torch.int64)
        self._deepest = deepest
        if deepest:
            self._is_target = torch.zeros(len(columns.place), dtype=torch.bool)
            self._is_target[torch.from_numpy(targets)] = True
            self._mine = torch.full((queries, min(deepest, len(targets))), -torch.inf, dtype=self.best.dtype)
            self._others = torch.full((queries, deepest), -torch.inf, dtype=self.best.dtype)

    def tiles(self, rows: Int[np.ndarray, " k"]) -> list[int]:
        """The tiles in which targets of these queries stand."""
        targets = self._targets[rows]
        return np.unique(self._columns.place[targets[targets >= 0]] // self._columns.size).tolist()

    def begin(self, rows: Int[np.ndarray, " k"], positions: Int[np.ndarray, " k"]) -> None:
        """Forget the previous tile of queries; these stand at `positions` of theirs."""
        targets = self._targets[rows]
        self._rows, self._positions = torch.from_numpy(rows), positions
        self._places = np.where(targets >= 0, self._columns.place[targets], -1)
        self._found = torch.full(targets.shape, -torch.inf, dtype=self.best.dtype)

    def _where(self, c: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Places of the targets in tile c: in the table of targets, in the tile."""
        size = self._columns.size
        i, k = np.nonzero((self._places >= c * size) & (self._places < (c + 1) * size))
        at = torch.from_numpy(self._positions[i]), torch.from_numpy(self._places[i, k] - c * size)
        return (torch.from_numpy(i), torch.from_numpy(k)), at

    def read(self, c: int, tile: Tensor) -> None:
        here, there = self._where(c)
        self._found[here] = tile[there]

    def restore(self, c: int, tile: Tensor) -> None:
        here, there = self._where(c)
        tile[there] = self._found[here]

    def ready(self) -> None:
        """All targets of these queries are read."""
        best = self._found.max(dim=1).values
        self.best[self._rows] = best
        # targets never stand in a target's way: those at the best similarity are taken out of the count again
        self.ahead[self._rows] = -(self._found >= best[:, None]).sum(dim=1)
        if self._deepest:
            self._mine[self._rows] = self._found.topk(self._mine.shape[1], dim=1).values

    def count(self, similarity: Tensor, mine: Tensor, theirs: Tensor, flags: Tensor) -> None:
        self.ahead[mine] += torch.ge(similarity, self.best[mine][:, None], out=flags).sum(dim=1).long()
        if not self._deepest:
            return
        # A query whose best target is out of reach has no target in the top; for most that is so after one tile. The
        # targets at the best similarity are in `ahead` with a minus until their tile is counted: the first.
        alive = self.ahead[mine] < self._deepest
        if alive.any():
            others = similarity[alive].masked_fill(self._is_target[theirs], -torch.inf)
            others = torch.cat([self._others[mine[alive]], others], dim=1)
            self._others[mine[alive]] = others.topk(self._deepest, dim=1).values

    def ahead_of_each(self) -> Int[np.ndarray, "q r"]:
        """How many others are ahead of each of the best targets, best first; exact up to `deepest`."""
        deep = (self._others[:, None, :] >= self._mine[:, :, None]).sum(dim=2)
        return torch.maximum(deep, self.ahead[:, None]).numpy()


class _BothWays:
    """How many are ahead of each query's own column, and of each column's best own query: `ahead`, `behind`."""

    def __init__(self, rows: _Side, columns: _Side, own: Int[np.ndarray, " q"]) -> None:
        if len(np.unique(own)) < len(columns.place):
            raise ValueError("a row of the gallery has no query of its own, so its rank is not defined")
        self._rows, self._columns, self._own = rows, columns, own.astype(np.int64)
        self._values = torch.empty(len(own), dtype=columns.vectors.dtype)
        self.ahead = torch.full((len(own),), -1, dtype=torch.int64)  # its own column does not stand in its way
        self.behind = torch.zeros(len(columns.place), dtype=torch.int64)
        self._where = [self._targets(r) for r in range(rows.tiles)]

    def _targets(self, r: int) -> dict[int, tuple[Tensor, tuple[Tensor, Tensor]]]:
        """For each tile of columns that the queries of tile r belong to: these queries, and the places in the tile."""
        queries = self._rows.members(r)
        places = self._columns.place[self._own[queries]]
        found = {}
        for c in np.unique(places // self._columns.size).tolist():
            here = places // self._columns.size == c
            at = self._rows.place[queries[here]] - r * self._rows.size, places[here] - c * self._columns.size
            found[c] = torch.from_numpy(queries[here]), (torch.from_numpy(at[0]), torch.from_numpy(at[1]))
        return found

    def tiles(self, r: int) -> list[int]:
        return list(self._where[r])

    def read(self, r: int, c: int, tile: Tensor) -> None:
        queries, there = self._where[r][c]
        self._values[queries] = tile[there]

    def restore(self, r: int, c: int, tile: Tensor) -> None:
        if c in self._where[r]:
            queries, there = self._where[r][c]
            tile[there] = self._values[queries]

    def ready(self) -> None:
        """The own columns of all queries are read."""
        index = torch.from_numpy(self._own)
        self.best = torch.full((len(self.behind),), -torch.inf, dtype=self._values.dtype)
        self.best.scatter_reduce_(0, index, self._values, "amax")
        self.behind.index_add_(0, index, -(self._values >= self.best[index]).long())

    def count(self, similarity: Tensor, mine: Tensor, theirs: Tensor, flags: Tensor) -> None:
        self.ahead[mine] += torch.ge(similarity, self._values[mine][:, None], out=flags).sum(dim=1).long()
        self.behind[theirs] += torch.ge(similarity, self.best[theirs], out=flags).sum(dim=0).long()


def _run(rows: _Side, columns: _Side, asked: _Targets | None, both: _BothWays | None) -> None:
    """One product of all tiles, and those tiles once more that hold targets which must be known before."""
    product = torch.empty(rows.size, columns.size, dtype=columns.vectors.dtype)
    # a count is at most 1024: exact as a float, and comparing into floats is four times faster than into booleans
    flags = torch.empty(rows.side, columns.side, dtype=product.dtype)
    if both is not None:
        for r in range(rows.tiles):
            for c in both.tiles(r):
                both.read(r, c, torch.mm(rows.tile(r), columns.tile(c).T, out=product))
        both.ready()
    for r in range(rows.tiles):
        needed = []
        if asked is not None:
            queries = rows.members(r)
            asked.begin(queries, rows.place[queries] - r * rows.size)
            needed = asked.tiles(queries)
            for c in needed:
                torch.mm(rows.tile(r), columns.tile(c).T, out=product)
                if both is not None:
                    both.restore(r, c, product)
                asked.read(c, product)
            asked.ready()
        others = [c for c in range(columns.tiles) if c not in needed]
        for c in [*reversed(needed), *others]:
            if c not in needed[-1:]:  # the last of those needed still stands in `product`
                torch.mm(rows.tile(r), columns.tile(c).T, out=product)
                if both is not None:
                    both.restore(r, c, product)
                if asked is not None and c in needed:
                    asked.restore(c, product)
            for mine, part in rows.parts(r, product, dim=0):
                for theirs, similarity in columns.parts(c, part, dim=1):
                    out = flags[: len(mine), : len(theirs)]
                    for question in (asked, both):
                        if question is not None:
                            question.count(similarity, mine, theirs, out)


def _padded(targets: Int[np.ndarray, "..."] | None, queries: int) -> Int[np.ndarray, "q t"]:
    """Targets of each query, padded with -1."""
    if targets is None or targets.size == 0 or (targets.ndim == 2 and (targets < 0).all(axis=1).any()):
        raise ValueError("a query has no target, so its rank is not defined")
    return np.broadcast_to(targets, (queries, len(targets))) if targets.ndim == 1 else targets


def _first(targets: Int[np.ndarray, "..."], gallery: int) -> Int[np.ndarray, " g"]:
    """Order of the gallery in which targets that all queries share stand first, and so in few tiles."""
    shared = np.zeros(gallery, bool)
    if targets.ndim == 1:
        shared[targets] = True
    return np.argsort(~shared, kind="stable")


def _distinct(rows: Float[np.ndarray, "n d"]) -> tuple[Int[np.ndarray, " u"], Int[np.ndarray, " n"]]:
    """Where each distinct row first stands, and which of them each row is.

    A product rounds equal columns differently, by where they stand: what is equal must be multiplied once to tie.
    """
    rows = np.ascontiguousarray(rows)
    # a sum of the bits tells most rows apart; sorting whole rows is slow
    bits = rows.view(np.uint32) if rows.itemsize == 4 else rows.view(np.uint64)
    _, found, counts = np.unique(bits.sum(axis=1, dtype=np.uint64), return_inverse=True, return_counts=True)
    index = np.arange(len(rows))  # which row each is equal to
    alike = np.flatnonzero(counts[found] > 1)
    whole = rows[alike].view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).reshape(-1)
    _, first, copy_of = np.unique(whole, return_index=True, return_inverse=True)
    index[alike] = alike[first][copy_of]
    return np.unique(index, return_inverse=True)
