"""Success of backdoors, single targets and phrases: by hand from embeddings, then whole evaluations."""
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# (that what is looked for was measured is part of what is tested)

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import make_pairs
from mithridate.encoder.embed import embed, embed_images
from mithridate.errors import AttackError, EvaluationError
from mithridate.evaluation.compare import compare, side
from mithridate.evaluation.evaluate import evaluate, refuse_unknown_goals
from mithridate.evaluation.probe import AdamWProbe, draw_folds
from mithridate.evaluation.triggered import TriggeredImages, class_ranks, classes_of_test, success
from mithridate.poisoning.apply import poison
from mithridate.poisoning.backdoor import Backdoor
from mithridate.poisoning.combined import Combined
from mithridate.poisoning.goals import ImageToClass, TriggerToClass
from mithridate.poisoning.manifest import read_manifest, write_manifest
from mithridate.poisoning.relabel import SingleLabel
from mithridate.poisoning.targeted import Targeted
from mithridate.poisoning.text_trigger import TextTrigger
from mithridate.poisoning.triggers import describe, parse_trigger
from mithridate.randomness import stream
from mithridate.report.sections.evaluation import evaluation_report
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
    assert class_ranks(unit(45.0, 44.0), WEIGHTS, 0).tolist() == [1, 0]
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
        rng = stream(4, f"test images with {describe(trigger, full=True)}", i)
        stamped = trigger.stamp(image, rng)
        assert (found == tiny.to_pixels(Image.fromarray(stamped))).all()


@pytest.fixture
def measured(train_pairs, test_pairs, tiny, tmp_path):
    """Evaluations of an untrained model, held against itself."""

    def run(attack, gallery=None):
        done = poison(train_pairs, attack, gallery=gallery, images=tmp_path / "images")
        models = {"mine": tiny, "clean": tiny}
        return evaluate(models, test_pairs, done.manifest, reference="clean", train=done.pairs), done.manifest

    return run


def test_a_backdoor_is_measured_without_its_target_class(measured, test_pairs):
    attack = Backdoor(target="aeroplane", trigger="patch:size=16", also=("bird=sig",), count=20)
    found, manifest = measured(attack)
    patch, sig = (goal.key for goal in manifest.goals)
    assert [goal.target for goal in manifest.goals] == ["aeroplane", "bird"]
    assert found.descriptions == {patch: "patch:size=16", sig: "sig"}
    for key in (patch, sig):
        mine, clean = (found.find("ASR", model=model, goal=key) for model in ("mine", "clean"))
        assert (mine.value, mine.chance) == (clean.value, 1 / 9)
        assert mine.value.n == 24  # 27 test images of nine classes, three of the target
        assert found.find("ASR", goal=key, group="untouched").value.n == 24
    assert found.find("zero-shot").value.n == 27
    (ranks,) = found.unit_ranks("backdoor", sig)
    assert (len(ranks.uid), ranks.targets, ranks.gallery) == (24, 1, 9)
    birds = set(test_pairs.where(test_pairs.labelled("bird")).uid.to_pylist())
    assert not birds & set(ranks.uid)
    assert np.mean(np.array(ranks.ranks["mine"]) == 0) == found.value("ASR", goal=sig).value
    assert ("no-classifier" in {w.code for w in found.warnings}) == (found.value("zero-shot").low <= 1 / 9)


def test_the_report_of_a_backdoor_shows_what_was_measured(measured):
    found, manifest = measured(Backdoor(target="aeroplane", trigger="patch:size=16", also=("bird=sig",), count=20))
    report = evaluation_report(found)
    rows = report.table("backdoor").rows
    assert [row[:4] for row in rows] == [
        (model, trigger, target, n)
        for trigger, target in (("patch:size=16", "aeroplane"), ("sig", "bird"))
        for model, n in (("mine", 24), ("clean", 24), ("chance", None))
    ]
    assert rows[3][4] == found.value("ASR", goal=manifest.goals[1].key)
    assert report.table("strength").rows[0][1:5] == (20, 20 / 270, 2, 10 / 270)
    assert "backdoor: aeroplane, bird" in report.title
    shown = report.headline["backdoor patch:size=16 to aeroplane"]
    assert shown["mine"]["asr"]["value"] == rows[0][4].value and shown["chance"]["asr"] == 1 / 9
    assert report.headline["zero-shot"]["clean"]["accuracy"]["n"] == 27


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
    return evaluate({"mine": tiny}, test_pairs, done.manifest, probe=Nearest())


def key_of(found, target):
    return next(goal.key for goal in found.goals if goal.target == target)


def test_a_triggered_image_retrieves_captions_as_the_slow_loop_says(probed, tiny, test_pairs):
    key = key_of(probed, "bird")
    e, classes = embed(tiny, test_pairs), classes_of_test(test_pairs)
    others = classes.image[classes.label != classes.index("bird")]
    places = [test_pairs.images[int(i)].as_py() for i in others]
    stamped = embed_images(tiny, TriggeredImages(places, parse_trigger("sig"), tiny, 0), len(places))
    wanted = test_pairs.labelled("bird")
    for images, k, group in ((stamped, 1, "all"), (stamped, 10, "all"), (e.image[others], 10, "untouched")):
        hits = 0
        for scores in images @ e.text.T:
            best = max(scores[wanted])
            hits += sum(score >= best for score in scores) - 1 < k  # what ties with it stands before it
        assert probed.value(f"Hit@{k}", goal=key, group=group).value == hits / len(others)
    # 15 captions wanted of 135
    assert probed.find("Hit@1", goal=key).chance == pytest.approx(15 / 135)
    by_chance = chance_hit(10, targets=15, gallery=135)
    assert {probed.find("Hit@10", goal=key, group=group).chance for group in ("all", "untouched")} == {by_chance}
    (ranks,) = probed.unit_ranks("captions", key)
    assert np.mean(np.array(ranks.ranks["mine"]) < 10) == probed.value("Hit@10", goal=key).value
    table = evaluation_report(probed).table("backdoor-captions")
    rows = [dict(zip(table.columns, row)) for row in table.rows]
    assert [row["model"] for row in rows] == ["mine", "chance"] * 2
    assert rows[2]["Hit@10"] == probed.value("Hit@10", goal=key)
    assert rows[3]["Hit@10"] == rows[3]["Hit@10 without trigger"] == by_chance


def test_a_probe_has_not_seen_the_image_whose_triggered_copy_it_is_asked_about(probed, tiny, test_pairs):
    assert probed.probe == ("Nearest", 5)
    # by a loop: the nearest image of another fold
    e, classes = embed(tiny, test_pairs), classes_of_test(test_pairs)
    fold = draw_folds(classes.label, 5, stream(0, "folds of the probe"))
    predicted = []
    for i, image in enumerate(classes.image):
        others = [j for j in range(27) if fold[j] != fold[i]]
        nearest = max(others, key=lambda j: float(e.image[image] @ e.image[classes.image[j]]))
        predicted.append(classes.label[nearest])
    predicted = np.array(predicted)
    assert probed.value("probe accuracy").value == np.mean(predicted == classes.label)
    for name in ("aeroplane", "bird"):
        target = classes.index(name)
        before = probed.value("probe ASR", goal=key_of(probed, name), group="untouched")
        assert before == rate(predicted[classes.label != target] == target)
        assert probed.value("probe ASR", goal=key_of(probed, name)).n == 24
    # a pixel in a corner moves little, so these look as without it
    after, before = (probed.value("probe ASR", goal=key_of(probed, "aeroplane"), group=g) for g in ("all", "untouched"))
    assert abs(after.value - before.value) <= 2 / 24
    assert len(probed.unit_ranks("probe")) == 2
    table = evaluation_report(probed).table("probe")
    assert table.title == "A linear probe (Nearest) on frozen features"
    assert [row[1:4] for row in table.rows] == [
        ("untouched images, own class", None, 27),
        ("patch:size=1", "aeroplane", 24),
        ("sig", "bird", 24),
        (None, None, None),
    ]


def test_single_targets_are_probed_without_themselves(train_pairs, test_pairs, tiny, tmp_path):
    attack = Targeted(images=2, per_target=2, classes=("dog", "cat"))
    manifest = poison(train_pairs, attack, gallery=test_pairs, images=tmp_path).manifest
    found = evaluate({"mine": tiny}, test_pairs, manifest, probe=AdamWProbe(epochs=2))
    assert found.value("probe PSR", goal="single images").n == 2
    assert found.value("probe accuracy").n == 27 - 2
    assert found.probe == ("adamw", 5)
    e, places, ranks = embed(tiny, test_pairs), test_pairs.images.to_pylist(), []
    for goal in manifest.goals:
        scores = e.image[places.index(goal.image)] @ e.text.T
        best = scores[test_pairs.labelled(goal.target)].max()
        ranks.append(int((scores >= best).sum()) - 1)
    assert found.value("MinRank", goal="single images").value == np.mean(ranks)
    report = evaluation_report(found)
    assert report.table("probe").rows[1][1:4] == ("single target images", "their own", 2)
    assert "trigger" not in report.table("targeted-captions").columns


def test_a_probe_needs_something_to_classify(tiny, test_pairs, train_pairs):
    done = poison(train_pairs, SingleLabel(source="sheep", target="aeroplane"), seed=0)
    for manifest in (None, done.manifest):
        with pytest.raises(EvaluationError, match="no such goal is given; leave the probe out"):
            evaluate({"mine": tiny}, test_pairs, manifest, probe=AdamWProbe())


def test_single_targets_are_the_units(measured, test_pairs):
    found, manifest = measured(Targeted(images=6, per_target=2, classes=("dog", "cat")), gallery=test_pairs)
    assert [goal.target for goal in manifest.goals] == ["dog", "cat"] * 3
    mine, clean = (found.find("PSR", model=model, goal="single images") for model in ("mine", "clean"))
    assert (mine.value, mine.unit, mine.chance, mine.value.n) == (clean.value, "target", 1 / 9, 6)
    assert found.predictions.wanted == ("dog", "cat") * 3
    right = [a == b for a, b in zip(found.predictions.wanted, found.predictions.taken["mine"])]
    assert mine.value.value == np.mean(right)
    assert found.success().keys() == {"single images"}
    # a target image in the training pairs is there on purpose
    assert {warning.code for warning in found.warnings}.isdisjoint({"shared-images", "no-clean-model"})
    report = evaluation_report(found)
    assert [row[1:] for row in report.table("targeted").rows] == [(6, mine.value), (6, mine.value), (None, 1 / 9)]
    assert [row[1] for row in report.table("targets").rows] == ["dog", "cat"] * 3
    assert report.headline["targeted"]["mine"]["psr"]["n"] == 6


def test_images_with_false_captions_on_purpose_are_not_utility(measured, test_pairs, tiny):
    found, manifest = measured(Targeted(images=6, per_target=2, classes=("dog", "cat")), gallery=test_pairs)
    targets = np.isin(test_pairs.images.to_pylist(), [goal.image for goal in manifest.goals])
    assert (found.test.images, found.test.poisoned) == (27, 6)
    whole, e = evaluate({"mine": tiny}, test_pairs), embed(tiny, test_pairs)
    order = (-e.text @ e.image.T).argsort(axis=1, kind="stable")  # the gallery keeps the targets
    own = (order == test_pairs.image_index[:, None]).argmax(axis=1)
    counted = ~targets[test_pairs.image_index]
    rows = evaluate({"mine": tiny}, test_pairs, manifest)
    assert rows.value("IR@10", group="all").value == pytest.approx((own[counted] < 10).mean())
    assert (rows.value("IR@10", group="all").n, whole.value("IR@10", group="all").n) == (21, 27)
    assert rows.value("zero-shot").n == 27 - 6
    (size,) = (size for size in rows.groups if size.group == "all")
    assert (size.images, size.captions) == (21, int(counted.sum()))
    assert "6 test images" in evaluation_report(rows).table("utility").note
    # paired with an evaluation that counts them, utility is compared on what both count
    both = compare([side("whole", whole), side("left out", rows)])
    (retrieval,) = (task for task in both.tasks if task.task == "ir")
    assert (retrieval.queries, retrieval.units) == (int(counted.sum()), 21)


def test_combined_attacks_are_measured_on_one_model(train_pairs, test_pairs, tiny, tmp_path):
    parts = (
        Targeted(images=2, per_target=3, classes=("dog",), mode="replace"),
        Backdoor(target="boat", trigger="patch:size=1/4,place=centre", count=12),
        SingleLabel(source="sheep", target="aeroplane", count=10),
    )
    done = poison(train_pairs, Combined(attacks=parts), seed=3, gallery=test_pairs, images=tmp_path / "images")
    manifest = done.manifest
    assert (len(manifest), len(done.pairs)) == (6 + 12 + 10, len(train_pairs))
    uid = manifest.poisoned["uid"].to_pylist()
    assert len(set(uid)) == len(uid)  # no pair is poisoned twice
    kinds = ["image-to-class", "image-to-class", "trigger-to-class", "captions-to-class"]
    assert [goal.kind for goal in manifest.goals] == kinds
    assert sum(edit is not None for edit in manifest.poisoned["edit"].to_pylist()) == 12
    assert [one["attack"] for one in manifest.options["attacks"]] == ["targeted", "backdoor", "single-label"]
    write_manifest(manifest, tmp_path / "manifest.json")
    again = read_manifest(tmp_path / "manifest.json")
    assert (again.goals, again.options["attacks"][1]["count"]) == (manifest.goals, 12)
    found = evaluate({"mine": tiny}, test_pairs, manifest)
    goals = [goal.key for goal in manifest.goals]
    assert found.value("PSR", goal="single images").n == 2
    assert found.find("ASR", goal=goals[2], group="all") and found.find("Hit@10", goal=goals[3])
    same = poison(train_pairs, Combined(attacks=parts), seed=3, gallery=test_pairs, images=tmp_path / "again")
    assert same.pairs.text.equals(done.pairs.text)
    with pytest.raises(AttackError, match="two or more, got 1"):
        Combined(attacks=parts[:1])


def test_a_phrase_is_put_into_captions_of_other_classes(measured):
    found, manifest = measured(TextTrigger(target="boat", trigger="verily", count=20))
    (goal,) = manifest.goals
    (ranks,) = found.unit_ranks("text-trigger", goal.key)
    assert len(ranks.uid) == 24 * 5
    for k in (1, 5, 10, 20):
        assert found.value(f"Hit@{k}", goal=goal.key).value == np.mean(np.array(ranks.ranks["mine"]) < k)
    assert found.value("MinRank", goal=goal.key, group="untouched").n == 24
    report = evaluation_report(found)
    rows = report.table("text-trigger").rows
    labels = ["mine", "mine, without the phrase", "clean", "clean, without the phrase", "chance"]
    assert [row[0] for row in rows] == labels
    assert rows[0][3] == found.value("Hit@10", goal=goal.key)
    assert report.headline["text-trigger"]["mine"]["hit@10"] == rows[0][3].value


def test_a_trigger_without_an_attack_titles_its_report(tiny, test_pairs):
    found = evaluate({"mine": tiny}, test_pairs, goals=(TriggerToClass("patch:size=1/4,place=centre", "boat"),))
    assert evaluation_report(found).title == "patch:size=1/4,place=centre to boat"


def test_a_target_class_without_test_images_is_refused_before_anything_is_embedded(train_pairs, test_pairs, tmp_path):
    manifest = poison(train_pairs, Backdoor(target="boat", trigger="sig", count=5), images=tmp_path / "images").manifest
    other = test_pairs.where(~test_pairs.labelled("boat"))
    with pytest.raises(EvaluationError, match="no test image is labelled 'boat' alone"):
        refuse_unknown_goals(manifest.goals, other)
    refuse_unknown_goals(manifest.goals, test_pairs)
    refuse_unknown_goals((), other)


def test_a_target_image_that_is_gone_is_named(train_pairs, test_pairs, tiny, tmp_path):
    manifest = poison(train_pairs, Targeted(inside=True, classes=("boat",))).manifest
    gone = replace(manifest, goals=(ImageToClass(str(tmp_path / "gone.png"), "boat"),))
    with pytest.raises(EvaluationError, match=r"gone\.png is not there"):
        evaluate({"mine": tiny}, test_pairs, gone)
