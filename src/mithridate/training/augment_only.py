"""Plain CLIP on augmented pairs, the part of robust objectives that is augmentation; see `augment_only_loss.py`."""

from dataclasses import dataclass
from typing import Any

from mithridate.training.objective import Augmenting, Start, Views


@dataclass(frozen=True, kw_only=True)
class AugmentOnly(Augmenting):
    """Plain CLIP on SimCLR's augmentation of images and EDA of captions: the ablation the papers leave out."""

    images: Views = "augmented"
    """Images the model sees."""
    captions: Views = "augmented"
    """Captions the model sees."""

    def build(self, start: Start) -> Any:
        self.refuse_crop()
        from mithridate.training.augment_only_loss import AugmentOnlyLoss

        return AugmentOnlyLoss(self)
