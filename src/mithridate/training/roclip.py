"""RoCLIP (Yang, Gao & Mirzasoleiman, NeurIPS 2023): every few epochs an image meets the caption of a random pool that
is nearest to it, not its own, so that a poisoned pair is seldom seen as one."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.errors import MithridateError
from mithridate.randomness import stream_seed
from mithridate.training.clip import clip_loss
from mithridate.training.objective import EncodedBatch, EpochPlan, EpochStart, Start, View
from mithridate.training.pool import enqueue, nearest, pool_rows, pool_size


@dataclass(frozen=True, kw_only=True)
class RoClip:
    """Plain CLIP, but in every K-th epoch each image is matched to its nearest caption of a pool.

    The pool is what the text tower made of captions, so in matching epochs nothing reaches the text tower: it stands
    still but for momentum and weight decay, here as in the published code. All pairs are augmented in every epoch.
    """

    pool_size: int | None = None
    """Captions in the pool; by default 2 % of the pairs, 21,845 at most."""
    every: int = 2
    """K: every K-th epoch matches, the K-th first; 1 is all of them, 0 none."""
    views: Literal["augmented", "plain"] = "augmented"
    """What the model sees: images after SimCLR's augmentation and captions after EDA, or the pairs as they are."""
    faithful: bool = False
    """As the published code: the pool starts as noise that is not of unit length and is never filled, its remainder is
    dropped when it is full, and one augmented caption a pair stands for the whole run."""

    def build(self, start: Start) -> nn.Module:
        if self.every < 0:
            raise MithridateError(f"every must be 0 (never) or more, got {self.every}")
        if self.every > start.epochs:
            raise MithridateError(
                f"every {self.every}th epoch matches, and there are {start.epochs}; raise --epochs, or give --every 0 "
                "for none"
            )
        return RoClipLoss(self, start)


class RoClipLoss(nn.Module):
    """Corrected, the pool is filled before every matching epoch with captions under the model as it is then."""

    pool: Tensor
    place: Tensor

    def __init__(self, options: RoClip, start: Start) -> None:
        super().__init__()
        self.options, self._start = options, start
        size = pool_size(options.pool_size, start.pairs) if options.every else 0
        pool = torch.zeros(size, start.width)
        if options.faithful:
            pool.normal_(generator=torch.Generator().manual_seed(stream_seed(start.seed, "first pool")))
        self.register_buffer("pool", pool)
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def matching(self, epoch: int) -> bool:
        return self.options.every > 0 and (epoch + 1) % self.options.every == 0

    def plan(self, epoch: int) -> EpochPlan:
        view = View(self.options.views, self.options.views)
        if self.options.faithful and self.options.views == "augmented":
            view = View("augmented", "fixed")
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
