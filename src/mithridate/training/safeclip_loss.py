"""SafeCLIP (Yang, Gao & Mirzasoleiman, ICML 2024): let the modalities learn apart until poisoned pairs disagree, then
join only those that agree."""

import logging
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.randomness import stream
from mithridate.training.clip_loss import clip_loss
from mithridate.training.loss import Encoded, EncodedBatch, EpochPlan, EpochStart, View
from mithridate.training.objective import Start
from mithridate.training.pool import enqueue, nearest, pool_rows, pool_size
from mithridate.training.split import upper_posterior

_LOG = logging.getLogger(__name__)
_BLOCK = 4096


class SafeClipLoss(nn.Module):
    """Buffers: both pools, what was measured of each pair, and which are safe."""

    image_pool: Tensor
    text_pool: Tensor
    places: Tensor
    filled: Tensor
    similarity: Tensor
    safe: Tensor
    share: Tensor

    def __init__(self, options: Any, start: Start) -> None:
        super().__init__()
        self.options, self._start = options, start
        size = pool_size(options.pool_size, start)
        self.register_buffer("image_pool", torch.zeros(size, start.width))
        self.register_buffer("text_pool", torch.zeros(size, start.width))
        self.register_buffer("places", torch.zeros(2, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.bool))
        self.register_buffer("similarity", torch.full((start.pairs,), -torch.inf))
        self.register_buffer("safe", torch.zeros(start.pairs, dtype=torch.bool))
        self.register_buffer("share", torch.zeros((), dtype=torch.float64))  # safe at first

    def phase(self, epoch: int) -> Literal["unimodal", "slow", "mixed"]:
        o = self.options
        if epoch < o.unimodal_epochs:
            return "unimodal"
        return "slow" if epoch < o.unimodal_epochs + o.slow_epochs else "mixed"

    def plan(self, epoch: int) -> EpochPlan:
        options = self.options
        view = View(options.views, options.views, **options.augmentation())
        phase = self.phase(epoch)
        if phase == "slow":
            return EpochPlan((view,), lr_factor=self.options.slow_factor)
        if phase == "unimodal":
            return EpochPlan((view, view))
        one = self.options.threshold == 0  # nothing is left for the unimodal loss
        return EpochPlan((view,) if one else (view, view), groups=None if one else self.safe.cpu().numpy())

    def prepare(self, epoch: EpochStart) -> None:
        phase = self.phase(epoch.number)
        if phase == "mixed":
            self._split(epoch)
        if phase != "slow" and not self.filled and self.options.threshold > 0:
            rows = pool_rows(epoch.rows, len(self.image_pool), seed=self._start.seed, epoch=epoch.number)
            self.image_pool.copy_(epoch.embed_images(rows))
            self.text_pool.copy_(epoch.embed_texts(rows))
            self.filled.fill_(True)

    def _split(self, epoch: EpochStart) -> None:
        """Measure the pairs, all of them for the first time, and take the best share of them."""
        rows, n, o = epoch.rows, len(epoch.rows), self.options
        since = epoch.number - o.unimodal_epochs - o.slow_epochs
        if o.threshold == 0:
            self.safe[torch.from_numpy(rows)] = True
            return
        known = self.similarity.cpu().numpy()
        again = rows if since == 0 else rows[known[rows] >= np.quantile(known[rows], 1 - o.rescored)]
        known[again] = paired_similarity(epoch, again)
        self.similarity.copy_(torch.from_numpy(known))
        if since == 0:
            rng = stream(self._start.seed, "similarities of the mixture", epoch.number)
            self.share.fill_(float((upper_posterior(known[rows], rng=rng) > o.threshold).mean()))
            _LOG.info("SafeCLIP: %.1f %% of the pairs are safe at first", 100 * float(self.share))
        count = round(min(1.0, float(self.share) + o.growth * since) * n)
        best = rows[np.argsort(-known[rows], kind="stable")[:count]]
        self.safe.zero_()
        self.safe[torch.from_numpy(best)] = True

    def forward(self, batch: EncodedBatch) -> Float[Tensor, ""]:
        phase = self.phase(batch.epoch)
        if phase == "slow":
            return clip_loss(batch.image, batch.text, batch.scale)
        if phase == "unimodal":
            return self._unimodal(Encoded(batch.image, batch.text), batch.others[0], batch.scale)
        safe = self.safe[batch.row]
        count, size = int(safe.sum()), len(safe)
        if count == size:
            return clip_loss(batch.image, batch.text, batch.scale)
        first, second = Encoded(batch.image[~safe], batch.text[~safe]), batch.others[0]
        rest = self._unimodal(first, Encoded(second.image[~safe], second.text[~safe]), batch.scale)
        if not count:
            return rest
        # a batch of both kinds: each pair counts once
        joined = clip_loss(batch.image[safe], batch.text[safe], batch.scale)
        return (count * joined + (size - count) * rest) / size

    def _unimodal(self, first: Encoded, second: Encoded, scale: Tensor) -> Tensor:
        """Both modalities' losses; the pools are asked before the batch's embeddings enter them."""
        parts = []
        for i, (pool, one, other) in enumerate(
            ((self.image_pool, first.image, second.image), (self.text_pool, first.text, second.text))
        ):
            at = nearest(one.detach(), pool)
            parts.append(neighbour_loss(pool[at], other, scale))
            self.places[i] = enqueue(pool, int(self.places[i]), one.detach())
        return (parts[0] + parts[1]) / 2


def neighbour_loss(
    neighbour: Float[Tensor, "b d"], view: Float[Tensor, "b d"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Cross-entropy of each first view's neighbour among the batch's second views (the paper's equation 2).

    The published code takes each second view among the neighbours.
    """
    own = torch.arange(len(view), device=view.device)
    return F.cross_entropy(scale * neighbour @ view.T, own)


def paired_similarity(epoch: EpochStart, rows: np.ndarray) -> Float[np.ndarray, " k"]:
    """Cosine similarity of image and caption of the pairs at `rows` (k,), a block at a time."""
    blocks = (rows[low : low + _BLOCK] for low in range(0, len(rows), _BLOCK))
    found = [(epoch.embed_images(block) * epoch.embed_texts(block)).sum(dim=1).cpu().numpy() for block in blocks]
    return np.concatenate(found)
