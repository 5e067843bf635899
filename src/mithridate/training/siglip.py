"""SigLIP's pairwise sigmoid loss (Zhai et al., ICCV 2023). Its options; the loss is in `siglip_loss.py`."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mithridate.training.objective import Start


@dataclass(frozen=True, kw_only=True)
class Siglip:
    """SigLIP's sigmoid loss: each image with each caption of the batch is a yes-or-no question of its own.

    For models with a logit bias, as SigLIP's are.
    """

    needs_bias: ClassVar[bool] = True

    def build(self, start: Start) -> Any:
        from mithridate.training.siglip_loss import SiglipLoss

        return SiglipLoss()
