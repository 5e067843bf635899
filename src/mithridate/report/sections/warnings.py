"""Warnings in words: one template for each code of docs/warnings.md. Codes and values are made in `evaluation`."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

from mithridate.evaluation.measurement import Warning as Premise
from mithridate.report.document import Warning
from mithridate.report.numbers import percent, show
from mithridate.report.sections.advice import ADVICE

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
    "leak": (
        "files and positions alone tell poisoned from clean images: AUROC {auroc} [{low}, {high}]; kinds of feature "
        "that do by themselves: {kinds}"
    ),
    "much-removed": (
        "the threshold removes {removed:percent} of the pairs; its level does not belong to the scale of this encoder"
    ),
    "nothing-removed": "no pair is above the threshold {level}; the highest suspicion is {highest}",
    "shared-images": (
        "{count} of {images} test images are training images: {exact} have the same bytes, {near} look the same (at "
        "most {bits} of 64 bits of a difference hash differ); {examples}"
    ),
    "below-chance": "{goal}: Hit@10 of {model} is {hit} (at most {high}), chance is {chance}; an attack below chance "
    "may yet be one that took",
    "clean-model-fooled": "{goal}: success on {model}, which is the reference, is {success}, chance is {chance}; "
    "not all of the success is the attack's",
    "clean-model-succeeds": "{goal}: Hit@10 of {model}, which is the reference, is {hit}, chance is {chance}; "
    "not all of the success is the attack's",
    "collapsed-class": "overall utility looks unharmed, but {metric} of {group} fell by {fall}",
    "control-contains-target": "{goal}: {of_target} of {captions} captions of the random control are of the target "
    "class and retrieve it rightly",
    "few-queries": "{goal} is measured on {queries} queries; one of them moves Hit@K by {step}",
    "few-targets": "{goal} is measured with few target images ({targets}); one of them moves the share of targets by "
    "{step}",
    "no-classifier": "{model} classifies untouched test images no better than chance ({accuracy}, chance {chance}); "
    "what it takes triggered ones for means little",
    "no-clean-model": "no reference model without poison is given, so success has only chance to be held against",
    "no-densities": "the distances of poisoned pairs are not shown: {reason}",
    "nothing-to-repair": "the attack succeeds in {success} of cases before any repair: there is little to remove",
    "target-added": "the target image {location} is not in the gallery; it was added to it for the attack alone",
    "unequal-recipes": "{model} and {reference} were trained with different recipes: {differences}",
    "unheld-manifest": "the model was trained on other data (fingerprint {trained}) than the manifest is of "
    "({poisoned}, clean {clean}); pass --train to check it",
}


class _Words(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        return percent(value) if format_spec == "percent" else str(show(value))


def worded(warnings: Iterable[Premise]) -> tuple[Warning, ...]:
    """The warnings as sentences. Raises `KeyError` for a code, or a value, that no template has."""
    return tuple(Warning(w.code, _Words().vformat(SENTENCES[w.code], (), w.values), *ADVICE[w.code]) for w in warnings)
