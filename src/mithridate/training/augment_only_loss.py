"""Plain CLIP on augmented pairs: what of a robust objective is its augmentation alone."""

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mithridate.training.clip_loss import clip_loss
from mithridate.training.loss import EncodedBatch, EpochPlan, View


class AugmentOnlyLoss(nn.Module):
    """Plain CLIP on one view."""

    def __init__(self, options: Any) -> None:
        super().__init__()
        self._plan = EpochPlan((View(options.images, options.captions, **options.augmentation()),))

    def plan(self, epoch: int) -> EpochPlan:
        return self._plan

    def forward(self, batch: EncodedBatch) -> Float[Tensor, ""]:
        return clip_loss(batch.image, batch.text, batch.scale)
