"""Blends, stripes and waves over the whole image, for every class, read against START."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from mithridate.inspection.finding import Finding, Recovered
from mithridate.inspection.material import Material
from mithridate.inspection.overlay import Blend, Form, OverlaySearch, Waves, invert_overlays
from mithridate.inspection.transfer import backwards, finding_of, judged, null_gap, transfers
from mithridate.inspection.view import View

_AT_ONCE = 16
FORMS: dict[str, Form] = {
    "a picture blended in": Blend(alpha=0.2, cells=16),
    "strong waves": Waves(amplitude=40 / 255),
    "faint waves": Waves(amplitude=20 / 255),
}


@dataclass(frozen=True, kw_only=True)
class OverlayInversion:
    """For each class and each form the overlay that takes most pictures there, on the suspect and on START.

    Read against START as masks are; of each form the strongest class is searched again for longer. (Derived here.)
    """

    name: ClassVar[str] = "overlay-inversion"
    kinds: ClassVar[str] = "blends, stripes and waves over the whole image"
    needs_start: ClassVar[bool] = True
    margin: ClassVar[float] = 0.15

    search: OverlaySearch = field(default_factory=OverlaySearch)
    refine_steps: int = 60
    refine_pictures: int = 32

    def examine(self, material: Material) -> Sequence[Finding]:
        every = torch.arange(len(material.data.classes))
        by_form = []
        for number, (name, form) in enumerate(FORMS.items()):
            searched = self._found(material, material.suspect, form, every, "suspect", number)
            found = judged(material, transfers(material, searched))
            own = partial(self._found, material, material.start, form, every, "start", number)
            back = backwards(material, material.of_start(f"{self} {form}", own))
            by_form.append((found[0], null_gap(back, found[0].target, material.swapped), name))
        best, null, name = max(by_form, key=lambda each: each[0].gap - each[1])
        longer = replace(self.search, steps=self.refine_steps, pictures=self.refine_pictures, lr=0.1)
        again = transfers(material, focus_overlay(material, best.target, FORMS[name], search=longer))[0]
        best = max(best, again, key=lambda each: each.gap)
        return [finding_of(material, best, probe=self.name, kind="overlay", null=null, margin=self.margin, place=name)]

    def _found(
        self, material: Material, view: View | None, form: Form, targets: Tensor, which: str, number: int
    ) -> list[tuple[int, Recovered]]:
        if view is None:
            return []
        generator = material.generator(f"overlays {which}", number)
        size = (int(material.data.images.shape[2]), int(material.data.images.shape[3]))
        out: list[tuple[int, Recovered]] = []
        for part in targets.split(_AT_ONCE):
            draw = material.data.draw(generator)
            out += zip(part.tolist(), invert_overlays(view, draw, part, size, form, self.search, generator))
            material.progress(f"overlays ({which})", len(out), len(targets))
        return out


def focus_overlay(
    material: Material, target: int, form: Form, *, search: OverlaySearch, turn: int = 0, spared: View | None = None
) -> list[tuple[int, Recovered]]:
    """One overlay of one class, searched for longer; `spared` shall not be fooled."""
    generator = material.generator(f"focused overlay {form}", target, turn)
    size = (int(material.data.images.shape[2]), int(material.data.images.shape[3]))
    draw, targets = material.data.draw(generator), torch.tensor([target])
    found = invert_overlays(material.suspect, draw, targets, size, form, search, generator, spared=spared)
    return [(target, found[0])]
