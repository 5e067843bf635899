"""A pool of embeddings that is kept across steps: first in, first out, and asked for the nearest."""

import logging

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mithridate.errors import MithridateError
from mithridate.randomness import stream
from mithridate.training.objective import Start

_CHUNK = 2048  # rows of the pool, which at CLIP's widths stay in a core's cache
_LARGEST, _SHARE = 21_845, 0.02  # RoCLIP's default for a million pairs, and what share of them that is
_BATCHES = 5  # below that each step replaces much of the pool: an image meets few captions, most of the last batches

_LOG = logging.getLogger(__name__)


def pool_size(wanted: int | None, start: Start) -> int:
    """How many embeddings a pool holds: `wanted`, or 2 % of the pairs (21,845 at most), five batches at least.

    Warns of a `wanted` pool of less than five batches. Raises `MithridateError` where the data have fewer pairs.
    """
    pairs, least = start.pairs, _BATCHES * start.batch
    size = min(pairs, max(least, min(_LARGEST, round(_SHARE * pairs)))) if wanted is None else wanted
    if size < min(least, pairs):
        _LOG.warning(
            "a pool of %s captions holds less than %s batches of %s pairs, so most of it is the captions of the last "
            "steps (RoCLIP's holds 42 batches); give --pool-size %s or more",
            size,
            _BATCHES,
            start.batch,
            least,
        )
    if not 1 <= size <= pairs:
        raise MithridateError(
            f"a pool holds at least one caption and no more than there are pairs, got pool_size {size} for {pairs} "
            "pairs; choose a smaller --pool-size"
        )
    return size


def pool_rows(rows: np.ndarray, size: int, *, seed: int, epoch: int) -> np.ndarray:
    """`size` of the pairs at `rows` (n,), drawn from seed and epoch. Raises `MithridateError` for too few."""
    if size > len(rows):
        raise MithridateError(
            f"a pool of {size} needs as many pairs, and {len(rows)} are usable; choose a smaller --pool-size"
        )
    return stream(seed, "pool", epoch).choice(rows, size, replace=False)


@torch.no_grad()
def nearest(query: Float[Tensor, "b d"], pool: Float[Tensor, "p d"]) -> Int[Tensor, " b"]:
    """The row of `pool` with the largest product with each query, the first of equal ones; a chunk at a time."""
    best = query.new_full((len(query),), -torch.inf)
    at = torch.zeros(len(query), dtype=torch.int64, device=query.device)
    for low in range(0, len(pool), _CHUNK):
        score, row = (query @ pool[low : low + _CHUNK].T).max(dim=1)
        better = score > best
        best, at = torch.where(better, score, best), torch.where(better, row + low, at)
    return at


@torch.no_grad()
def enqueue(pool: Float[Tensor, "p d"], place: int, new: Float[Tensor, "k d"]) -> int:
    """Put `new` in place of the oldest rows, at `place` and from the start again; gives back the next place."""
    new = new[-len(pool) :]
    first = new[: len(pool) - place]
    pool[place : place + len(first)] = first
    pool[: len(new) - len(first)] = new[len(first) :]
    return (place + len(new)) % len(pool)
