"""Augmentation of images and captions: each change against a library, draws from their numbers alone."""

import dataclasses
import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from mithridate.training.augment_images import Draws, augment_images, colour_maps, draw
from mithridate.training.augment_text import BUILT_IN, augment_text, augment_texts, find_synonyms
from mithridate.training.batches import TrainingSet, batches, crop, crop_windows, grouped_order
from mithridate.training.loss import View

SIZE = 16


def pictures(b: int = 4, seed: int = 0) -> torch.Tensor:
    """Smooth random pictures, values well inside 0 to 255, so that nothing is cut off."""
    coarse = torch.rand(b, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 60 + 90
    fine = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return fine.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def nothing(b: int = 4) -> Draws:
    """Draws that leave every image as it is."""
    windows = torch.zeros(b, 2, 3)
    windows[:, 0, 0] = windows[:, 1, 1] = 1
    factors = torch.ones(b, 4)
    factors[:, 3] = 0
    return Draws(windows, torch.arange(4).expand(b, 4), factors, torch.zeros(b, dtype=torch.bool), torch.zeros(b))


def changed(**changes) -> torch.Tensor:
    return augment_images(pictures(), dataclasses.replace(nothing(), **changes))


def library(function, *arguments) -> torch.Tensor:
    """A change by torchvision, on floats, so that it is not rounded in between."""
    return function(pictures().permute(0, 3, 1, 2).float() / 255, *arguments).permute(0, 2, 3, 1) * 255


def near(found: torch.Tensor, expected: torch.Tensor, most: float = 0.51) -> bool:
    return bool((found.float() - expected).abs().max() <= most)


def test_nothing_drawn_changes_nothing():
    assert torch.equal(changed(), pictures())


def test_a_flip_turns_left_to_right():
    windows = nothing().windows.clone()
    windows[1, 0, 0] = -1
    found = changed(windows=windows)
    assert torch.equal(found[1], pictures()[1].flip(1)) and torch.equal(found[0], pictures()[0])


def test_a_crop_is_that_of_the_resampling_of_the_whole_batch():
    windows = crop_windows(4, generator=torch.Generator().manual_seed(3), low=0.2)
    # bicubic there, linear here: alike on smooth pictures
    assert near(changed(windows=windows), crop(pictures(), windows).float(), most=4)
    grid = torch.nn.functional.affine_grid(windows, [4, 3, SIZE, SIZE], align_corners=False)
    linear = torch.nn.functional.grid_sample(
        pictures().permute(0, 3, 1, 2).float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    assert near(changed(windows=windows), linear.permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("kind", "function"), list(enumerate([tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation]))
)
@pytest.mark.parametrize("factor", [0.6, 1.3])
def test_a_change_of_colour_is_torchvisions(kind, function, factor):
    factors = nothing().factors.clone()
    factors[:, kind] = factor
    assert near(changed(factors=factors), library(function, factor), most=1)  # the weights of grey have four digits


def test_greyscale_is_torchvisions():
    found = changed(grey=torch.tensor([True, False, True, False]))
    expected = library(tv.rgb_to_grayscale, 3)
    assert near(found[[0, 2]], expected[[0, 2]], most=1) and torch.equal(found[1], pictures()[1])


def test_a_turn_of_hue_keeps_the_luma_and_a_third_of_a_circle_three_times_is_none():
    mean = pictures().float().mean(dim=(1, 2))
    factors = nothing().factors.clone()
    factors[:, 3] = 1 / 3
    matrix, offset = colour_maps(mean, dataclasses.replace(nothing(), factors=factors))
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(luma @ matrix, luma.expand(4, 3), atol=1e-4) and (offset == 0).all()
    assert torch.allclose(torch.linalg.matrix_power(matrix, 3), torch.eye(3).expand(4, 3, 3), atol=1e-4)
    assert not torch.allclose(matrix, torch.eye(3).expand(4, 3, 3), atol=0.1)


def test_changes_of_colour_come_in_the_drawn_order_of_each_image():
    order = torch.tensor([[0, 1, 2, 3], [1, 0, 2, 3], [2, 1, 0, 3], [3, 2, 1, 0]])
    factors = torch.tensor([[1.2, 0.7, 0.8, 0.0]]).repeat(4, 1)
    found = changed(order=order, factors=factors)
    functions = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for i in range(4):
        image = pictures()[i].permute(2, 0, 1).float() / 255
        for kind in order[i].tolist():
            if kind < 3:
                image = functions[kind](image, float(factors[i, kind]))
        assert near(found[i], image.permute(1, 2, 0) * 255, most=1)


def test_a_blur_is_a_gaussian_that_keeps_an_even_picture():
    sigma = torch.tensor([0.0, 28.0, 28.0, 28.0])  # two pixels of sixteen
    found = changed(sigma=sigma)
    assert torch.equal(found[0], pictures()[0])
    expected = library(tv.gaussian_blur, [15, 15], [2.0, 2.0])
    inside = slice(6, 10)  # the border is weighted otherwise
    assert near(found[1:, inside, inside], expected[1:, inside, inside], most=4)
    even = torch.full((4, SIZE, SIZE, 3), 77, dtype=torch.uint8)
    assert torch.equal(augment_images(even, dataclasses.replace(nothing(), sigma=sigma)), even)


def test_draws_come_from_their_generator_and_a_part_of_them_changes_its_images_alike():
    first, again, other = (draw(8, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    whole = augment_images(pictures(8), first)
    assert torch.equal(whole, augment_images(pictures(8), again))
    assert not torch.equal(whole, augment_images(pictures(8), other))
    assert torch.equal(whole[4:], augment_images(pictures(8)[4:], first.part(4, 8)))


def test_the_draws_have_the_shares_that_they_say():
    gentle = draw(20_000, generator=torch.Generator().manual_seed(0), crop=0.9, flip=False)
    assert gentle.windows[:, 0, 0].min() > 0  # none is mirrored
    assert (gentle.windows[:, 0, 0] * gentle.windows[:, 1, 1]).min() >= 0.74  # 0.9 of the area, aspect cut at the edge
    drawn = draw(20_000, generator=torch.Generator().manual_seed(0))
    same_colours = draw(20_000, generator=torch.Generator().manual_seed(0), jitter=False)
    assert (same_colours.factors == torch.tensor([1.0, 1, 1, 0])).all() and not same_colours.grey.any()
    assert torch.equal(same_colours.windows, drawn.windows) and torch.equal(same_colours.sigma, drawn.sigma)
    assert torch.equal(drawn.factors, gentle.factors)  # what is not asked for changes no other draw
    assert (drawn.windows[:, 0, 0] < 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert drawn.grey.float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert (drawn.sigma == 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (drawn.factors[:, 0] == 1).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert torch.bincount(drawn.order[:, 0]).float().std() < 200
    assert drawn.factors[:, :3].min() >= 0.5 and drawn.factors[:, :3].max() <= 1.5
    assert drawn.factors[:, 3].abs().max() <= 0.1


# --- captions -----------------------------------------------------------------------------------------

CAPTION = "A small dog is sitting near a big red car on the street, looking at people."


def many(text: str, n: int = 200) -> list[str]:
    return augment_texts([text] * n, range(n), seed=0, epoch=1, view=0, synonyms=BUILT_IN)


@pytest.mark.parametrize("text", ["", " ", "123", "!!!", "一只小狗在街上", "dog", "a\ud800b", "\n\t", "x" * 5000])
def test_no_caption_fails_or_becomes_empty(text):
    for found in many(text, 30):
        assert bool(found.strip()) == bool(text.strip())


def test_each_of_four_changes_takes_place():
    words = CAPTION.split()
    found = {
        "longer": 0,  # insertion
        "shorter": 0,  # deletion
        "other order": 0,  # swap
        "other words": 0,  # synonyms
    }
    for text in many(CAPTION):
        new = text.split()
        if len(new) > len(words):
            found["longer"] += 1
        elif len(new) < len(words):
            found["shorter"] += 1
        elif sorted(new) == sorted(words):
            found["other order"] += new != words
        else:
            found["other words"] += 1
    # each is drawn in a quarter of 200; a deletion may delete nothing
    assert min(found.values()) > 25 and sum(found.values()) > 180


def test_case_and_punctuation_stay():
    kept = [word for text in many(CAPTION) for word in text.split()]
    assert "A" in kept and "street," in kept and "people." in kept


def test_words_are_replaced_by_their_synonyms_only():
    for text in many("dog dog dog dog"):
        assert set(text.split()) <= {"dog", "hound"}


def test_a_captions_change_depends_on_its_own_numbers_alone():
    def one(row=3, epoch=1, view=0, seed=0):
        return augment_texts([CAPTION], [row], seed=seed, epoch=epoch, view=view, synonyms=BUILT_IN)[0]

    together = augment_texts([CAPTION] * 5, range(5), seed=0, epoch=1, view=0, synonyms=BUILT_IN)
    assert together[3] == one()
    others = {tuple(one(**change) for change in ({key: i} for i in range(10))) for key in ("row", "epoch", "view")}
    assert all(len(set(texts)) > 3 for texts in others)


def test_the_share_of_words_that_changes_is_a_tenth():
    text = " ".join(["dog"] * 40)
    replaced = [found.split().count("hound") for found in many(text) if len(found.split()) == 40]
    assert max(replaced) == 4


def test_without_wordnet_the_built_in_list_is_taken(monkeypatch):
    find_synonyms.cache_clear()

    def missing(name):
        raise LookupError("Resource wordnet not found")

    monkeypatch.setattr(importlib, "import_module", missing)
    assert find_synonyms() is BUILT_IN
    find_synonyms.cache_clear()


def test_with_wordnet_its_lemmas_are_taken(monkeypatch):
    find_synonyms.cache_clear()
    senses = [SimpleNamespace(lemma_names=lambda: ["dog", "domestic_dog", "Canis"])]
    wordnet = SimpleNamespace(ensure_loaded=lambda: None, synsets=lambda word: senses if word == "dog" else [])
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(wordnet=wordnet))
    found = find_synonyms()
    assert found.name == "wordnet" and list(found.of("dog")) == ["Canis", "domestic dog"] and not found.of("cat")
    assert augment_text("", np.random.default_rng(0), synonyms=found) == ""
    find_synonyms.cache_clear()


# --- what the loop gathers ----------------------------------------------------------------------------


def test_views_get_captions_of_their_own_and_fixed_ones_stay_over_epochs():
    n = 12
    index = np.arange(n)

    def tokens(rows, epoch, view):
        return torch.tensor([[int(row), epoch, view] for row in rows])

    column = index[:, None].astype(np.float32)
    data = TrainingSet(index, index, index, np.zeros((n, 1), np.uint16), None, column, None, tokens)
    views = (View(text="fixed"), View(), View(text="augmented"))
    seen = {}
    for step, (_, (fixed, plain, fresh), rows) in batches(data, batch_size=6, seed=0, start=0, stop=4, views=views):
        assert plain.shape == (6, 1) and (fixed[:, 0] == rows).all()
        seen.setdefault("fixed", set()).update(map(tuple, fixed[:, 1:].tolist()))
        assert (fresh[:, 1:] == torch.tensor([step // 2 + 1, 2])).all()
    assert seen["fixed"] == {(0, 0)}


def test_pairs_of_a_group_share_batches_but_for_one():
    rng = np.random.default_rng(0)
    groups = rng.random(100) < 0.33
    order = grouped_order(rng.permutation(100), groups, batch_size=10, seed=0, epoch=0)
    assert sorted(order) == list(range(100))
    shares = groups[order].reshape(10, 10).mean(axis=1)
    assert ((shares > 0) & (shares < 1)).sum() <= 1
    assert (np.diff(shares) != 0).sum() > 2  # batches of both kinds are mixed
