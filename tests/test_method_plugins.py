"""The contract of probes and repairs: it holds for the built-in ones, and is broken by those that break it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from mithridate.cli import main
from mithridate.errors import InspectionError
from mithridate.inspection.comparisons import Decree, GradientToken, NeuralCleanse
from mithridate.inspection.finding import Finding
from mithridate.inspection.inspect import inspect
from mithridate.inspection.invert import MaskSearch
from mithridate.inspection.known_triggers import KnownTriggers
from mithridate.inspection.mask_inversion import MaskInversion
from mithridate.inspection.overlay import OverlaySearch
from mithridate.inspection.overlay_inversion import OverlayInversion
from mithridate.inspection.registry import COMPARISONS, PROBES
from mithridate.inspection.relabelling import Relabelling
from mithridate.inspection.token_scan import TokenScan
from mithridate.repairing.case import Candidate, Case
from mithridate.repairing.prune import ChannelPruning, FinePruning, HeadAblation, batch_norms
from mithridate.repairing.unlearn import Unlearn
from mithridate.repairing.weights import Interpolate, TaskVector
from mithridate.testing import ContractError, check_probe, check_repair, example_case

FEW = MaskSearch(steps=2, pictures=2)
SMALL = [
    TokenScan(most=20),
    Relabelling(),
    MaskInversion(search=FEW, refine_steps=2, refine_pictures=2),
    OverlayInversion(search=OverlaySearch(steps=2, pictures=2), refine_steps=2, refine_pictures=2),
    KnownTriggers(images=10),
    NeuralCleanse(search=FEW),
    Decree(steps=3, pictures=4),
    GradientToken(steps=3, captions=4),
]
REPAIRS = [
    Interpolate(shares=(0.5,)),
    TaskVector(scales=(1.0,), steps=2, batch_size=8),
    Unlearn(rounds=1, steps=2, search_steps=2, batch_size=8),
    FinePruning(shares=(0.5,), steps=2, batch_size=8),
    ChannelPruning(thresholds=(2.0,)),
]


@pytest.mark.parametrize("probe", SMALL, ids=lambda probe: probe.name)
def test_probes_keep_the_contract(probe):
    check_probe(probe)


def test_every_probe_is_tried():
    assert {probe.name for probe in SMALL} == {*PROBES, *COMPARISONS}


@pytest.mark.parametrize("repair", REPAIRS, ids=lambda repair: repair.name)
def test_repairs_keep_the_contract(repair):
    check_repair(repair)


@dataclass(frozen=True, kw_only=True)
class Loud:
    name: ClassVar[str] = "loud"
    kinds: ClassVar[str] = "nothing"
    needs_start: ClassVar[bool] = False
    margin: ClassVar[float] = 0.1
    flag: bool = True
    probe: str = "loud"
    strength: float = 0.0

    def examine(self, material) -> Sequence[Finding]:
        return [Finding(self.probe, "token", self.strength, 0.5, self.flag)]


@dataclass(frozen=True, kw_only=True)
class Spoils:
    name: ClassVar[str] = "spoils"
    needs_start: ClassVar[bool] = False
    needs_findings: ClassVar[bool] = False
    copied: bool = False

    def candidates(self, case: Case) -> Iterator[Candidate]:
        made = case.encoder.copy() if self.copied else case.encoder
        with torch.no_grad():
            next(made.model.parameters()).mul_(float("nan") if self.copied else 2.0)
        yield Candidate("all", made)


@pytest.mark.parametrize(
    ("check", "broken", "message"),
    [
        (check_probe, Loud(), "is flagged, and its strength does not exceed its null"),
        (check_probe, Loud(probe="other", flag=False), "should name its probe 'loud', got 'other'"),
        (check_probe, Loud(strength=float("inf")), "strength and null should be finite"),
        (check_repair, Spoils(), "changed the suspect itself"),
        (check_repair, Spoils(copied=True), "are not finite"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:20],
)
def test_what_breaks_the_contract_is_named(check, broken, message):
    with pytest.raises(ContractError, match=message):
        check(broken)


def test_published_detectors_stand_beside_and_never_flag(train_pairs):
    encoder = example_case().encoder
    with pytest.MonkeyPatch.context() as patch:
        for name in COMPARISONS:
            patch.setitem(COMPARISONS, name, type(next(p for p in SMALL if p.name == name)))
        patch.setitem(COMPARISONS, "loud", Loud)  # which flags itself
        patch.setattr("mithridate.inspection.inspect.FLOOR", 0.0)
        patch.setattr(NeuralCleanse, "examine", lambda self, material: [])
        patch.setattr(Decree, "examine", lambda self, material: [])
        patch.setattr(GradientToken, "examine", lambda self, material: [])
        found = inspect(encoder, train_pairs, probes={"relabelling": Relabelling()}, compare=True, cache=None)
    assert [f.flagged for f in found.findings if f.probe == "loud"] == [False]
    assert "loud" not in found.probes


def test_cutting_a_channel_silences_it_and_no_threshold_cuts_none():
    case = example_case()
    norms = batch_norms(case.encoder)
    (none,) = ChannelPruning(thresholds=(1e6,)).candidates(case)
    (some,) = ChannelPruning(thresholds=(1.0,)).candidates(case)

    def silent(encoder):
        layers = [encoder.model.get_submodule(f"visual.{name}") for name in norms]
        return sum(int((layer.weight == 0).sum()) for layer in layers)

    assert silent(none.encoder) == silent(case.encoder) < silent(some.encoder)


def test_heads_are_cut_in_vision_transformers_alone():
    case = example_case()
    with pytest.raises(InspectionError, match="needs a vision transformer"):
        next(HeadAblation().candidates(case))
    from mithridate.encoder.encoder import load_encoder

    vit = load_encoder("mithridate-micro-vit", seed=0)
    (one,) = HeadAblation(counts=(1,)).candidates(replace(case, encoder=vit))
    visual = one.encoder.model.get_submodule("visual")
    layers = [layer for layer in visual.modules() if isinstance(layer, torch.nn.MultiheadAttention)]
    zero = [int((layer.out_proj.weight == 0).any(dim=0).sum()) for layer in layers]
    assert sum(zero) == 64


def test_a_plugin_adds_a_probe_and_a_repair(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN, encoding="utf-8")
    assert main(["check-plugin", str(path)]) == 0
    assert main(["inspect", "none", "--plugin", str(path), "--data", "none", "--out", str(tmp_path / "out")]) == 1
    assert "mean-image" in PROBES
    del PROBES["mean-image"]
    from mithridate import plugins
    from mithridate.repairing.registry import REPAIRS as known

    del known["as-it-is"]
    plugins._loaded.clear()
    plugins._owner.clear()


PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
from mithridate.inspection.finding import Finding
from mithridate.repairing.case import Candidate


@dataclass(frozen=True, kw_only=True)
class MeanImage:
    name: ClassVar[str] = "mean-image"
    kinds: ClassVar[str] = "a grey picture that stands for a class"
    needs_start: ClassVar[bool] = False
    margin: ClassVar[float] = 0.5

    def examine(self, material):
        share = material.suspect.logits(material.data.images.mean(dim=0)[None]).softmax(dim=1)[0]
        target = material.data.classes[share.argmax()]
        return [Finding("mean-image", "picture", share.max().item(), 1.0, False, target=target)]


@dataclass(frozen=True, kw_only=True)
class AsItIs:
    name: ClassVar[str] = "as-it-is"
    needs_start: ClassVar[bool] = False
    needs_findings: ClassVar[bool] = False

    def candidates(self, case):
        yield Candidate("not at all", case.encoder.copy())


PROBES = {"mean-image": MeanImage}
REPAIRS = {"as-it-is": AsItIs}
'''  # fmt: skip
