"""The contract of probes and of repairs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from math import isfinite
from typing import Any

import torch

from mithridate.data.pairs import Pairs, make_pairs
from mithridate.encoder.encoder import Encoder, load_encoder, weights_fingerprint
from mithridate.inspection.finding import Finding, Recovered
from mithridate.inspection.material import Material, OwnData, view_of
from mithridate.inspection.probe import Probe
from mithridate.repairing.case import Candidate, Case, Repair
from mithridate.testing.contract import expect, expect_frozen

_CLASSES = ("sheep", "aeroplane", "bird")
_SIDE, _IMAGES = 32, 45
Checks = Iterator[tuple[str, Callable[[], None]]]


@lru_cache(maxsize=1)
def example_material() -> Material:
    """A suspect and a START that know nothing, and 45 coarse pictures of three classes with a caption each."""
    drawn = torch.Generator().manual_seed(0)
    coarse = torch.rand(_IMAGES, 3, 8, 8, generator=drawn)
    images = torch.nn.functional.interpolate(coarse, (_SIDE, _SIDE))
    of_class = torch.arange(_IMAGES) % len(_CLASSES)
    every = torch.arange(_IMAGES)
    captions = tuple(f"a photo of a {_CLASSES[c]} near tree {i}" for i, c in enumerate(of_class.tolist()))
    member = torch.nn.functional.one_hot(of_class).bool()
    data = OwnData(images, captions, every, _CLASSES, member, labelled=True, rows=every)
    suspect, start = (view_of(load_encoder("mithridate-micro", seed=seed), _CLASSES) for seed in (1, 0))
    return Material(suspect, start, data)


def example_case() -> Case:
    """The material as a repair is given it, with a patch of one class that was flagged."""
    material = example_material()
    keep = torch.zeros(_SIDE, _SIDE)
    keep[:6, :6] = 1.0
    patch = Recovered(keep, keep.expand(3, -1, -1) * 0.5)
    finding = Finding("mask-inversion", "patch", 0.9, 0.1, True, target=_CLASSES[0], place="top left", trigger=patch)
    data, start = material.data, material.start
    assert start is not None
    return Case(_still(material.suspect.encoder), (finding,), data, _pairs(data), start=start.encoder, cache=None)


def _still(encoder: Encoder) -> Encoder:
    made = encoder.copy()
    made.model.requires_grad_(True)
    return made


def _pairs(data: OwnData) -> Pairs:
    return make_pairs([f"{i}.png" for i in range(len(data.images))], list(data.captions))


def check_probe(probe: Any) -> None:
    """Raise `ContractError` where `probe`, an instance with its options, breaks the contract of probes."""
    for _, check in probe_checks(probe):
        check()


def probe_checks(probe: Any) -> Checks:
    """The checks of `check_probe` by name."""
    yield "is a frozen dataclass that says what it finds and needs", lambda: _probe_declares(probe)
    yield "finite findings of its own name, the same each time", lambda: _finds(probe)
    yield "without START nothing is flagged that needs it", lambda: _without_start(probe)


def _probe_declares(probe: Any) -> None:
    expect_frozen(probe)
    expect(isinstance(probe, Probe), f"{type(probe).__name__} lacks name, kinds, needs_start, margin or examine")
    expect(isinstance(probe.kinds, str) and probe.kinds, "kinds should say in plain words what it can find")
    expect(isfinite(probe.margin) and probe.margin >= 0, f"margin should be 0 or more, got {probe.margin!r}")
    type(probe)()


def _finds(probe: Probe) -> None:
    material = example_material()
    before = weights_fingerprint(material.suspect.encoder.model), material.data.images.clone()
    first, again = (list(probe.examine(material)) for _ in range(2))
    for finding in first:
        expect(isinstance(finding, Finding), f"examine should give findings, got {type(finding).__name__}")
        expect(finding.probe == probe.name, f"a finding should name its probe {probe.name!r}, got {finding.probe!r}")
        finite = isfinite(finding.strength) and isfinite(finding.null)
        expect(finite, f"strength and null should be finite, got {finding.strength} and {finding.null}")
        over = finding.strength > finding.null
        expect(over or not finding.flagged, "a finding is flagged, and its strength does not exceed its null")
        known = finding.target is None or finding.target in _CLASSES
        expect(known, f"the class should be one of the owner's, got {finding.target!r}")
    expect(first == again, "the findings differ between two calls; draw from material.generator alone")
    same = before[0] == weights_fingerprint(material.suspect.encoder.model)
    expect(same and bool((before[1] == material.data.images).all()), "the probe changed the model or the images")


def _without_start(probe: Probe) -> None:
    if probe.needs_start:
        found = probe.examine(replace(example_material(), start=None))
        expect(not any(f.flagged for f in found), "needs_start is true, and a finding is flagged without START")


def check_repair(repair: Any) -> None:
    """Raise `ContractError` where `repair`, an instance with its options, breaks the contract of repairs."""
    for _, check in repair_checks(repair):
        check()


def repair_checks(repair: Any) -> Checks:
    """The checks of `check_repair` by name."""
    yield "is a frozen dataclass that says what it needs", lambda: _repair_declares(repair)
    yield "candidates of finite weights that leave the suspect as it was", lambda: _offers(repair)


def _repair_declares(repair: Any) -> None:
    expect_frozen(repair)
    expect(isinstance(repair, Repair), f"{type(repair).__name__} lacks name, needs_start, needs_findings or candidates")
    type(repair)()


def _offers(repair: Repair) -> None:
    case = example_case()
    before = weights_fingerprint(case.encoder.model)
    offered = list(repair.candidates(case))
    expect(offered, "a repair should offer a model at least")
    for candidate in offered:
        expect(isinstance(candidate, Candidate), f"candidates should give Candidate, got {type(candidate).__name__}")
        expect(candidate.strength, "a candidate should say how strongly it was repaired")
        weights = candidate.encoder.model.state_dict()
        shapes = {name: value.shape for name, value in case.encoder.model.state_dict().items()}
        same = {name: value.shape for name, value in weights.items()} == shapes
        expect(same, "a candidate should be a model of the suspect's architecture")
        finite = all(bool(torch.isfinite(value).all()) for value in weights.values() if value.is_floating_point())
        expect(finite, f"the weights of candidate {candidate.strength!r} are not finite")
    expect(before == weights_fingerprint(case.encoder.model), "the repair changed the suspect itself; copy it first")
