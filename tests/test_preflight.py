"""What is known of a poisoned set before it is trained on: leak test, counts, what is left of a trigger."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, PngImagePlugin

from mithridate.data.pairs import make_pairs
from mithridate.data.read import read_pairs
from mithridate.data.write import write_table, write_webdataset
from mithridate.errors import EvaluationError
from mithridate.evaluation.leak_test import LeakTest, cross_validated, file_features, leak_test
from mithridate.evaluation.preflight import faint_trigger, few_poisons, leak_warning, preflight
from mithridate.evaluation.survival import Survival, clip_pixels, survival
from mithridate.poisoning.apply import poison
from mithridate.poisoning.backdoor import Backdoor
from mithridate.poisoning.goals import CaptionsToClass, TriggerToClass
from mithridate.poisoning.manifest import Manifest
from mithridate.poisoning.relabel import SingleLabel
from mithridate.poisoning.targeted import Targeted
from mithridate.report.sections.preflight import preflight_report
from mithridate.statistics.estimate import Estimate
from test_attacks import EXAMPLES

CLASSES = ["sheep"] * 50 + ["aeroplane"] * 45 + ["sofa"] * 45 + ["bird"] * 25 + ["dog"] * 35


def crowd(folder, form, *, one_size=False, seed=0):
    """1,000 pairs of 200 pictures; size, quality and metadata are drawn, and none of them tells the class."""
    rng = np.random.default_rng(seed)
    image, text, of = [], [], []
    for number in rng.permutation(len(CLASSES)):
        path = folder / f"{number:04d}.{form.lower()}"
        height = 8 if one_size or rng.random() < 0.5 else 11
        quality = 75 if one_size else int(rng.integers(60, 95))
        pixels = Image.fromarray(rng.integers(0, 256, (height, 8, 3), dtype=np.uint8))
        said = f"camera {rng.integers(3)}" if rng.random() < 0.4 and not one_size else ""
        if form == "JPEG":
            pixels.save(path, form, quality=quality, comment=said.encode())
        else:
            info = PngImagePlugin.PngInfo()
            info.add_text("Comment", said)
            pixels.save(path, form, pnginfo=info, compress_level=quality % 9)
        image += [str(path)] * 5
        text += [f"a {CLASSES[number]}, {number} said in way {way}" for way in range(5)]
        of += [[CLASSES[number]]] * 5
    return make_pairs(image, text, labels=of, split="train", salt=b"crowd%d" % seed)


@pytest.fixture(autouse=True)
def fewer_trees(monkeypatch):
    """A forest of a quarter of the size tells the same, in a quarter of the time; commands are tried with all of it."""
    monkeypatch.setattr("mithridate.evaluation.leak_test._TREES", 12)


@pytest.fixture(scope="module", params=["JPEG", "PNG"])
def pairs(request, tmp_path_factory):
    return crowd(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def gallery(pairs, tmp_path_factory):
    form = "JPEG" if pairs.images[0].as_py().endswith("jpeg") else "PNG"
    return crowd(tmp_path_factory.mktemp("gallery"), form, seed=1)


def written(done, folder, form="table"):
    folder.mkdir()
    if form == "table":
        write_table(done.pairs, folder, copy_images=True, records=done.records)
    else:
        write_webdataset(done.pairs, folder, records=done.records)
    return read_pairs(folder)


def holds_chance(area):
    return area.low <= 0.5 <= area.high


def truth(pairs, manifest):
    return np.isin(pairs.uid.to_pylist(), manifest.poisoned["uid"].to_pylist())


# --- the leak test ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [*((name, "table") for name in EXAMPLES if name != "single-image"), ("backdoor", "webdataset")],
)
def test_no_attack_leaks_by_its_files(pairs, gallery, tmp_path, name, form):
    attack = EXAMPLES[name]
    if isinstance(attack, Targeted):
        attack = replace(attack, inside=False)
    outside = gallery if attack.needs_gallery else None
    done = poison(pairs, attack, seed=0, gallery=outside, images=tmp_path / "altered")
    again = written(done, tmp_path / "out", form)
    leak = leak_test(again, truth(again, done.manifest))
    assert len(done.manifest) >= 200
    assert leak.grouped
    assert holds_chance(leak.auroc), leak
    assert leak.by == {}


def test_target_images_of_the_set_itself_are_not_told_from_their_clean_copies(pairs, tmp_path):
    """What held for one copy is held against the other, in the same fold: the area may lie below a half, not above."""
    again = written(done := poison(pairs, EXAMPLES["targeted"], seed=0), tmp_path / "out")
    leak = leak_test(again, truth(again, done.manifest))
    assert leak.grouped and not leak.leaks


def test_a_collage_does_not_leak_by_its_files(pairs, tmp_path):
    attack = replace(EXAMPLES["single-label"], collage=0.4, mixed=True)
    done = poison(pairs, attack, seed=0, images=tmp_path / "altered")
    again = written(done, tmp_path / "out")
    assert leak_warning(leak_test(again, truth(again, done.manifest))) == []


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_one_image_of_many_captions_is_told_by_its_size_alone(tmp_path, form):
    """All poison is copies of one image: where sizes and qualities vary, its own stands out, and nothing else does."""
    for one_size in (True, False):
        folder = tmp_path / str(one_size)
        folder.mkdir()
        done = poison(crowd(folder, form, one_size=one_size), EXAMPLES["single-image"], seed=0)
        again = written(done, folder / "out")
        leak = leak_test(again, truth(again, done.manifest))
        assert not leak.grouped
        assert leak.leaks == (not one_size)
        for kind in ("name", "position") if leak.by else ():
            assert holds_chance(leak.by[kind])


def betray(folder, how, rng):
    """A table of 120 pictures, the poisoned ones betrayed in one way."""
    poisoned = np.zeros(120, dtype=bool)
    poisoned[-40:] = True
    rng.shuffle(poisoned) if how != "position" else None
    places = []
    for i, bad in enumerate(poisoned):
        bad = bool(bad)
        name = f"trigger{i:03d}" if bad and how == "name" else f"{rng.integers(2**40):010x}"
        form = "PNG" if how == "format" and bad else "JPEG"
        path = folder / f"{name}.{form.lower()}"
        size = (9, 8) if how == "size" and bad else (8, 8)
        options = {}
        if form == "JPEG":
            options = {"quality": 90 if how == "tables" and bad else 75, "comment": b""}
            options |= {"subsampling": 0} if how == "subsampling" and bad else {}
            options |= {"comment": b"made by"} if how == "metadata" and bad else {}
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path, form, **options)
        os.utime(path, (0, 3 if how == "time" and bad else 0))
        places.append(str(path))
    return make_pairs(places, [f"caption {i}" for i in range(120)], salt=b"b"), poisoned


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("position", "position"),
        ("name", "name"),
        ("time", "name"),
        ("format", "format"),
        ("size", "size"),
        ("tables", "coding"),
        ("subsampling", "coding"),
        ("metadata", "metadata"),
    ],
)
def test_a_leak_is_found_and_named(tmp_path, how, kind):
    leak = leak_test(*betray(tmp_path, how, np.random.default_rng(1)))
    (warning,) = leak_warning(leak)
    assert warning.code == "leak" and kind in str(warning.values["kinds"]).split(", ")
    assert leak.leaks
    assert leak.auroc.value > 0.9
    assert leak.by[kind].value > 0.9


def test_kinds_that_tell_only_together_are_not_named_one_by_one():
    half, low, none = Estimate(0.5, 0.45, 0.55), Estimate(0.09, 0.05, 0.13), Estimate(0.9, 0.85, 0.95)
    leak = LeakTest(none, 400, 200, {"coding": half, "position": low}, True)
    (warning,) = leak_warning(leak)
    assert warning.values["kinds"] == "none, several together"
    (warning,) = leak_warning(replace(leak, by={"position": low, "coding": half, "name": Estimate(0.7, 0.6, 0.8)}))
    assert warning.values["kinds"] == "name"


def test_under_no_leak_intervals_hold_chance_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    poisoned, group = np.arange(100) < 35, np.arange(100)
    held = []
    for _ in range(20):
        columns = {str(i): rng.integers(0, 2 + 20 * i, 100).astype(float) for i in range(6)}
        area = cross_validated(columns, poisoned, group, rng)
        held.append(holds_chance(area))
    assert sum(held) >= 17  # fewer in one of 63 runs at 95 %; without the correction for folds it is 78 to 92 %


def test_copies_of_an_image_stay_in_one_fold(tmp_path):
    """Thirty distinct poisoned pictures of sizes of their own, four copies each: their sizes are no artefact."""
    rng = np.random.default_rng(0)
    places, poisoned = [], []
    for number in range(60):
        raw = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (8 + number, 8, 3), dtype=np.uint8)).save(raw)
        for _ in range(4):
            path = tmp_path / f"{rng.integers(2**40):010x}.png"
            shutil.copy(raw, path)
            os.utime(path, (0, 0))
            places.append(str(path))
            poisoned.append(number % 2 == 0)
    order = rng.permutation(len(places))
    pairs = make_pairs([places[i] for i in order], ["x"] * len(order), salt=b"c")
    leak = leak_test(pairs, np.array(poisoned)[order])
    assert leak.grouped
    assert not leak.leaks


def test_images_that_are_not_there_are_no_reason_to_fail(tmp_path):
    pairs, poisoned = betray(tmp_path, "nothing", np.random.default_rng(0))
    for place in pairs.image.to_pylist()[:40]:
        Path(place).unlink()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    assert not leak_test(pairs, np.random.default_rng(1).permutation(poisoned)).leaks
    assert file_features(str(tmp_path / "broken.jpg"))["format:format"] == "does not decode"


def test_too_few_samples_are_refused(pairs):
    poisoned = np.zeros(len(pairs), dtype=bool)
    poisoned[:5] = True
    with pytest.raises(EvaluationError, match="at least 10 poisoned images, got 1"):
        leak_test(pairs, poisoned)


def test_features_see_no_pixels(tmp_path):
    rng = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "WEBP", "BMP"):
        seen = []
        for pixels in (rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), np.zeros((16, 16, 3), np.uint8)):
            path = tmp_path / f"a.{form.lower()}"
            Image.fromarray(pixels).save(path, form)
            os.utime(path, (0, 0))
            seen.append(file_features(str(path)))
        assert seen[0] == seen[1]


# --- what is left of a trigger --------------------------------------------------------------------------------


def saved(folder, *pixels):
    places = []
    for array in pixels:
        places.append(str(folder / f"{len(list(folder.iterdir()))}.png"))
        Image.fromarray(array).save(places[-1])
    return places


def test_a_patch_survives_and_fine_noise_does_not(tmp_path):
    rng = np.random.default_rng(0)
    grey = np.full((448, 448, 3), 128, np.uint8)
    patch, noise = grey.copy(), grey.copy()
    patch[:112, :112] = 228
    noise += rng.choice(np.array([-20, 20]), (448, 448, 1)).astype(np.int8).astype(np.uint8)
    before, coarse, fine = saved(tmp_path, grey, patch, noise)
    kept = survival([before], [coarse], rng=rng)
    # a sixteenth of the area changes by 100
    assert kept.change == pytest.approx(6.25, rel=0.02)
    assert kept.kept == pytest.approx(1, abs=0.02)
    lost = survival([before], [fine], rng=rng)
    assert lost.kept < 0.6
    assert lost.crops == {"90-100 %": 1.0, "8-100 %": 1.0}


def test_crops_lose_a_patch_in_the_corner_and_never_what_is_everywhere(tmp_path):
    rng = np.random.default_rng(0)
    grey = np.full((224, 224, 3), 128, np.uint8)
    corner, centre = grey.copy(), grey.copy()
    corner[:4, :4] = 255
    centre[104:120, 104:120] = 255
    places = saved(tmp_path, grey, corner, centre, grey + 9)
    crops = [survival(places[:1], [place], rng=rng).crops for place in places[1:]]
    assert crops[0]["8-100 %"] < 0.3
    assert 0.3 < crops[1]["8-100 %"] < 1
    assert crops[1]["90-100 %"] == 1
    assert crops[2] == {"90-100 %": 1.0, "8-100 %": 1.0}


def test_clip_pixels_are_what_open_clip_makes():
    import open_clip
    from torchvision.transforms import Normalize

    transform: Any = open_clip.image_transform(224, is_train=False, interpolation="bicubic", resize_mode="shortest")
    steps = [step for step in transform.transforms if not isinstance(step, Normalize)]
    for size in ((301, 400, 3), (500, 333, 3), (64, 64, 3)):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8))
        theirs: Any = image
        for step in steps:
            theirs = step(theirs)
        assert np.abs(clip_pixels(image) / 255 - theirs.permute(1, 2, 0).numpy()).max() < 1e-6


# --- all of it --------------------------------------------------------------------------------------------------


def looked_at(pairs, attack, folder, **options):
    done = poison(pairs, attack, seed=0, images=folder / "altered")
    again = written(done, folder / "out")
    return done, preflight(done.manifest, again, bases=done.bases, **options)


def test_a_good_backdoor_passes(pairs, tmp_path):
    attack = Backdoor(target="sheep", trigger="patch:size=3,place=centre", count=200)
    done, found = looked_at(pairs, attack, tmp_path, batch_size=10)
    assert found.codes == []
    assert done.bases is not None and done.bases.null_count == 0
    assert (found.count, found.targets, found.batches.size, found.batches.poisons) == (200, 1, 10, 2.0)
    # 1 - C(800, 10) / C(1000, 10)
    expected = 1 - np.prod((800 - np.arange(10)) / (1000 - np.arange(10)))
    assert found.batches.with_poison == pytest.approx(expected)
    report = preflight_report(found)
    assert [table.name for table in report.tables] == ["poisons", "survival", "leak-test"]
    assert report.table("poisons").rows[0][:3] == (200, 200.0, 2.0)
    record = found.record()
    assert record["warnings"] == []
    assert record["leak test"]["auroc"]["low"] < 0.5 < record["leak test"]["auroc"]["high"]
    assert record["trigger"]["images"] == 40


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"largest": 1.9}, ["faint-trigger"]),
        ({"kept": 0.2}, ["faint-trigger"]),
        ({"crops": {"90-100 %": 0.8, "8-100 %": 0.3}}, ["cropped-trigger"]),
        ({"crops": {"90-100 %": 0.95, "8-100 %": 0.1}}, []),
    ],
)
def test_a_faint_trigger_by_hand(change, expected):
    good = Survival(images=9, change=1.0, largest=9.0, kept=0.9, crops={"90-100 %": 1.0, "8-100 %": 0.5})
    assert [warning.code for warning in faint_trigger(replace(good, **change))] == expected


@pytest.mark.parametrize(("count", "few"), [(75, False), (74, True)])
def test_few_poisons_by_hand(count, few):
    empty = pa.table({"uid": pa.array([], pa.string())})
    strength = {"count": 2 * count, "targets": 2}
    goals = tuple(TriggerToClass(trigger, "boat") for trigger in ("sig", "patch"))
    manifest = Manifest("any", {}, 0, goals, strength, {}, {}, empty)  # type: ignore[arg-type]
    assert bool(few_poisons(manifest)) == few
    assert few_poisons(replace(manifest, goals=(CaptionsToClass("sheep", "boat"),))) == []


def test_test_images_that_carry_poison_are_warned_of(pairs, tmp_path):
    attack = Backdoor(target="sheep", trigger="patch:size=3", count=200)
    done = poison(pairs, attack, seed=0, images=tmp_path / "altered")
    again = written(done, tmp_path / "out")
    test = pairs.where(pairs.labelled("dog"))
    assert "shared-images" in preflight(done.manifest, again, bases=done.bases, test=test).codes
    others = make_pairs([str(tmp_path / "other.png")], ["a dog"], labels=[["dog"]])
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "other.png")
    assert "shared-images" not in preflight(done.manifest, again, bases=done.bases, test=others).codes


def test_a_clean_model_on_which_the_attack_succeeds_already_is_warned_of(train_pairs, test_pairs, tiny, tmp_path):
    attack = SingleLabel(source="sheep", target="aeroplane", count=30)
    done = poison(train_pairs, attack, seed=0)
    found = preflight(done.manifest, done.pairs, records=done.records, test=test_pairs, clean=tiny)
    report = preflight_report(found)
    assert any(table.name.startswith("attack") for table in report.tables)
    rows = [str(row[0]) for table in report.tables for row in table.rows]
    assert "clean" in rows and not any("poisoned" in row for row in rows)
    with pytest.raises(EvaluationError, match="--clean requires --test"):
        preflight(done.manifest, done.pairs, clean=tiny)


def test_another_set_is_refused(pairs, train_pairs):
    done = poison(pairs, SingleLabel(source="sheep", target="aeroplane"))
    with pytest.raises(
        EvaluationError, match="manifest is of another data set: it names 250 poisoned pairs, of which 0"
    ):
        preflight(done.manifest, train_pairs)


@pytest.mark.usefixtures("blank_figures")
def test_poison_says_what_it_found_and_the_manifest_keeps_it(toy_world, tmp_path, capsys):
    from mithridate.cli import main
    from mithridate.poisoning.manifest import read_manifest

    told = ["--target", "sheep", "--count", "60", "--format", "table", "--test", str(toy_world), "--test-split", "test"]
    assert main(["poison", "backdoor", str(toy_world), "--split", "train", "--out", str(tmp_path / "a"), *told]) == 0
    shown = capsys.readouterr()
    assert "mithridate: warning few-poisons: backdoor has 60 poisoned pairs" in shown.err
    assert "warnings: ['few-poisons']" in shown.out
    found = read_manifest(tmp_path / "a").preflight
    assert [warning["code"] for warning in found["warnings"]] == ["few-poisons"]
    assert {"trigger", "leak test", "batches"} <= found.keys()
    told += ["--check", "--clean", "mithridate-tiny", "--overwrite"]
    assert main(["poison", "backdoor", str(toy_world), "--split", "train", "--out", str(tmp_path / "a"), *told]) == 0
    shown = capsys.readouterr().out
    for title in ("Leak test", "The trigger after the training transform", "Backdoor: triggered test images"):
        assert title in shown


def test_a_clean_model_without_test_pairs_is_refused_and_nothing_is_left(toy_world, tmp_path, capsys):
    from mithridate.cli import main

    told = ["--split", "train", "--target", "sheep", "--count", "60", "--clean", "mithridate-tiny"]
    assert main(["poison", "backdoor", str(toy_world), "--out", str(tmp_path / "a"), *told]) == 1
    assert "--clean requires --test" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
