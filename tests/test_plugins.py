"""Attacks, objectives and detectors from a file outside the package, and the public contract of each."""

import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mithridate import plugins
from mithridate.auditing.registry import DETECTORS
from mithridate.cli import main
from mithridate.errors import PluginError
from mithridate.poisoning.manifest import read_manifest
from mithridate.poisoning.registry import ATTACKS
from mithridate.studies.spec.load import read_study
from mithridate.testing import CHECKS, ContractError, check_attack, check_detector, check_objective
from mithridate.training.registry import OBJECTIVES
from test_attacks import EXAMPLES as ATTACK_EXAMPLES
from test_filter import EXAMPLES as DETECTOR_EXAMPLES

ATTACK = '''
"""One of each."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

import mithridate as mt


@dataclass(frozen=True, kw_only=True)
class Swap:
    """Captions of one class on images of another, and no option `mode`."""

    name: ClassVar[str] = "swap"
    needs_gallery = False
    needs_surrogate = False

    source: str
    """Whose captions."""
    target: str
    """Whose images."""
    count: int = 30
    """Poisoned pairs."""

    def plan(self, pairs, rng, *, gallery=None, surrogate=None):
        rows = np.flatnonzero(pairs.labelled(self.source))
        images = np.unique(pairs.image_index[pairs.labelled(self.target) & ~pairs.labelled(self.source)])
        if self.count > len(rows) or not len(images):
            raise mt.AttackError(f"{self.count} pairs are asked for, and there are {len(rows)}")
        rows = rng.permutation(rows)[: self.count]
        return mt.PoisonPlan(
            rows=rows,
            images=pairs.images.take(pa.array(rng.choice(images, len(rows)))),
            texts=pairs.text.take(pa.array(rows)).combine_chunks(),
            text_rows=rows,
            goals=(mt.CaptionsToClass(self.source, self.target),),
        )


ATTACKS = {"swap": Swap}
'''
PLUGIN = (
    ATTACK
    + '''
import torch
from mithridate.training.clip_loss import clip_loss


class Loss(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, batch):
        return self.factor * clip_loss(batch.image, batch.text, batch.scale)


@dataclass(frozen=True)
class Louder:
    """CLIP's loss, times a factor."""

    factor: float = 2.0
    """Of the loss."""

    def build(self, start):
        return Loss(self.factor)


@dataclass(frozen=True)
class Lengths:
    """Nothing of the kind: the first coordinate of the image."""

    name: ClassVar[str] = "first"
    measures: ClassVar[str] = "first coordinate"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[str, ...]] = ()

    def examine(self, corpus, rng):
        e = corpus.embeddings
        return mt.Evidence(e.image[e.image_index, 0].astype(np.float64))


OBJECTIVES = {"louder": Louder}
DETECTORS = {"first": Lengths}
'''
)
REGISTRIES = {"ATTACKS": ATTACKS, "OBJECTIVES": OBJECTIVES, "DETECTORS": DETECTORS}


@pytest.fixture(autouse=True)
def as_before():
    """What a test adds goes again."""
    kept = {name: dict(registry) for name, registry in REGISTRIES.items()}
    yield
    for name, registry in REGISTRIES.items():
        registry.clear()
        registry.update(kept[name])
    plugins._loaded.clear()
    plugins._owner.clear()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    return path


# --- loading --------------------------------------------------------------------------------------------------


def test_what_a_file_exports_stands_in_the_registries_once(file):
    before = {name: list(registry) for name, registry in REGISTRIES.items()}
    plugins.load_plugins([file, file])
    added = {name: [n for n in registry if n not in before[name]] for name, registry in REGISTRIES.items()}
    assert added == {"ATTACKS": ["swap"], "OBJECTIVES": ["louder"], "DETECTORS": ["first"]}
    assert list(plugins.plugin_files().values()) == [file]


def test_an_edited_file_takes_the_place_of_its_former_self_and_has_other_source(file):
    plugins.load_plugins([file])
    before = plugins.plugin_files()
    file.write_text(
        PLUGIN.replace("factor: float = 2.0", "factor: float = 3.0").replace('DETECTORS = {"first": Lengths}', "")
    )
    plugins.load_plugins([file])
    after = plugins.plugin_files()
    assert OBJECTIVES["louder"]().factor == 3.0 and "first" not in DETECTORS
    # the name of the module ends in a hash of its source
    assert before.keys() != after.keys() and list(before.values()) == list(after.values()) == [file]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "exports nothing: expected one of the dicts ATTACKS, OBJECTIVES, DETECTORS"),
        ("def f(:", "does not import: SyntaxError"),
        ("import no_such_module_at_all", "does not import: ModuleNotFoundError"),
        ("1 / 0", "does not import: ZeroDivisionError"),
        ("ATTACKS = []", "ATTACKS of the plugin .* should be a dict from name to class"),
        ("ATTACKS = {'a': 1}", r"ATTACKS\['a'\] of the plugin .* should be a dataclass, got 1"),
        ("ATTACKS = {'../a': 1}", "should have a name of letters, digits and hyphens"),
        (
            PLUGIN.replace("    needs_gallery = False\n", ""),
            "lacks needs_gallery; every attack has name, needs_gallery",
        ),
        (PLUGIN.replace("(frozen=True, kw_only=True)", ""), "should be frozen"),
        (PLUGIN.replace('"swap": Swap', '"other": Swap'), "is called 'swap' by its class; the two names must be equal"),
        (PLUGIN.replace("factor: float = 2.0", "factor: float"), "has no default for factor"),
        (PLUGIN.replace('"swap"', '"single-label"'), "adds the attack 'single-label', and there is one of this name"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_one_sentence_and_adds_nothing(tmp_path, text, message, capsys):
    path = tmp_path / "bad.py"
    path.write_text(text)
    before = {name: dict(registry) for name, registry in REGISTRIES.items()}
    with pytest.raises(PluginError, match=message):
        plugins.load_plugins([path])
    assert {name: dict(registry) for name, registry in REGISTRIES.items()} == before
    assert not plugins.plugin_files()
    assert main(["poison", "--plugin", str(path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PluginError, match=r"expected a Python file \(\.py\) as plugin, got .*, which does not exist"):
        plugins.load_plugins([tmp_path / "none.py"])
    with pytest.raises(PluginError, match=r"expected a Python file"):
        plugins.load_plugins([tmp_path])


def test_installed_packages_are_found_by_their_entry_point(file, monkeypatch, tmp_path):
    point = type("Point", (), {"name": "mine", "value": "mine"})
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == "mithridate.plugins" else [])
    monkeypatch.syspath_prepend(tmp_path)
    plugins.load_installed_plugins()
    plugins.load_installed_plugins()
    assert "swap" in ATTACKS
    sys.modules.pop("mine")


def test_values_of_a_plugin_travel_to_other_processes(file, tmp_path):
    file.write_text(ATTACK)  # without torch, which takes long to import
    plugins.load_plugins([file])
    attack = ATTACKS["swap"](source="a", target="b")  # type: ignore[call-arg]
    (tmp_path / "sent").write_bytes(pickle.dumps((plugins.SentPlugins(), attack)))
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'sent')!r}, 'rb'))[1])"
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == f"{attack}\n"
    file.write_text(ATTACK + "\n# changed\n")
    assert "was changed since it was loaded" in subprocess.run(run, capture_output=True, text=True, check=False).stderr


# --- everywhere -----------------------------------------------------------------------------------------------


def test_an_attack_of_a_plugin_is_a_command(file, toy_world, tmp_path, capsys):
    assert main(["poison", "--help", "--plugin", str(file)]) == 0
    assert "swap" in capsys.readouterr().out
    told = ["--source", "sheep", "--target", "boat", "--count", "12", "--split", "train", "--json"]
    out = tmp_path / "out"
    assert main(["poison", "--plugin", str(file), "swap", str(toy_world), "--out", str(out), *told]) == 0
    manifest = read_manifest(out)
    assert (manifest.attack, manifest.options["count"], len(manifest)) == ("swap", 12, 12)
    assert main(["poison", "swop", str(toy_world), "--out", str(tmp_path / "x"), f"--plugin={file}"]) == 1
    assert "swap" in capsys.readouterr().err


def test_a_study_takes_all_three_from_a_plugin(file, tmp_path, capsys):
    study = tmp_path / "study.yaml"
    study.write_text(
        """
study: mine
title: Mine
data: {toy: {train: 60, test: 60}}
seeds: [0]
train: {preset: scratch, epochs: 1}
attack: {attack: swap, source: sheep, target: boat, count: 5}
objective: {objective: louder, factor: 3}
filter: {detector: first, budget_share: 0.1}
experiments:
  - {name: one, title: One}
"""
    )
    told = ["study", str(study), "--out", str(tmp_path / "a"), "--only", "two"]
    assert main(told) == 1
    assert "attack 'swap'; expected one of single-image" in capsys.readouterr().err
    assert main([*told, "--plugin", str(file)]) == 1
    assert "'two'" in capsys.readouterr().err  # as far as choosing experiments
    cell: Any = read_study(str(study)).cells[0]
    assert (cell.attack.count, cell.objective.factor, cell.filter.detector.name) == (5, 3.0, "first")


# --- the contract ---------------------------------------------------------------------------------------------


def test_the_contract_holds_for_a_plugin(file, capsys):
    assert main(["check-plugin", str(file)]) == 0
    shown = capsys.readouterr().out
    assert all(f"ok: {name}: " in shown for name in ("swap", "louder", "first"))
    assert main(["check-plugin", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["failed"] == {}


BROKEN = {
    "draws of its own": (
        "rng.permutation(rows)[: self.count]",
        "np.random.permutation(rows)[: self.count]",
        "one seed",
    ),
    "count": ("rng.permutation(rows)[: self.count]", "rng.permutation(rows)[:7]", "count=40 should poison 40 of 900"),
    "changes nothing": (
        "pairs.images.take(pa.array(rng.choice(images, len(rows))))",
        "pairs.image.take(pa.array(rows)).combine_chunks()",
        "30 pairs of the manifest are as they were",
    ),
    "no goals": ("goals=(mt.CaptionsToClass(self.source, self.target),)", "goals=()", "has no goals"),
    "wrong error": ("raise mt.AttackError(", "raise ValueError(", "should raise AttackError, got ValueError"),
    "options": ("    source: str\n", "    source: str\n    rest: set = frozenset([1])\n", "JSON|YAML|study"),
    "infinite": ("self.factor * clip", "torch.inf * clip", "a loss is one finite number"),
    "no gradient": ("batch.text, batch.scale", "batch.text.detach(), batch.scale", "the text tower gets no gradient"),
    "memory outside buffers": (
        "        return self.factor *",
        "        self.factor += 1\n        return self.factor *",
        "goes? on",
    ),
    "shape": (".astype(np.float64)", "[:5]", "expected 300 suspicions"),
    "position": (".astype(np.float64)", " + np.arange(len(e))", "permuting the pairs or images should permute"),
    "fresh draws": (".astype(np.float64)", " + np.random.rand()", "differ between two calls"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_breaks_the_contract_is_named(tmp_path, fault, capsys):
    old, new, message = BROKEN[fault]
    assert old in PLUGIN
    path = tmp_path / "broken.py"
    path.write_text(PLUGIN.replace(old, new))
    assert main(["check-plugin", str(path)]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error)


def test_the_plugin_in_the_docs_keeps_the_contract(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    path = tmp_path / "mine.py"
    path.write_text(page.split("```python\n")[1].split("```")[0])
    assert main(["check-plugin", str(path)]) == 0
    assert {"swap", "louder", "far"} <= {*ATTACKS, *OBJECTIVES, *DETECTORS}


def test_options_that_cannot_be_guessed_are_asked_for(tmp_path, capsys):
    path = tmp_path / "asks.py"
    path.write_text(PLUGIN.replace("    source: str\n", "    source: str\n    colour: str\n"))
    assert main(["check-plugin", str(path)]) == 1
    assert "export EXAMPLES = {'swap': Swap(...)}" in capsys.readouterr().err
    path.write_text(path.read_text() + '\nEXAMPLES = {"swap": Swap(source="sheep", target="dog", colour="red")}\n')
    assert main(["check-plugin", str(path)]) == 0


QUICK = {"badclip": {"patch_epochs": 1, "patch_pairs": 20}}


@pytest.mark.parametrize("name", ATTACK_EXAMPLES)
def test_our_attacks_keep_the_public_contract(name):
    check_attack(replace(ATTACK_EXAMPLES[name], **QUICK.get(name, {})))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_our_objectives_keep_the_public_contract(name):
    small = {"roclip": {"pool_size": 12}, "safeclip": {"unimodal_epochs": 1, "pool_size": 12}}
    check_objective(OBJECTIVES[name](**small.get(name, {})))


@pytest.mark.parametrize("name", DETECTOR_EXAMPLES)
def test_our_detectors_keep_the_public_contract(name):
    check_detector(DETECTOR_EXAMPLES[name])


def test_checks_are_of_every_kind_that_a_plugin_may_export():
    assert CHECKS.keys() == plugins.KINDS.keys()
    with pytest.raises(ContractError, match="should be a frozen dataclass"):
        check_detector(object())
