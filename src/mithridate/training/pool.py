"""A pool of embeddings that is kept across steps: first in, first out."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mithridate.errors import MithridateError
from mithridate.randomness import stream

_LARGEST, _SHARE = 21_845, 0.02  # RoCLIP's default for a million pairs, and what share of them that is


def pool_size(wanted: int | None, pairs: int) -> int:
    """How many embeddings a pool holds: `wanted`, or 2 % of the pairs and 21,845 at most.

    Raises `MithridateError` where the data have fewer pairs.
    """
    size = min(_LARGEST, max(1, round(_SHARE * pairs))) if wanted is None else wanted
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
def enqueue(pool: Float[Tensor, "p d"], place: int, new: Float[Tensor, "k d"]) -> int:
    """Put `new` in place of the oldest rows, at `place` and from the start again; gives back the next place."""
    new = new[-len(pool) :]
    first = new[: len(pool) - place]
    pool[place : place + len(first)] = first
    pool[: len(new) - len(first)] = new[len(first) :]
    return (place + len(new)) % len(pool)
