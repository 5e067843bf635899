"""A bank of known triggers, stamped as they are: the kinds of the registry and those of published checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mithridate.errors import AttackError
from mithridate.inspection.finding import Example, Finding, as_images, as_pixels
from mithridate.inspection.material import Material
from mithridate.inspection.view import View
from mithridate.poisoning.triggers import describe, parse_trigger
from mithridate.randomness import stream

_PLACES = ("top-left", "top-right", "bottom-left", "bottom-right", "centre")
PATCHES = (
    *(f"patch:pattern={pattern},place={place}" for pattern in ("checkerboard", "noise") for place in _PLACES),
    *(f"patch:pattern=solid,place={place}" for place in _PLACES),
    "patch:place=random",
    "patch:pattern=noise,place=random",
    "patch:pattern=checkerboard,cells=8,place=112/224x112/224",  # hanxunh/clip_backdoor_*_badnets
)
OVERLAYS = (
    "blended:alpha=0.2",
    "blended:alpha=0.2,cells=8",
    "sig:amplitude=60,frequency=6",
    "stripes:alpha=0.1",
    "triangles",
    "warp",
    "filter:tone=warm",
    "text",
)


@dataclass(frozen=True, kw_only=True)
class KnownTriggers:
    """Each known trigger on held images: the share that goes over to one class, less the share that does in START.

    The null is the largest share that START goes over by and the suspect does not. Without START only patches count:
    an overlay over the whole image may well move a clean model, and a patch of 16 pixels of 224 seldom does; the
    strength is then the share itself, and from half on a patch is flagged. (Derived here.)
    """

    name: ClassVar[str] = "known-triggers"
    kinds: ClassVar[str] = "the patches and overlays of published attacks, as they are"
    needs_start: ClassVar[bool] = False
    margin: ClassVar[float] = 0.15

    images: int = 150
    without_start: float = 0.5

    def examine(self, material: Material) -> Sequence[Finding]:
        held = material.data.held[: self.images]
        plain = material.data.images[held]
        bank = PATCHES if material.start is None else (*PATCHES, *OVERLAYS)
        before = _taken(material.suspect, plain)
        start_before = None if material.start is None else _taken(material.start, plain)
        tried = []
        for done, text in enumerate(bank):
            stamped = stamped_with(plain, text, material.seed)
            if stamped is not None:
                gained = _taken(material.suspect, stamped) - before
                there = torch.zeros_like(gained)
                if material.start is not None and start_before is not None:
                    there = _taken(material.start, stamped) - start_before
                gap = gained - there
                gap[list(material.swapped)] = 0  # these classes' vectors cannot be trusted, either way
                tried.append((text, gap, stamped))
            material.progress("known triggers", done + 1, len(bank))
        if not tried:
            return []
        text, gap, stamped = max(tried, key=lambda each: each[1].max().item())
        target, strength = int(gap.argmax()), gap.max().item()
        back = [-other.min().item() for name, other, _ in tried if name != text]
        null = self.without_start - self.margin if material.start is None else max([0.0, *back])
        others = ~material.data.member[held, target]
        success = _share(material.suspect, stamped[others], target)
        start_success = None if material.start is None else _share(material.start, stamped[others], target)
        names = material.data.classes
        rows = others.nonzero().flatten()[:6]
        examples = tuple(
            Example(pixels, names[a], names[b])
            for pixels, a, b in zip(
                as_pixels(stamped[rows]),
                material.suspect.predicted(plain[rows]).tolist(),
                material.suspect.predicted(stamped[rows]).tolist(),
            )
        )
        return [
            Finding(
                probe=self.name,
                kind="known trigger",
                strength=strength,
                null=null,
                flagged=strength > null + self.margin,
                target=names[target],
                place=describe(parse_trigger(text)),
                success=success,
                start_success=start_success,
                examples=examples,
            )
        ]


def stamped_with(images: Float[Tensor, "b 3 h w"], text: str, seed: int) -> Float[Tensor, "b 3 h w"] | None:
    """Images with a trigger in its text form; None where the encoder's images are too small for it."""
    trigger = parse_trigger(text)
    pixels = as_pixels(images)
    try:
        out = [trigger.stamp(each, stream(seed, "known trigger", i)) for i, each in enumerate(pixels)]
    except AttackError:
        return None
    return as_images(torch.from_numpy(np.stack(out)))


def _taken(view: View, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " c"]:
    """The share of images that is taken for each class."""
    return torch.bincount(view.predicted(images), minlength=len(view.classes)).float() / len(images)


def _share(view: View, images: Float[Tensor, "b 3 h w"], target: int) -> float:
    return (view.predicted(images) == target).float().mean().item()
