"""Perturb and recover (PAR, arXiv 2412.00727): clean pairs, and away from the poisoned model."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mithridate.training.clip_loss import clip_loss
from mithridate.training.loss import PLAIN, EncodedBatch, EpochPlan, View


class ParLoss(nn.Module):
    """The starting model belongs to the loop; it comes back from the weights a resumed run is given."""

    def __init__(self, options: Any) -> None:
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
    """Mean squared distance of unit vectors, zero once it is above `tau`."""
    mean = (now - start).square().sum(dim=1).mean()
    return torch.where(mean <= tau, mean, 0.0)
