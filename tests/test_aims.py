"""Success of backdoors, single targets and phrases: by hand from embeddings, then whole evaluations."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import make_pairs
from mithridate.errors import EvaluationError
from mithridate.evaluation import checks
from mithridate.evaluation.aims import measure_aims, refuse_unknown_aims
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.intervals import rate
from mithridate.evaluation.triggered import TriggeredImages, classes_of_test, success, target_ranks
from mithridate.poisoning.apply import poison
from mithridate.poisoning.backdoor import Backdoor
from mithridate.poisoning.plan import Aim
from mithridate.poisoning.targeted import Targeted
from mithridate.poisoning.text_trigger import TextTrigger
from mithridate.poisoning.triggers import parse_trigger


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
    assert [(aim.target, aim.trigger.split(":")[0]) for aim in manifest.aims] == [
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
    assert value["chance"] == {"asr": 1 / 9}
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


def test_single_targets_are_the_units(report, test_pairs):
    found, manifest = report(Targeted(images=6, per_target=2, classes=("dog", "cat")), gallery=test_pairs)
    assert [aim.target for aim in manifest.aims] == ["dog", "cat"] * 3
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
    gone = replace(manifest, aims=(Aim("boat", image=str(tmp_path / "gone.png")),))
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
