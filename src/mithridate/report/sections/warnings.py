"""Warnings in words: one template for each code of docs/warnings.md. Codes and values are made in `evaluation`."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

from mithridate.evaluation.measurement import Warning as Premise
from mithridate.report.document import Warning
from mithridate.report.numbers import percent, show

# `{name}` is a value of the warning, as `show` shows it; `{name:percent}` a share in per cent.
SENTENCES: dict[str, str] = {
    "cropped-trigger": "{share:percent} of random crops of {crops} of the area still contain the trigger",
    "faint-trigger": (
        "after the training transform images differ by {change}/255 on average and by {largest}/255 at most; "
        "{kept:percent} of the alteration is left"
    ),
    "few-poisons": (
        "{attack} has {each} poisoned pairs for each target; the fewest that such an attack was seen to succeed with "
        "are {needed}"
    ),
    "leak": "files and positions alone tell poisoned from clean images: AUROC {auroc} [{low}, {high}]; first: {kinds}",
    "much-removed": (
        "the threshold removes {removed:percent} of the pairs; its level does not belong to the scale of this encoder"
    ),
    "nothing-removed": "no pair is above the threshold {level}; the highest suspicion is {highest}",
    "shared-images": (
        "{count} of {images} test images are training images: {exact} have the same bytes, {near} look the same (at "
        "most {bits} of 64 bits of a difference hash differ); {examples}"
    ),
}


class _Words(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        return percent(value) if format_spec == "percent" else str(show(value))


def worded(warnings: Iterable[Premise]) -> tuple[Warning, ...]:
    """The warnings as sentences. Raises `KeyError` for a code, or a value, that no template has."""
    return tuple(Warning(w.code, _Words().vformat(SENTENCES[w.code], (), w.values)) for w in warnings)
