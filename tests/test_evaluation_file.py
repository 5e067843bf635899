"""The long table of an evaluation: filtered, as Arrow, and on disk, where nothing but an evaluation is read back."""
# pyright: reportOptionalMemberAccess=false
# (that what is looked for was measured is part of what is tested)

import json
from dataclasses import replace

import pytest

import mithridate as mt
from mithridate.errors import DataError, OutputError
from mithridate.evaluation import evaluation_file
from mithridate.evaluation.evaluation_file import read_evaluation, write_evaluation
from mithridate.evaluation.measurement import (
    AttackRecord,
    ClassSet,
    Distribution,
    Evaluation,
    GroupSize,
    Measurement,
    Predictions,
    ProjectedItems,
    RetrievedExamples,
    RetrievedImage,
    TestData,
    UnitRanks,
    Warning,
    goal_classes,
    goal_key,
    success_metric,
)
from mithridate.poisoning.goals import CaptionsToClass, CaptionsToImage, ImageToClass, PhraseToClass, TriggerToClass
from mithridate.statistics.estimate import Estimate

CAPTIONS, TRIGGER = CaptionsToClass("sheep", "aeroplane"), TriggerToClass("patch:size=16,row=0", "bus")
GOALS = (CAPTIONS, CaptionsToImage("dog", "cat", "cat.png"), TRIGGER, ImageToClass("a.png", "dog"))
GOALS += (ImageToClass("b.png", "cat"), PhraseToClass("end:verily", "boat"))


@pytest.fixture
def evaluation():
    """Something of everything that an evaluation holds."""
    image = RetrievedImage(thumbnail="AAAA", labels=("cat",), similarity=0.25, is_target=False)
    return Evaluation(
        models=("repaired", "before", "clean"),
        reference="clean",
        goals=GOALS,
        descriptions={TRIGGER.key: "patch:size=16", GOALS[-1].key: "verily"},
        attack=AttackRecord(
            attack="backdoor", options={"count": 3}, seed=1, strength={"rate": 0.1}, data={}, versions={}
        ),
        test=TestData(fingerprint="abc", pairs=4, images=2),
        measurements=(
            Measurement(model="repaired", metric="ASR", value=Estimate(0.5, 0.1, 0.9, 2), goal=TRIGGER.key, chance=0.5),
            Measurement(model="before", metric="ASR", value=Estimate(1.0), goal=TRIGGER.key, group="untouched"),
            Measurement(model="repaired", metric="IR@10", value=Estimate(0.25), epoch=2),
            Measurement(model="repaired", metric="IR@10", value=Estimate(0.75)),
        ),
        ranks=(UnitRanks(task="ir", uid=("a", "b"), image=(0, 0), ranks={"repaired": (0, 3)}, targets=1, gallery=9),),
        groups=(GroupSize(group="all", images=2, captions=4),),
        classes=ClassSet(names=("cat", "dog"), images=2, left_out=1),
        predictions=Predictions(wanted=("dog",), taken={"repaired": ("cat",)}),
        probe=("lbfgs", 5),
        examples=(RetrievedExamples(query="a dog\ud800", images={"repaired": (image,)}),),
        distributions=(
            Distribution(
                model="clean", metric="cosine distance", group="g", edges=(0.0, 1.0), density=(1.0,), median=0.5
            ),
        ),
        projections=(ProjectedItems(model="clean", method="pca", modality="images", group="all", x=(0.0,), y=(1.0,)),),
        warnings=(Warning(code="few-queries", values={"goal": "x", "queries": 3, "step": None}),),
        runs={"repaired": {"config": {"lr": 0.1}}, "clean": None},
        provenance={"seed": 3},
    )


def test_measurements_are_filtered_by_their_fields(evaluation):
    assert [m.value.value for m in evaluation.select(metric="ASR")] == [0.5, 1.0]
    assert [m.epoch for m in evaluation.select(metric="IR@10", model="repaired")] == [2, None]
    assert evaluation.value("IR@10") == Estimate(0.75)  # of the model that it is about, not of an epoch
    assert evaluation.value("IR@10", epoch=2) == Estimate(0.25)
    assert evaluation.find("ASR", model="before", goal=TRIGGER.key) is None
    with pytest.raises(KeyError, match="TR@10 was not measured"):
        evaluation.value("TR@10")
    with pytest.raises(AttributeError, match="matric"):
        list(evaluation.select(matric="ASR"))


def test_success_and_utility_are_one_metric_a_goal_and_never_a_control(evaluation):
    assert {key: m.value.value for key, m in evaluation.success().items()} == {TRIGGER.key: 0.5}
    assert evaluation.success("before") == {}
    assert {metric: m.value.value for metric, m in evaluation.utility().items()} == {"IR@10": 0.75}
    assert {metric: m.value.value for metric, m in evaluation.utility(epoch=2).items()} == {"IR@10": 0.25}


def test_a_goal_is_known_by_its_type():
    metrics = ["Hit@10", "Hit@10", "ASR", "PSR", "PSR", "Hit@10"]
    assert [success_metric(goal) for goal in GOALS] == metrics
    assert [goal_classes(goal) for goal in GOALS[:3]] == [("sheep", "aeroplane"), ("dog", "cat"), ("bus",)]
    assert [goal_key(goal) for goal in GOALS[3:5]] == ["single images", "single images"]


def test_goals_read_as_a_person_writes_them(evaluation):
    names = ["sheep to aeroplane", "dog to cat", "patch:size=16 to bus", "single images"]
    assert [evaluation.goal_name(goal_key(goal)) for goal in GOALS[:4]] == names
    assert [evaluation.short_name(goal.key) for goal in GOALS[:3]] == ["sheep:aeroplane", "dog:cat", names[2]]
    assert evaluation.goal_name("of another evaluation") == "of another evaluation"


def test_the_long_table_has_a_row_a_measurement(evaluation):
    table = evaluation.to_table()
    assert table.column_names == [
        *("model", "epoch", "goal", "metric", "group", "unit", "value", "low", "high", "n", "chance")
    ]
    assert table.num_rows == 4
    assert table["epoch"].to_pylist() == [None, None, 2, None]
    assert table.slice(0, 1).to_pylist()[0] == {
        "model": "repaired",
        "epoch": None,
        "goal": TRIGGER.key,
        "metric": "ASR",
        "group": "all",
        "unit": "image",
        "value": 0.5,
        "low": 0.1,
        "high": 0.9,
        "n": 2,
        "chance": 0.5,
    }
    assert Evaluation(models=("m",)).to_table().schema == table.schema


def test_what_is_written_is_read_back(evaluation, tmp_path):
    write_evaluation(evaluation, tmp_path)
    readable = replace(evaluation.examples[0], query="a dog?")  # half a surrogate pair is no text
    assert read_evaluation(tmp_path) == replace(evaluation, examples=(readable,))
    assert read_evaluation(tmp_path / "evaluation.json") == mt.read_evaluation(tmp_path)
    with pytest.raises(OutputError, match="cannot write"):
        write_evaluation(evaluation, tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "mithridate-report/1"}, "is not an evaluation of format mithridate-evaluation/1"),
        ({"surprise": 1}, r"wrong field: surprise"),
        ({"models": 3}, r"wrong field: models"),
        ({"goals": [{"kind": "nonsense", "target": "x"}]}, r"wrong field: goals\.0"),
        ({"goals": [{"kind": "trigger-to-class", "trigger": "t", "target": "x", "more": 1}]}, r"wrong field: goals\.0"),
        ({"measurements": [{"model": "m", "metric": "x", "value": {"value": "much"}}]}, r"measurements\.0\.value"),
        ({"measurements": [{"model": "m", "metric": "x", "value": {"value": 1.0}, "by": 2}]}, r"measurements\.0\.by"),
        ({"ranks": [{"task": "ir", "uid": ["a"], "image": [0], "ranks": {"m": [-1]}}]}, "no position"),
        ({"ranks": [{"task": "ir", "uid": ["a"], "image": [0], "ranks": {"m": [0, 1]}}]}, "1 queries need as many"),
        ({"ranks": [{"task": "ir", "uid": ["a", "a"], "image": [0, 0], "ranks": {}}]}, "two queries have one uid"),
        ({"warnings": [{"code": "x", "values": {"a": [1]}}]}, r"warnings\.0\.values"),
    ],
)
def test_what_is_no_evaluation_is_refused_in_one_sentence(evaluation, tmp_path, change, message):
    write_evaluation(evaluation, tmp_path)
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message) as caught:
        read_evaluation(tmp_path)
    assert "make it again with mithridate evaluate" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b"[]", b"null"])
def test_a_file_that_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "evaluation.json").write_bytes(content)
    with pytest.raises(DataError, match="is not an evaluation"):
        read_evaluation(tmp_path)
    with pytest.raises(DataError, match="No such file"):
        read_evaluation(tmp_path / "elsewhere.json")


def test_a_file_too_large_to_read_is_refused(evaluation, tmp_path, monkeypatch):
    write_evaluation(evaluation, tmp_path)
    monkeypatch.setattr(evaluation_file, "_LARGEST", 10)
    with pytest.raises(DataError, match="an evaluation has at most 10"):
        read_evaluation(tmp_path)
