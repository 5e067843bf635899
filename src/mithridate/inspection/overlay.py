"""Whole-image triggers recovered by gradient: blends of a coarse picture, and added waves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mithridate.inspection.finding import Recovered
from mithridate.inspection.invert import Draw, not_taken
from mithridate.inspection.view import View


@dataclass(frozen=True, kw_only=True)
class Blend:
    """x becomes (1 - alpha) x + alpha p, with p a picture of `cells` x `cells`, smoothly enlarged."""

    alpha: float = 0.2
    cells: int = 16

    def free(self, k: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        return torch.randn(k, 3, min(self.cells, size[0]), min(self.cells, size[1]), generator=generator).mul_(0.5)

    def parts(self, free: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        picture = nn.functional.interpolate(free.sigmoid(), size, mode="bilinear", align_corners=False)
        return torch.full((len(free), *size), self.alpha), self.alpha * picture


@dataclass(frozen=True, kw_only=True)
class Waves:
    """x becomes x + amplitude tanh(w), with w a sum of waves of up to `highest` periods, alike in all colours."""

    amplitude: float = 40 / 255
    highest: int = 8

    def free(self, k: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        n = min(self.highest, (min(size) - 1) // 2)
        return torch.randn(k, 2, 2 * n + 1, n + 1, generator=generator).mul_(0.1)

    def parts(self, free: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        n = free.shape[-1] - 1
        y = 2 * torch.pi * torch.arange(-n, n + 1)[:, None] * torch.arange(size[0]) / size[0]  # (2n+1, h)
        x = 2 * torch.pi * torch.arange(n + 1)[:, None] * torch.arange(size[1]) / size[1]  # (n+1, w)
        rows = torch.complex(y.cos(), y.sin())
        columns = torch.complex(x.cos(), x.sin())
        waves = torch.einsum("kuv,uh,vw->khw", torch.complex(free[:, 0], free[:, 1]), rows, columns).real
        add = self.amplitude * waves.tanh()[:, None].expand(-1, 3, -1, -1)
        return torch.zeros(len(free), *size), add


Form = Blend | Waves


@dataclass(frozen=True, kw_only=True)
class OverlaySearch:
    """How overlays of one form are searched for every class at once."""

    steps: int = 40
    pictures: int = 6
    lr: float = 0.3
    betas: tuple[float, float] = (0.5, 0.9)


def invert_overlays(
    view: View,
    draw: Draw,
    targets: Int[Tensor, " k"],
    size: tuple[int, int],
    form: Form,
    search: OverlaySearch,
    generator: torch.Generator,
    *,
    spared: View | None = None,
) -> list[Recovered]:
    """For each target the overlay of this form that takes most pictures there: k searches in one batch.

    `spared`: a model that shall not be fooled.
    """
    k = len(targets)
    free = form.free(k, size, generator).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=search.lr, betas=search.betas)
    label = targets.repeat_interleave(search.pictures)
    for _ in range(search.steps):
        keep, add = form.parts(free, size)
        images = draw(k * search.pictures).view(k, search.pictures, 3, *size)
        stamped = (images * (1 - keep[:, None, None]) + add[:, None]).clamp(0, 1)
        loss = nn.functional.cross_entropy(view.logits(stamped.flatten(0, 1)), label, reduction="sum")
        if spared is not None:
            loss = loss + not_taken(spared, stamped.flatten(0, 1), label).sum()
        optimizer.zero_grad()
        (loss / search.pictures).backward()
        optimizer.step()
    with torch.no_grad():
        keep, add = form.parts(free, size)
        return [Recovered(keep[i].clone(), add[i].clone()) for i in range(k)]
