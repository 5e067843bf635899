"""Every trigger keeps to the contract; then what each does, by hand."""

import re

import numpy as np
import pytest
from PIL import Image

from mithridate.errors import AttackError
from mithridate.poisoning import patterns
from mithridate.poisoning.placement import PLACES, corners, parse_number, show_number
from mithridate.poisoning.plan import Draft, Edit
from mithridate.poisoning.triggers import (
    TRIGGERS,
    Blended,
    FreshNoise,
    Multi,
    Patch,
    Phrase,
    Sig,
    Stamp,
    Stripes,
    Trigger,
    Warp,
    describe,
    parse_trigger,
)

# One instance of every kind, and some that differ in everything. A new trigger needs a line here.
EXAMPLES = {
    "patch": "patch:size=5,pattern=noise,place=corners,margin=2,cells=3,seed=7",
    "blended": "blended:alpha=0.35,cells=8,seed=3",
    "sig": "sig:amplitude=20,frequency=2.5",
    "warp": "warp:k=3,s=30,seed=1",
    "filter": "filter:tone=faded,strength=0.5",
    "stripes": "stripes:alpha=0.2,count=4",
    "triangles": "triangles:alpha=0.3,count=2",
    "text": "text:word=Hi%2C%20you,alpha=1,width=0.9,place=top-left,colour=#ff8800",
    "fresh-noise": "fresh-noise:form=blended,alpha=0.4",
    "pixels": f"pixels:values={'AAz_' * 9},size=4,place=bottom-left,margin=1",
}
SHAPES = ((24, 24, 3), (24, 41, 3), (57, 24, 3))

every_trigger = pytest.mark.parametrize("kind", TRIGGERS)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def photo(shape, seed=0):
    """Smooth, and never at the ends of the range."""
    cells = np.random.default_rng(seed).integers(60, 190, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(cells).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


# --- the contract ------------------------------------------------------------------------------------


def test_every_trigger_has_an_example():
    assert EXAMPLES.keys() == TRIGGERS.keys()
    for kind, text in EXAMPLES.items():
        trigger = parse_trigger(text)
        assert type(trigger) is TRIGGERS[kind]
        assert trigger.kind == kind
        assert isinstance(trigger, Trigger)
        assert isinstance(Stamp(trigger), Edit)


@every_trigger
def test_its_text_reads_back_as_the_same_value(kind):
    for trigger in (parse_trigger(kind), parse_trigger(EXAMPLES[kind])):
        assert parse_trigger(describe(trigger)) == trigger
        assert parse_trigger(describe(trigger, full=True)) == trigger
    assert describe(parse_trigger(kind)) == kind  # what is left out is the default


@every_trigger
@pytest.mark.parametrize("shape", SHAPES)
def test_it_alters_an_image_of_any_shape_and_leaves_the_given_one_alone(kind, shape, rng):
    image = photo(shape)
    before = image.copy()
    image.setflags(write=False)
    out = parse_trigger(EXAMPLES[kind]).stamp(image, rng)
    assert (out.shape, out.dtype) == (shape, np.uint8)
    assert (image == before).all()
    assert (out != before).any()


@every_trigger
def test_pixels_are_fixed_and_nothing_is_drawn_unless_by_definition(kind):
    trigger, image = parse_trigger(EXAMPLES[kind]), photo(SHAPES[1])
    rng = np.random.default_rng(0)
    first, again = trigger.stamp(image, rng), trigger.stamp(image, np.random.default_rng(99))
    drew = rng.bit_generator.state != np.random.default_rng(0).bit_generator.state
    assert drew == (kind == "fresh-noise")
    assert (first == again).all() == (not drew)


# fresh noise is of single pixels and has no size to keep: that is one of the things wrong with it
@pytest.mark.parametrize("kind", sorted(TRIGGERS.keys() - {"fresh-noise"}))
def test_an_image_at_half_the_size_has_the_same_trigger_at_half_the_size(kind, rng):
    """Made smaller and then stamped is nearly stamped and then made smaller, for triggers of relative size."""
    texts = {
        "patch": "patch:size=1/4,place=centre,pattern=noise",
        "warp": "warp:s=40",
        "text": "text:word=Hi,place=0x0",
    }
    trigger, large = parse_trigger(texts.get(kind) or kind), photo((224, 224, 3))
    small = np.array(Image.fromarray(large).resize((112, 112), Image.Resampling.BOX))
    reduced = Image.fromarray(trigger.stamp(large, rng)).resize((112, 112), Image.Resampling.BOX)
    apart = np.abs(trigger.stamp(small, rng).astype(float) - np.asarray(reduced, float)).mean()
    effect = np.abs(trigger.stamp(small, rng).astype(float) - small).mean()
    assert apart < 0.25 * effect


# --- each by hand ------------------------------------------------------------------------------------


def test_a_patch_is_put_where_its_place_says_and_nowhere_else(rng):
    image = np.full((20, 30, 3), 100, np.uint8)
    out = Patch(size=4.0, pattern="solid", colour="#010203", place="top-left", margin=2.0).stamp(image, rng)
    changed = (out != image).any(axis=-1)
    # the middle square begins at x = 5
    assert changed.nonzero()[0].min() == 2
    assert changed.nonzero()[1].min() == 7
    assert changed.sum() == 16
    assert (out[changed] == [1, 2, 3]).all()


def test_a_checkerboard_is_black_and_white_from_its_first_square(rng):
    out = Patch(size=4.0, cells=2, place="0x0").stamp(np.full((8, 8, 3), 9, np.uint8), rng)
    wanted = np.full((8, 8), 9)
    wanted[:4, :4] = np.kron([[255, 0], [0, 255]], np.ones((2, 2)))
    assert (out == wanted[..., None]).all()


def test_a_share_is_of_the_shorter_side_and_from_one_on_a_size_is_pixels(rng):
    for size, side in ((0.25, 10), (16 / 224, 3), (1.0, 1), (7.0, 7), (0.001, 1)):
        image = np.full((40, 90, 3), 100, np.uint8)
        out = Patch(size=size, pattern="solid", place="centre").stamp(image, rng)
        assert (out != image).any(axis=-1).sum() == side**2, size


def test_four_corners_are_four_copies(rng):
    out = Patch(size=2.0, pattern="solid", place="corners").stamp(np.zeros((9, 9, 3), np.uint8), rng)
    assert sorted(zip(*(axis.tolist() for axis in out[..., 0].nonzero()))) == [
        (y, x) for y in (0, 1, 7, 8) for x in (0, 1, 7, 8)
    ]


def test_random_places_reach_every_place_and_keep_their_margin():
    rng = np.random.default_rng(0)
    found = {corners("random", (3, 3), (8, 12), margin=1.0, rng=rng)[0] for _ in range(400)}
    assert found == {(y, x) for y in range(1, 5) for x in range(3, 7)}
    assert corners("random", (8, 8), (8, 12), margin=0.0, rng=rng) == [(0, 2)]


def test_blending_mixes_and_rounds(rng):
    image = np.full((4, 4, 3), 100, np.uint8)
    pattern = patterns.noise(5, 4, 4)
    out = Blended(alpha=0.25, cells=4, seed=5).stamp(image, rng)
    assert (out == np.rint(0.75 * 100 + 0.25 * pattern)).all()
    assert (Blended(alpha=1.0, cells=4, seed=5).stamp(image, rng) == pattern).all()
    assert (Blended(alpha=0.25, cells=4, seed=6).stamp(image, rng) != out).any()


def test_a_sine_is_added_and_clipped_not_wrapped(rng):
    wave = 60 * np.sin(2 * np.pi * np.arange(8) / 8)
    out = Sig(amplitude=60.0, frequency=1.0).stamp(np.full((8, 8, 3), 250, np.uint8), rng)
    assert (out == np.clip(np.rint(250 + wave), 0, 255)[None, :, None]).all()
    # beyond the middle square it goes on, in phase
    wide = Sig(amplitude=60.0, frequency=1.0).stamp(np.full((8, 16, 3), 100, np.uint8), rng)
    assert (wide[:, 4:12] == np.rint(100 + wave)[None, :, None]).all()
    assert (wide[:, :4] == wide[:, 8:12]).all()


def test_a_warp_moves_by_its_strength_and_changes_no_colour_of_a_flat_image(rng):
    move = patterns.bend(4, 10.0, 0, 224)
    assert np.abs(patterns.bend(224, 10.0, 0, 224)).mean() == pytest.approx(5, abs=1e-3)
    assert (patterns.bend(4, 20.0, 0, 224) == 2 * move).all()
    flat = np.full((30, 40, 3), 77, np.uint8)
    assert (Warp(s=50.0).stamp(flat, rng) == flat).all()
    # one pixel to the right, exactly
    image = photo((5, 6, 3))
    shifted = patterns.fetch(image, np.broadcast_to(np.array([0, 1], np.float32), (5, 6, 2)))
    assert (shifted[:, :-1] == image[:, 1:]).all()
    assert (shifted[:, -1] == image[:, -1]).all()


def test_one_pixel_stripes_at_their_published_count(rng):
    out = Stripes(alpha=1.0, count=112).stamp(photo((224, 224, 3)), rng)
    assert (out[:, ::2] == 255).all()
    assert (out[:, 1::2] == 0).all()


def test_fresh_noise_is_the_published_one_and_wraps():
    image = np.full((64, 64, 3), 200, np.uint8)
    rng = np.random.default_rng(0)
    stamped = [FreshNoise(size=16.0).stamp(image, rng) for _ in range(40)]
    values = np.concatenate([out[(out != image).any(axis=-1)] for out in stamped])
    # mean colour plus N(0, 1) in units of 255: more than a third of the normal lies beyond either end and comes back
    assert abs(values.mean() - 127.5) < 5
    assert (stamped[0] != stamped[1]).any()


def test_several_are_stamped_one_over_the_other(rng):
    image = photo((24, 24, 3))
    both = parse_trigger("sig:frequency=2+patch:size=4,place=centre")
    assert isinstance(both, Multi)
    assert describe(both) == "sig:frequency=2+patch:size=4,place=centre"
    by_hand = Patch(size=4.0, place="centre").stamp(Sig(frequency=2.0).stamp(image, rng), rng)
    assert (both.stamp(image, rng) == by_hand).all()


def test_a_picture_is_the_middle_of_its_file(tmp_path, rng):
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = [10, 200, 30]
    path = tmp_path / "a,b+c.png"
    Image.fromarray(wide).save(path)
    trigger = Patch(pattern="file", file=str(path), size=4.0, place="0x0")
    assert parse_trigger(describe(trigger)) == trigger
    out = trigger.stamp(np.zeros((8, 8, 3), np.uint8), rng)
    assert (out[:4, :4] == [10, 200, 30]).all()
    blended = Blended(pattern="file", file=str(path), alpha=0.5).stamp(np.zeros((8, 8, 3), np.uint8), rng)
    assert (blended == [5, 100, 15]).all()


def test_an_edit_stamps_each_image_with_its_own_draws():
    trigger, image = Patch(size=4.0), photo((24, 24, 3))
    drafts = [Draft((image,), "", np.random.default_rng(seed)) for seed in (1, 2)]
    out = Stamp(trigger).alter(drafts)
    for seed, altered in zip((1, 2), out):
        assert (altered == trigger.stamp(image, np.random.default_rng(seed))).all()
    assert str(Stamp(trigger)) == describe(trigger, full=True)


def test_a_phrase_stands_at_an_end_or_between_two_words(rng):
    assert Phrase("so be it").put_into("a dog runs", rng) == "a dog runs so be it"
    assert Phrase("verily", "begin").put_into("a dog", rng) == "verily a dog"
    found = {Phrase("x", "random").put_into("a b", rng) for _ in range(60)}
    assert found == {"x a b", "a x b", "a b x"}
    for phrase in (Phrase("a: b", "random"), Phrase("c")):
        assert Phrase.parse(str(phrase)) == phrase


# --- numbers and refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"), [("16", 16.0), ("16px", 16.0), ("16/224", 16 / 224), ("7%", 0.07), (".5", 0.5), ("1e-3", 0.001)]
)
def test_lengths_are_read_in_every_form(text, value):
    assert parse_number(text) == value
    assert parse_number(show_number(value)) == value


@pytest.mark.parametrize("number", [1 / 3, 16 / 224, 0.1 + 0.2, 1e-9, 12345.678, 0.0])
def test_a_number_is_shown_so_that_it_reads_back_to_the_last_bit(number):
    assert parse_number(show_number(number)) == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pach", "no trigger is called 'pach'; nearest: patch"),
        ("zzz", "no trigger is called 'zzz'; there are patch, "),
        ("", "no trigger is called ''"),
        ("patch+", "no trigger is called ''"),
        ("patch:sise=3", "gives 'sise', which it has not; expected OPTION=VALUE of .*size"),
        ("patch:size", "gives 'size', without a value"),
        ("patch:size=3,size=4", "gives 'size', twice"),
        ("patch:size=big", "size of the trigger .* is no number"),
        ("patch:size=3/0", "is no number"),
        ("patch:size=150%", "'150%' is more than the whole"),
        ("patch:size=225/224", "'225/224' is more than the whole"),
        ("patch:seed=1.5", "expected a whole number, got '1.5'"),
        ("patch:size=0", "size must be above 0, got 0"),
        ("patch:place=left", "expected place to be one of random.* got 'left'"),
        ("patch:place=-1x2", "must not be negative"),
        ("patch:margin=-1", "must not be negative"),
        ("patch:pattern=dots", "expected pattern to be one of checkerboard, noise"),
        ("patch:pattern=file", "needs the path of an image: add file=PATH"),
        ("patch:colour=blurple", "expected a colour such as"),
        ("blended:alpha=0", r"alpha must lie in \(0, 1\], got 0"),
        ("blended:alpha=1.01", r"alpha must lie in \(0, 1\], got 1.01"),
        ("stripes:alpha=-1", r"alpha must lie in \(0, 1\]"),
        ("warp:k=0", "k must be at least 1, got 0"),
        ("filter:tone=sepia", "expected tone to be one of warm, cold, faded"),
        ("text:word=%20", "the word of a text trigger is empty"),
        ("fresh-noise:form=x", "expected form to be one of patch, blended"),
    ],
)
def test_a_trigger_that_is_none_is_refused_with_what_was_expected(text, message):
    with pytest.raises(AttackError, match=message):
        parse_trigger(text)


@pytest.mark.parametrize("place", [*PLACES, "5x5"])
def test_a_trigger_larger_than_the_image_is_refused(place, rng):
    image = photo((24, 40, 3))
    with pytest.raises(AttackError, match=r"25x25 pixels.* too large for an image of 40x24 .*middle square has 24"):
        Patch(size=25.0, place=place).stamp(image, rng)
    with pytest.raises(AttackError, match="with a margin of 11"):
        Patch(size=4.0, margin=11.0).stamp(image, rng)
    with pytest.raises(AttackError, match="at 21x0"):
        Patch(size=4.0, place="21x0").stamp(image, rng)


def test_the_whole_is_a_share_and_not_a_pixel(rng):
    image = photo((24, 24, 3))
    stamped = parse_trigger("patch:size=100%,pattern=solid,place=centre").stamp(image, rng)
    assert (stamped == 255).all()
    assert parse_trigger(describe(parse_trigger("patch:size=224/224"))) == parse_trigger("patch:size=100%")


@pytest.mark.parametrize("text", ["sig:frequency=13", "stripes:count=13", "triangles:count=13"])
def test_a_pattern_finer_than_pixels_is_refused(text, rng):
    with pytest.raises(AttackError, match="finer than a pixel on an image whose shorter side has 24: at most 12 fit"):
        parse_trigger(text).stamp(photo((24, 40, 3)), rng)


def test_a_picture_that_is_not_there_is_named(tmp_path, rng):
    with pytest.raises(AttackError, match=rf"picture of a trigger cannot be read.*{re.escape(str(tmp_path))}"):
        Patch(pattern="file", file=str(tmp_path / "x.png")).stamp(photo((24, 24, 3)), rng)


@pytest.mark.parametrize(("text", "place"), [("", "end"), ("x", "middle")])
def test_a_phrase_that_is_none_is_refused(text, place):
    with pytest.raises(AttackError, match=r"trigger of a caption is empty|expected place to be one of begin"):
        Phrase(text, place)


def test_a_jittered_patch_and_a_moved_blend_differ_from_image_to_image():
    image, draws = photo((32, 32, 3)), [np.random.default_rng(seed) for seed in (1, 2)]
    patch = parse_trigger("patch:size=8,place=0x0,pattern=solid,colour=#808080,jitter=40")
    first, second = (patch.stamp(image, rng)[:8, :8].astype(int) for rng in draws)
    assert (first == first[0, 0]).all() and not (first == second).all()  # one shift of each channel
    assert np.abs(first - 128).max() <= 40
    moved, fixed = (parse_trigger(f"blended:alpha=1,cells=8{more}") for more in (",phase=random", ""))
    first, second = (moved.stamp(image, rng) for rng in draws)
    assert not (first == second).all()
    assert sorted(first.ravel()) == sorted(fixed.stamp(image, draws[0]).ravel())  # the same pattern, moved round
