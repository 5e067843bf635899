"""Repair: clean pairs only, what it costs beside what it brings, and the command that draws the curve."""

import json

import numpy as np
import pytest

import mithridate as mt
from mithridate.cli import main
from mithridate.evaluation.measurement import Evaluation, Measurement
from mithridate.evaluation.tradeoff import Point, best_point, measured_point, utility_loss
from mithridate.poisoning.goals import CaptionsToClass, TriggerToClass
from mithridate.poisoning.leftover import poisoned_rows
from mithridate.report.sections.tradeoff import tradeoff_report
from mithridate.statistics.estimate import Estimate
from mithridate.training.config import PRESETS


def point(
    success: float, utility: float, *, strength: str = "", epoch: int = 0, steps: int = 0, tr: float = 0.9
) -> Point:
    return Point(
        strength, epoch, steps, {"ASR": Estimate(success)}, {"IR@10": Estimate(utility), "TR@10": Estimate(tr)}
    )


START = point(0.95, 0.80)
POINTS = [
    point(0.10, 0.79, strength="1e-3", epoch=1, steps=10),
    point(0.02, 0.70, strength="1e-3", epoch=2, steps=20),
    point(0.90, 0.81, strength="1e-5", epoch=1, steps=10),
    point(0.10, 0.80, strength="1e-5", epoch=2, steps=20),
]


def test_the_chosen_point_has_least_success_within_the_loss_then_fewest_steps():
    assert best_point(POINTS, START, max_loss=0.02) is POINTS[0]
    assert best_point(POINTS, START, max_loss=0.2) is POINTS[1]
    assert best_point(POINTS[1:2], START, max_loss=0.02) is None


def test_a_loss_is_the_largest_fall_of_any_utility_and_a_gain_is_none():
    assert utility_loss(point(0.1, 0.85, tr=0.6), START) == pytest.approx(0.3)
    assert utility_loss(point(0.1, 0.85), START) == 0


def test_the_report_of_a_repair_starts_every_curve_at_the_model_as_it_was():
    report = tradeoff_report(START, POINTS, varied="lr", title="Repair", max_loss=0.02, clean=point(0.01, 0.82))
    curves = {curve.label: curve for curve in report.figures[0].curves}
    assert list(curves) == ["lr 1e-3", "lr 1e-5", "clean"]
    assert curves["lr 1e-3"].y == (0.95, 0.10, 0.02)
    assert curves["lr 1e-3"].x == pytest.approx((0, 0.01, 0.1))
    table = report.table("repair")
    assert [row[-1] for row in table.rows] == ["", "yes", "", "", "", ""]
    assert report.headline["repair"]["repaired"]["ASR"] == 0.10 and not report.warnings
    nothing = tradeoff_report(POINTS[0], POINTS[1:], varied="lr", title="Repair", max_loss=0.0)
    assert [warning.code for warning in nothing.warnings] == ["nothing-to-repair"]
    assert (
        "No point" not in report.summary[0]
        and "No point" in tradeoff_report(START, POINTS[1:2], varied="lr", title="Repair", max_loss=0.0).summary[0]
    )


def test_a_point_has_the_success_of_every_goal_and_all_utility():
    goals = (CaptionsToClass("sheep", "aeroplane"), TriggerToClass("patch:size=16,row=0", "bus"))
    rows = [
        ("Hit@10", goals[0].key, "all", 0.7),
        ("Hit@10", goals[0].key, "random captions", 0.9),
        ("ASR", goals[1].key, "all", 0.5),
        ("ASR", goals[1].key, "untouched", 0.8),
        ("Hit@10", goals[1].key, "all", 0.6),  # captions that triggered images retrieve
        ("IR@10", "", "all", 0.4),
        ("IR@10", "", "sheep", 0.1),
        ("TR@10", "", "all", 1.0),
        ("zero-shot", "", "all", 0.3),
    ]
    found = Evaluation(
        models=("repaired", "clean"),
        goals=goals,
        descriptions={goals[1].key: "patch:size=16"},
        measurements=tuple(
            Measurement(model=model, metric=metric, goal=goal, group=group, value=Estimate(value * factor))
            for model, factor in (("clean", 0.0), ("repaired", 1.0))
            for metric, goal, group, value in rows
        ),
    )
    made = measured_point(found, strength="1", epoch=1, steps=5)
    assert {name: e.value for name, e in made.success.items()} == {
        "Hit@10 sheep:aeroplane": 0.7,
        "ASR patch:size=16 to bus": 0.5,
    }
    assert {name: e.value for name, e in made.utility.items()} == {"IR@10": 0.4, "TR@10": 1.0, "zero-shot": 0.3}
    assert made.worst == 0.7
    with pytest.raises(mt.EvaluationError, match="no attack was measured on repaired"):
        measured_point(Evaluation(models=("repaired",)))


@pytest.fixture(scope="module")
def poisoned(train_pairs):
    return mt.poison(train_pairs, mt.SingleLabel(source="sheep", target="aeroplane", count=10), seed=0)


def test_poison_is_known_by_uid_and_content_and_a_clean_copy_is_let_through(poisoned, train_pairs):
    left = poisoned_rows(poisoned.pairs, poisoned.manifest)
    assert set(poisoned.pairs.uid.take(left).to_pylist()) == set(poisoned.manifest.poisoned["uid"].to_pylist())
    assert len(left) == 10
    assert not len(poisoned_rows(train_pairs, poisoned.manifest))
    cleaned = poisoned.pairs.where(~np.isin(np.arange(len(poisoned.pairs)), left))
    assert not len(poisoned_rows(cleaned, poisoned.manifest))


@pytest.fixture(scope="module")
def written(toy_world, tmp_path_factory):
    out = tmp_path_factory.mktemp("repair") / "poisoned"
    attack = ["single-label", str(toy_world), "--split", "train", "--source", "sheep", "--target", "aeroplane"]
    assert main(["poison", *attack, "--out", str(out)]) == 0
    return out


def test_repair_with_what_is_still_poisoned_is_refused(written, tmp_path, capsys):
    command = ["train", str(written), "--refuse-manifest", str(written), "--out", str(tmp_path / "r")]
    assert main(command) == 1
    assert "pairs are poisoned, by" in capsys.readouterr().err and not (tmp_path / "r").exists()


@pytest.mark.usefixtures("blank_figures")
def test_a_curve_is_drawn_goes_on_and_refuses_another(tiny, written, toy_world, tmp_path, capsys):
    out = tmp_path / "curve"
    command = ["repair-curve", str(toy_world), "--split", "train", "--encoder", "test-tiny"]
    command += ["--test", str(toy_world), "--test-split", "test", "--manifest", str(written), "--out", str(out)]
    command += ["--strengths", "1e-3", "--epochs", "1", "--batch-size", "128", "--json"]
    assert main(command) == 0
    headline = json.loads(capsys.readouterr().out.splitlines()[-1])["repair"]
    assert "Hit@10 sheep:aeroplane" in headline["as it was"] and "IR@10" in headline["as it was"]
    names = sorted(path.name for path in (out / "reports").iterdir())
    assert names == ["lr-0.001-001", "start"]
    stamp = (out / "runs" / "lr-0.001" / "run.json").stat().st_mtime_ns
    page = (out / "report.json").read_bytes()
    (out / "report.json").unlink()
    assert main(command) == 0  # nothing is trained or measured again
    assert (out / "report.json").read_bytes() == page
    assert (out / "runs" / "lr-0.001" / "run.json").stat().st_mtime_ns == stamp
    assert main([*command, "--lr", "0.5"]) == 1
    assert "holds another curve" in capsys.readouterr().err
    assert main([*command, "--vary", "weight"]) == 1
    assert "--vary is one of lr, got weight" in capsys.readouterr().err


def test_presets_of_repair_have_the_papers_rates():
    assert [PRESETS[name].lr for name in PRESETS if name.startswith("repair-")] == [1e-3, 1e-4, 1e-5]
