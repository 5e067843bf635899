"""Whether the prediction hangs on one place (after Februus and its kin; the statistic is derived here)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mithridate.inspection.scores.score import Screen


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """The largest fall of the predicted class's logit over squares of grey, less the median one."""

    name: ClassVar[str] = "occlusion"
    measures: ClassVar[str] = "one square, covered, changes the prediction far more than others do"

    grid: int = 5
    share: float = 0.3

    @torch.no_grad()
    def suspicion(self, screen: Screen, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        h, w = images.shape[2:]
        plain = screen.view.logits(images)
        taken = plain.argmax(dim=1)[:, None]
        before = plain.gather(1, taken)[:, 0]
        sh, sw = max(1, round(self.share * h)), max(1, round(self.share * w))
        falls = []
        for top in torch.linspace(0, h - sh, self.grid).round().int().tolist():
            for left in torch.linspace(0, w - sw, self.grid).round().int().tolist():
                covered = images.clone()
                covered[:, :, top : top + sh, left : left + sw] = 0.5
                falls.append(before - screen.view.logits(covered).gather(1, taken)[:, 0])
        every = torch.stack(falls)
        return every.max(dim=0).values - every.median(dim=0).values
