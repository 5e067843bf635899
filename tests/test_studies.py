"""Studies carried out: every stage once, by any number of processes, killed at any moment, to the same numbers."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mithridate.cli import main
from mithridate.errors import AttackError, DataError, StudyError
from mithridate.evaluation.evaluation_file import read_evaluation
from mithridate.studies.analysis.outcomes import read_outcomes
from mithridate.studies.execute import failure
from mithridate.studies.graph import Graph
from mithridate.studies.measure import _by_image
from mithridate.studies.plan import InputFingerprints, measured
from mithridate.studies.record import open_folder, read_folder
from mithridate.studies.render.figures import study_figure
from mithridate.studies.run import run_study
from mithridate.studies.spec.load import study_of
from mithridate.studies.spec.located import parse_located
from mithridate.studies.spec.study import ShowFigure
from mithridate.studies.stages.clean_pairs import share_of
from mithridate.studies.stages.filtered_pairs import FilteredPairs
from mithridate.studies.stages.stage import Keys
from mithridate.studies.stages.trained_model import TrainedModel
from mithridate.studies.timing import seconds_by_trial, seconds_left, seconds_spent
from mithridate.toy.world import write_toy_world

pytestmark = pytest.mark.slow  # nearly all of them train

HEAD = """\
study: small
title: A small study
data: {toy: {train: 40, test: 20, classes: [sheep, aeroplane, bird, dog]}}
start: {encoder: mithridate-micro}
train: {preset: scratch, epochs: 1, batch_size: 50, warmup: 1}
"""
FILE = (
    HEAD
    + """\
experiments:
  - name: attacks
    attack:
      - null
      - {attack: single-label, source: sheep, target: aeroplane}
      - {attack: backdoor, target: bird, trigger: 'patch:size=16/128', count: 20}
    measure: [probe]
    show: [{table: {rows: [attack, model], measures: [Hit@1, IR@10]}}]
  - name: all
    train: {preset: scratch, epochs: 2, batch_size: 50, warmup: 1}
    attack: {attack: targeted, images: 3, reuse: true}
    filter: {detector: cosine-distance, clean-quantile: 0.9}
    measure: [zero-shot, probe, shift, epochs, start]
  - name: repaired
    attack: {attack: multi-label, goals: ['sheep:aeroplane', 'bird:aeroplane']}
    repair: {train: {preset: repair-1e-4, batch_size: 50}}
"""
)
KILLED = (
    HEAD.replace("epochs: 1", "epochs: 3, checkpoint_every: 2")
    + """\
seeds: [0, 1]
experiments:
  - name: killed
    attack: {attack: backdoor, target: bird, trigger: 'patch:size=16/128'}
    objective: [clip, {objective: roclip, every: 2}]
    vary: {attack.count: [10, 20]}
    measure: [epochs]
    clean: false
    show: [{table: {rows: [objective, attack.count, model], measures: [ASR, z-score, IR@10]}}]
"""
)


def study(text=FILE, **options):
    return study_of(parse_located(text, "small.yaml"), **options)


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def keys(out):
    return [line["key"] for line in log(out)]


def same(first, second):
    """Every number of two lists of outcomes, but for seconds."""
    assert [outcome.cell for outcome in first] == [outcome.cell for outcome in second]
    for one, other in zip(first, second):
        assert one.values.keys() == other.values.keys()
        assert all(np.array_equal(one.values[key], other.values[key]) for key in one.values)
        assert (one.chance, one.estimates) == (other.chance, other.estimates)
        assert {**one.numbers, "seconds": 0} == {**other.numbers, "seconds": 0}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The small study carried out in this process: what was told of it, and its folder."""
    out = tmp_path_factory.mktemp("study") / "out"
    told = []
    ran = run_study(study(), out, text=FILE, on_cell=told.append)
    assert not ran.failed
    return out, told


# --- stages -----------------------------------------------------------------------------------------


def test_cells_share_what_is_the_same():
    found = [measured(cell, InputFingerprints({})) for cell in study().cells]
    assert len({Keys().of(one.clean) for one in found[:3]}) == 1
    assert Keys().of(found[0].model) == Keys().of(found[0].clean)  # without attack and defence it is the clean cell
    assert len({Keys().of(one.model) for one in found}) == len(found)
    assert {one.test for one in found} == {found[0].test}


def test_a_key_is_of_all_that_decides_and_of_nothing_else():
    cell = study().cells[1]
    key = Keys().of(measured(cell, InputFingerprints({})).model)
    for other in (
        replace(cell, seed=1),
        replace(cell, attack=replace(cell.attack, count=5)),
        replace(cell, train=replace(cell.train, lr=1e-3)),
        replace(cell, data=replace(cell.data, share=0.5)),
        replace(cell, data=replace(cell.data, toy=replace(cell.data.toy, offset=1))),
    ):
        assert Keys().of(measured(other, InputFingerprints({})).model) != key
    same_model = replace(cell, experiment="x", axes=(("a", 1),), measures=("epochs", "probe"))
    assert Keys().of(measured(same_model, InputFingerprints({})).model) == key
    saved = replace(cell, train=replace(cell.train, checkpoint_every=7))
    assert Keys().of(measured(saved, InputFingerprints({})).model) == key


def test_what_looks_on_has_seen_neither_pairs_nor_poison():
    text = (
        HEAD
        + """\
seeds: [3]
experiments:
  - name: one
    start: {encoder: mithridate-tiny, pretrain: {epochs: 1}}
    attack: {attack: single-label, source: sheep, target: bird, pairing: best-match}
    filter: {detector: cosine-distance, clean-quantile: 0.9}
    repair: {train: repair-1e-4}
"""
    )
    found = measured(study(text).cells[0], InputFingerprints({}))
    filtered = found.filtered
    assert isinstance(filtered, FilteredPairs) and isinstance(filtered.embedded.encoder, TrainedModel)
    toys = {
        "data": found.test.toy.seed,
        "start": found.clean.start.pairs.toy.seed,
        "filter": filtered.embedded.encoder.pairs.toy.seed,
        "surrogate": found.poison.surrogate.pairs.toy.seed,
        "repair": found.model.pairs.toy.seed,
    }
    assert toys["data"] == 3
    assert len(set(toys.values())) == len(toys)
    assert filtered.reference.pairs.toy.seed == toys["filter"]  # clean pairs like those its encoder has seen
    assert found.model.start.start == found.clean.start


def test_no_seed_of_a_thousand_coincides_with_another():
    text = """\
study: small
seeds: [0]
experiments:
  - name: one
    start: {encoder: mithridate-tiny, pretrain: {epochs: 1}}
    attack: {attack: single-label, source: sheep, target: bird, pairing: best-match}
    filter: {detector: cosine-distance, clean-quantile: 0.9}
    repair: {train: repair-1e-4}
"""
    (cell,) = study(text).cells
    models, toys = [], []
    for seed in range(1000):
        stage = measured(replace(cell, seed=seed), InputFingerprints({}))
        onlookers = [stage.filtered.embedded.encoder, stage.poison.surrogate]
        models += [model.initial.seed for model in (stage.clean, *onlookers)]
        toys += [one.pairs.clean.toy.seed for one in (stage.clean, stage.clean.start, stage.model, *onlookers)]
    assert len(set(models)) == len(models) == 3000
    assert len(set(toys)) == len(toys) == 5000


def test_a_share_is_of_each_class_alike(train_pairs):
    half = share_of(train_pairs, 0.5, seed=0)
    assert set(half.classes.values()) == {3}  # six images of each class
    assert share_of(train_pairs, 0.5, seed=0).fingerprint == half.fingerprint
    assert share_of(train_pairs, 0.5, seed=1).fingerprint != half.fingerprint
    assert set(share_of(train_pairs, 0.01, seed=0).classes.values()) == {1}


# --- runs -------------------------------------------------------------------------------------------


def test_every_stage_is_done_once(done):
    out, told = done
    assert len(keys(out)) == len(set(keys(out)))
    assert [(p.done, p.of, p.failed) for p in told] == [(i, 5, None) for i in range(1, 6)]
    kinds = [line["kind"] for line in log(out)]
    assert kinds.count("measured") == 5
    # clean, attacked twice; with two epochs clean, in another order, and attacked; the filter's; attacked, repaired
    assert kinds.count("models") == 3 + 3 + 1 + 2


def test_an_audit_before_training_leaves_as_many_pairs_as_its_rule_says(tmp_path):
    text = (
        HEAD
        + """\
experiments:
  - name: audited
    attack: {attack: backdoor, target: bird, trigger: 'patch:size=1/2', count: 20}
    audit: [null, {label: flagged, drop: flagged}, {label: as many, by: cosine-distance}, {label: tenth, drop: 0.1}]
    show: [{table: {rows: [audit, model], measures: [ASR, recall at 1 %, recall at 10 %, poison removed, pairs]}}]
"""
    )
    ran = run_study(study(text), tmp_path / "out")
    assert not ran.failed
    found = {outcome.cell.axis["audit"]: outcome for outcome in read_outcomes(study(text), tmp_path / "out")}
    assert found["none"].numbers["pairs"] == 200
    assert found["none"].estimates.keys() == {"z-score"}  # of the trigger; there is nothing to rank
    assert found["tenth"].numbers["pairs"] == 180
    assert found["as many"].numbers["pairs"] == found["flagged"].numbers["pairs"]
    tenth = found["tenth"].estimates
    assert tenth["recall at 10 %"].value == tenth["poison removed"].value  # the budget is the cut
    assert found["tenth"].chance["recall at 1 %"] == 0.01
    kinds = [line["kind"] for line in log(tmp_path / "out")]
    assert (kinds.count("audits"), kinds.count("audited"), kinds.count("embeddings")) == (1, 3, 2)


def test_outcomes_are_numbers_of_units(done):
    outcomes = read_outcomes(study(), done[0])
    assert [outcome.cell for outcome in outcomes] == list(study().cells)
    clean, single, backdoor, everything, repaired = outcomes
    assert {model for model, _, _ in clean.values} == {"poisoned", "clean"}
    assert all(np.array_equal(clean.values["poisoned", 1, m], clean.values["clean", 1, m]) for m in ("IR@10", "TR@10"))
    for model in ("poisoned", "clean"):
        hits, ranks = (single.values[model, 1, measure] for measure in ("Hit@5", "MinRank"))
        (attack,) = read_evaluation(single.evaluation).unit_ranks("attack", "sheep:aeroplane")
        rank = np.array(attack.ranks[model]).reshape(5, 5)  # 5 test pictures of sheep with five captions
        assert len(set(attack.image[:5])) == 1 and len(set(attack.image)) == 5
        assert np.allclose(hits, (rank < 5).mean(axis=1))
        assert np.allclose(ranks, rank.mean(axis=1))
        assert len(single.values[model, 1, "IR@10 other classes"]) == 10
        assert len(backdoor.values[model, 1, "ASR"]) == 15  # pictures of other classes
    assert single.numbers["pairs"] == 200
    assert single.numbers["count"] == 50  # all captions of the class
    assert backdoor.chance["ASR"] == pytest.approx(1 / 4)
    assert single.chance["Hit@1"] == pytest.approx(5 / 20)
    assert backdoor.numbers["rate"] == pytest.approx(20 / 200)
    assert {"Hit@1 sheep:aeroplane", "Hit@1 bird:aeroplane"} <= {measure for _, _, measure in repaired.values}
    assert len(repaired.values["poisoned", 1, "Hit@1"]) == 10
    assert (everything.evaluation / "evaluation.json").is_file() and not everything.same_units


def test_the_mean_over_images_is_that_over_captions():
    values, image = np.array([1, 0, 1, 1, 0, 1]), np.array([7, 7, 7, 3, 3, 5])
    found = _by_image(values, image)
    assert len(found) == 3
    assert found.mean() == pytest.approx(values.mean())
    assert _by_image(np.array([1, 1, 0, 0]), np.array([2, 2, 4, 4])).tolist() == [1, 0]


def test_what_is_asked_for_is_measured(done):
    found = read_outcomes(study(), done[0])[3]
    assert found.last == 2
    for model in ("poisoned", "clean", "start"):
        assert {"PSR", "IR@10", "TR@10", "zero-shot", "probe"} <= {
            m for name, e, m in found.values if (name, e) == (model, 2)
        }
        assert len(found.values[model, 2, "probe"]) == 20
    assert {e for name, e, m in found.values if (name, m) == ("poisoned", "PSR")} == {0, 1, 2}
    assert len(found.values["poisoned", 2, "shift image"]) == 20
    assert len(found.values["poisoned", 2, "shift text"]) == 20  # of each picture the mean of its captions
    # another order of the clean pairs moves embeddings too: what the poison moves is held against that
    control = found.values["clean", 2, "shift image"]
    assert (control > 0).all()
    ratio = found.values["poisoned", 2, "shift image"].mean() / control.mean()
    assert found.estimates["shift image ratio"].value == pytest.approx(ratio)
    recalls = {"recall at 0.1 %", "recall at 1 %", "recall at 10 %", "shift image ratio", "shift text ratio"}
    assert found.estimates.keys() == {"AUROC", "poison removed", "clean pairs lost", *recalls}
    assert found.numbers["pairs"] < 215
    assert (found.values["poisoned", 2, "shift image"] > 0).all()


def test_a_probe_tells_what_triggered_images_are_taken_for(done):
    clean, single, backdoor, everything, _ = read_outcomes(study(), done[0])
    for model in ("poisoned", "clean"):
        taken = backdoor.values[model, 1, "probe ASR"]
        assert len(taken) == 15 and set(taken.tolist()) <= {0, 1}  # images of three other classes
        assert len(backdoor.values[model, 1, "probe"]) == 20
    assert backdoor.chance["probe ASR"] == backdoor.chance["probe"] == pytest.approx(1 / 4)
    for other in (clean, single, everything):
        assert "probe ASR" not in {measure for _, _, measure in other.values}


def test_the_densities_of_what_a_filter_measured_are_a_figure(done):
    *_, everything, repaired = read_outcomes(study(), done[0])
    figure = study_figure(ShowFigure(kind="report", name="suspicion"), [everything], name="f")
    assert figure is not None and figure.x_label == "cosine distance of image and caption"
    assert [curve.label for curve in figure.curves] == ["clean pairs", "poisoned pairs"]
    for curve in figure.curves:
        assert sum(curve.y) * (curve.x[1] - curve.x[0]) == pytest.approx(1)
    assert not repaired.suspicion
    with pytest.raises(DataError, match="no figure 'suspicion'"):
        study_figure(ShowFigure(kind="report", name="suspicion"), [repaired], name="f")


def test_a_finished_study_does_nothing(done):
    out, _ = done
    before = keys(out)
    ran = run_study(study(), out)
    assert (ran.done, ran.of, ran.failed) == (5, 5, ())
    assert keys(out) == before
    graph = Graph.of(study().cells, InputFingerprints({}), out)
    assert not graph.left() and seconds_left(graph) == 0


def test_time_left_is_told_by_what_is_done_else_by_a_few_steps(done, tmp_path):
    more = study(FILE, seeds=(0, 1))
    half, none = (Graph.of(more.cells, InputFingerprints({}), out) for out in (done[0], tmp_path))
    assert 0 < (seconds_left(half) or 0) < 1000
    assert seconds_left(none) is None
    assert (seconds_by_trial(none) or 0) > 0


def test_weights_and_poisoned_sets_that_no_cell_needs_are_gone(done):
    out, _ = done
    assert not list(out.glob("stages/models/*/model"))
    assert not list(out.glob("stages/models/*/*.pt"))
    assert not list(out.glob("stages/poison/*"))
    assert list(out.glob("stages/models/*/metrics.jsonl"))
    assert not (out / "running.json").exists()


def test_a_cell_more_does_what_it_needs_again_and_nothing_else(done, tmp_path):
    import shutil

    out = tmp_path / "more"
    shutil.copytree(done[0], out)
    more = study(
        FILE.replace("count: 20}", "count: 20}\n      - {attack: backdoor, target: sheep, count: 20, label: more}")
    )
    ran = run_study(more, out)
    assert (ran.done, ran.of) == (6, 6)
    kinds = [line["kind"] for line in log(out)[len(keys(done[0])) :]]
    # the clean model once more, and what a probe takes its triggered images for
    assert sorted(kinds) == ["classified", "classified", "measured", "models", "models", "poison"]
    same([o for o in read_outcomes(more, out) if o.cell.axis.get("attack") != "more"], read_outcomes(study(), done[0]))


def test_another_study_in_the_same_folder_is_refused(done):
    out, _ = done
    for old, new, told in (
        ("study: small", "study: other", "holds study 'small', and this is 'other'"),
        ("count: 20", "count: 10", "attacks: attack backdoor was defined otherwise"),
        ("epochs: 1", "epochs: 3", "was defined otherwise"),
    ):
        with pytest.raises(StudyError, match=told):
            open_folder(study(FILE.replace(old, new)), out)
    open_folder(study(FILE, seeds=(0, 1)), out)
    assert {cell.seed for cell in read_folder(out).cells} == {0, 1}


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(StudyError, match="is not empty and holds no study"):
        run_study(study(), tmp_path)


FAILING = (
    HEAD
    + """\
experiments:
  - name: fails
    attack:
      - {attack: single-label, source: sheep, target: bird, count: 5000}
      - {attack: single-label, source: sheep, target: bird, count: 5}
"""
)


def test_a_failed_cell_is_reported_and_stops_no_other(tmp_path, monkeypatch):
    text = FAILING.replace("count: 5000}", "count: 5000, label: much}")
    ran = run_study(study(text), tmp_path / "out")
    assert (ran.done, ran.of) == (1, 2)
    ((cell, message),) = ran.failed
    assert cell.axis["attack"] == "much"
    assert message.startswith("5000 pairs of class sheep are asked for, it has")
    (path,) = {p.name for p in (tmp_path / "out" / "failed").iterdir()} - {
        f"{Keys().of(measured(cell, InputFingerprints({})))}.json"
    }
    assert "Traceback" in (failure(tmp_path / "out", path.removesuffix(".json")) or {})["traceback"]
    # tried again when it is run again
    monkeypatch.setattr("mithridate.studies.stages.poisoned_pairs.poison", _fails)
    ran = run_study(study(text), tmp_path / "out")
    assert (ran.done, ran.failed[0][1]) == (1, "the disk is gone")


def _fails(*args, **options):
    raise AttackError("the disk is gone")


def test_classes_that_the_data_do_not_have_are_refused_before_anything_is_done(tmp_path):
    write_toy_world(tmp_path / "world", train=12, test=6, classes=("sheep", "bird"))
    text = f"""\
study: small
data: {{path: {tmp_path / "world"}, train_split: train, test_split: test}}
experiments: [{{name: one, attack: {{attack: single-label, source: sheep, target: brid}}}}]
"""
    with pytest.raises(
        StudyError, match=r"experiment one: attack.target: no train pair has the label 'brid'; nearest: bird"
    ):
        run_study(study(text), tmp_path / "out")
    assert not (tmp_path / "out" / "stages").exists()


def test_data_that_changed_are_other_data(tmp_path):
    text = f"""\
study: small
train: {{preset: scratch, epochs: 1, batch_size: 20, warmup: 1}}
data: {{path: {tmp_path / "world"}, train_split: train, test_split: test, share: 0.5}}
experiments: [{{name: one, attack: {{attack: single-label, source: sheep, target: bird}}}}]
"""
    found = []
    for seed in (0, 1):
        write_toy_world(
            tmp_path / "world", train=21, test=6, classes=("sheep", "bird", "dog"), seed=seed, overwrite=True
        )
        assert run_study(study(text), tmp_path / "out").failed == ()
        found += read_outcomes(study(text), tmp_path / "out")
    assert found[0].evaluation != found[1].evaluation
    assert found[0].same_units
    assert found[0].numbers["pairs"] == 60


def test_a_folder_that_another_process_has_just_begun_is_no_strangers(tmp_path):
    (tmp_path / ".study.json-7").touch()
    open_folder(study(), tmp_path)
    (tmp_path / "study.json").unlink()
    (tmp_path / "notes").touch()
    with pytest.raises(StudyError, match="is not empty and holds no study"):
        open_folder(study(), tmp_path)


def test_data_that_are_not_there_leave_nothing(tmp_path, capsys):
    (tmp_path / "small.yaml").write_text(
        "study: small\ntrain: {preset: scratch, epochs: 1}\ndata: {train: train.csv, test: test.csv}\n"
        "experiments: [{name: one, attack: {attack: single-label, source: sheep, target: bird}}]\n"
    )
    out = tmp_path / "out"
    assert main(["study", str(tmp_path / "small.yaml"), "--data", str(tmp_path), "--out", str(out)]) == 1
    assert "train.csv does not exist" in capsys.readouterr().err
    assert not out.exists()


def test_a_dry_run_over_data_that_are_read_writes_nothing(tmp_path, capsys):
    write_toy_world(tmp_path / "world", train=21, test=6, classes=("sheep", "bird", "dog"))
    (tmp_path / "small.yaml").write_text(
        "study: small\ntrain: {preset: scratch, epochs: 1}\n"
        "data: {path: world, train_split: train, test_split: test}\n"
        "experiments: [{name: one, attack: {attack: single-label, source: sheep, target: bird}}]\n"
    )
    out = tmp_path / "out"
    dry = ["study", str(tmp_path / "small.yaml"), "--data", str(tmp_path), "--out", str(out), "--dry-run"]
    assert main(dry) == 0
    assert "1 measured" in capsys.readouterr().out
    assert not out.exists()


def test_status_tells_what_is_done_and_what_it_took(done, capsys):
    out, _ = done
    assert main(["study", "status", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    # other tests may have asked this folder for further seeds
    assert {row["experiment"]: row["done"] for row in told["experiments"]} == {
        experiment.name: len(experiment.cells) for experiment in study().experiments
    }
    spent = told["seconds spent"]
    assert set(spent) == {line["kind"] for line in log(out)}
    assert sum(spent.values()) == pytest.approx(sum(line["seconds"] for line in log(out)))
    assert list(spent.values()) == sorted(spent.values(), reverse=True)
    assert main(["study", "status", str(out)]) == 0
    assert f"s on {next(iter(spent))}" in capsys.readouterr().out


def test_a_line_that_is_being_written_is_not_counted(tmp_path):
    assert seconds_spent(tmp_path) == {}
    (tmp_path / "log.jsonl").write_text('{"kind": "models", "seconds": 2}\n{"kind": "mod')
    assert seconds_spent(tmp_path) == {"models": 2}


# --- several processes, and death -------------------------------------------------------------------


def command(file, out, *options):
    return [sys.executable, "-m", "mithridate", "study", str(file), "--out", str(out), "--json", *options]


def begun(file, out, *options):
    """The command in a group of processes of its own."""
    with file.with_suffix(".log").open("a") as told:
        return subprocess.Popen(
            command(file, out, *options), start_new_session=True, stdout=subprocess.DEVNULL, stderr=told
        )


def at_work(out, seconds=600):
    """Waits until a study has begun a stage."""
    end = time.monotonic() + seconds
    while not (out / "running.json").exists():
        assert time.monotonic() < end, "no stage has begun"
        time.sleep(0.05)


def children(pid):
    """The processes below one, in which stages are done."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = path.read_text(errors="replace").rpartition(")")[2].split()[1]
            command = path.with_name("cmdline").read_text(errors="replace")
            if int(parent) == pid and "spawn_main" in command:
                found.append(int(path.parent.name))
    return found


def test_a_second_command_on_a_folder_is_refused_at_once(tmp_path, capsys):
    file, out = tmp_path / "killed.yaml", tmp_path / "out"
    file.write_text(KILLED)
    first = begun(file, out)
    at_work(out)
    assert main(["study", str(file), "--out", str(out)]) == 1
    assert f"{out} is being written by process {first.pid}" in capsys.readouterr().err
    assert main(["study", "status", str(out)]) == 0
    assert f"for process {first.pid}" in capsys.readouterr().out
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert main(["study", "status", str(out)]) == 0
    assert "in progress" not in capsys.readouterr().out


def test_a_study_killed_often_ends_in_the_same_numbers(tmp_path):
    file, out, whole = tmp_path / "killed.yaml", tmp_path / "out", tmp_path / "whole"
    file.write_text(KILLED)
    assert run_study(study(KILLED), whole).failed == ()
    rng = random.Random(0)
    for _ in range(6):
        process = begun(file, out, "--jobs", "2")
        end = time.monotonic() + 600
        while not (out / "running.json").exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 5))
        assert process.poll() in (None, 0), file.with_suffix(".log").read_text()
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    ended = subprocess.run(command(file, out, "--jobs", "2"), capture_output=True, text=True, timeout=1800)
    assert ended.returncode == 0, ended.stderr
    assert len(keys(out)) == len(set(keys(out)))
    same(read_outcomes(study(KILLED), out), read_outcomes(study(KILLED), whole))
    assert not (out / "running.json").exists()
    assert not list(out.glob("stages/*/.*"))


def test_a_process_that_dies_is_replaced(tmp_path):
    file, out = tmp_path / "killed.yaml", tmp_path / "out"
    file.write_text(KILLED)
    process = begun(file, out, "--jobs", "2")
    at_work(out)
    while not (workers := children(process.pid)):
        time.sleep(0.05)
    os.kill(workers[0], signal.SIGKILL)
    assert process.wait(timeout=1800) == 0
    assert len(read_outcomes(study(KILLED), out)) == 8


def test_trainings_in_two_processes_are_begun_by_torchrun(tmp_path, monkeypatch):
    text = HEAD.replace("train: 40, test: 20", "train: 24, test: 12") + (
        "experiments: [{name: one, attack: {attack: backdoor, target: bird, count: 20}}]\n"
    )
    before = signal.getsignal(signal.SIGTERM)
    assert run_study(study(text), tmp_path / "out", processes=2, keep_models=True).failed == ()
    assert signal.getsignal(signal.SIGTERM) is before  # torchrun's handler is gone again
    (outcome,) = read_outcomes(study(text), tmp_path / "out")
    assert {model for model, _, _ in outcome.values} == {"poisoned", "clean"}
    runs = [json.dumps(json.loads(path.read_text())) for path in (tmp_path / "out").glob("stages/models/*/run.json")]
    assert len(runs) == 2 and all('"processes": 2' in run for run in runs)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(StudyError, match="pass --processes"):
        run_study(study(text), tmp_path / "other")
