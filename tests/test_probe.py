"""Linear probes on data whose answer is known; train and test share nothing."""

import io

import numpy as np
import pytest
from PIL import Image

from mithridate.cli import main
from mithridate.data.labelled import read_labelled
from mithridate.data.pairs import make_pairs
from mithridate.encoder.embed import embed
from mithridate.errors import DataError, EvaluationError
from mithridate.evaluation.overlap import refuse_overlap, refuse_twins
from mithridate.evaluation.probe import (
    PROBES,
    AdamWProbe,
    LbfgsProbe,
    Probe,
    cross_fit,
    draw_folds,
    image_features,
)
from mithridate.metrics.classification import true_ranks, unit_length


def clouds(seed, *, n=120, c=3, spread=0.3, width=16):
    """n points around c centres that are the same for every seed."""
    centres = 2 * np.random.default_rng(7).normal(size=(c, width))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % c)
    return (centres[labels] + spread * rng.normal(size=(n, width))).astype(np.float32), labels


def accuracy(probe, *, seed=0, **options):
    train, test = clouds(1, **options), clouds(2, **options)
    scores = probe.fit_predict(*train, test[0], np.random.default_rng(seed))
    return float((true_ranks(scores, test[1]) == 0).mean())


# a set of 120 is one batch of AdamW's recipe, and 32 steps are too few: the limit its docstring names
EXAMPLES = {"lbfgs": LbfgsProbe(), "adamw": AdamWProbe(batch_size=8)}


def test_every_probe_has_an_example():
    assert {name: type(probe) for name, probe in EXAMPLES.items()} == PROBES


@pytest.mark.parametrize("probe", EXAMPLES.values(), ids=list(EXAMPLES))
class TestEveryProbe:
    def test_it_is_a_probe(self, probe):
        assert isinstance(probe, Probe)

    @pytest.mark.parametrize("c", [2, 3])
    def test_separable_classes_are_told_apart(self, probe, c):
        assert accuracy(probe, c=c) == 1

    def test_shuffled_labels_teach_nothing(self, probe):
        x, test = np.random.default_rng(3).normal(size=(2, 200, 16)).astype(np.float32)
        scores = probe.fit_predict(x, np.arange(200) % 2, test, np.random.default_rng(0))
        assert 0.35 < (scores.argmax(axis=1) == np.arange(200) % 2).mean() < 0.65

    def test_a_seed_decides_all_and_nothing_global_does(self, probe):
        train, test = clouds(1, spread=3), clouds(2, spread=3)
        before = repr(np.random.get_state())  # noqa: NPY002 (that it is left alone is what is tested)
        first, again = (probe.fit_predict(*train, test[0], np.random.default_rng(5)) for _ in range(2))
        assert np.array_equal(first, again)
        assert repr(np.random.get_state()) == before  # noqa: NPY002
        assert first.shape == (120, 3)

    def test_scores_are_of_the_classes_by_their_numbers(self, probe):
        x, y = clouds(1)
        scores = probe.fit_predict(x, y, x, np.random.default_rng(0))
        renamed = probe.fit_predict(x, (y + 1) % 3, x, np.random.default_rng(0))
        assert np.array_equal(scores.argmax(axis=1), y)
        assert np.array_equal(renamed.argmax(axis=1), (y + 1) % 3)

    def test_what_cannot_be_learned_is_refused(self, probe):
        x, y = clouds(1)
        rng = np.random.default_rng(0)
        with pytest.raises(EvaluationError, match="class 1 has no training image"):
            probe.fit_predict(x, np.where(y == 1, 2, y), x, rng)
        with pytest.raises(EvaluationError, match="at least two classes, got one"):
            probe.fit_predict(x, np.zeros_like(y), x, rng)
        with pytest.raises(EvaluationError, match="needs training images"):
            probe.fit_predict(x[:0], y[:0], x, rng)
        x = x.copy()
        x[4, 0] = np.nan
        with pytest.raises(EvaluationError, match=r"1 features are not finite \(rows 4\)"):
            probe.fit_predict(x, y, x, rng)


def test_the_penalty_is_chosen_where_it_matters(monkeypatch):
    """Wide noise, few images: the strongest fit is not the best, and 15 of the 96 penalties are tried."""
    tried = []
    fit = LbfgsProbe._fit
    monkeypatch.setattr(LbfgsProbe, "_fit", lambda self, x, y, e: tried.append(e) or fit(self, x, y, e))
    accuracy(LbfgsProbe(max_iter=200), n=60, spread=4, width=64)
    *swept, chosen = tried
    assert len(swept) == len(set(swept)) <= 15
    assert set(range(-6, 7, 2)) <= set(swept)
    assert chosen in swept
    assert all(-6 <= e <= 6 and (8 * e).is_integer() for e in swept)


def test_held_out_images_are_of_every_class_and_leave_one():
    labels = np.array([0] * 10 + [1] * 2 + [2])
    held = LbfgsProbe()._held_out(labels, np.random.default_rng(0))
    assert np.bincount(labels[held], minlength=3).tolist() == [2, 1, 0]
    with pytest.raises(EvaluationError, match="no class has two training images"):
        LbfgsProbe().fit_predict(np.eye(3), np.arange(3), np.eye(3), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"validation must lie in \(0, 1\), got 1.0"):
        LbfgsProbe(validation=1.0).fit_predict(np.eye(3), np.arange(3), np.eye(3), np.random.default_rng(0))


def test_unit_length_makes_the_scale_of_a_row_nothing():
    (x, y), scale = clouds(1), np.random.default_rng(0).uniform(0.1, 10, size=(120, 1)).astype(np.float32)
    plain, scaled = (
        LbfgsProbe(unit_length=True).fit_predict(r, y, r, np.random.default_rng(0)) for r in (x, x * scale)
    )
    assert scaled == pytest.approx(plain, abs=1e-2)


def test_adamw_follows_its_recipe(monkeypatch):
    """The step size falls from 5e-3 to 0 by a cosine without warm-up, and the bias does not decay."""
    import torch

    seen = []
    step = torch.optim.AdamW.step

    def watched(self, *arguments, **options):
        seen.append([(group["lr"], group["weight_decay"], group["params"][0].ndim) for group in self.param_groups])
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    accuracy(AdamWProbe(epochs=4, batch_size=50))
    assert len(seen) == 4 * 3
    assert [groups[0][0] for groups in seen] == pytest.approx(
        [5e-3 * (1 + np.cos(np.pi * t / 12)) / 2 for t in range(12)]
    )
    assert {(decay, axes) for groups in seen for _, decay, axes in groups} == {(0.01, 2), (0.0, 1)}


# --- features and folds ------------------------------------------------------------------------------------


def test_features_are_embeddings_before_their_length_is_taken(toy_world, tiny):
    pairs = read_labelled(toy_world, split="test")
    features = image_features(tiny, pairs)
    lengths = np.linalg.norm(features, axis=1)
    assert lengths.std() > 0
    assert unit_length(features) == pytest.approx(embed(tiny, pairs).image, abs=1e-6)
    with pytest.raises(DataError, match="1 of 1 images do not decode"):
        image_features(tiny, make_pairs(["/nowhere.png"], [""], labels=[["dog"]]))


def test_folds_are_even_in_all_and_in_each_class():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [13, 7, 3]))
    fold = draw_folds(labels, 4, np.random.default_rng(1))
    for rows in (slice(None), *(labels == label for label in range(3))):
        counts = np.bincount(fold[rows], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert np.array_equal(fold, draw_folds(labels, 4, np.random.default_rng(1)))
    for folds, wrong in ((1, labels), (24, labels), (2, np.array([0, 0, 1]))):
        with pytest.raises(EvaluationError, match="at least two folds"):
            draw_folds(wrong, folds, np.random.default_rng(0))


def test_every_fold_is_predicted_by_a_probe_that_did_not_see_it():
    class Remembers:
        """Right on what it was trained on, wrong on all else."""

        def fit_predict(self, train_features, train_labels, test_features, rng):
            known = {tuple(row): label for row, label in zip(train_features, train_labels)}
            labels = [known.get(tuple(row)) for row in test_features]
            assert not any(label is not None for label in labels)
            return np.tile(np.arange(3.0), (len(test_features), 1))

    x, y = clouds(1)
    scores = cross_fit(Remembers(), x, y, folds=5, rng=np.random.default_rng(0))
    assert scores.shape == (120, 3)
    assert (
        true_ranks(cross_fit(AdamWProbe(batch_size=8), x, y, folds=5, rng=np.random.default_rng(0)), y) == 0
    ).mean() == 1


# --- overlap -----------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    def draw(name, shade):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (shade, 10, 20)).save(buffer, "PNG")
        (tmp_path / name).write_bytes(buffer.getvalue())
        return str(tmp_path / name)

    return lambda *shown: make_pairs(
        [draw(name, shade) for name, shade in shown], [""] * len(shown), labels=[["dog"]] * len(shown)
    )


def test_train_and_test_may_share_no_image(pictures):
    train = pictures(("a.png", 1), ("b.png", 2), ("c.png", 3))
    refuse_overlap(train, pictures(("d.png", 4), ("e.png", 5)))
    with pytest.raises(DataError, match=r"1 of the 2 test images .*same file\), such as .*b.png"):
        refuse_overlap(train, pictures(("d.png", 4), ("b.png", 2)))
    with pytest.raises(DataError, match=r"2 of the 3 test images .*same bytes\), such as .*[fg].png"):
        refuse_overlap(train, pictures(("f.png", 1), ("g.png", 3), ("h.png", 9)))
    with pytest.raises(DataError, match=r"cannot read /nowhere.png"):
        refuse_overlap(train, make_pairs(["/nowhere.png"], [""]))


def test_twins_are_refused_in_cross_validation(pictures):
    refuse_twins(pictures(("a.png", 1), ("b.png", 2)))
    with pytest.raises(DataError, match=r"c.png has the same bytes as .*a.png"):
        refuse_twins(pictures(("a.png", 1), ("b.png", 2), ("c.png", 1)))


@pytest.mark.usefixtures("blank_figures")
def test_the_command_cross_validates(toy_world, tmp_path):
    line = ["classify", "mithridate-tiny", str(toy_world), "--split", "test", "--templates", "simple"]
    probe = ["--probe", "lbfgs", "--probe-folds", "3"]
    assert main([*line, *probe, "--out", str(tmp_path / "out"), "--json"]) == 0
    assert (tmp_path / "out" / "metrics-probe.json").is_file()


def test_a_probe_that_did_not_converge_says_so_in_one_sentence(caplog, recwarn):
    train, test = clouds(1, spread=3), clouds(2, spread=3)
    LbfgsProbe(max_iter=2).fit_predict(*train, test[0], np.random.default_rng(0))
    assert [record.getMessage().split(";")[0] for record in caplog.records] == [
        "a linear probe reached its 2 iterations before it converged"
    ]
    assert not recwarn.list
