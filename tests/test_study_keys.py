"""What a stage's key is made of: options, inputs, and the source of the modules that make it, no more and no less."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from mithridate import provenance
from mithridate.poisoning.registry import ATTACKS
from mithridate.provenance import source_files, source_hash
from mithridate.studies.plan import InputFingerprints, measured
from mithridate.studies.run import run_study
from mithridate.studies.spec.load import study_of
from mithridate.studies.spec.located import parse_located
from mithridate.studies.stages.stage import Keys

FILE = """\
study: small
data: {toy: {train: 40, test: 20, classes: [sheep, aeroplane, bird, dog]}}
start: {encoder: mithridate-micro}
train: {preset: scratch, epochs: 1, batch_size: 50, warmup: 1}
experiments:
  - name: one
    attack:
      - {attack: single-label, source: sheep, target: aeroplane}
      - {attack: backdoor, target: bird, trigger: 'patch:size=16/128', count: 20}
    objective: [clip, {objective: roclip, every: 2}]
    filter: [null, {detector: cosine-distance, clean-quantile: 0.9}]
"""
PLUGIN = '''\
"""The first captions of a class on the first images of another."""
from dataclasses import dataclass
import numpy as np
from mithridate.poisoning.goals import CaptionsToClass
from mithridate.poisoning.plan import PoisonPlan

@dataclass(frozen=True)
class Mine:
    count: int = 5
    name = "mine"
    needs_surrogate = False
    needs_gallery = False

    def plan(self, pairs, rng, *, gallery=None, surrogate=None):
        sheep, bird = (np.flatnonzero(pairs.labelled(name))[: self.count] for name in ("sheep", "bird"))
        return PoisonPlan(
            rows=bird,
            images=pairs.images.take(pairs.image_index[bird]),
            texts=pairs.text.take(sheep).combine_chunks(),
            text_rows=sheep,
            goals=(CaptionsToClass("sheep", "bird"),),
        )
'''


def study(text=FILE):
    return study_of(parse_located(text, "small.yaml"))


def keys_of(cell):
    """The keys of a cell's stages by what they are."""
    keys, stage = Keys(), measured(cell, InputFingerprints({}))
    named = {"toy": stage.test.toy, "poison": stage.poison, "model": stage.model, "clean": stage.clean, "cell": stage}
    if stage.filtered is not None:
        named |= {"embedded": stage.filtered.embedded, "filtered": stage.filtered}
    return {name: keys.of(one) for name, one in named.items()}


@pytest.fixture
def edited(monkeypatch, tmp_path):
    """Gives a module another source, as an editor would."""
    moved: dict[str, Path] = {}
    plain = provenance._file_of
    monkeypatch.setattr(provenance, "_file_of", lambda name: moved.get(name) or plain(name))

    def edit(name):
        moved[name] = tmp_path / f"{name}.py"
        source = plain(name)
        assert source is not None
        shutil.copy(source, moved[name])
        moved[name].write_text(moved[name].read_text() + "\n# edited\n")

    return edit


def cell_of(attack, objective, *, filtered):
    wanted = {"attack": attack, "objective": objective, "filter": "cosine-distance" if filtered else "none"}
    return next(cell for cell in study().cells if cell.axis == wanted)


@pytest.mark.parametrize(
    ("module", "changed"),
    [
        ("mithridate.poisoning.relabel", {"poison", "model", "cell"}),
        ("mithridate.poisoning.apply", {"poison", "model", "cell"}),
        ("mithridate.training.roclip", {"model", "cell"}),
        ("mithridate.training.clip", {"model", "clean", "cell"}),
        ("mithridate.training.loop", {"model", "clean", "cell"}),
        ("mithridate.studies.measure", {"cell"}),
        ("mithridate.evaluation.utility", {"cell"}),
        ("mithridate.toy.draw", {"toy", "poison", "model", "clean", "cell"}),
        ("mithridate.data.jpeg", {"poison", "model", "clean", "cell"}),
        # of another attack, objective or detector, and of what shows results
        ("mithridate.poisoning.backdoor", set()),
        ("mithridate.poisoning.badclip", set()),
        ("mithridate.training.safeclip", set()),
        ("mithridate.auditing.mixture", set()),
        ("mithridate.poisoning.registry", set()),
        ("mithridate.training.registry", set()),
        ("mithridate.report.html", set()),
        ("mithridate.report.document", set()),
        ("mithridate.cli.study", set()),
        ("mithridate.studies.render.page", set()),
        ("mithridate.studies.analysis.verdicts", set()),
        ("mithridate.studies.spec.load", set()),
        ("mithridate.studies.plan", set()),
        ("mithridate.studies.execute", set()),
        ("mithridate.engine.run", set()),
    ],
)
def test_an_edit_changes_the_keys_of_what_it_makes_and_no_other(module, changed, edited):
    cell = cell_of("single-label", "roclip", filtered=False)
    before = keys_of(cell)
    edited(module)
    after = keys_of(cell)
    assert {name for name in before if before[name] != after[name]} == changed


def test_an_edit_of_a_filter_leaves_what_it_filters(edited):
    cell = cell_of("backdoor", "clip", filtered=True)
    before = keys_of(cell)
    edited("mithridate.auditing.cosine")
    after = keys_of(cell)
    assert {name for name in before if before[name] != after[name]} == {"filtered", "model", "cell"}


def test_decoding_and_precision_are_in_the_keys_that_they_decide(monkeypatch):
    cell = cell_of("single-label", "clip", filtered=True)
    before = keys_of(cell)
    monkeypatch.setattr("mithridate.studies.stages.trained_model.training_precision", lambda config: "other")
    after = keys_of(cell)
    # the filter's encoder is trained too
    changed = {"model", "clean", "embedded", "filtered", "cell"}
    assert {name for name in before if before[name] != after[name]} == changed
    monkeypatch.setenv("MITHRIDATE_DECODING", "exact")
    exact = keys_of(cell)
    assert {name for name in after if after[name] != exact[name]} == changed | {"poison"}


def test_the_source_of_a_module_is_that_of_all_it_imports(tmp_path, monkeypatch):
    files = source_files("mithridate.training.roclip")
    assert {"mithridate.training.roclip", "mithridate.training.objective", "mithridate.randomness"} <= files.keys()
    assert not any(name.startswith(("mithridate.report", "mithridate.cli")) for name in files)
    (tmp_path / "helper.py").write_text("X = 1\n")
    (tmp_path / "outer.py").write_text("import helper\nimport json\nfrom mithridate.training.clip import Clip\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "outer", importlib.import_module("outer"))
    files = source_files("outer")
    assert {"outer", "helper", "mithridate.training.clip"} <= files.keys() and "json" not in files
    before = source_hash("outer")
    (tmp_path / "helper.py").write_text("X = 2\n")
    assert source_hash("outer") != before


def load(path):
    """A plugin's file as a module, anew."""
    spec = importlib.util.spec_from_file_location("plugin_of_a_test", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules["plugin_of_a_test"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Mine


@pytest.mark.slow
def test_after_an_edit_exactly_what_depends_on_it_is_made_again(tmp_path, monkeypatch):
    attacks = "[{attack: mine}, {attack: single-label, source: sheep, target: dog}]"
    text = FILE[: FILE.index("experiments:")] + f"experiments:\n  - name: one\n    attack: {attacks}\n"
    out, plugin = tmp_path / "out", tmp_path / "mine.py"

    def run():
        monkeypatch.setitem(ATTACKS, "mine", load(plugin))
        done = run_study(study(text), out, keep_models=True)
        assert not done.failed
        return [json.loads(line)["kind"] for line in (out / "log.jsonl").read_text().splitlines()]

    monkeypatch.setitem(sys.modules, "plugin_of_a_test", None)
    plugin.write_text(PLUGIN)
    first = run()
    assert sorted(first) == ["measured", "measured", "models", "models", "models", "poison", "poison", "toy"]
    assert run() == first
    plugin.write_text(PLUGIN.replace("The first captions", "Some captions"))
    second = run()
    assert sorted(second[len(first) :]) == ["measured", "models", "poison"]
    plugin.write_text(PLUGIN)
    assert run() == second  # as it was: all of it is there
    records = [json.loads(path.read_text()) for path in out.glob("stages/models/*/stage.json")]
    assert all({"source", "decoding", "precision"} <= record.keys() for record in records)
