"""RoCLIP (Yang, Gao & Mirzasoleiman, NeurIPS 2023). Its options; the loss is in `roclip_loss.py`."""

import logging
from dataclasses import dataclass
from typing import Any

from mithridate.errors import MithridateError
from mithridate.training.objective import Augmenting, Start, Views

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RoClip(Augmenting):
    """Plain CLIP, but in every K-th epoch each image is matched to its nearest caption of a pool.

    The pool is what the text tower made of captions, so in matching epochs nothing reaches the text tower: it stands
    still but for momentum and weight decay, here as in the published code. All pairs are augmented in every epoch.
    """

    pool_size: int | None = None
    """Captions in the pool; by default 2 % of the pairs (21,845 at most), five batches at least."""
    every: int = 2
    """K: every K-th epoch matches, the K-th first; 1 is all of them, 0 none."""
    views: Views = "augmented"
    """What the model sees: images after SimCLR's augmentation and captions after EDA, or the pairs as they are."""
    faithful: bool = False
    """As the published code: a pool of noise, never filled, its remainder dropped; one augmented caption a pair."""

    def build(self, start: Start) -> Any:
        if self.every < 0:
            raise MithridateError(f"every must be 0 (never) or more, got {self.every}")
        if self.every > start.epochs:
            raise MithridateError(
                f"every {self.every}th epoch matches, and there are {start.epochs}; raise --epochs, or give --every 0 "
                "for none"
            )
        self.refuse_crop()
        if self.every == 1 and start.epochs > 1:
            _LOG.warning(
                "every epoch matches, so the text tower is never trained: a model that begins at random weights learns "
                "nothing of captions; give --every 2 or more"
            )
        from mithridate.training.roclip_loss import RoClipLoss

        return RoClipLoss(self, start)
