"""Perturb and recover (PAR, arXiv 2412.00727): clean pairs, and away from the poisoned model."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.errors import MithridateError
from mithridate.training.clip import clip_loss
from mithridate.training.objective import PLAIN, EncodedBatch, EpochPlan, Start, View


@dataclass(frozen=True, kw_only=True)
class Par:
    """CLIP's loss on clean pairs, minus how far the embeddings have come from those of the model it starts with.

    The distance counts up to `tau`; from there on CLIP's loss alone leads back to a useful model.
    """

    weight: float = 1.0
    """Of half the sum of both distances; 0 is plain CLIP."""
    tau: float = 2.15
    """Mean squared distance, of 4 at most, beyond which a modality is pushed no further."""

    def build(self, start: Start) -> nn.Module:
        for name in ("weight", "tau"):
            if not getattr(self, name) >= 0:
                raise MithridateError(f"{name} must not be negative, got {getattr(self, name)}")
        return ParLoss(self)


class ParLoss(nn.Module):
    """The starting model belongs to the loop; it comes back from the weights a resumed run is given."""

    def __init__(self, options: Par) -> None:
        super().__init__()
        self.options = options

    def plan(self, epoch: int) -> EpochPlan:
        return EpochPlan((PLAIN, View(model="start")) if self.options.weight else (PLAIN,))

    def forward(self, batch: EncodedBatch) -> Float[Tensor, ""]:
        loss = clip_loss(batch.image, batch.text, batch.scale)
        if not self.options.weight:
            return loss
        start = batch.others[0]
        away = distance(batch.image, start.image, tau=self.options.tau) + distance(
            batch.text, start.text, tau=self.options.tau
        )
        return loss - self.options.weight * away / 2


def distance(now: Float[Tensor, "b d"], start: Float[Tensor, "b d"], *, tau: float) -> Float[Tensor, ""]:
    """Mean squared distance of unit vectors, nought once it is above `tau`."""
    mean = (now - start).square().sum(dim=1).mean()
    return torch.where(mean <= tau, mean, 0.0)
