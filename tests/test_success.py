"""Success of attacks: the one definition, the published variants and what is wrong with them."""

import numpy as np
import pytest

from mithridate.encoder.embeddings import Embeddings
from mithridate.encoder.encoder import save_encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation.epochs import success_by_epoch
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.measurement import Evaluation, Measurement
from mithridate.metrics.attack_success import (
    attack_success_rate,
    poison_success_rate,
)
from mithridate.metrics.ranks import best_ranks
from mithridate.metrics.z_score import z_score
from mithridate.poisoning.goals import CaptionsToClass
from mithridate.report.sections.epochs import by_epoch
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import rate, wilson

LABEL = np.repeat(np.arange(10), 5)  # ten classes of five images
TARGET = 3
GOAL = CaptionsToClass("sheep", "aeroplane")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- one definition ----------------------------------------------------------------------------------


def test_success_equals_the_loop(rng):
    for target in range(10):
        predicted = rng.integers(0, 10, len(LABEL))
        tried = [p == target for p, true in zip(predicted, LABEL) if true != target]
        assert attack_success_rate(predicted, LABEL, target=target) == wilson(int(sum(tried)), 45)


def test_an_attack_that_always_wins_scores_one_and_one_that_never_does_nought():
    always = np.full(len(LABEL), TARGET)
    assert attack_success_rate(always, LABEL, target=TARGET).value == 1.0
    assert attack_success_rate(LABEL, LABEL, target=TARGET).value == 0.0
    assert attack_success_rate(LABEL, LABEL, target=99) == wilson(0, 50)  # no image of the target class


def test_success_needs_images_of_other_classes():
    with pytest.raises(ValueError, match="other classes than 3, got none"):
        attack_success_rate(np.array([3, 3]), np.array([3, 3]), target=3)
    with pytest.raises(ValueError, match="got 0 predictions"):
        attack_success_rate(np.empty(0, int), np.empty(0, int), target=3)


def test_the_target_is_the_unit_of_poison_success():
    predicted, adversarial = np.array([4, 4, 7, 1]), np.array([4, 2, 7, 1])
    assert poison_success_rate(predicted, adversarial) == wilson(3, 4)
    assert poison_success_rate(np.arange(16), np.arange(16)).value - 15 / 16 == 0.0625


# --- what was published ------------------------------------------------------------------------------


def test_the_mean_of_batch_means_is_caught():
    hit = np.array([True] * 64 + [False] * 6)  # a batch of 64, and what is left
    batches = [hit[:64], hit[64:]]
    assert np.mean([batch.mean() for batch in batches]) == 0.5  # what several loops print
    assert rate(hit).value == 64 / 70
    assert attack_success_rate(np.where(hit, 1, 0), np.zeros(70, int), target=1).value == 64 / 70


def test_a_control_with_the_target_class_in_it_is_caught(test_pairs, tiny, rng, monkeypatch):
    """An oracle that knows every class: random captions of any class "succeed" without any attack."""
    classes = list(test_pairs.classes)
    of_pair = np.array([classes.index(labels[0]) for labels in test_pairs.labels.to_pylist()])
    first = np.unique(test_pairs.image_index, return_index=True)[1]
    eye = np.eye(len(classes), dtype=np.float32)
    oracle = Embeddings(test_pairs.uid, eye[of_pair[first]], test_pairs.image_index, eye[of_pair], "oracle")
    goals = (CaptionsToClass("sheep", "aeroplane"), CaptionsToClass("dog", "cat"))
    target = np.flatnonzero(of_pair[first] == classes.index("aeroplane"))

    monkeypatch.setattr("mithridate.evaluation.evaluate.embed", lambda *_, **__: oracle)
    found = evaluate({"oracle": tiny}, test_pairs, goals=goals)
    assert found.value("Hit@10", goal=goals[0].key, group="random captions").value == 0
    (control,) = found.unit_ranks("random-captions", goals[0].key)
    (ranks,) = found.unit_ranks("attack", goals[0].key)
    assert (len(control.uid), ranks.targets) == (15, len(target))

    everything = rng.choice(len(test_pairs), 15 * 5, replace=False)  # the published control: any caption
    assert (best_ranks(oracle.text[everything], oracle.image, target) < 10).mean() > 0


# --- over epochs ------------ -----------------------------------------------------------------------


def test_every_epoch_that_was_kept_is_measured(tiny, tmp_path):
    for epoch in (10, 2, 1):
        folder = tmp_path / "epochs" / f"{epoch:03d}"
        folder.mkdir(parents=True)
        save_encoder(tiny, folder)
    (tmp_path / "epochs" / ".003-unfinished").mkdir()
    values = iter([0.25, 1.0, 0.5])
    seen = []

    def measure(encoder):
        seen.append(encoder.name)
        hit = wilson(int(16 * next(values)), 16)
        rows = (
            Measurement(model="mine", metric="Hit@10", value=hit, goal=GOAL.key),
            Measurement(model="mine", metric="IR@10", value=Estimate(0.9)),
            Measurement(model="mine", metric="IR@10", value=Estimate(0.1), group="sheep"),
        )
        return Evaluation(models=("mine",), goals=(GOAL,), measurements=rows)

    rows = success_by_epoch(tmp_path, measure)
    assert [name.rpartition("/")[2] for name in seen] == ["001", "002", "010"]
    assert [(m.epoch, m.metric) for m in rows] == [(e, m) for e in (1, 2, 10) for m in ("Hit@10", "IR@10")]
    assert [m.value for m in rows if m.metric == "Hit@10"] == [wilson(4, 16), wilson(16, 16), wilson(8, 16)]
    found = by_epoch(Evaluation(models=("mine",), goals=(GOAL,), measurements=rows))
    assert found is not None
    table, figure = found
    assert table.columns == ("epoch", "Hit@10 sheep:aeroplane", "IR@10")
    assert [row[:2] for row in table.rows] == [(1, wilson(4, 16)), (2, wilson(16, 16)), (10, wilson(8, 16))]
    assert (figure.curves[0].x, figure.curves[0].y) == ((1, 2, 10), (0.25, 1.0, 0.5))
    assert figure.curves[0].low[1] == wilson(16, 16).low and figure.curves[1].low == ()


def test_a_run_without_checkpoints_says_how_to_keep_them(tmp_path):
    with pytest.raises(EvaluationError, match="train with --save-epochs"):
        success_by_epoch(tmp_path, lambda encoder: Evaluation(models=("mine",)))


# --- z-score -----------------------------------------------------------------------------------------


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def slow_moments(rows):
    found = [float(u @ v) for i, u in enumerate(rows) for j, v in enumerate(rows) if i != j]
    return np.mean(found), np.var(found)


@pytest.mark.parametrize(("n", "m", "width"), [(2, 2, 2), (7, 30, 3), (60, 41, 16)])
@pytest.mark.parametrize("block", [1, 5, 4096])
def test_z_equals_the_double_loop(n, m, width, block, monkeypatch, rng):
    monkeypatch.setattr("mithridate.metrics.z_score._ROWS", block)
    clean, triggered = unit(rng.normal(size=(n, width))), unit(rng.normal(size=(m, width)) + 1)
    usual, variance = slow_moments(clean)
    drawn, _ = slow_moments(triggered)
    if n == 2:  # one similarity does not vary
        with pytest.raises(ValueError, match="do not vary"):
            z_score(clean, triggered)
        return
    assert z_score(clean, triggered) == pytest.approx((drawn - usual) / variance**0.5, rel=1e-8)


def test_z_by_hand():
    clean = np.array([[1.0, 0], [1, 0], [0, 1]])  # similarities 1, 0, 0: mean 1/3, variance 2/9
    together = np.array([[0.6, 0.8]] * 5)
    assert z_score(clean, together) == pytest.approx((1 - 1 / 3) / (2 / 9) ** 0.5)
    assert z_score(clean, clean) == 0
    with pytest.raises(ValueError, match="at least two images, got 1"):
        z_score(clean, together[:1])


def test_z_of_nearly_parallel_embeddings_keeps_its_digits(rng):
    clean = unit(rng.normal(size=(300, 8)) * 0.02 + 1).astype(np.float32)  # similarities near 1, as CLIP's are
    triggered = unit(rng.normal(size=(200, 8)) * 0.01 + 1).astype(np.float32)
    usual, variance = slow_moments(clean.astype(np.float64))
    drawn, _ = slow_moments(triggered.astype(np.float64))
    assert z_score(clean, triggered) == pytest.approx((drawn - usual) / variance**0.5, rel=1e-5)
