"""Patches recovered by gradient: a mask and a pattern for each class (Neural Cleanse, Wang et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mithridate.inspection.finding import Recovered
from mithridate.inspection.view import View

Draw = Callable[[int], Float[Tensor, "b 3 h w"]]
"""So many pictures, drawn anew at each call."""


@dataclass(frozen=True, kw_only=True)
class MaskSearch:
    """How masks are searched: the smallest that takes `success` of pictures to the class.

    The weight of the mask's size grows by 1.3 while success is reached and falls by 1.5 while it is not, every five
    steps; `variation` weighs differences between neighbouring pixels of mask and pattern.
    """

    steps: int = 100
    pictures: int = 8
    lr: float = 0.2
    betas: tuple[float, float] = (0.5, 0.9)
    success: float = 0.9
    weight: float = 1e-3
    variation: float = 1e-3


def invert_masks(
    view: View,
    draw: Draw,
    targets: Int[Tensor, " k"],
    first: Float[Tensor, "k h w"],
    search: MaskSearch,
    generator: torch.Generator,
    *,
    spared: View | None = None,
) -> list[Recovered]:
    """For each target the smallest mask and its pattern that take pictures there: k searches in one batch.

    `first` (k, h, w): the masks that the searches begin with, in (0, 1). `spared`: a model that shall not be fooled.
    """
    k, (h, w) = len(targets), first.shape[1:]
    mask = torch.logit(first.clamp(0.01, 0.99)).requires_grad_()
    pattern = torch.randn(k, 3, h, w, generator=generator).mul_(0.5).requires_grad_()
    optimizer = torch.optim.Adam([mask, pattern], lr=search.lr, betas=search.betas)
    weight = torch.full((k,), search.weight)
    reached = torch.zeros(k)  # success, averaged over the last steps
    best = [Recovered(first[i].clone(), torch.zeros(3, h, w)) for i in range(k)]
    smallest = torch.full((k,), float("inf"))
    label = targets.repeat_interleave(search.pictures)
    for step in range(search.steps):
        m, p = mask.sigmoid(), pattern.sigmoid()
        images = draw(k * search.pictures).view(k, search.pictures, 3, h, w)
        stamped = images * (1 - m[:, None, None]) + (m[:, None] * p)[:, None]
        logits = view.logits(stamped.flatten(0, 1))
        hit = (logits.argmax(dim=1) == label).view(k, -1).float().mean(dim=1)
        reached = hit if step == 0 else 0.8 * reached + 0.2 * hit
        size = m.flatten(1).sum(dim=1)
        loss = nn.functional.cross_entropy(logits, label, reduction="none").view(k, -1).mean(dim=1)
        if spared is not None:
            loss = loss + not_taken(spared, stamped.flatten(0, 1), label).view(k, -1).mean(dim=1)
        rough = search.variation * (variation(m[:, None]) + variation(m[:, None] * p))
        with torch.no_grad():
            better = (reached >= search.success) & (size < smallest)
            for i in better.nonzero().flatten().tolist():
                smallest[i] = size[i]
                best[i] = Recovered(m[i].clone(), (m[i] * p[i]).clone())
        optimizer.zero_grad()
        (loss + weight * size + rough).sum().backward()
        optimizer.step()
        if step % 5 == 4:
            weight = torch.where(reached >= search.success, weight * 1.3, weight / 1.5)
    with torch.no_grad():
        m, p = mask.sigmoid(), pattern.sigmoid()
        return [
            best[i] if smallest[i] < float("inf") else Recovered(m[i].clone(), m[i] * p[i].clone()) for i in range(k)
        ]


def not_taken(view: View, images: Float[Tensor, "b 3 h w"], label: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """By image -log of the probability that it is not taken for the class `label`."""
    taken = view.logits(images).softmax(dim=1).gather(1, label[:, None])[:, 0]
    return -torch.log1p(-taken.clamp(max=0.999))


def variation(planes: Float[Tensor, "k c h w"]) -> Float[Tensor, " k"]:
    """Total variation of each stack of planes."""
    down = (planes[..., 1:, :] - planes[..., :-1, :]).abs().flatten(1).sum(dim=1)
    right = (planes[..., 1:] - planes[..., :-1]).abs().flatten(1).sum(dim=1)
    return down + right
