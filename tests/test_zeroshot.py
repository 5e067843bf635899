"""Zero-shot classification: against scikit-learn, against slow loops, and the command."""

# pyright: reportAttributeAccessIssue=false, reportOptionalOperand=false, reportOperatorIssue=false
# pyright: reportArgumentType=false, reportCallIssue=false
# (a cell may be anything; that these are estimates with both ends is part of what is tested)

import json

import numpy as np
import open_clip
import pytest
from PIL import Image
from sklearn import metrics

from mithridate.cli import main
from mithridate.data.labelled import read_labelled, write_clip_benchmark
from mithridate.data.pairs import make_pairs
from mithridate.data.prompts import prompts
from mithridate.encoder.embed import embed
from mithridate.errors import DataError, EvaluationError
from mithridate.evaluation.evaluation_file import read_evaluation
from mithridate.evaluation.zeroshot import TEMPLATES, zero_shot, zero_shot_weights
from mithridate.metrics.classification import (
    ClassScores,
    class_scores,
    clip_benchmark_metrics,
    true_ranks,
    unit_length,
)
from mithridate.metrics.ranks import best_ranks
from mithridate.report.document import read_report
from mithridate.report.sections.classify import classification_tables

# --- the definitions, as loops ---------------------------------------------------------------------------


def slow_rank(row, label):
    """How many other classes have a score of at least the own class's."""
    return sum(1 for other, score in enumerate(row) if other != label and score >= row[label])


def slow_prediction(row, label):
    """The best class; where the own one shares its place, another one."""
    best = max(row)
    wrong = [other for other, score in enumerate(row) if score == best and other != label]
    return wrong[0] if wrong else label


def classified(scores, labels):
    scores = np.asarray(scores, dtype=np.float64)
    names = tuple(f"class {i}" for i in range(scores.shape[1]))
    return ClassScores("method", names, np.asarray(labels), scores)


def drawn(seed, *, n=60, c=7, ties=False):
    rng = np.random.default_rng(seed)
    scores = rng.integers(4, size=(n, c)).astype(float) if ties else rng.normal(size=(n, c))
    labels = np.concatenate([np.arange(c), rng.integers(c, size=n - c)])
    return scores, labels


@pytest.mark.parametrize("seed", range(3))
def test_without_ties_the_figures_are_those_of_scikit_learn(seed):
    scores, labels = drawn(seed)
    result = classified(scores, labels)
    for k in (1, 2, 5):
        wanted = metrics.top_k_accuracy_score(labels, scores, k=k)
        assert result.accuracy(k).value == pytest.approx(wanted)
    predicted = scores.argmax(axis=1)
    assert result.accuracy().value == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert result.mean_per_class_recall().value == pytest.approx(
        metrics.recall_score(labels, predicted, average="macro")
    )
    assert result.mean_per_class_recall().value == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert np.array_equal(result.confusion, metrics.confusion_matrix(labels, predicted))
    recalls = metrics.recall_score(labels, predicted, average=None)
    assert [recall.value for recall in result.recalls()] == pytest.approx(recalls)


@pytest.mark.parametrize("seed", range(3))
def test_ties_count_against_the_own_class_as_the_loops_say(seed):
    scores, labels = drawn(seed, ties=True)
    result = classified(scores, labels)
    ranks = [slow_rank(row, label) for row, label in zip(scores, labels)]
    assert true_ranks(scores, labels).tolist() == ranks
    assert result.predicted.tolist() == [slow_prediction(row, label) for row, label in zip(scores, labels)]
    for k in range(1, 8):
        assert result.accuracy(k).value == pytest.approx(np.mean([rank < k for rank in ranks]))
    assert np.trace(result.confusion) == sum(rank == 0 for rank in ranks)


def test_the_rule_for_ties_is_that_of_the_rankings():
    rng = np.random.default_rng(0)
    image, weights = (rng.integers(-1, 2, size=(n, 4)).astype(np.float32) for n in (30, 6))
    labels = rng.integers(6, size=30)
    assert np.array_equal(true_ranks(class_scores(image, weights), labels), best_ranks(image, weights, labels[:, None]))


def test_by_hand():
    result = classified([[3, 2, 1], [3, 2, 1], [1, 1, 1], [0, 1, 2]], [0, 1, 2, 2])
    assert result.ranks.tolist() == [0, 1, 2, 0]
    assert result.predicted.tolist() == [0, 0, 0, 2]
    assert result.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 1]]
    half = result.accuracy(1)
    assert (half.value, half.low, half.high) == pytest.approx((0.5, 0.15, 0.85), abs=0.01)
    assert result.accuracy(3).value == 1
    assert result.mean_per_class_recall().value == pytest.approx((1 + 0 + 0.5) / 3)


def test_a_model_that_scores_all_alike_has_nothing_right():
    result = classified(np.ones((4, 2)), [0, 1, 0, 1])
    assert result.accuracy().value == result.mean_per_class_recall().value == 0
    assert result.accuracy(2).value == 1


def test_one_class_and_one_image():
    assert classified([[0.1], [-2.0]], [0, 0]).accuracy().value == 1
    one = classified([[0.3]], [0])
    assert (one.accuracy().value, one.mean_per_class_recall().value, one.confusion.tolist()) == (1, 1, [[1]])
    assert classification_tables([one])[1].rows[0][-1] is None


def test_what_is_not_defined_is_refused():
    with pytest.raises(EvaluationError, match="class 'class 1' has no image"):
        classified(np.ones((2, 2)), [0, 0])
    with pytest.raises(EvaluationError, match="scores of 1 images are not numbers"):
        true_ranks(np.array([[0.0, np.nan]]), np.array([0]))
    with pytest.raises(EvaluationError, match=r"1 image embeddings are not finite \(rows 1\)"):
        class_scores(np.array([[1.0, 0], [np.nan, 0]]), np.eye(2))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got 0\.\.2"):
        true_ranks(np.ones((2, 2)), np.array([0, 2]))
    with pytest.raises(ValueError, match=r"scores must be \(2, 2\)"):
        ClassScores("x", ("a", "b"), np.array([0, 1]), np.ones((2, 3)))


def test_the_interval_of_mean_recall_is_wilsons_where_classes_are_alike_and_covers():
    alike = classified(np.eye(4)[[0, 1, 2, 3] * 25][:, [1, 0, 2, 3]], [0, 1, 2, 3] * 25)
    assert (alike.mean_per_class_recall().value, alike.accuracy().value) == (0.5, 0.5)
    rng = np.random.default_rng(0)
    rates, counts = np.array([0.95, 0.7, 0.5, 0.1]), np.array([200, 20, 60, 40])
    labels = np.repeat(np.arange(4), counts)
    covered = 0
    for _ in range(400):
        right = rng.random(len(labels)) < rates[labels]
        taken = np.where(right, labels, (labels + 1) % 4)
        found = classified(np.eye(4)[taken], labels).mean_per_class_recall()
        covered += found.low <= rates.mean() <= found.high
    assert 0.92 <= covered / 400 <= 0.98


# --- prompts and weights -----------------------------------------------------------------------------------


def test_templates_are_those_of_open_clip():
    assert {name: len(templates) for name, templates in TEMPLATES.items()} == {"openai": 80, "simple": 7}
    for ours, theirs in zip(TEMPLATES["openai"], open_clip.OPENAI_IMAGENET_TEMPLATES):
        assert prompts("sea horse", [ours]) == [theirs("sea horse")]


def test_nothing_is_formatted():
    assert prompts("{0.__class__}", ["a {} of {c} {0.__class__} {}"]) == [
        "a {0.  class  } of {c} {0.__class__} {0.  class  }"
    ]
    assert prompts("%s {} \\1", ["{}"]) == ["%s {} \\1"]
    assert prompts("dining_table", ["a {}."]) == ["a dining table."]


def test_hostile_names_and_templates_are_only_text(tiny):
    weights = zero_shot_weights(
        tiny, ["{0.__class__}", "{__import__('os')}"], ["{0.__init__.__globals__} {}", "{} {x!r}"]
    )
    assert weights.shape[0] == 2
    assert np.isfinite(weights).all()


def test_weights_are_the_mean_of_unit_length_prompts(tiny):
    names, templates = ["dog", "sea_horse", "cat"], ["a photo of a {}.", "{}", "many {} in the {}"]
    weights = zero_shot_weights(tiny, names, templates)
    for name, row in zip(names, weights):
        total = 0
        for template in templates:
            one = tiny.encode_text([template.replace("{}", name.replace("_", " "))]).detach().numpy()[0]
            total = total + one / np.linalg.norm(one)
        assert row == pytest.approx(total / np.linalg.norm(total), abs=1e-5)
    assert np.linalg.norm(weights, axis=1) == pytest.approx(1, abs=1e-6)


def test_the_80_templates_are_the_default(tiny):
    assert np.array_equal(zero_shot_weights(tiny, ["dog"]), zero_shot_weights(tiny, ["dog"], TEMPLATES["openai"]))


def test_the_order_of_the_classes_moves_no_bit(tiny):
    names = ["dog", "cat", "horse", "a much longer name of a class", "bus"]
    order = [3, 1, 4, 0, 2]
    weights = zero_shot_weights(tiny, names, ["a {}", "{}"])
    moved = zero_shot_weights(tiny, [names[i] for i in order], ["a {}", "{}"])
    assert np.array_equal(moved, weights[order])
    image = unit_length(np.random.default_rng(0).normal(size=(50, weights.shape[1])).astype(np.float32))
    assert np.array_equal(class_scores(image, moved), class_scores(image, weights)[:, order])


def test_equal_classes_tie(tiny):
    weights = zero_shot_weights(tiny, ["dog", "cat", "dog"], ["a {}"])
    scores = class_scores(
        unit_length(np.random.default_rng(0).normal(size=(50, weights.shape[1])).astype("f")), weights
    )
    assert np.array_equal(scores[:, 0], scores[:, 2])


@pytest.mark.parametrize(
    ("templates", "complaint"),
    [([], "need a list"), ("a {}", "need a list"), (["a photo"], r"must hold \{\} where the class name goes")],
)
def test_wrong_templates_are_refused(tiny, templates, complaint):
    with pytest.raises(DataError, match=complaint):
        zero_shot_weights(tiny, ["dog"], templates)


def test_zero_shot_is_the_nearest_class_in_the_joint_space(toy_world, tiny):
    pairs = read_labelled(toy_world, split="test")
    result = zero_shot(tiny, pairs, templates=["a photo of a {}."])
    names = sorted(pairs.classes)
    assert result.classes == tuple(names)
    text = tiny.encode_text([f"a photo of a {name}." for name in names]).detach().numpy()
    wanted = embed(tiny, pairs).image @ text.T
    assert result.scores == pytest.approx(wanted, abs=1e-5)
    assert [names[label] for label in result.labels] == [labels[0] for labels in pairs.labels.to_pylist()]
    moved = zero_shot(tiny, pairs, classes=names[::-1], templates=["a photo of a {}."])
    assert moved.accuracy(1) == result.accuracy(1)
    assert np.array_equal(moved.confusion[::-1, ::-1], result.confusion)
    broken = make_pairs(["/nowhere.png"], [""], labels=[["dog"]])
    with pytest.raises(DataError, match="1 of 1 images do not decode"):
        zero_shot(tiny, broken, templates=["{}"])


# --- tables and the command ----------------------------------------------------------------------------------


def test_tables_say_what_was_counted():
    result = classified(*drawn(0))
    accuracy, by_class, confusion = classification_tables([result])
    assert accuracy.columns == ("method", "images", "classes", "top-1", "top-5", "mean recall")
    assert accuracy.rows[1] == ("chance", None, 7, 1 / 7, 5 / 7, 1 / 7)
    assert [row[1] for row in by_class.rows] == result.images.tolist()
    assert [row[2] for row in by_class.rows] == list(result.recalls())
    assert np.array_equal([row[1:] for row in confusion.rows], result.confusion)
    many = classified(*drawn(1, n=400, c=30))
    listed = classification_tables([many])[2]
    assert len(listed.rows) == 20
    first = listed.rows[0]
    wrong = many.confusion - np.diag(np.diag(many.confusion))
    assert first[2] == wrong.max() == wrong[many.classes.index(first[0]), many.classes.index(first[1])]
    few = classification_tables([classified(*drawn(2, c=4))])[0]
    assert few.columns == ("method", "images", "classes", "top-1", "mean recall")


def test_metrics_as_clip_benchmark_writes_them():
    scores, labels = drawn(0)
    told = clip_benchmark_metrics(classified(scores, labels), dataset="d", model="m", pretrained="p")
    assert told == {
        "dataset": "d",
        "model": "m",
        "pretrained": "p",
        "task": "zeroshot_classification",
        "metrics": {
            "acc1": pytest.approx(metrics.top_k_accuracy_score(labels, scores, k=1)),
            "acc5": pytest.approx(metrics.top_k_accuracy_score(labels, scores, k=5)),
            "mean_per_class_recall": pytest.approx(metrics.balanced_accuracy_score(labels, scores.argmax(axis=1))),
        },
        "language": "en",
    }
    few = clip_benchmark_metrics(classified(*drawn(0, c=4)), dataset="d", model="m")
    assert few["metrics"]["acc5"] is None


@pytest.mark.usefixtures("blank_figures")
def test_the_command_writes_a_report_and_metrics(toy_world, tmp_path, capsys):
    out = tmp_path / "out"
    names = sorted(read_labelled(toy_world, split="test").classes, reverse=True)
    line = ["classify", "mithridate-tiny", str(toy_world), "--split", "test", "--templates", "simple", "--json"]
    probe = ["--probe", "adamw", "--probe-train", str(toy_world), "--probe-split", "train"]
    assert main([*line, *probe, "--classes", *names, "--out", str(out)]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["classification"]
    report = read_report(out)
    assert [row[0] for row in report.table("accuracy").rows] == ["zero-shot", "adamw probe", "chance"]
    assert (out / "report.html").is_file()
    for file, task, method in (
        ("metrics.json", "zeroshot_classification", "zero-shot"),
        ("metrics-probe.json", "linear_probe", "adamw probe"),
    ):
        written = json.loads((out / file).read_text())
        assert (written["dataset"], written["task"]) == (toy_world.name, task)
        assert written["metrics"]["acc1"] == told[method]["top-1"]["value"]
    # evaluations of classifications are compared image by image
    found = read_evaluation(out)
    for metric, method in (("zero-shot", "zero-shot"), ("probe accuracy", "adamw probe")):
        assert found.value(metric).value == told[method]["top-1"]["value"]
    both = [str(out), str(out)]
    assert main(["compare", *both, "--out", str(tmp_path / "difference"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]).keys() == {"zero-shot", "probe accuracy"}
    # the same images in another layout, the classes in another order, all in one place: the same figures
    shards = write_clip_benchmark(read_labelled(toy_world), tmp_path / "shards", templates=["{}"])
    again = ["classify", "mithridate-tiny", str(shards), "--split", "test", "--templates", "simple", "--json"]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["classification"]["zero-shot"] == told["zero-shot"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--classes", "sheeps", "dog"], "'sheeps' is no class with images in the set (nearest: 'sheep')"),
        (["--templates", "opneai"], "did you mean openai?"),
        (["--probe", "lbfgs"], "(--probe-train) or a number of folds (--probe-folds), got neither"),
        (["--probe-folds", "3"], "add --probe lbfgs or adamw"),
        (
            ["--probe", "lbfgs", "--probe-folds", "3", "--probe-split", "train"],
            "--probe-split selects a split of --probe-train",
        ),
        (["--probe", "lbfgs", "--probe-train", "DATA"], "among the training images of the probe (same file)"),
        (["--split", "val"], "split 'val' is empty"),
    ],
)
def test_wrong_input_is_one_sentence(toy_world, tmp_path, capsys, options, complaint):
    options = [str(toy_world) if option == "DATA" else option for option in options]
    split = [] if "--split" in options else ["--split", "test"]
    out = tmp_path / "out"
    assert main(["classify", "mithridate-tiny", str(toy_world), *split, *options, "--out", str(out)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mithridate: ")]
    assert len(lines) == 1
    assert complaint in lines[0]
    assert not out.exists()


def test_templates_come_from_a_file(toy_world, tmp_path, capsys):
    file = tmp_path / "templates.txt"
    file.write_text("a photo of a {c}.\n\n")
    line = ["classify", "mithridate-tiny", str(toy_world), "--split", "test", "--templates", str(file)]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    assert read_report(tmp_path / "out").provenance["templates"] == 1
    file.write_text("a photo\n")
    assert main([*line, "--out", str(tmp_path / "none")]) == 1
    assert "must hold {}" in capsys.readouterr().err


def test_images_outside_the_folder_need_leave(tmp_path, capsys):
    for name in ("cat", "dog"):
        Image.new("RGB", (8, 8), "red" if name == "cat" else "blue").save(tmp_path / f"{name}.png")
    table = tmp_path / "set" / "images.csv"
    table.parent.mkdir()
    table.write_text("filepath,label\n../cat.png,cat\n../dog.png,dog\n")
    line = ["classify", "mithridate-micro", str(table), "--templates", "simple", "--out", str(tmp_path / "out")]
    assert main(line) == 1
    assert "--allow-outside" in capsys.readouterr().err
    assert main([*line, "--allow-outside"]) == 0
