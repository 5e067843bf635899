"""CleanCLIP (Bansal et al., ICCV 2023). Its options; the loss is in `cleanclip_loss.py`."""

from dataclasses import dataclass
from typing import Any

from mithridate.training.objective import Augmenting, Start, refuse_negative


@dataclass(frozen=True, kw_only=True)
class CleanClip(Augmenting):
    """CLIP on plain pairs, and each plain image and caption among the batch's augmented ones.

    Augmented are images by SimCLR's changes (the published code takes torchvision's AutoAugment) and captions by EDA,
    anew for every step (there: once).
    """

    clip_weight: float = 1.0
    """Of CLIP's loss."""
    inmodal_weight: float = 1.0
    """Of the mean of the two losses within a modality; 0 is plain CLIP."""

    def build(self, start: Start) -> Any:
        self.refuse_crop()
        refuse_negative(self, ("clip_weight", "inmodal_weight"))
        from mithridate.training.cleanclip_loss import CleanClipLoss

        return CleanClipLoss(self)
