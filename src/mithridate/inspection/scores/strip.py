"""Whether a prediction survives another image laid over (after STRIP, Gao et al., ACSAC 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mithridate.inspection.scores.score import Screen


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Less the mean entropy of the class probabilities over blends with clean images."""

    name: ClassVar[str] = "strip"
    measures: ClassVar[str] = "the prediction stays sure while clean images are laid over"

    images: int = 12
    share: float = 0.5

    @torch.no_grad()
    def suspicion(self, screen: Screen, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        chosen = torch.randint(len(screen.clean), (self.images,), generator=screen.generator(self.name))
        found = []
        for over in screen.clean[chosen]:
            p = screen.view.logits((1 - self.share) * images + self.share * over).softmax(dim=1)
            found.append((p * p.clamp_min(1e-12).log()).sum(dim=1))
        return torch.stack(found).mean(dim=0)
