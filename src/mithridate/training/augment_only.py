"""Plain CLIP on augmented pairs, the part of robust objectives that is augmentation; see `augment_only_loss.py`."""

from dataclasses import dataclass
from typing import Any

from mithridate.training.objective import Start, Views, refuse_crop


@dataclass(frozen=True, kw_only=True)
class AugmentOnly:
    """Plain CLIP on SimCLR's augmentation of images and EDA of captions: the ablation the papers leave out."""

    images: Views = "augmented"
    """Images the model sees."""
    captions: Views = "augmented"
    """Captions the model sees."""
    crop: float = 0.08
    """Least share of an augmented image's area that is left. A patch in the corner falls out of small crops."""
    flip: bool = True
    """Mirror half of the augmented images; captions that name sides are wrong then."""

    def build(self, start: Start) -> Any:
        refuse_crop(self.crop)
        from mithridate.training.augment_only_loss import AugmentOnlyLoss

        return AugmentOnlyLoss(self)
