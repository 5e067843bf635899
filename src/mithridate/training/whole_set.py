"""The training set under the model as it is, for objectives that look at it before an epoch."""

from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from mithridate.encoder.towers import Tower
from mithridate.training.batches import TrainingSet
from mithridate.training.loss import EpochStart
from mithridate.training.towers import TwoTower

_BATCH = 256


def epoch_start(
    number: int, towers: TwoTower, data: TrainingSet, *, device: torch.device, low_precision: bool
) -> EpochStart:
    """`EpochStart` of the epoch `number`. Nothing is computed before it is asked for."""

    def embed(tower: Tower, index: np.ndarray, gather: Callable[[np.ndarray], Tensor]):
        def of(rows: np.ndarray) -> Tensor:
            at, back = np.unique(index[np.searchsorted(data.rows, rows)], return_inverse=True)
            return _embed(towers, tower, at, gather, device, low_precision)[torch.from_numpy(back)]

        return of

    return EpochStart(
        number,
        data.rows[np.argsort(data.image_index, kind="stable")],
        embed("image", data.image_index, data.images),
        embed("text", data.text_index, data.texts),
    )


@torch.no_grad()
def _embed(
    towers: TwoTower,
    tower: Tower,
    at: np.ndarray,
    gather: Callable[[np.ndarray], Tensor],
    device: torch.device,
    low_precision: bool,
) -> Float[Tensor, "k d"]:
    """Embeddings of the inputs `at` (k,), each process its share of them."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    share = -(-len(at) // world)
    mine = np.resize(at, share * world)[rank * share : (rank + 1) * share]
    training = towers.training
    towers.eval()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low_precision):
        blocks = [towers.encode(tower, gather(mine[low : low + _BATCH]).to(device)) for low in range(0, share, _BATCH)]
    towers.train(training)
    out = torch.cat(blocks)
    if world > 1:
        parts = [torch.empty_like(out) for _ in range(world)]
        dist.all_gather(parts, out)
        out = torch.cat(parts)
    return out[: len(at)]
