"""A recovered trigger held against START: what it does to the suspect and does not do to START is what was planted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from mithridate.inspection.finding import Finding, Recovered
from mithridate.inspection.material import Material

_FEWEST = 10  # images that a share is taken of


@dataclass(frozen=True, eq=False)
class Transfer:
    """What one trigger does: the share of images taken for `target` by the suspect and by START (None without)."""

    trigger: Recovered
    target: int
    success: float
    start_success: float | None

    @property
    def gap(self) -> float:
        """What is not explained by START, or by a picture without a trigger where there is no START."""
        return self.success - (self.start_success or 0.0)


def transfers(material: Material, triggers: Sequence[tuple[int, Recovered]]) -> list[Transfer]:
    """Each trigger with its class, on held images, strongest gap first."""
    measured = [
        Transfer(
            trigger,
            target,
            material.success(material.suspect, trigger, target),
            None if material.start is None else material.success(material.start, trigger, target),
        )
        for target, trigger in triggers
    ]
    return sorted(measured, key=lambda each: -each.gap)


def judged(material: Material, found: Sequence[Transfer]) -> list[Transfer]:
    """Those of classes whose vectors can be trusted; all where there is no other, which are then not flagged."""
    return [each for each in found if each.target not in material.swapped] or list(found)


@dataclass(frozen=True, eq=False)
class Back:
    """What one of START's own triggers does: its success on START, and what the suspect takes the same images for."""

    start_success: float
    predicted: Int[Tensor, " b"]


def backwards(material: Material, triggers: Sequence[tuple[int, Recovered]]) -> dict[int, Back]:
    """START's own triggers by class, the other way: on the suspect."""
    if material.start is None:
        return {}
    return {
        target: Back(
            material.success(material.start, trigger, target),
            material.suspect.predicted(trigger.stamp(material.data.images[material.others(target)])),
        )
        for target, trigger in triggers
    }


def null_gap(back: Mapping[int, Back], target: int, swapped: Collection[int] = ()) -> float:
    """The null of a class: by how much any other class's trigger of START works better on START, and 0 at least.

    Fine-tuning without an attack moves both ways alike, so no threshold is taken from another START. A planted trigger
    draws whatever looks like it to its own class, and so does a class whose captions find another: images that the
    suspect takes for `target` or one of the `swapped` are left out, and triggers to the latter too (derived here).
    """
    gaps, drawn = [0.0], torch.tensor([target, *swapped])
    for other, each in back.items():
        left = each.predicted[~torch.isin(each.predicted, drawn)]
        if other not in {target, *swapped} and len(left) >= _FEWEST:
            gaps.append(each.start_success - (left == other).float().mean().item())
    return max(gaps)


def finding_of(
    material: Material, best: Transfer, *, probe: str, kind: str, null: float, margin: float, place: str
) -> Finding:
    """The finding that a probe makes of its strongest trigger. Without START nothing is flagged."""
    return Finding(
        probe=probe,
        kind=kind,
        strength=best.gap,
        null=null,
        flagged=best.start_success is not None and best.gap > null + margin,
        target=material.data.classes[best.target],
        place=place,
        success=best.success,
        start_success=best.start_success,
        trigger=best.trigger,
        examples=material.examples(best.trigger, best.target),
    )
