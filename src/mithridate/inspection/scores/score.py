"""What a score of single images is, and what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mithridate.inspection.view import View
from mithridate.randomness import stream_seed


@dataclass(frozen=True, eq=False)
class Screen:
    """The model with its classes, clean images and captions of the owner's, and the seed of every draw."""

    view: View
    classes: tuple[str, ...]
    clean: Float[Tensor, "m 3 h w"]
    captions: Sequence[str]
    seed: int = 0

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed(self.seed, f"screen {purpose}"))


@runtime_checkable
class Score(Protocol):
    """A small frozen dataclass. `measures`: what is large for an image with a trigger, in plain words."""

    name: ClassVar[str]
    measures: ClassVar[str]

    def suspicion(self, screen: Screen, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """One number an image: higher is more suspicious. An image's number depends on no other image."""
        ...
