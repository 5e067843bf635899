"""Whether a prediction survives brighter pixels (after SCALE-UP, Guo et al., ICLR 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mithridate.inspection.scores.score import Screen


@dataclass(frozen=True, kw_only=True)
class ScaleUp:
    """The mean probability of the predicted class over copies whose values are multiplied, and cut at white.

    The paper counts copies with the same prediction; the probability separates images that tie there.
    """

    name: ClassVar[str] = "scale-up"
    measures: ClassVar[str] = "the prediction stays while the image is made brighter"

    factors: tuple[float, ...] = (2.0, 3.0, 4.0, 5.0)

    @torch.no_grad()
    def suspicion(self, screen: Screen, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        taken = screen.view.predicted(images)[:, None]
        kept = [
            screen.view.logits((factor * images).clamp(max=1)).softmax(dim=1).gather(1, taken)[:, 0]
            for factor in self.factors
        ]
        return torch.stack(kept).mean(dim=0)
