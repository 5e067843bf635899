"""Success of backdoors, single targets and phrases: by hand from embeddings, then whole evaluations."""
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# (a cell may be anything; that these are estimates is part of what is tested)

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import make_pairs
from mithridate.encoder.embed import embed, embed_images
from mithridate.errors import EvaluationError
from mithridate.evaluation import checks
from mithridate.evaluation.aims import measure_aims, refuse_unknown_aims
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.probe import AdamWProbe, draw_folds
from mithridate.evaluation.triggered import TriggeredImages, classes_of_test, success, target_ranks
from mithridate.poisoning.apply import poison
from mithridate.poisoning.backdoor import Backdoor
from mithridate.poisoning.goals import ImageToClass
from mithridate.poisoning.relabel import SingleLabel
from mithridate.poisoning.targeted import Targeted
from mithridate.poisoning.text_trigger import TextTrigger
from mithridate.poisoning.triggers import parse_trigger
from mithridate.statistics.intervals import chance_hit, rate


def unit(*degrees):
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


WEIGHTS = unit(0.0, 90.0, 180.0)  # three classes


def test_success_by_hand():
    label = np.array([0, 1, 1, 2, 2])
    untouched = unit(10.0, 80.0, 20.0, 170.0, 100.0)
    triggered = unit(5.0, 10.0, 20.0, 30.0, 120.0)
    found = success(untouched, triggered, label, WEIGHTS, target=0)
    # the image of class 0 is in neither; of the others three point to class 0, one did before
    assert (found.rate.value, found.rate.n) == (0.75, 4)
    assert (found.before.value, found.before.n) == (0.25, 4)
    assert found.rank.tolist() == [0, 0, 0, 2]
    assert found.z is not None
    assert found.z > 0


def test_a_tie_counts_against_the_target():
    assert target_ranks(unit(45.0, 44.0), WEIGHTS, 0).tolist() == [1, 0]
    flat = np.full((4, 2), 0.5, np.float32)
    # a model that embeds all to one point has no success, and no z-score
    same = np.repeat(unit(30.0), 3, axis=0)
    found = success(flat, flat, np.array([0, 1, 1, 2]), same, target=0)
    assert (found.rate.value, found.before.value, found.z) == (0.0, 0.0, None)


def test_classes_are_those_of_images_with_one_label():
    labels = [["dog"], ["dog"], ["cat"], [], ["cat", "dog"], ["ant"]]
    places = ["a", "a", "b", "c", "d", "e"]
    found = classes_of_test(make_pairs(places, [""] * 6, labels=labels))
    assert found.names == ("ant", "cat", "dog")
    assert found.image.tolist() == [0, 1, 4]
    assert found.label.tolist() == [2, 1, 0]
    assert found.left_out == 2
    with pytest.raises(EvaluationError, match=r"no test image is labelled 'cow' alone; the classes are ant, cat, dog"):
        found.index("cow")
    with pytest.raises(EvaluationError, match="at least two classes, got 1"):
        classes_of_test(make_pairs(["a", "b"], ["", ""], labels=[["dog"], ["dog"]]))


def test_triggered_images_are_stamped_before_they_are_made_smaller(test_pairs, tiny):
    trigger = parse_trigger("patch:size=9+sig:frequency=3")
    places = test_pairs.images.to_pylist()
    source = TriggeredImages(places, trigger, tiny, seed=4)
    for i, found in zip((5, 2), source.gather(np.array([5, 2]))):
        image = np.asarray(decode(read_bytes(places[i])))
        stamped = trigger.stamp(image, np.random.default_rng([4, i]))
        assert (found == tiny.to_pixels(Image.fromarray(stamped))).all()


@pytest.fixture
def report(train_pairs, test_pairs, tiny, tmp_path):
    """Evaluations of an untrained model, held against itself."""

    def run(attack, gallery=None):
        done = poison(train_pairs, attack, gallery=gallery, images=tmp_path / "images")
        return evaluate(tiny, test_pairs, done.manifest, clean=tiny, train=done.pairs), done.manifest

    return run


def test_a_backdoor_is_measured_without_its_target_class(report, test_pairs):
    attack = Backdoor(target="aeroplane", trigger="patch:size=16", also=("bird=sig",), count=20)
    found, manifest = report(attack)
    assert [(aim.target, aim.trigger.split(":")[0]) for aim in manifest.goals] == [
        ("aeroplane", "patch"),
        ("bird", "sig"),
    ]
    rows = found.table("backdoor").rows
    assert [row[:4] for row in rows] == [
        (model, trigger, target, n)
        for trigger, target in (("patch:size=16", "aeroplane"), ("sig", "bird"))
        for model, n in (("poisoned model", 24), ("clean model", 24), ("chance", None))
    ]  # 27 test images of nine classes, three of the target
    assert rows[0][4:] == rows[1][4:]
    assert rows[2][4] == 1 / 9
    value = found.headline["backdoor patch:size=16 to aeroplane"]
    assert value["poisoned"]["asr"]["value"] == rows[0][4].value
    assert value["chance"]["asr"] == 1 / 9
    assert found.headline["zero-shot"]["clean"]["accuracy"]["n"] == 27
    ranking = next(r for r in found.rankings if r.name == "backdoor sig to bird")
    assert len(ranking.uid) == 24
    birds = set(test_pairs.where(test_pairs.labelled("bird")).uid.to_pylist())
    assert not birds & set(ranking.uid)
    assert np.mean(np.array(ranking.ranks["poisoned"]) == 0) == rows[3][4].value
    assert found.table("strength").rows[0][1:5] == (20, 20 / 270, 2, 10 / 270)
    assert "backdoor: aeroplane, bird" in found.title
    accuracy = found.headline["zero-shot"]["clean"]["accuracy"]
    assert ("no-classifier" in {w.code for w in found.warnings}) == (accuracy["low"] <= 1 / 9)


class Nearest:
    """A probe that gives each image the class of the nearest training image."""

    def fit_predict(self, train_features, train_labels, test_features, rng):
        unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (test_features, train_features)]
        near = (unit[0] @ unit[1].T).argmax(axis=1)
        return np.eye(train_labels.max() + 1)[train_labels[near]]


@pytest.fixture(scope="module")
def probed(train_pairs, test_pairs, tiny, tmp_path_factory):
    attack = Backdoor(target="aeroplane", trigger="patch:size=1", also=("bird=sig",), count=20)
    done = poison(train_pairs, attack, images=tmp_path_factory.mktemp("probed"))
    return evaluate(tiny, test_pairs, done.manifest, probe=Nearest())


def test_a_triggered_image_retrieves_captions_as_the_slow_loop_says(probed, tiny, test_pairs):
    table = probed.table("backdoor-captions")
    rows = [dict(zip(table.columns, row)) for row in table.rows]
    assert [row["model"] for row in rows] == ["poisoned model", "chance"] * 2
    mine, by_chance = rows[2:]
    e, classes = embed(tiny, test_pairs), classes_of_test(test_pairs)
    others = classes.image[classes.label != classes.index("bird")]
    places = [test_pairs.images[int(i)].as_py() for i in others]
    stamped = embed_images(tiny, TriggeredImages(places, parse_trigger("sig"), tiny, 0), len(places))
    wanted = test_pairs.labelled("bird")
    for images, k, told in ((stamped, 1, "Hit@1"), (stamped, 10, "Hit@10"), (e.image[others], 10, None)):
        hits = 0
        for scores in images @ e.text.T:
            best = max(scores[wanted])
            hits += sum(score >= best for score in scores) - 1 < k  # what ties with it stands before it
        assert mine[told or "Hit@10 without trigger"].value == hits / len(others)
    # 15 captions wanted of 135
    assert by_chance["Hit@1"] == pytest.approx(15 / 135)
    assert by_chance["Hit@10"] == by_chance["Hit@10 without trigger"] == chance_hit(10, targets=15, gallery=135)
    ranking = next(r for r in probed.rankings if r.name == "captions sig to bird")
    assert np.mean(np.array(ranking.ranks["poisoned"]) < 10) == mine["Hit@10"].value
    assert probed.headline["backdoor sig to bird"]["poisoned"]["captions hit@10"] == mine["Hit@10"].value


def test_a_probe_has_not_seen_the_image_whose_triggered_copy_it_is_asked_about(probed, tiny, test_pairs):
    table = probed.table("probe")
    rows = [dict(zip(table.columns, row)) for row in table.rows]
    assert table.title == "A linear probe (Nearest) on frozen features"
    assert [(row["what"], row["target"], row["images"]) for row in rows] == [
        ("untouched images, own class", None, 27),
        ("patch:size=1", "aeroplane", 24),
        ("sig", "bird", 24),
        (None, None, None),
    ]
    # by a loop: the nearest image of another fold
    e, classes = embed(tiny, test_pairs), classes_of_test(test_pairs)
    fold = draw_folds(classes.label, 5, np.random.default_rng([0, 2]))
    told = []
    for i, image in enumerate(classes.image):
        others = [j for j in range(27) if fold[j] != fold[i]]
        told.append(classes.label[max(others, key=lambda j: float(e.image[image] @ e.image[classes.image[j]]))])
    told = np.array(told)
    assert rows[0]["success"].value == np.mean(told == classes.label)
    for row, name in ((rows[1], "aeroplane"), (rows[2], "bird")):
        target = classes.index(name)
        assert row["without trigger"] == rate(told[classes.label != target] == target)
        assert row["success"].n == 24
    # a pixel in a corner moves little, so these look as without it
    assert abs(rows[1]["success"].value - rows[1]["without trigger"].value) <= 2 / 24
    found = probed.headline["backdoor sig to bird"]["poisoned"]["asr of the probe"]
    assert found["value"] == rows[2]["success"].value
    assert next(r for r in probed.rankings if r.name == "probe sig to bird").uid


def test_single_targets_are_probed_without_themselves(train_pairs, test_pairs, tiny, tmp_path):
    attack = Targeted(images=6, per_target=2, classes=("dog", "cat"))
    manifest = poison(train_pairs, attack, gallery=test_pairs, images=tmp_path).manifest
    found = evaluate(tiny, test_pairs, manifest, probe=AdamWProbe(epochs=2))
    row = dict(zip(found.table("probe").columns, found.table("probe").rows[1]))
    assert (row["what"], row["images"], row["success"].n) == ("single target images", 6, 6)
    assert "adamw" in found.table("probe").title
    captions = dict(zip(found.table("targeted-captions").columns, found.table("targeted-captions").rows[0]))
    e, places, ranks = embed(tiny, test_pairs), test_pairs.images.to_pylist(), []
    for aim in manifest.goals:
        scores = e.image[places.index(aim.image)] @ e.text.T
        best = scores[test_pairs.labelled(aim.target)].max()
        ranks.append(int((scores >= best).sum()) - 1)
    assert captions["MinRank"].value == np.mean(ranks) and captions["images"] == 6
    assert "trigger" not in captions


def test_a_probe_needs_something_to_classify(tiny, test_pairs, train_pairs):
    done = poison(train_pairs, SingleLabel(source="sheep", target="aeroplane"), seed=0)
    for manifest in (None, done.manifest):
        with pytest.raises(EvaluationError, match="a manifest of neither is given"):
            evaluate(tiny, test_pairs, manifest, probe=AdamWProbe())


def test_single_targets_are_the_units(report, test_pairs):
    found, manifest = report(Targeted(images=6, per_target=2, classes=("dog", "cat")), gallery=test_pairs)
    assert [aim.target for aim in manifest.goals] == ["dog", "cat"] * 3
    (mine, clean, by_chance) = found.table("targeted").rows
    assert mine[1] == 6
    assert mine[2] == clean[2]
    assert by_chance[2] == 1 / 9
    rows = found.table("targets").rows
    assert [row[1] for row in rows] == ["dog", "cat"] * 3
    assert mine[2].value == np.mean([row[1] == row[2] for row in rows])
    assert found.headline["targeted"]["poisoned"]["psr"]["n"] == 6
    # a target image in the training pairs is there on purpose
    assert {warning.code for warning in found.warnings}.isdisjoint({"shared-images", "no-clean-model"})


def test_a_phrase_is_put_into_captions_of_other_classes(report):
    found, _ = report(TextTrigger(target="boat", trigger="verily", count=20))
    rows = found.table("text-trigger").rows
    assert [row[0] for row in rows] == [
        "poisoned model",
        "poisoned model, without the phrase",
        "clean model",
        "clean model, without the phrase",
        "chance",
    ]
    ranking = next(r for r in found.rankings if r.name == "text-trigger boat")
    assert len(ranking.uid) == 24 * 5
    assert np.mean(np.array(ranking.ranks["poisoned"]) < 10) == rows[0][3].value
    assert found.headline["text-trigger"]["poisoned"]["hit@10"] == rows[0][3].value
    assert any("says 'verily' finds boat" in line for line in found.summary)


def test_a_target_class_without_test_images_is_refused_before_anything_is_embedded(train_pairs, test_pairs, tmp_path):
    manifest = poison(train_pairs, Backdoor(target="boat", trigger="sig", count=5), images=tmp_path / "images").manifest
    other = test_pairs.where(~test_pairs.labelled("boat"))
    with pytest.raises(EvaluationError, match="no test image is labelled 'boat' alone"):
        refuse_unknown_aims(manifest, other)
    refuse_unknown_aims(manifest, test_pairs)
    refuse_unknown_aims(None, other)


def test_a_target_image_that_is_gone_is_named(train_pairs, test_pairs, tiny, tmp_path):
    manifest = poison(train_pairs, Targeted(inside=True, classes=("boat",))).manifest
    gone = replace(manifest, goals=(ImageToClass(str(tmp_path / "gone.png"), "boat"),))
    with pytest.raises(EvaluationError, match=r"gone\.png is not there"):
        evaluate(tiny, test_pairs, gone)


def test_nothing_is_measured_where_nothing_is_aimed_at(test_pairs):
    options = {"seed": 0, "cache": None, "cache_limit": None, "progress": lambda *_: None}
    found = measure_aims(None, test_pairs, {}, {}, **options)
    assert not (found.tables or found.summary or found.headline or found.rankings or found.warnings)


@pytest.mark.parametrize(("hits", "fooled"), [(0, False), (2, False), (8, True)])
def test_a_clean_model_that_is_fooled_beyond_chance_is_warned_of(hits, fooled):
    found = checks.clean_is_fooled("sig to boat", rate(np.arange(20) < hits), 1 / 9)
    assert [warning.code for warning in found] == ["clean-model-fooled"] * fooled


def test_a_model_that_classifies_nothing_is_warned_of():
    (warning,) = checks.no_classifier("clean model", 0.1, 1 / 9)
    assert warning.code == "no-classifier"
    assert "no better than chance (0.100, chance 0.111)" in warning.message
