"""Images that training and test share, and what else an evaluation refuses to compare."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mithridate.data.pairs import concat_pairs, make_pairs
from mithridate.data.read import read_pairs
from mithridate.data.write import write_table
from mithridate.encoder.embed import embed
from mithridate.encoder.encoder import load_encoder
from mithridate.errors import DataError, EvaluationError
from mithridate.evaluation import checks
from mithridate.evaluation.evaluate import evaluate, refuse_mixed_encoders
from mithridate.evaluation.overlap import NEAR, difference_hash, find_shared, nearest, shared_images
from mithridate.poisoning.apply import poison
from mithridate.poisoning.goals import CaptionsToClass
from mithridate.poisoning.relabel import SingleImage, SingleLabel
from mithridate.report.sections.warnings import worded

GOAL = CaptionsToClass("sheep", "aeroplane")


def picture(seed, size=(90, 60)):
    """Smooth and without a plain area, as photographs are."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)


def pairs_of(folder, **images):
    places = []
    for name, image in images.items():
        ending = ".jpg" if name.startswith("jpeg") else ".png"
        image.save(folder / f"{name}{ending}")
        places.append(str(folder / f"{name}{ending}"))
    return make_pairs(places, [f"picture {name}" for name in images])


# --- the hash ----------------------------------------------------------------------------------------


def test_the_hash_by_hand():
    rising = Image.fromarray(np.tile(np.arange(0, 180, 20, dtype=np.uint8), (8, 1)))
    assert difference_hash(rising) == 0
    assert difference_hash(rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 2**64 - 1
    assert difference_hash(rising.resize((90, 80), Image.Resampling.NEAREST)) == 0
    one = np.tile(np.arange(0, 180, 20, dtype=np.uint8), (8, 1))
    one[0, 1] = 0
    one[0, 0] = 50  # brighter than its neighbour: the first bit of all
    assert difference_hash(Image.fromarray(one)) == 2**63


def test_a_plain_picture_has_no_hash():
    assert difference_hash(Image.new("RGB", (40, 40), "grey")) is None


def test_the_nearest_equals_the_slow_loop():
    rng = np.random.default_rng(0)
    known = rng.integers(0, 2**64, 50, dtype=np.uint64)
    query = np.concatenate([known[[7, 20]] ^ np.uint64(5), rng.integers(0, 2**64, 9, dtype=np.uint64)])
    position, distance = nearest(query, known)
    slow = [[(int(q) ^ int(k)).bit_count() for k in known] for q in query]
    assert distance.tolist() == [min(row) for row in slow]
    assert position.tolist() == [row.index(min(row)) for row in slow]
    assert (position[:2].tolist(), distance[:2].tolist()) == ([7, 20], [2, 2])


# --- shared images -----------------------------------------------------------------------------------


def test_equal_and_nearly_equal_images_are_found_and_others_are_not(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    train = pairs_of(tmp_path / "a", one=picture(1), two=picture(2), three=picture(3), plain=Image.new("RGB", (9, 9)))
    test = pairs_of(
        tmp_path / "b",
        other=picture(9),
        copy=picture(2),
        jpeg_small=picture(3, (45, 30)),
        jpeg_same=picture(1),
        plain=Image.new("RGB", (12, 12)),
        mirrored=picture(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    )
    shared = find_shared(train, test)
    assert (shared.test.tolist(), shared.train.tolist()) == ([1, 2, 3], [1, 2, 0])
    assert shared.exact.tolist() == [True, False, False]
    (warning,) = shared_images(train, test)
    assert warning.code == "shared-images"
    assert {name: warning.values[name] for name in ("count", "images", "exact", "near")} == {
        "count": 3,
        "images": 6,
        "exact": 1,
        "near": 2,
    }
    examples = str(warning.values["examples"])
    assert f"{test.image[1].as_py()} equals {train.image[1].as_py()}" in examples
    assert f"{test.image[2].as_py()} resembles {train.image[2].as_py()}" in examples
    assert "3 of 6 test images" in worded([warning])[0].message
    ignored = find_shared(train, test, ignore=[test.image[1].as_py()])
    assert ignored.test.tolist() == [2, 3]


def test_an_image_that_does_not_decode_is_left_out(tmp_path):
    train = pairs_of(tmp_path, one=picture(1))
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = make_pairs([str(tmp_path / "broken.png"), str(tmp_path / "gone.png")], ["x", "y"])
    assert find_shared(concat_pairs([broken, train]), train).train.tolist() == [2]
    assert shared_images(broken, train) == shared_images(broken, broken) == []


def test_real_photographs_are_told_apart_and_found_again(shared_data, tmp_path):
    places = sorted(map(str, shared_data.rglob("*.jpg")))[:60]
    if len(places) < 20:
        pytest.skip("too few photographs")
    again = []
    for number, place in enumerate(places[:20]):
        with Image.open(place) as image:
            smaller = image.convert("RGB").resize((max(8, image.width * 2 // 3), max(8, image.height * 2 // 3)))
        smaller.save(tmp_path / f"{number}.jpg", quality=75)
        again.append(str(tmp_path / f"{number}.jpg"))
    train = make_pairs(places, ["x"] * len(places))
    shared = find_shared(train, make_pairs(again, ["x"] * 20))
    assert set(zip(shared.test.tolist(), shared.train.tolist())) <= {(i, i) for i in range(20)}
    assert len(shared.test) >= 18
    assert NEAR <= 4


# --- in an evaluation --------------------------------------------------------------------------------


def test_evaluate_looks_for_test_images_in_the_training_data(tiny, train_pairs, test_pairs):
    leaking = concat_pairs([train_pairs, test_pairs.where(test_pairs.labelled("dog"))])
    for train, expected in ((train_pairs, []), (leaking, ["shared-images"]), (None, [])):
        report = evaluate({"mine": tiny}, test_pairs, train=train)
        assert [warning.code for warning in report.warnings] == expected
    values = shared_images(leaking, test_pairs)[0].values
    assert (values["count"], values["images"], values["exact"], values["near"]) == (3, 27, 3, 0)


def test_a_target_image_that_the_attack_took_from_the_test_data_is_not_counted(tiny, train_pairs, test_pairs):
    row = int(np.flatnonzero(test_pairs.labelled("aeroplane"))[0])
    attack = SingleImage(source="sheep", target="aeroplane", image=test_pairs.uid[row].as_py())
    poisoned = poison(train_pairs, attack, gallery=test_pairs)
    assert len(find_shared(poisoned.pairs, test_pairs).test) == 1
    report = evaluate({"mine": tiny}, test_pairs, poisoned.manifest, train=poisoned.pairs)
    assert "shared-images" not in [warning.code for warning in report.warnings]


@pytest.fixture(scope="module")
def poisoned(train_pairs):
    return poison(train_pairs, SingleLabel(source="sheep", target="aeroplane"), seed=0)


def test_the_manifest_of_the_training_data_is_accepted_also_of_a_copy(poisoned, tmp_path):
    checks.refuse_foreign_manifest(poisoned.manifest, poisoned.pairs)
    write_table(poisoned.pairs, tmp_path, copy_images=True, records=poisoned.records)
    copied = read_pairs(tmp_path)
    assert copied.fingerprint != poisoned.manifest.data["poisoned"]
    checks.refuse_foreign_manifest(poisoned.manifest, copied)
    checks.refuse_foreign_manifest(None, copied)
    checks.refuse_foreign_manifest(poisoned.manifest, None)


def test_a_manifest_of_other_data_is_refused_before_anything_is_embedded(poisoned, tiny, train_pairs, test_pairs):
    rows = np.isin(poisoned.pairs.uid.to_pylist(), poisoned.manifest.poisoned["uid"].to_pylist())
    texts = [f"{text}!" for text in poisoned.pairs.text.to_pylist()]
    wrong = {
        "the training data are the clean set": train_pairs,
        f"the training data lack {rows.sum()} of its {rows.sum()} poisoned pairs": test_pairs,
        f"{rows.sum()} of its {rows.sum()} poisoned pairs have other captions": make_pairs(
            poisoned.pairs.image, texts, uid=poisoned.pairs.uid
        ),
    }
    for message, train in wrong.items():
        with pytest.raises(EvaluationError, match=message) as caught:
            evaluate({"mine": tiny}, test_pairs, poisoned.manifest, train=train, cache=None)
        assert "\n" not in str(caught.value)


def test_different_encoders_are_refused(tiny, test_pairs):
    config = {**tiny.config, "model_cfg": {**tiny.config["model_cfg"], "embed_dim": 7}}
    other = replace(tiny, config=config, name="other")
    with pytest.raises(EvaluationError, match="the reference other differ in architecture"):
        evaluate({"mine": tiny, "other": other}, test_pairs, reference="other")
    config = {**tiny.config, "preprocess_cfg": {**tiny.config["preprocess_cfg"], "interpolation": "nearest"}}
    with pytest.raises(EvaluationError, match="differ in preprocessing"):
        refuse_mixed_encoders(tiny, replace(tiny, config=config))
    refuse_mixed_encoders(tiny, load_encoder("test-tiny", seed=1))


def test_an_encoder_in_training_mode_is_refused_in_one_sentence(tiny, test_pairs):
    training = tiny.copy()
    training.model.train()
    with pytest.raises(DataError, match=r"^the encoder is in training mode; call encoder\.model\.eval\(\) before"):
        embed(training, test_pairs)


def test_our_own_control_never_contains_the_target_class(tiny, test_pairs):
    for seed in range(3):
        report = evaluate({"mine": tiny}, test_pairs, goals=(GOAL,), seed=seed)
        assert "control-contains-target" not in [warning.code for warning in report.warnings]


@pytest.mark.usefixtures("blank_figures")
def test_the_command_holds_the_manifest_against_the_training_data(toy_world, poisoned, tmp_path, capsys):
    from mithridate.cli import main
    from mithridate.encoder.encoder import save_encoder
    from mithridate.poisoning.manifest import write_manifest

    (tmp_path / "model").mkdir()
    save_encoder(load_encoder("mithridate-tiny", seed=0), tmp_path / "model")
    write_manifest(poisoned.manifest, tmp_path / "manifest.json")
    (tmp_path / "data").mkdir()
    write_table(poisoned.pairs, tmp_path / "data", copy_images=False)
    start = ["evaluate", f"local-dir:{tmp_path / 'model'}", str(toy_world), "--split", "test", "--out"]
    rest = ["--manifest", str(tmp_path / "manifest.json"), "--json", "--train"]
    assert main([*start, str(tmp_path / "a"), *rest, str(tmp_path / "data")]) == 0
    capsys.readouterr()
    code = main([*start, str(tmp_path / "b"), *rest, str(toy_world), "--train-split", "train"])
    assert code != 0
    assert "clean set that the attack started from" in capsys.readouterr().err
