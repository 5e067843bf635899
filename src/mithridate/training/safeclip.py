"""SafeCLIP (Yang, Gao & Mirzasoleiman, ICML 2024): let the modalities learn apart until poisoned pairs disagree, then
join only those that agree."""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.errors import MithridateError
from mithridate.randomness import stream
from mithridate.training.clip import clip_loss
from mithridate.training.objective import Encoded, EncodedBatch, EpochPlan, EpochStart, Start, View
from mithridate.training.pool import enqueue, nearest, pool_rows, pool_size
from mithridate.training.split import upper_posterior

_LOG = logging.getLogger(__name__)
_BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class SafeClip:
    """Unimodal epochs on all pairs, one slow CLIP epoch, then CLIP on the safe pairs and unimodal on the rest.

    The safe pairs are those that a mixture of two Gaussians on the similarities gives to the better component; they
    grow with every epoch. Unlike the published code: similarities of the pairs as they are, not augmented; both losses
    in one epoch and one schedule; a split that rises with similarity.
    """

    unimodal_epochs: int = 5
    """Epochs in which each modality learns by itself."""
    slow_epochs: int = 1
    """CLIP epochs after them, before the split."""
    slow_factor: float = 0.01
    """Learning rate of the slow epochs, of what the schedule has (the paper: 5e-6 beside 5e-4)."""
    threshold: float = 0.9
    """Probability of the better component above which a pair is safe at first; 0 takes all pairs."""
    growth: float = 0.01
    """Share of all pairs that becomes safe with every further epoch."""
    rescored: float = 0.3
    """Share of all pairs, those with the largest similarity, that is measured anew before every further epoch."""
    pool_size: int | None = None
    """Images and captions in the pools of neighbours; by default 2 % of the pairs, 21,845 at most."""
    views: Literal["augmented", "plain"] = "augmented"
    """What the model sees: images after SimCLR's augmentation and captions after EDA, or the pairs as they are."""

    def build(self, start: Start) -> nn.Module:
        for name in ("unimodal_epochs", "slow_epochs", "slow_factor", "growth"):
            if not getattr(self, name) >= 0:
                raise MithridateError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("threshold", "rescored"):
            if not 0 <= getattr(self, name) <= 1:
                raise MithridateError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.unimodal_epochs + self.slow_epochs >= start.epochs:
            raise MithridateError(
                f"{self.unimodal_epochs} unimodal and {self.slow_epochs} slow epochs leave no epoch of {start.epochs} "
                "for the safe pairs; raise --epochs, or lower --unimodal-epochs"
            )
        return SafeClipLoss(self, start)


class SafeClipLoss(nn.Module):
    """Buffers: both pools, what was measured of each pair, and which are safe."""

    image_pool: Tensor
    text_pool: Tensor
    places: Tensor
    filled: Tensor
    similarity: Tensor
    safe: Tensor
    share: Tensor

    def __init__(self, options: SafeClip, start: Start) -> None:
        super().__init__()
        self.options, self._start = options, start
        size = pool_size(options.pool_size, start.pairs)
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
        view = View(self.options.views, self.options.views)
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
