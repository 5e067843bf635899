"""CleanCLIP (Bansal et al., ICCV 2023): CLIP, and each modality for itself, so that a trigger loses its caption."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.training.clip_loss import clip_loss
from mithridate.training.loss import PLAIN, Encoded, EncodedBatch, EpochPlan, View


class CleanClipLoss(nn.Module):
    """`clip_weight` * CLIP + `inmodal_weight` * (images + captions) / 2."""

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options

    def plan(self, epoch: int) -> EpochPlan:
        augmented = View("augmented", "augmented", **self.options.augmentation())
        return EpochPlan((PLAIN, augmented) if self.options.inmodal_weight else (PLAIN,))

    def forward(self, batch: EncodedBatch) -> Float[Tensor, ""]:
        loss = self.options.clip_weight * clip_loss(batch.image, batch.text, batch.scale)
        if not self.options.inmodal_weight:
            return loss
        own = inmodal_loss(Encoded(batch.image, batch.text), batch.others[0], batch.scale)
        return loss + self.options.inmodal_weight * own


def inmodal_loss(plain: Encoded, augmented: Encoded, scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Mean over both modalities of the cross-entropy of each plain view among the batch's augmented views."""
    own = torch.arange(len(plain.image), device=plain.image.device)
    image = F.cross_entropy(scale * plain.image @ augmented.image.T, own)
    text = F.cross_entropy(scale * plain.text @ augmented.text.T, own)
    return (image + text) / 2
