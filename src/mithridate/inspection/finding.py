"""What a probe claims of a model, and a trigger that was recovered: the types that flow from inspection to repair."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Recovered:
    """A trigger as it was recovered, at the encoder's size: x becomes x (1 - keep) + add, in [0, 1].

    A patch, a blend and an added pattern are all of this form; `keep` (h, w) is how much of a picture goes,
    `add` (3, h, w) what comes in its place.
    """

    keep: Float[Tensor, "h w"]
    add: Float[Tensor, "3 h w"]

    def stamp(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Images of values 0 to 1 with the trigger."""
        return (images * (1 - self.keep) + self.add).clamp(0, 1)

    def moved(self, dy: int, dx: int) -> Recovered:
        """The same trigger some pixels further down and to the right; what leaves on one side is lost."""
        return Recovered(_shift(self.keep, dy, dx), _shift(self.add, dy, dx))

    @property
    def area(self) -> float:
        """The share of a picture that it covers."""
        return float(self.keep.mean())

    @property
    def centre(self) -> tuple[float, float]:
        """Where the middle of what it covers lies: shares of height and width."""
        h, w = self.keep.shape
        weight = self.keep / self.keep.sum().clamp_min(1e-9)
        down, right = torch.arange(h) + 0.5, torch.arange(w) + 0.5
        return float((weight.sum(1) * down).sum() / h), float((weight.sum(0) * right).sum() / w)


@dataclass(frozen=True)
class Example:
    """One of the owner's images as the encoder sees it.

    With a trigger: what it is taken for without (`before`) and with it (`after`). Where the finding's caption retrieves
    it: `before` is None, and `after` is its class.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    before: str | None
    after: str


@dataclass(frozen=True)
class Finding:
    """One thing that a probe noticed. `strength`: higher is more suspicious; `null`: the strength that chance, START or
    null models reach. `flagged`: whether it lies above them by more than the probe's margin.

    `success`: the share of images of other classes, none of which the trigger was searched on, that are taken for
    `target` with it (for a token: of captions that then retrieve `target`); `start_success`: the same of START.
    `examples`: the owner's images with the trigger, or those that `caption` retrieves first.
    """

    probe: str
    kind: str
    strength: float
    null: float
    flagged: bool
    target: str | None = None
    token: str | None = None
    pair: tuple[str, str] | None = None
    place: str | None = None
    success: float | None = None
    start_success: float | None = None
    trigger: Recovered | None = field(default=None, compare=False)
    examples: tuple[Example, ...] = field(default=(), compare=False, repr=False)
    caption: str | None = field(default=None, compare=False, repr=False)

    @property
    def about(self) -> str:
        """What it names: a pair of classes, or a token or a place and the class."""
        return " finds ".join(self.pair) if self.pair else f"{self.token or self.place}, {self.target}"


def _shift(plane: Tensor, dy: int, dx: int) -> Tensor:
    out = torch.zeros_like(plane)
    h, w = plane.shape[-2:]
    out[..., max(dy, 0) : h + min(dy, 0), max(dx, 0) : w + min(dx, 0)] = plane[
        ..., max(-dy, 0) : h - max(dy, 0), max(-dx, 0) : w - max(dx, 0)
    ]
    return out


def as_images(pixels: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Pixels as values from 0 to 1, channels first."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def as_pixels(images: Float[Tensor, "b 3 h w"]) -> UInt8[np.ndarray, "b h w 3"]:
    """The inverse of `as_images`, rounded."""
    return (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
