"""Every finding is raised by what it is about, and not by sound data."""

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mithridate.data.doctor import describe, doctor
from mithridate.data.pairs import make_pairs


@pytest.fixture
def places(tmp_path):
    for n in range(20):
        image = Image.new("RGB", (8, 8), (n, 0, 0))
        image.putpixel((0, 0), (255, 255, 255))  # an image of one colour is a finding
        image.save(tmp_path / f"{n}.png")
    return [str(tmp_path / f"{n}.png") for n in range(20)]


def sound(places, **changes):
    columns = {"image": places, "text": [f"caption {n}" for n in range(20)], "labels": [["dog"]] * 20} | changes
    return make_pairs(columns.pop("image"), columns.pop("text"), **columns)


def findings(pairs, workers=2, **options):
    return {finding.code: finding for finding in doctor(pairs, workers=workers, **options)}


def test_sound_data_have_no_findings(places):
    assert doctor(sound(places), workers=2) == ()


def test_images(places, tmp_path):
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    (tmp_path / "2.png").write_bytes((tmp_path / "3.png").read_bytes())
    found = findings(sound(places))
    assert set(found) == {"missing-image", "unreadable-image", "duplicate-image"}
    assert found["missing-image"].message == f"Missing images: 1 of 20 opened ({places[0]})."
    assert found["unreadable-image"].severity == "error"
    assert "1.png does not decode" in found["unreadable-image"].message
    assert f"{places[2]} = {places[3]}" in found["duplicate-image"].message
    assert [finding.severity for finding in doctor(sound(places), workers=2)] == ["error", "error", "warning"]
    assert "Missing images: 1 of 1 opened" in findings(sound(places), sample=1)["missing-image"].message


def test_a_page_description_is_no_image_and_reaches_no_interpreter(places):
    Image.new("RGB", (8, 8)).save(places[0], "EPS")
    assert "0.png does not decode" in findings(sound(places))["unreadable-image"].message


def test_captions(places):
    texts = ["", "  ", *(f"caption {n}" for n in range(18))]
    assert findings(sound(places, text=texts))["empty-caption"].message.startswith("Empty captions: 2 of 20 (pairs ")
    assert findings(sound(places, text=[""] * 20))["empty-caption"].severity == "error"
    tabbed = findings(sound(places, text=[f"a\tb{n}" for n in range(20)]))["wrong-separator"]
    assert "All 20 captions hold 1 times a tab, as 'a\\tb0'" in tabbed.message
    twice = findings(sound([*places[:19], places[0]]))
    assert set(twice) == {"several-captions"}
    assert "Images with several captions: 1 of 19, 2 captions at most" in twice["several-captions"].message


def test_long_captions_are_estimated_from_below_or_counted(places):
    texts = ["w " * 75, "w " * 76, "1" * 76, "'s " * 75, *["short"] * 16]
    found = findings(sound(places, text=texts))["long-caption"]
    assert "more than 77 tokens, by an estimate from below (words and signs): 2 of 20" in found.message
    counted = findings(sound(places, text=texts), tokenize=lambda block: [len(text) for text in block])
    assert "more than 77 tokens, by the tokenizer: 3 of 20" in counted["long-caption"].message
    assert findings(sound(places, text=texts), context_length=None) == {}


def test_uids_labels_splits_and_shards(places):
    uids = [f"u{n // 2}" for n in range(20)]
    found = findings(sound(places, uid=uids))["duplicate-uid"]
    assert found.message == "Uids that stand more than once: 10 (u0, u1, u2, ...)."
    assert findings(sound(places, labels=None))["no-labels"].severity == "note"
    some = findings(sound(places, labels=[["dog"]] * 17 + [["cat"], ["cat"], []]))
    assert set(some) == {"some-labels", "small-class"}
    assert "Classes of fewer than 10 images: 1 of 2 (cat: 2)." in some["small-class"].message
    split = pa.array(["train"] * 10 + ["test"] * 9 + [None])
    leaked = findings(sound([*places[:18], places[0], places[1]], split=split))
    assert "Images in more than one split: 2 of 18" in leaked["shared-image"].message
    few = findings(sound(places), workers=4, shards=3)["few-shards"]
    assert "3 for 4 workers" in few.message


def test_describe(places):
    pairs = sound([*places[:18], places[0], places[0]], split=pa.array(["train"] * 15 + ["test"] * 5))
    told = describe(pairs)
    assert (told["pairs"], told["images"], told["unlabelled_pairs"]) == (20, 18, 0)
    assert told["captions_per_image"] == {"min": 1, "median": 1.0, "max": 3}
    assert told["splits"] == {"train": 15, "test": 5}
    assert told["classes"] == {"dog": 18}
    assert told["caption_words"] == {"median": 2.0, "95%": 2.0, "max": 2}
    assert told["sources"] == {places[0].rpartition("/")[0]: 18}
    shards = describe(make_pairs(["a/0.tar#512+3", "a/0.tar#1024+3", "a/1.tar#512+3"], ["x", "y", "z"]))
    assert shards["sources"] == {"a/0.tar": 2, "a/1.tar": 1}
    assert describe(pairs.where(np.zeros(20, bool)))["images"] == 0
