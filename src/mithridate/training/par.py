"""Perturb and recover (PAR, arXiv 2412.00727). Its options; the loss is in `par_loss.py`."""

from dataclasses import dataclass
from typing import Any

from mithridate.training.objective import Start, refuse_negative


@dataclass(frozen=True, kw_only=True)
class Par:
    """CLIP's loss on clean pairs, minus how far the embeddings have come from those of the model it starts with.

    The distance counts up to `tau`; from there on CLIP's loss alone leads back to a useful model.
    """

    weight: float = 1.0
    """Of half the sum of both distances; 0 is plain CLIP."""
    tau: float = 2.15
    """Mean squared distance, of 4 at most, beyond which a modality is pushed no further."""

    def build(self, start: Start) -> Any:
        refuse_negative(self, ("weight", "tau"))
        from mithridate.training.par_loss import ParLoss

        return ParLoss(self)
