"""Plain CLIP on augmented pairs: what of a robust objective is its augmentation alone."""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mithridate.training.clip import clip_loss
from mithridate.training.objective import EncodedBatch, EpochPlan, Start, View

Views = Literal["augmented", "plain"]


@dataclass(frozen=True, kw_only=True)
class AugmentOnly:
    """Plain CLIP on SimCLR's augmentation of images and EDA of captions: the ablation the papers leave out."""

    images: Views = "augmented"
    """Images the model sees."""
    captions: Views = "augmented"
    """Captions the model sees."""

    def build(self, start: Start) -> nn.Module:
        return AugmentOnlyLoss(View(self.images, self.captions))


class AugmentOnlyLoss(nn.Module):
    """Plain CLIP on one view."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._plan = EpochPlan((view,))

    def plan(self, epoch: int) -> EpochPlan:
        return self._plan

    def forward(self, batch: EncodedBatch) -> Float[Tensor, ""]:
        return clip_loss(batch.image, batch.text, batch.scale)
