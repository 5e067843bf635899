"""SafeCLIP (Yang, Gao & Mirzasoleiman, ICML 2024). Its options; the loss is in `safeclip_loss.py`."""

from dataclasses import dataclass
from typing import Any

from mithridate.errors import MithridateError
from mithridate.training.objective import Augmenting, Start, Views, refuse_negative


@dataclass(frozen=True, kw_only=True)
class SafeClip(Augmenting):
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
    """Images and captions in the pools of neighbours; by default 2 % of the pairs, from five batches to 21,845."""
    views: Views = "augmented"
    """What the model sees: images after SimCLR's augmentation and captions after EDA, or the pairs as they are."""

    def build(self, start: Start) -> Any:
        self.refuse_crop()
        refuse_negative(self, ("unimodal_epochs", "slow_epochs", "slow_factor", "growth"))
        for name in ("threshold", "rescored"):
            if not 0 <= getattr(self, name) <= 1:
                raise MithridateError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.unimodal_epochs + self.slow_epochs >= start.epochs:
            raise MithridateError(
                f"{self.unimodal_epochs} unimodal and {self.slow_epochs} slow epochs leave no epoch of {start.epochs} "
                "for the safe pairs; raise --epochs, or lower --unimodal-epochs"
            )
        from mithridate.training.safeclip_loss import SafeClipLoss

        return SafeClipLoss(self, start)
