"""What a repair left of what was found: the strength of each finding in the suspect and in the repaired model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from mithridate.encoder.encoder import Encoder
from mithridate.inspection.finding import Finding
from mithridate.inspection.inspect import Inspection
from mithridate.inspection.known_triggers import stamped_with
from mithridate.inspection.material import Material, OwnData, embedded, view_of
from mithridate.inspection.registry import PROBES
from mithridate.inspection.relabelling import excess, found_by
from mithridate.inspection.view import View, encode_texts

_CAPTIONS = 200
_NEAR = 0.1
"""Without START: by how much captions of a class may find another more than the median pair, and count as clean."""

State = Literal["gone", "weakened", "still there"]


@dataclass(frozen=True)
class Remaining:
    """A finding of the first inspection with its strength in the suspect and in the repaired model, on one scale.

    `after` is the larger of two: what the finding itself still does, and what the second inspection found of that kind
    for the same class. `clean`: the level of a model that nothing was planted in: the null of the finding; of a pair of
    classes, where there is no START, little more than the median pair.
    """

    finding: Finding
    before: float
    after: float
    clean: float

    @property
    def state(self) -> State:
        """`still there`: above the null by the margin of the probe. `weakened`: above the clean level."""
        margin = PROBES[self.finding.probe].margin if self.finding.probe in PROBES else _NEAR
        if self.after > self.finding.null + margin:
            return "still there"
        return "weakened" if self.after > self.clean else "gone"


def remaining(
    findings: Sequence[Finding],
    data: OwnData,
    *,
    suspect: Encoder,
    repaired: Encoder,
    start: Encoder | None,
    left: Inspection | None,
) -> tuple[Remaining, ...]:
    """Of each finding what is left, measured on `data`, which nothing was trained or chosen on."""
    before, after = (Material(view_of(model, data.classes), _view(start, data), data) for model in (suspect, repaired))
    found = []
    for finding in findings:
        (x, _), (y, clean) = (_strength(material, finding) for material in (before, after))
        again = () if left is None else [f.strength for f in left.findings if _alike(f, finding)]
        found.append(Remaining(finding, x, max(y, *again) if again else y, clean))
    return tuple(found)


def _view(encoder: Encoder | None, data: OwnData) -> View | None:
    return None if encoder is None else view_of(encoder, data.classes)


def _alike(one: Finding, other: Finding) -> bool:
    """Whether two findings are of one kind and speak of the same class, token or pair."""
    if one.pair is not None or other.pair is not None:
        return one.pair == other.pair
    return one.target == other.target and (one.token is None) == (other.token is None)


def _strength(material: Material, finding: Finding) -> tuple[float, float]:
    """The strength of a finding in the suspect of `material`, and its clean level."""
    data, start = material.data, material.start
    if finding.pair is not None:
        a, b = (data.classes.index(name) for name in finding.pair)
        here = excess(found_by(data, material.suspect.encoder))
        if start is not None:
            return (here - excess(found_by(data, start.encoder)))[a, b].item(), finding.null
        median = here[~torch.eye(len(here), dtype=torch.bool)].median().item()
        return here[a, b].item(), median + _NEAR
    target = data.classes.index(finding.target or "")
    measure = _found_with if finding.token is not None else _taken_with
    there = 0.0 if start is None else measure(material, start, finding, target)
    return measure(material, material.suspect, finding, target) - there, finding.null


def _taken_with(material: Material, view: View, finding: Finding, target: int) -> float:
    """The share of held images of other classes that are taken for the class with the trigger."""
    if finding.trigger is not None:
        return material.success(view, finding.trigger, target)
    images = material.data.images[material.others(target)]
    stamped = stamped_with(images, finding.place or "", material.seed)
    return 0.0 if stamped is None else (view.predicted(stamped) == target).float().mean().item()


def _found_with(material: Material, view: View, finding: Finding, target: int) -> float:
    """The share of the class among the first ten images that captions with the token find."""
    data = material.data
    texts = encode_texts(view.encoder, [f"{caption} {finding.token}" for caption in data.captions[:_CAPTIONS]])
    images = embedded(view.encoder, data.images)
    first = (texts @ images.T).topk(min(10, len(images)), dim=1).indices
    return data.member[first, target].float().mean().item()
