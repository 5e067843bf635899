"""How the embedding moves while an image is covered piece by piece (after BackdoorIDS, arXiv 2603.11664)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mithridate.inspection.scores.score import Screen


@dataclass(frozen=True, kw_only=True)
class Masking:
    """The largest step of the embedding between two neighbours of the trajectory, in cosine distance, less the median.

    The paper clusters the embeddings of the trajectory; the largest step needs no radius.
    """

    name: ClassVar[str] = "masking"
    measures: ClassVar[str] = "the embedding jumps at one step while pieces are covered one after the other"

    grid: int = 4

    @torch.no_grad()
    def suspicion(self, screen: Screen, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        h, w = images.shape[2:]
        rows = torch.linspace(0, h, self.grid + 1).round().int().tolist()
        columns = torch.linspace(0, w, self.grid + 1).round().int().tolist()
        covered, last = images.clone(), screen.view.features(images)
        steps = []
        for cell in torch.randperm(self.grid**2, generator=screen.generator(self.name)).tolist()[:-1]:
            y, x = divmod(cell, self.grid)
            covered[:, :, rows[y] : rows[y + 1], columns[x] : columns[x + 1]] = 0.5
            here = screen.view.features(covered)
            steps.append(1 - (here * last).sum(dim=1))
            last = here
        every = torch.stack(steps)
        return every.max(dim=0).values - every.median(dim=0).values
