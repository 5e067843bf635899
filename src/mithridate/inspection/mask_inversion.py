"""Patches: the smallest mask and its pattern for every class, read against START."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mithridate.inspection.finding import Finding, Recovered
from mithridate.inspection.invert import MaskSearch, invert_masks
from mithridate.inspection.material import Material
from mithridate.inspection.transfer import Transfer, backwards, finding_of, judged, null_gap, transfers
from mithridate.inspection.view import View

_AT_ONCE = 16  # classes whose masks are searched in one batch


@dataclass(frozen=True, kw_only=True)
class MaskInversion:
    """For each class the smallest mask and pattern that take pictures there, on the suspect and on START.

    What works on the suspect and not on START was planted by what came after START; what works on both is a feature
    of both. The null is the largest of START's own triggers the other way. The `refined` classes of the largest gap
    are searched again from four masks of other sizes and places. (Masks: Neural Cleanse, Wang et al. 2019; the
    reading against START is derived here.)
    """

    name: ClassVar[str] = "mask-inversion"
    kinds: ClassVar[str] = "patches at a fixed place"
    needs_start: ClassVar[bool] = True
    margin: ClassVar[float] = 0.15

    search: MaskSearch = field(default_factory=MaskSearch)
    refined: int = 1
    refine_steps: int = 60
    refine_pictures: int = 12

    def examine(self, material: Material) -> Sequence[Finding]:
        found = judged(material, transfers(material, self._all(material, material.suspect, "suspect")))
        own = partial(self._all, material, material.start, "start")
        back = backwards(material, material.of_start(repr(self), own))
        for target in list(dict.fromkeys(each.target for each in found))[: self.refined]:
            found += transfers(
                material, focus(material, target, steps=self.refine_steps, pictures=self.refine_pictures)
            )
        best = compact(found)
        null = null_gap(back, best.target, material.swapped)
        place = describe_place(best.trigger)
        return [finding_of(material, best, probe=self.name, kind="patch", null=null, margin=self.margin, place=place)]

    def _all(self, material: Material, view: View | None, which: str) -> list[tuple[int, Recovered]]:
        """For each class its trigger."""
        if view is None:
            return []
        generator = material.generator(f"masks {which}")
        size, classes = material.data.images.shape[2:], torch.arange(len(material.data.classes))
        out: list[tuple[int, Recovered]] = []
        for targets in classes.split(_AT_ONCE):
            first = 0.1 + 0.05 * torch.rand(len(targets), *size, generator=generator)
            found = invert_masks(view, material.data.draw(generator), targets, first, self.search, generator)
            out += zip(targets.tolist(), found)
            material.progress(f"masks ({which})", len(out), len(classes))
        return out


def focus(
    material: Material,
    target: int,
    *,
    steps: int = 60,
    pictures: int = 12,
    turn: int = 0,
    spared: View | None = None,
) -> list[tuple[int, Recovered]]:
    """Four triggers of one class, searched from masks of different sizes and places; `spared` shall not be fooled."""
    generator = material.generator("focused masks", target, turn)
    first = first_masks(tuple(material.data.images.shape[2:]), generator)
    search = replace(MaskSearch(), steps=steps, pictures=pictures)
    targets = torch.full((len(first),), target)
    draw = material.data.draw(generator)
    found = invert_masks(material.suspect, draw, targets, first, search, generator, spared=spared)
    return [(target, trigger) for trigger in found]


def first_masks(size: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "4 h w"]:
    """A faint mask everywhere, and squares of a sixth, a quarter and a half of the side at places of their own."""
    h, w = size
    masks = torch.full((4, h, w), 0.05)
    masks[0] = 0.1 + 0.05 * torch.rand(h, w, generator=generator)
    for i, share in enumerate((6, 4, 2), start=1):
        sh, sw = max(1, h // share), max(1, w // share)
        top = int(torch.randint(h - sh + 1, (), generator=generator))
        left = int(torch.randint(w - sw + 1, (), generator=generator))
        masks[i, top : top + sh, left : left + sw] = 0.5
    return masks


def compact(found: Sequence[Transfer]) -> Transfer:
    """Of the triggers that are nearly as strong as the strongest the one that covers least."""
    top = max(each.gap for each in found)
    return min((each for each in found if each.gap > top - 0.1), key=lambda each: each.trigger.area)


def describe_place(trigger: Recovered) -> str:
    """Where a patch lies, in words."""
    down, right = trigger.centre
    rows, columns = ("top", "middle", "bottom"), ("left", "centre", "right")
    row, column = rows[min(2, int(3 * down))], columns[min(2, int(3 * right))]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
