"""The toy world: the same whenever asked, every class drawn, and captions that are true and tell much."""

import random
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from mithridate.toy.draw import COLOURS
from mithridate.toy.scenery import EXTRAS, SETTINGS
from mithridate.toy.toy import (
    CAPTIONS_PER_IMAGE,
    CLASSES,
    DRAW,
    ToyRecord,
    draw_scene,
    plan_scene,
    toy_record,
)
from mithridate.toy.words import (
    CLASS_ONLY_SHARE,
    EXTRA_WORDS,
    LONGEST_CAPTION,
    PLACES,
    SETTING_WORDS,
    SIZES,
    SYNONYMS,
    Scene,
    caption,
    noun_phrase,
    with_article,
)

COUNT = 20 * len(CLASSES)
PLAIN = Scene("sheep", 1, "orange", None, "left", "snow", None, ())


@pytest.fixture(scope="module")
def records() -> list[ToyRecord]:
    return [toy_record(0, index) for index in range(COUNT)]


def classes_named(text: str) -> set[str]:
    return {
        label for label, words in SYNONYMS.items() if any(f" {form} " in f" {text} " for word in words for form in word)
    }


def test_same_record_whenever_asked(records: list[ToyRecord]) -> None:
    for index in (500, 3, 77, 3):
        again = toy_record(0, index)
        np.testing.assert_array_equal(again.image, records[index].image)
        assert again.captions == records[index].captions
        assert (again.label, again.companion) == (records[index].label, records[index].companion)


def test_global_random_state_has_no_say(records: list[ToyRecord]) -> None:
    for state in (1, 2):
        random.seed(state)
        np.testing.assert_array_equal(toy_record(0, 5).image, records[5].image)


def test_seed_and_index_both_matter() -> None:
    base = toy_record(0, 1)
    assert not np.array_equal(base.image, toy_record(1, 1).image)
    assert not np.array_equal(base.image, toy_record(0, 1 + len(CLASSES)).image)
    # "1 11" and "11 1" are not one seed.
    assert toy_record(1, 11, classes=["cat"]).captions != toy_record(11, 1, classes=["cat"]).captions


def test_records_have_the_promised_form(records: list[ToyRecord]) -> None:
    for index, record in enumerate(records):
        assert record.image.shape == (64, 64, 3)
        assert record.image.dtype == np.uint8
        assert record.label == CLASSES[index % len(CLASSES)]
        assert len(record.captions) == CAPTIONS_PER_IMAGE


def test_images_differ_from_each_other(records: list[ToyRecord]) -> None:
    assert len({record.image.tobytes() for record in records}) == COUNT


@pytest.mark.parametrize("size", [32, 96])
def test_size_is_what_was_asked(size: int) -> None:
    assert toy_record(0, 0, size=size).image.shape == (size, size, 3)


def test_registries_and_vocabulary_cover_each_other() -> None:
    assert set(CLASSES) == set(DRAW) == set(SYNONYMS)
    assert len(CLASSES) == len(set(CLASSES)) == 27
    assert set(SETTINGS) == set(SETTING_WORDS)
    assert set(EXTRAS) == set(EXTRA_WORDS)


def test_no_word_serves_two_classes() -> None:
    words = [{part for word in forms for form in word for part in form.split()} for forms in SYNONYMS.values()]
    assert sum(map(len, words)) == len(set().union(*words))


def test_the_class_itself_is_its_first_and_most_frequent_word() -> None:
    for label, forms in SYNONYMS.items():
        assert forms[0][0] == label
        rng = Random(0)
        nouns = Counter(noun_phrase(rng, replace(PLAIN, label=label), ()) for _ in range(300))
        assert nouns.most_common(1)[0][0] == with_article(label)


def test_captions_name_what_is_in_the_picture_and_no_other_class(records: list[ToyRecord]) -> None:
    for record in records:
        for text in record.captions:
            named = classes_named(text)
            assert record.label in named, text
            assert named <= {record.label, record.companion}, text


def test_captions_are_short_lower_case_words(records: list[ToyRecord]) -> None:
    for record in records:
        for text in record.captions:
            assert len(text.split()) <= LONGEST_CAPTION
            assert text.replace(" ", "").isalpha()
            assert text.isascii()
            assert text == text.lower() == " ".join(text.split())


def test_class_only_captions_come_as_often_as_they_should(records: list[ToyRecord]) -> None:
    said = [words for table in (PLACES, SETTING_WORDS, EXTRA_WORDS) for forms in table.values() for words in forms]
    alone = [
        text
        for record in records
        for text in record.captions
        if len(classes_named(text)) == 1
        and not any(words in text for words in said)
        and not set(text.split()) & set(COLOURS)
    ]
    assert len(alone) / (COUNT * CAPTIONS_PER_IMAGE) == pytest.approx(CLASS_ONLY_SHARE, abs=0.02)
    assert any(text.startswith("a photo of a ") for text in alone)


@pytest.mark.parametrize(
    ("scene", "said", "expected"),
    [
        (PLAIN, (), {"a sheep", "a lamb", "a ewe"}),
        (PLAIN, ("colour",), {"an orange sheep", "an orange lamb", "an orange ewe"}),
        (replace(PLAIN, label="bus", number=2), (), {"buses", "coaches", "minibuses"}),
        (replace(PLAIN, label="zebra", number=3), ("number",), {"three zebras", "a group of three zebras"}),
        (replace(PLAIN, label="zebra", size="small"), ("size",), {f"a {s} zebra" for s in SIZES["small"]}),
        (
            replace(PLAIN, label="person", number=2, colour="red"),
            ("colour",),
            {"people in red", "men in red", "women in red", "humans in red"},
        ),
    ],
)  # fmt: skip
def test_articles_and_plurals(scene: Scene, said: Collection[str], expected: set[str]) -> None:
    rng = Random(0)
    assert {noun_phrase(rng, scene, said) for _ in range(200)} == expected


def test_captions_say_what_the_scene_holds_and_nothing_else() -> None:
    scene = replace(PLAIN, companion="dog", extras=("tree",))
    rng = Random(0)
    text = " ".join(f" {caption(rng, scene)} " for _ in range(300))
    for phrase in (" orange ", " on the left ", " in the snow ", " tree ", " dog "):
        assert phrase in text
    for table, truth in ((PLACES, "left"), (SETTING_WORDS, "snow"), (EXTRA_WORDS, "tree")):
        for key, forms in table.items():
            assert any(f" {words} " in text for words in forms) == (key == truth)
    assert not any(f" {colour} " in text for colour in COLOURS if colour != "orange")


def test_captions_tell_pictures_apart(records: list[ToyRecord]) -> None:
    texts = [text for record in records for text in record.captions]
    assert len(set(texts)) > 0.95 * len(texts)


def test_what_surrounds_the_object_does_not_depend_on_its_class() -> None:
    # Only the companion may not be the class itself; with nobody to choose from, all else must agree.
    scenes = [plan_scene(Random(index), label, [label]) for index in range(50) for label in ("cat", "train")]
    for cat, train in zip(scenes[::2], scenes[1::2], strict=True):
        assert replace(cat, label="train") == train


def test_people_appear_in_pictures_of_other_classes(records: list[ToyRecord]) -> None:
    others = [record for record in records if record.label != "person"]
    assert 0.08 < sum(record.companion == "person" for record in others) / len(others) < 0.17


def test_people_may_stand_in_more_pictures() -> None:
    def share(people: float) -> float:
        scenes = [plan_scene(Random(i), "cat", ("cat", "person"), people) for i in range(400)]
        return sum(scene.companion == "person" for scene in scenes) / len(scenes)

    assert (share(0.0), share(0.95)) == (pytest.approx(0.05, abs=0.04), 1.0)
    with pytest.raises(ValueError, match="people must lie in"):
        toy_record(0, 0, people=1.5)


def test_companions_come_from_the_classes_asked_for() -> None:
    seen = {toy_record(0, index, classes=["cat", "dog"]).companion for index in range(60)}
    assert seen == {None, "cat", "dog"}


def test_object_is_told_from_its_background() -> None:
    # The same scene with another class differs where the object is, in every colour and setting.
    for setting in SETTINGS:
        for colour in COLOURS:
            scene = replace(PLAIN, place="middle", setting=setting, colour=colour)
            sheep = draw_scene(Random(3), scene, 64)
            bottle = draw_scene(Random(3), replace(scene, label="bottle"), 64)
            contrast = np.abs(sheep.astype(int) - bottle.astype(int)).max(axis=2)
            assert (contrast > 60).sum() > 200, (setting, colour)


def test_unknown_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one or more of aeroplane, .*got \['unicorn'\]"):
        toy_record(0, 0, classes=["sheep", "unicorn"])


def test_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match="got none"):
        toy_record(0, 0, classes=[])


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 pixels, got 31"):
        toy_record(0, 0, size=31)


def test_negative_index_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more, got -1"):
        toy_record(0, -1)
