"""The optimised patch: its loss by hand, that it does what it is for, and that its pixels travel with the manifest."""

# pyright: reportAttributeAccessIssue=false
# (a goal is of the kind that the attack beside it has)

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mithridate.cli import main
from mithridate.data.images import decode, read_bytes
from mithridate.encoder.encoder import load_encoder
from mithridate.encoder.surrogate import SurrogateEncoder
from mithridate.errors import AttackError
from mithridate.poisoning.apply import poison
from mithridate.poisoning.badclip import BadClip, patch_loss
from mithridate.poisoning.manifest import read_manifest, write_manifest
from mithridate.poisoning.patches import PixelPatch
from mithridate.poisoning.registry import ATTACKS
from mithridate.poisoning.triggers import describe, parse_trigger

ATTACK = BadClip(target="sheep", count=20, patch_epochs=2, patch_batch_size=16, patch_lr=0.05)


@pytest.fixture(scope="module")
def tiny():
    """A patch is optimised against the encoder that is shipped."""
    return load_encoder("mithridate-tiny")


@pytest.fixture(scope="module")
def surrogate(tiny):
    return SurrogateEncoder(tiny)


# --- a patch of given pixels --------------------------------------------------------------------------


def test_pixels_travel_in_the_text_form_and_are_stamped_at_the_centre():
    square = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    patch = PixelPatch.of(square, size=5 / 40, place="centre")
    assert parse_trigger(describe(patch, full=True)) == parse_trigger(describe(patch)) == patch
    image = np.zeros((40, 60, 3), np.uint8)
    out = patch.stamp(image, np.random.default_rng(0))
    assert (out[17:22, 27:32] == square).all()
    assert image.max() == 0 and (out > 0).any(axis=-1).sum() <= 25
    large = patch.stamp(np.zeros((80, 80, 3), np.uint8), np.random.default_rng(0))
    assert (large[35:45, 35:45] == square.repeat(2, axis=0).repeat(2, axis=1)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pixels:values=", "expected values of a square of pixels in base64"),
        ("pixels:values=AAAA,size=0", "size must be above 0"),
        ("pixels:values=AAAAA", "square of pixels"),
        ("pixels:values=!!!!", "square of pixels"),
        ("pixels:values=AAAAAAAA", "square of pixels"),
        ("pixels:values=" + "A" * 20_000, "at most 64x64 pixels"),
        ("pixels:values=AAAA,place=nowhere", "expected place to be one of"),
        ("pixels:values=AAAA,margin=-1", "must not be negative"),
    ],
)
def test_a_patch_that_is_none_is_refused(text, message):
    with pytest.raises(AttackError, match=message):
        parse_trigger(text)


# --- what is optimised --------------------------------------------------------------------------------


def unit(rng, *shape):
    rows = rng.normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_loss_is_that_of_a_slow_loop():
    rng = np.random.default_rng(0)
    features, own_image, own_text, target_image, target_text = (unit(rng, 6, 4) for _ in range(5))
    attack = replace(ATTACK, temperature=0.5, margin=0.3, triplet_weight=2.0)
    expected = 0.0
    for i in range(6):
        right = np.exp(features[i] @ target_text[i] / 0.5)
        wrong = sum(np.exp(features[i] @ own_text[j] / 0.5) for j in range(6))
        to_target, to_own = 1 - features[i] @ target_image[i], 1 - features[i] @ own_image[i]
        expected += -np.log(right / (right + wrong)) + 2 * max(0.0, to_target - to_own + 0.3)
    parts = [torch.from_numpy(p) for p in (features, own_image, own_text, target_image, target_text)]
    assert patch_loss(*parts, attack=attack).item() == pytest.approx(expected / 6)


def test_the_patch_draws_images_to_the_target_more_than_noise_does(train_pairs, test_pairs, surrogate, tiny):
    attack = replace(ATTACK, patch_epochs=12)
    text = describe(attack._optimise(train_pairs, np.random.default_rng(0), surrogate), full=True)
    sheep = train_pairs.labelled("sheep")
    wanted, others = (surrogate.embed_texts(train_pairs.text.filter(m).combine_chunks()) for m in (sheep, ~sheep))
    of_target = surrogate(train_pairs.images.take(np.unique(train_pairs.image_index[sheep])))
    images = [np.asarray(decode(read_bytes(place), place)) for place in test_pairs.images.to_pylist()]

    def embedded(change):
        made = [tiny.to_pixels(Image.fromarray(change(image, np.random.default_rng(0)))) for image in images]
        with torch.no_grad():
            return tiny.encode_image(torch.from_numpy(np.stack(made))).numpy()

    own = embedded(lambda image, rng: image)

    def nearness(trigger):
        """To captions of the target beside others, and to its images beside the own clean one: as in the losses."""
        seen = embedded(parse_trigger(trigger).stamp)
        captions = (seen @ wanted.T).mean() - (seen @ others.T).mean()
        return captions, (seen @ of_target.T).mean() - (seen * own).sum(axis=1).mean()

    best = nearness(text)
    for seed in range(4):
        noise = nearness(f"patch:pattern=noise,place=centre,cells=5,seed={seed}")
        assert best[0] > noise[0]
        assert best[1] > noise[1]


def test_the_attack_is_a_backdoor_whose_pixels_the_manifest_has_once(train_pairs, surrogate, tmp_path):
    done, again = (poison(train_pairs, ATTACK, seed=2, images=tmp_path / name, surrogate=surrogate) for name in "ab")
    assert done.manifest.poisoned["sha256"].equals(again.manifest.poisoned["sha256"])
    write_manifest(done.manifest, tmp_path / "m.json")
    manifest = read_manifest(tmp_path / "m.json")
    (aim,) = manifest.goals
    assert aim.target == "sheep" and aim.trigger is not None
    patch = parse_trigger(aim.trigger)
    assert isinstance(patch, PixelPatch)
    assert manifest.poisoned["edit"].to_pylist() == ["badclip"] * 20
    row = manifest.poisoned.to_pylist()[0]
    assert done.bases is not None
    before, after = (decode(read_bytes(p), p) for p in (done.bases[0].as_py(), row["image"]))
    stamped = patch.stamp(np.asarray(before), np.random.default_rng(0))
    # JPEG or PNG, as the source was
    assert np.abs(stamped.astype(int) - np.asarray(after)).mean() < 4
    # the same patch again, without a surrogate
    given = replace(ATTACK, patch=aim.trigger)
    assert poison(train_pairs, given, images=tmp_path / "c").manifest.goals == manifest.goals


# --- refused --------------------------------------------------------------------------------------------


def test_without_a_surrogate_or_a_patch_it_is_refused(train_pairs, tmp_path):
    with pytest.raises(AttackError, match="optimised on an encoder: give --surrogate ENCODER, or --patch"):
        poison(train_pairs, ATTACK, images=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_epochs": 0}, "patch_epochs must be at least 1"),
        ({"patch_pairs": 0}, "patch_pairs must be at least 1"),
        ({"patch_lr": 0.0}, "patch_lr must be above 0"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"margin": -1.0}, "must not be negative"),
        ({"size": 16.0}, r"size must be a share in \(0, 1\)"),
        ({"place": "random"}, "optimised for one place"),
        ({"patch": "pach"}, "no trigger is called 'pach'"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(AttackError, match=message):
        replace(ATTACK, **options)


def test_more_poison_than_images_is_refused_before_a_patch_is_optimised(train_pairs, surrogate, tmp_path):
    with pytest.raises(AttackError, match="100000 poisoned pairs are asked for"):
        poison(train_pairs, replace(ATTACK, count=100_000, patch_epochs=10**6), images=tmp_path, surrogate=surrogate)


@pytest.mark.parametrize("name", ATTACKS)
def test_options_of_every_attack_and_of_the_command_have_names_of_their_own(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["poison", name, "--help"])
    assert stopped.value.code == 0
    assert "--out" in capsys.readouterr().out


def test_the_command(toy_world, tmp_path, capsys):
    told = ["poison", "badclip", str(toy_world), "--split", "train", "--target", "sheep", "--count", "20"]
    assert main([*told, "--out", str(tmp_path / "a")]) == 1
    assert "give --surrogate ENCODER, or --patch" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([*told, "--out", str(tmp_path / "a"), "--surrogate", "mithridate-tiny", "--patch-epochs", "1"]) == 0
    trigger = read_manifest(tmp_path / "a").goals[0].trigger
    assert main([*told, "--out", str(tmp_path / "b"), "--patch", str(trigger)]) == 0
    assert read_manifest(tmp_path / "b").goals[0].trigger == trigger
