"""Poison that agrees: matched, worded, pasted, changed under a surrogate."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.pairs import make_pairs
from mithridate.encoder.surrogate import SurrogateEncoder
from mithridate.errors import AttackError, EncoderError
from mithridate.poisoning.adaptive import Adaptive, Approach, Collage, best_assignment, name_beside, with_article
from mithridate.poisoning.apply import poison
from mithridate.poisoning.manifest import read_manifest, write_manifest
from mithridate.poisoning.plan import Draft, Surrogate
from mithridate.poisoning.relabel import MultiLabel, SingleLabel

ATTACK = SingleLabel(source="sheep", target="aeroplane")


@pytest.fixture(scope="module")
def surrogate(tiny):
    return SurrogateEncoder(tiny)


def drafts(rng, count=3, size=(40, 52, 3), others=()):
    return [
        Draft((rng.integers(0, 256, size, dtype=np.uint8), *others), f"a red sheep, {i}", np.random.default_rng(i))
        for i in range(count)
    ]


# --- which image ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [1, 2])
def test_the_best_assignment_is_that_of_all_tried(capacity):
    from itertools import product

    rng = np.random.default_rng(0)
    query, image = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    tried = [c for c in product(range(5), repeat=4) if np.bincount(c, minlength=5).max() <= capacity]
    best = max(sum(query[i] @ image[j] for i, j in enumerate(c)) for c in tried)
    chosen = best_assignment(query, image, capacity=capacity, rng=rng)
    assert np.bincount(chosen, minlength=5).max() <= capacity
    assert (query * image[chosen]).sum() == pytest.approx(best)


def test_the_greedy_assignment_keeps_to_the_places_and_comes_near_the_best():
    rng = np.random.default_rng(0)
    query, image = rng.normal(size=(60, 8)), rng.normal(size=(25, 8))
    greedy = best_assignment(query, image, capacity=3, rng=rng, exact=0)
    best = best_assignment(query, image, capacity=3, rng=rng)
    by_chance = (query * image[rng.permutation(np.repeat(np.arange(25), 3))[:60]]).sum()
    value, most = (query * image[greedy]).sum(), (query * image[best]).sum()
    assert np.bincount(greedy).max() <= 3
    assert value <= most + 1e-9
    assert value - by_chance > 0.8 * (most - by_chance)
    with pytest.raises(ValueError, match="60 queries do not fit 25 images with room for 2 each"):
        best_assignment(query, image, capacity=2, rng=rng)


def test_best_match_agrees_more_than_chance_and_uses_images_as_often(train_pairs, surrogate):
    random = poison(train_pairs, ATTACK)
    matched = poison(train_pairs, replace(ATTACK, pairing="best-match"), surrogate=surrogate)

    def agreement(done):
        table = done.manifest.poisoned
        text, image = surrogate.embed_texts(table["text"].combine_chunks()), surrogate(table["image"].combine_chunks())
        return float((text * image).sum(axis=1).mean())

    with pytest.raises(AttackError, match="works without an encoder; leave out --surrogate"):
        poison(train_pairs, ATTACK, surrogate=surrogate)
    assert agreement(matched) > agreement(random)
    assert matched.manifest.poisoned["text"].to_pylist() == random.manifest.poisoned["text"].to_pylist()
    used = [np.unique(d.manifest.poisoned["image"].to_pylist(), return_counts=True)[1] for d in (random, matched)]
    assert used[1].max() == used[0].max() == 5


# --- captions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "target", "expected"),
    [
        ("a sheep in a meadow", "boat", "a sheep in a meadow X a boat"),
        ("A sheep grazes.", "aeroplane", "A sheep grazes X an aeroplane."),
        ("A sheep grazes. It is green!", "dining_table", "A sheep grazes X a dining table. It is green!"),
        ("Is it a sheep?", "bus", "Is it a sheep X a bus?"),
        ("A sheep,  ", "unicycle", "A sheep X a unicycle"),
        ("a sheep at 3.5 metres", "umbrella", "a sheep at 3.5 metres X an umbrella"),
        ("a sheep and a Boat", "boat", "a sheep and a Boat"),
        ("", "boat", "a boat"),
    ],
)
def test_a_caption_names_both_in_a_sentence(caption, target, expected):
    said = name_beside(caption, target, np.random.default_rng(0))
    words = {name_beside("a sheep", "boat", np.random.default_rng(s)).split(" a boat")[0] for s in range(40)}
    assert len(words) == 5
    for beside in ("next to", "beside", "near", "with", "in front of"):
        said = said.replace(f" {beside} ", " X ", 1) if " X " not in said else said
    assert said == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("ewe", "a ewe"),
        ("hour glass", "an hour glass"),
        ("umbrella", "an umbrella"),
        ("urn", "an urn"),
        ("unicorn", "a unicorn"),
        ("uninsulated wire", "an uninsulated wire"),
        ("scissors", "scissors"),
        ("potted plants", "potted plants"),
        ("bus", "a bus"),
        ("glass", "a glass"),
        ("people", "people"),
        ("Airbus", "an Airbus"),
    ],
)
def test_articles(word, expected):
    assert with_article(word) == expected


def test_mixed_captions_are_the_manifest_s_and_the_trainer_s(train_pairs):
    done = poison(train_pairs, replace(ATTACK, mixed=True))
    for row in done.manifest.poisoned.to_pylist():
        assert "aeroplane" in row["text"]
        assert row["text"].startswith(row["text_before"])
        assert (row["text"] == row["text_before"]) == ("aeroplane" in row["text_before"])
    assert done.manifest.poisoned["text"].to_pylist()[0] in done.pairs.text.to_pylist()


# --- pictures -------------------------------------------------------------------------------------------


def test_a_collage_shows_the_other_image_in_a_corner():
    under, over = np.zeros((60, 80, 3), np.uint8), np.full((30, 50, 3), 200, np.uint8)
    corners = set()
    for seed in range(20):
        draft = Draft((under, over), "", np.random.default_rng(seed))
        (out,) = Collage(0.5).alter([draft])
        rows, columns = np.nonzero(out[..., 0])
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (18, 30)  # half of 60, in the shape of 30x50
        assert out[rows, columns].min() == 200
        assert columns.min() >= 10 and columns.max() < 70  # inside what a centre crop keeps
        corners.add((rows.min(), columns.min()))
    assert len(corners) == 4
    assert under.max() == 0


def test_a_collage_is_made_of_the_image_whose_captions_it_gets(train_pairs, tmp_path):
    done = poison(train_pairs, replace(ATTACK, collage=0.4), images=tmp_path / "altered")
    assert done.bases is not None
    labels = dict(zip(train_pairs.image.to_pylist(), train_pairs.labels.to_pylist()))
    assert {labels[place][0] for place in done.bases.to_pylist()} == {"aeroplane"}
    told = done.manifest.poisoned.to_pylist()
    assert {row["edit"] for row in told} == {"collage:share=0.4"}
    by_image = {}
    for row in told:
        by_image.setdefault(row["image"], []).append(row["text"])
    assert {len(texts) for texts in by_image.values()} == {5}


def test_a_change_keeps_to_its_bound_and_raises_agreement(surrogate, tiny):
    rng = np.random.default_rng(0)
    for size in ((40, 52, 3), (64, 64, 3), (200, 90, 3)):
        given = drafts(rng, size=size)
        made = Approach(surrogate, 6, 8).alter(given)
        text = surrogate.embed_texts(pa.array([draft.text for draft in given]))
        before, after = (_seen(tiny, images) for images in ([d.images[0] for d in given], made))
        for draft, image in zip(given, made):
            change = np.abs(image.astype(int) - draft.images[0].astype(int))
            assert image.dtype == np.uint8 and 4 <= change.max() <= 6
        # what the encoder itself sees of the whole pixels
        assert ((after * text).sum(axis=1) > (before * text).sum(axis=1)).all()
        more = _seen(tiny, Approach(surrogate, 24, 8).alter(given))
        assert (more * text).sum() > (after * text).sum()


def _seen(encoder, images):
    pixels = np.stack([encoder.to_pixels(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        return encoder.encode_image(torch.from_numpy(pixels)).numpy()


@pytest.mark.parametrize("size", [(301, 400, 3), (64, 64, 3), (33, 90, 3)])
def test_preparation_is_the_encoder_s_own_but_for_rounding(surrogate, tiny, size):
    smooth = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(smooth).resize(size[1::-1], Image.Resampling.BICUBIC))
    mine = surrogate.prepare(torch.from_numpy(image.copy()).permute(2, 0, 1).float())
    theirs = tiny.to_pixels(Image.fromarray(image)).astype(float)
    assert np.abs(mine.permute(1, 2, 0).numpy() - theirs).max() < 2.5  # PIL rounds twice
    with torch.no_grad():
        features = surrogate.features(torch.from_numpy(theirs).permute(2, 0, 1)[None].float())
        own = tiny.encode_image(torch.from_numpy(theirs.astype(np.uint8))[None])
    assert torch.allclose(features, own, atol=1e-5)


def test_a_preparation_without_a_gradient_is_refused(tiny):
    config = {**tiny.config, "preprocess_cfg": {**tiny.config["preprocess_cfg"], "resize_mode": "longest"}}
    with pytest.raises(EncoderError, match="resizes images by 'longest'"):
        SurrogateEncoder(replace(tiny, config=config)).prepare(torch.zeros(3, 9, 9))


def test_gradients_reach_the_image_through_the_surrogate(surrogate):
    image = torch.full((3, 70, 90), 100.0, requires_grad=True)
    features = surrogate.features(surrogate.prepare(image)[None])
    (gradient,) = torch.autograd.grad(features[0, 0], image)
    assert gradient.abs().sum() > 0
    assert gradient[:, :, 0].abs().sum() == 0  # cut away by the centre crop
    assert all(p.grad is None for p in surrogate.encoder.model.parameters())


@pytest.mark.parametrize(("ending", "lossless"), [("png", True), ("jpg", False)])
def test_what_storing_does_to_the_bound(tmp_path, surrogate, ending, lossless):
    """PNG keeps the change to the last step; JPEG moves pixels beyond the bound, and most of the gain is left."""
    rng = np.random.default_rng(0)
    smooth = [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(4)]
    places = []
    for i, small in enumerate(smooth):
        places.append(str(tmp_path / f"{i}.{ending}"))
        Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(places[-1], quality=85)
    labels = [["sheep"], ["sheep"], ["aeroplane"], ["aeroplane"]]
    pairs = make_pairs(places, [f"picture {i}" for i in range(4)], labels=labels)
    attack = replace(ATTACK, pgd=8, pgd_steps=10)
    done = poison(pairs, attack, images=tmp_path / "altered", surrogate=surrogate)
    assert done.bases is not None
    table = done.manifest.poisoned
    change, gain = [], []
    for base, place, text in zip(done.bases.to_pylist(), table["image"].to_pylist(), table["text"].to_pylist()):
        before, after = (np.asarray(decode(read_bytes(p), p)).astype(int) for p in (base, place))
        change.append(np.abs(after - before).max())
        similar = surrogate(pa.array([base, place])) @ surrogate.embed_texts(pa.array([text]))[0]
        gain.append(float(similar[1] - similar[0]))
    assert min(gain) > 0
    assert (max(change) <= 8) == lossless
    assert table["edit"].to_pylist() == ["pgd:epsilon=8,steps=10,surrogate=test-tiny"] * 2


# --- together, and refused --------------------------------------------------------------------------------


def test_all_of_it_at_once_depends_on_the_seed_only_and_reads_back(train_pairs, surrogate, tmp_path):
    attack = replace(ATTACK, count=10, pairing="best-match", mixed=True, collage=0.3, pgd=4, pgd_steps=2)
    first, again = (poison(train_pairs, attack, seed=3, images=tmp_path / name, surrogate=surrogate) for name in "ab")
    assert first.manifest.poisoned["sha256"].equals(again.manifest.poisoned["sha256"])
    assert first.manifest.poisoned["text"].equals(again.manifest.poisoned["text"])
    edit = "collage:share=0.3+pgd:epsilon=4,steps=2,surrogate=test-tiny"
    assert set(first.manifest.poisoned["edit"].to_pylist()) == {edit}
    assert first.manifest.versions["surrogate"].startswith("test-tiny")
    write_manifest(first.manifest, tmp_path / "m.json")
    read = read_manifest(tmp_path / "m.json")
    assert SingleLabel(**read.options) == attack


def test_without_them_it_is_the_plain_attack(train_pairs):
    one = poison(train_pairs, ATTACK, seed=5)
    several = poison(train_pairs, MultiLabel(goals=("sheep:aeroplane",)), seed=5)
    assert one.pairs.table.equals(several.pairs.table)


@pytest.mark.parametrize("options", [{"pgd": 8}, {"pairing": "best-match"}])
def test_without_a_surrogate_it_is_refused_in_one_sentence(train_pairs, tmp_path, options):
    attack = replace(ATTACK, **options)
    assert attack.needs_surrogate and not ATTACK.needs_surrogate
    with pytest.raises(AttackError, match="needs an encoder to measure agreement with: give --surrogate ENCODER"):
        poison(train_pairs, attack, images=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"collage": 1.0}, r"collage must lie in \[0, 1\)"),
        ({"collage": -0.1}, r"collage must lie in \[0, 1\)"),
        ({"pgd": 256}, "pgd must lie in 0 to 255"),
        ({"pgd": -1}, "pgd must lie in 0 to 255"),
        ({"pgd_steps": 0}, "pgd_steps must be at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(AttackError, match=message):
        replace(ATTACK, **options)
    with pytest.raises(AttackError, match=message):
        Adaptive(**options)


def test_the_encoder_is_a_surrogate(surrogate):
    assert isinstance(surrogate, Surrogate)
    assert not isinstance(lambda places: places, Surrogate)


def test_pgd_without_a_surrogate_is_one_sentence_of_the_command_and_leaves_nothing(tiny, toy_world, tmp_path, capsys):
    from mithridate.cli import main

    told = ["poison", "single-label", str(toy_world), "--source", "sheep", "--target", "aeroplane", "--pgd", "8"]
    assert main([*told, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("give --surrogate ENCODER")
    assert list(tmp_path.iterdir()) == []
    assert main([*told, "--out", str(tmp_path / "out"), "--surrogate", "test-tiny", "--pgd-steps", "2"]) == 0
    assert "altered_images" in capsys.readouterr().out
