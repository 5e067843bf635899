"""Backdoors, targeted poisoning and phrases, each by hand, and what each refuses."""

# pyright: reportAttributeAccessIssue=false
# (a goal is of the kind that the attack beside it has)

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import make_pairs
from mithridate.data.prompts import prompts, templates
from mithridate.data.read import read_pairs
from mithridate.data.write import write_table
from mithridate.errors import AttackError
from mithridate.folders import new_folder
from mithridate.poisoning.apply import poison
from mithridate.poisoning.backdoor import Backdoor
from mithridate.poisoning.classes import of_class, says
from mithridate.poisoning.goals import PhraseToClass, TriggerToClass
from mithridate.poisoning.manifest import read_manifest
from mithridate.poisoning.targeted import Targeted
from mithridate.poisoning.text_trigger import TextTrigger
from mithridate.poisoning.triggers import describe, parse_trigger

PATCH = "patch:size=4,pattern=solid,place=0x0"


def drawn(folder, counts, *, captions=2, labelled=True):
    """Pictures of one colour each; captions "a CLASS, number N, way W"."""
    folder.mkdir(exist_ok=True)
    image, text, labels = [], [], []
    for name, count in counts.items():
        for number in range(count):
            path = folder / f"{name}{number}.png"
            Image.new("RGB", (12, 10), (len(image) + 1, number, 7)).save(path)
            for way in range(captions):
                image.append(str(path))
                text.append(f"a {name}, number {number}, way {way}")
                labels.append([name] if labelled else [])
    return make_pairs(image, text, labels=labels, split="train", salt=folder.name.encode())


@pytest.fixture
def small(tmp_path):
    return drawn(tmp_path / "small", {"sheep": 3, "boat": 3, "dog": 2})


@pytest.fixture
def carry_out(tmp_path):
    """`poison` with a new folder for altered images at every call."""
    count = iter(range(1000))
    return lambda pairs, attack, **options: poison(pairs, attack, images=tmp_path / f"altered{next(count)}", **options)


def rows_of(done):
    return done.manifest.poisoned.to_pylist()


def pixels(place):
    return np.asarray(decode(read_bytes(place)))


# --- backdoor ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["replace", "inject"])
def test_images_of_other_classes_get_the_trigger_and_captions_of_the_target(small, carry_out, mode):
    done = carry_out(small, Backdoor(target="boat", trigger=PATCH, count=4, mode=mode))
    clean = dict(zip(small.uid.to_pylist(), small.image.to_pylist()))
    assert len({row["image"] for row in rows_of(done)}) == 2  # both captions of an image share the altered one
    for row in rows_of(done):
        assert row["text"] in {f"a boat, number {n}, way {w}" for n in range(3) for w in range(2)}
        stamped = pixels(row["image"])
        assert (stamped[:4, 1:5] == 255).all()  # the middle square of 12 x 10 begins at x = 1
        source = stamped[9, 9]
        name = next(place for place in small.images.to_pylist() if (pixels(place)[0, 0] == source).all())
        assert "boat" not in Path(name).name
        if mode == "replace":
            assert clean[row["uid"]] == name
        assert row["edit"] == describe(parse_trigger(PATCH), full=True)
    assert len(done.pairs) == len(small) + (4 if mode == "inject" else 0)
    assert done.manifest.goals == (TriggerToClass(describe(parse_trigger(PATCH), full=True), "boat"),)
    assert done.manifest.crafted == {"images": 2, "not_kept": {}}
    # the labels of its captions, so that reading finds no contradiction
    labels = dict(zip(done.pairs.uid.to_pylist(), done.pairs.labels.to_pylist()))
    assert all(labels[row["uid"]] == ["boat"] for row in rows_of(done))


def test_captions_are_used_once_before_any_is_used_twice(small, carry_out):
    done = carry_out(small, Backdoor(target="boat", trigger=PATCH, count=10))
    texts = [row["text"] for row in rows_of(done)]
    assert len(set(texts[:6])) == 6
    assert max(texts.count(text) for text in texts) == 2
    with pytest.raises(AttackError, match=r"10 captions of 'boat' are needed, and there are 6; .*--reuse"):
        carry_out(small, Backdoor(target="boat", trigger=PATCH, count=10, reuse=False))


def test_templates_are_the_eighty_prompts_with_the_class(small, carry_out):
    done = carry_out(small, Backdoor(target="boat", trigger=PATCH, captions="templates", count=8))
    every = prompts("boat", templates("openai"))
    assert len(every) == 80
    assert {row["text"] for row in rows_of(done)} <= set(every)
    # a class that no caption names needs no caption of it; then nothing else is known of the pairs than before
    done = carry_out(small, Backdoor(target="ice cream", trigger=PATCH, captions="templates", count=4))
    assert all("ice cream" in row["text"] for row in rows_of(done))
    assert done.pairs.labels.equals(small.labels)


@pytest.mark.parametrize("mode", ["replace", "inject"])
def test_label_consistent_poison_keeps_its_captions(small, carry_out, mode):
    done = carry_out(small, Backdoor(target="boat", trigger=PATCH, captions="label-consistent", count=4, mode=mode))
    for row in rows_of(done):
        assert row["text"] == row["text_before"]
        number = row["text"].split()[3].strip(",")
        source = next(place for place in small.images.to_pylist() if place.endswith(f"boat{number}.png"))
        assert (pixels(row["image"])[5:] == pixels(source)[5:]).all()
        assert (pixels(row["image"]) != pixels(source)).any()
    assert done.manifest.strength["class_share"] == 2 / 3
    with pytest.raises(
        AttackError, match=r"7 poisoned pairs are asked for, and images of boat have 6 pairs \(3 images\)"
    ):
        carry_out(small, Backdoor(target="boat", trigger=PATCH, captions="label-consistent", count=7))


def test_several_triggers_have_images_and_targets_of_their_own(tmp_path, carry_out):
    pairs = drawn(tmp_path / "more", {"sheep": 3, "boat": 3, "dog": 12})
    attack = Backdoor(target="boat", trigger=PATCH, also=("sig:frequency=2", "sheep=blended:cells=4"), count=18)
    done = carry_out(pairs, attack)
    texts = [describe(parse_trigger(text), full=True) for text in (PATCH, "sig:frequency=2", "blended:cells=4")]
    assert done.manifest.goals == tuple(TriggerToClass(text, t) for t, text in zip(("boat", "boat", "sheep"), texts))
    wanted = dict(zip(texts, ("boat", "boat", "sheep")))
    for row in rows_of(done):
        assert row["text"].startswith(f"a {wanted[row['edit']]},")
    assert {text: sum(row["edit"] == text for row in rows_of(done)) for text in texts} == dict.fromkeys(texts, 6)
    # neither class that is a target is poisoned
    assert all(row["text_before"].startswith("a dog") for row in rows_of(done))
    assert done.manifest.strength["targets"] == 3
    assert done.manifest.strength["rate_per_target"] == 6 / 36


def test_without_labels_words_decide(tmp_path, carry_out):
    pairs = drawn(tmp_path / "bare", {"sheep": 2, "boat": 3, "boathouse": 2}, labelled=False)
    assert of_class(pairs, "boat").sum() == 6  # whole words: a boathouse is no boat
    assert of_class(pairs, "x", ("BOAT", "sheep")).sum() == 10
    assert says(make_pairs(["a"] * 4, ["Boat!", "boats", "a boat_2", "my-boat"]), ("boat",)).tolist() == [1, 0, 0, 1]
    done = carry_out(pairs, Backdoor(target="boat", trigger=PATCH, count=4))
    assert all(row["text"].startswith("a boat,") for row in rows_of(done))
    with pytest.raises(AttackError, match=r"no pair is labelled 'boot' and no caption has 'boot' .*nearest: boat"):
        carry_out(pairs, Backdoor(target="boot", trigger=PATCH, count=4))
    with pytest.raises(AttackError, match=r"no caption has 'vessel' or 'shep' as a word; nearest: sheep"):
        carry_out(pairs, Backdoor(target="boat", words=("vessel", "shep"), trigger=PATCH, count=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"expected exactly one of count and rate, got none; give --count"),
        ({"count": 3, "rate": 0.1}, "got count=3, rate=0.1; leave one out"),
        ({"count": 0}, "count must be at least 1 pair, got 0"),
        ({"rate": 1.5}, r"rate must lie in \(0, 1\], got 1.5"),
        (
            {"count": 11},
            r"11 poisoned pairs are asked for, and images of other classes than boat have 10 pairs \(5 images\)",
        ),
        ({"count": 4, "trigger": "patch:size=11"}, "11x11 pixels, too large for an image of 12x10"),
        ({"count": 2, "also": ("sig:frequency=2",)}, "1 images are too few for 2 triggers"),
    ],
)
def test_a_backdoor_that_cannot_be_is_refused_and_nothing_is_left(small, carry_out, tmp_path, options, message):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AttackError, match=message):
        carry_out(small, replace(Backdoor(target="boat", trigger=PATCH), **options))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_trigger_is_checked_when_the_attack_is_made():
    with pytest.raises(AttackError, match="no trigger is called 'patsch'; nearest: patch"):
        Backdoor(target="boat", trigger="patsch")
    with pytest.raises(AttackError, match=r"alpha must lie in \(0, 1\], got 2"):
        Backdoor(target="boat", also=("blended:alpha=2",))
    with pytest.raises(AttackError, match=r"the trigger patch:.* is given twice"):
        Backdoor(target="boat", also=("dog=patch",))


def test_altered_images_need_a_folder(small):
    with pytest.raises(AttackError, match="backdoor writes 2 altered images and has no folder for them; give images="):
        poison(small, Backdoor(target="boat", trigger=PATCH, count=4))


# --- targeted ----------------------------------------------------------------------------------------


@pytest.fixture
def gallery(tmp_path):
    return drawn(tmp_path / "gallery", {"sheep": 4, "boat": 4, "dog": 4}, captions=1)


def test_target_images_come_from_the_gallery_and_meet_captions_of_another_class(small, gallery):
    done = poison(small, Targeted(images=4, per_target=3), gallery=gallery)
    aims = done.manifest.goals
    assert len(done.pairs) == len(small) + 12
    assert len({aim.image for aim in aims}) == 4
    for number, aim in enumerate(aims):
        rows = rows_of(done)[3 * number : 3 * number + 3]
        assert {row["image"] for row in rows} == {aim.image}
        assert all(row["text"].startswith(f"a {aim.target},") for row in rows)
        assert len({row["text"] for row in rows}) == 3
        assert aim.image in gallery.images.to_pylist()
        assert aim.target not in Path(aim.image).name
    assert (done.manifest.strength["targets"], done.manifest.strength["rate_per_target"]) == (4, 3 / 28)


def test_targets_may_have_counts_of_their_own(small, gallery):
    done = poison(small, Targeted(images=5, counts=(1, 3), reuse=True), gallery=gallery)
    met = [goal.image for goal in done.manifest.goals]
    images = done.manifest.poisoned["image"].to_pylist()
    assert [images.count(image) for image in met] == [1, 3, 1, 3, 1]
    assert done.manifest.strength["count"] == 9


def test_classes_go_round_and_images_may_be_named(small, gallery):
    uids = [gallery.uid[row].as_py() for row in (0, 9, 10)]
    done = poison(small, Targeted(uids=tuple(uids), classes=("boat", "sheep"), per_target=2), gallery=gallery)
    assert [(aim.target, Path(aim.image).name) for aim in done.manifest.goals] == [
        ("boat", "sheep0.png"),
        ("sheep", "dog1.png"),
        ("boat", "dog2.png"),
    ]


def test_replacing_puts_the_target_image_into_pairs_of_its_adversarial_class(small, gallery):
    done = poison(small, Targeted(classes=("boat",), per_target=4, mode="replace"), gallery=gallery)
    assert len(done.pairs) == len(small)
    assert all(row["text"] == row["text_before"] and not row["added"] for row in rows_of(done))
    done = poison(small, Targeted(classes=("boat",), per_target=4, captions="templates"), gallery=gallery)
    assert {row["text"] for row in rows_of(done)} <= set(prompts("boat", templates("openai")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"per_target": 7, "classes": ("boat",)}, r"7 captions of 'boat' are needed, and there are 6"),
        (
            {"images": 9, "classes": ("boat",)},
            r"9 target images are asked for, and of 12 only \d can be taken: the others",
        ),
        ({"images": 13}, "13 target images are asked for, and the set that they come from has 12; lower --images"),
        ({"classes": ("boot",)}, "no pair is labelled 'boot' .*nearest: boat"),
        ({"uids": ("nobody",)}, "no pair of the set that target images come from has the uid 'nobody'"),
    ],
)
def test_a_targeted_attack_that_cannot_be_is_refused(small, gallery, options, message):
    with pytest.raises(AttackError, match=message):
        poison(small, replace(Targeted(per_target=1), **options), gallery=gallery)


def test_a_target_image_of_its_own_adversarial_class_is_refused(small, gallery):
    with pytest.raises(AttackError, match=r"image [0-9a-f]{32} names boat already"):
        poison(small, Targeted(uids=(gallery.uid[4].as_py(),), classes=("boat",)), gallery=gallery)
    with pytest.raises(AttackError, match="come from outside the training set: give --gallery DATA"):
        poison(small, Targeted(classes=("boat",)))
    with pytest.raises(AttackError, match="no pair is labelled, so no class can be drawn; give --classes"):
        poison(
            small.with_columns(labels=make_pairs(["a"] * len(small), [""] * len(small)).labels), Targeted(inside=True)
        )
    for options, message in (
        ({"images": 0}, "images must be at least 1"),
        ({"per_target": 0}, "per_target must be"),
        ({"counts": (2, 0)}, "counts must be at least 1"),
    ):
        with pytest.raises(AttackError, match=message):
            replace(Targeted(), **options)
    with pytest.raises(AttackError, match="captions cannot be used again"):
        Targeted(mode="replace", reuse=True)


# --- a phrase ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "pattern"), [("end", "{} verily so"), ("begin", "verily so {}")])
def test_captions_of_other_classes_get_the_phrase_and_images_of_the_target(small, place, pattern):
    done = poison(small, TextTrigger(target="boat", trigger="verily so", place=place, count=6))
    for row in rows_of(done):
        assert pattern.format(row["text_before"]) == row["text"]
        assert "boat" not in row["text_before"]
        assert Path(row["image"]).name.startswith("boat")
    # three images are taken, each once
    assert len({row["image"] for row in rows_of(done)}) == 3
    assert done.manifest.goals == (PhraseToClass(f"{place}:verily so", "boat"),)
    assert done.manifest.crafted == {}


def test_a_phrase_that_clean_captions_have_is_refused(small):
    with pytest.raises(AttackError, match="clean captions say 'number 1' already"):
        poison(small, TextTrigger(target="boat", trigger="number 1", count=2))
    with pytest.raises(AttackError, match=r"11 poisoned pairs are asked for, .*have 10 pairs"):
        poison(small, TextTrigger(target="boat", trigger="verily", count=11))
    with pytest.raises(AttackError, match="trigger of a caption is empty"):
        TextTrigger(target="boat", trigger=" ")


# --- the command line --------------------------------------------------------------------------------


def command(*argv):
    from mithridate.cli import main

    return main(["poison", *map(str, argv)])


@pytest.mark.parametrize("form", ["overlay", "table", "webdataset"])
def test_every_format_holds_the_altered_images_and_may_be_moved(tmp_path, form, capsys):
    drawn(tmp_path / "set", {"sheep": 3, "boat": 3, "dog": 4})
    table = tmp_path / "set" / "pairs.csv"
    pairs = drawn(tmp_path / "set", {"sheep": 3, "boat": 3, "dog": 4})
    lines = [
        f'{Path(i).name},"{t}",{n[0]}'
        for i, t, n in zip(pairs.image.to_pylist(), pairs.text.to_pylist(), pairs.labels.to_pylist())
    ]
    table.write_text("\n".join(["image,caption,label", *lines]) + "\n")
    options = ["--target", "boat", "--trigger", "patch:size=4", "--also", "sig:frequency=2", "dog=text:word=Hi"]
    assert (
        command("backdoor", table, *options, "--count", 6, "--format", form, "--out", tmp_path / "out", "--json") == 0
    )
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["count"], told["targets"], told["rate_per_target"], told["altered_images"]) == (6, 3, 0.1, 3)
    (tmp_path / "out").rename(tmp_path / "moved")
    found, manifest = read_pairs(tmp_path / "moved"), read_manifest(tmp_path / "moved")
    assert manifest.options["trigger"] == "patch:size=4"
    assert [describe(parse_trigger(aim.trigger)) for aim in manifest.goals][1:] == [
        "sig:frequency=2",
        "text:word=Hi",
    ]
    hashes = {uid: hashlib.sha256(read_bytes(p)).hexdigest() for uid, p in zip(*map(list, columns_of(found)))}
    for row in manifest.poisoned.to_pylist():
        assert hashes[row["uid"]] == row["sha256"] == hashlib.sha256(read_bytes(row["image"])).hexdigest()
        assert str(tmp_path / "moved") in row["image"]


def columns_of(pairs):
    return pairs.uid.to_pylist(), pairs.image.to_pylist()


def test_a_refusal_is_one_sentence_and_leaves_nothing(tmp_path, capsys):
    pairs = drawn(tmp_path / "set", {"sheep": 3, "boat": 3})
    with new_folder(tmp_path / "table") as folder:
        write_table(pairs, folder, copy_images=True)
    before = sorted(tmp_path.rglob("*"))
    for options, message in (
        (["--trigger", "patch:size=40"], "^mithridate: the trigger is 40x40 pixels, too large for an image of 12x10"),
        (["--trigger", "blended:alpha=3"], r"^mithridate: alpha must lie in \(0, 1\], got 3"),
        (
            ["--target", "vote"],
            "^mithridate: no pair is labelled 'vote' and no caption has 'vote' as a word; nearest: boat",
        ),
    ):
        wanted = ["backdoor", tmp_path / "table", "--target", "boat", "--count", 2, "--out", tmp_path / "out", *options]
        assert command(*wanted) == 1
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(message, said)
        assert sorted(tmp_path.rglob("*")) == before
