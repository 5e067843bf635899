"""Plain CLIP (Radford et al., 2021). Its options; the loss is in `clip_loss.py`."""

from dataclasses import dataclass
from typing import Any

from mithridate.training.objective import Start


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Plain CLIP: each image among the captions of its batch, each caption among the images."""

    def build(self, start: Start) -> Any:
        from mithridate.training.clip_loss import ClipLoss

        return ClipLoss()
