"""RoCLIP (Yang, Gao & Mirzasoleiman, NeurIPS 2023): every few epochs an image meets the caption of a random pool that
is nearest to it, not its own, so that a poisoned pair is seldom seen as one."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.randomness import stream_seed
from mithridate.training.clip_loss import clip_loss
from mithridate.training.loss import EncodedBatch, EpochPlan, EpochStart, View
from mithridate.training.objective import Start
from mithridate.training.pool import enqueue, nearest, pool_rows, pool_size


class RoClipLoss(nn.Module):
    """Corrected, the pool is filled before every matching epoch with captions under the model as it is then."""

    pool: Tensor
    place: Tensor

    def __init__(self, options: Any, start: Start) -> None:
        super().__init__()
        self.options, self._start = options, start
        size = pool_size(options.pool_size, start) if options.every else 0
        pool = torch.zeros(size, start.width)
        if options.faithful:
            pool.normal_(generator=torch.Generator().manual_seed(stream_seed(start.seed, "first pool")))
        self.register_buffer("pool", pool)
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def matching(self, epoch: int) -> bool:
        return self.options.every > 0 and (epoch + 1) % self.options.every == 0

    def plan(self, epoch: int) -> EpochPlan:
        options = self.options
        text = "fixed" if options.faithful and options.views == "augmented" else options.views
        view = View(options.views, text, **options.augmentation())
        return EpochPlan((view,), no_gradient=("text",) if self.matching(epoch) else ())

    def prepare(self, epoch: EpochStart) -> None:
        if not self.matching(epoch.number) or self.options.faithful:
            return
        rows = pool_rows(epoch.rows, len(self.pool), seed=self._start.seed, epoch=epoch.number)
        self.pool.copy_(epoch.embed_texts(rows))
        self.place.zero_()

    def forward(self, batch: EncodedBatch) -> Float[Tensor, ""]:
        if not self.matching(batch.epoch):
            return clip_loss(batch.image, batch.text, batch.scale)
        # by cosine: what is not of unit length is in the published code not so in the loss either
        pool = F.normalize(self.pool, dim=1) if self.options.faithful else self.pool
        matched = self.pool[nearest(batch.image, pool)]
        loss = clip_loss(batch.image, matched, batch.scale)
        place = int(self.place)
        text = batch.text.detach()
        if self.options.faithful and place + len(text) >= len(self.pool):
            self.pool[place:] = text[: len(self.pool) - place]
            self.place.zero_()
        else:
            self.place.fill_(enqueue(self.pool, place, text))
        return loss
