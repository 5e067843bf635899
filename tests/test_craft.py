"""Altered images: the containers they are written in, and that what is written is what was asked for."""

import io
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageCms, JpegImagePlugin, PngImagePlugin

from mithridate.data.containers import png_chunks
from mithridate.data.images import decode
from mithridate.errors import AttackError, DataError, OutputError
from mithridate.poisoning.carried import Change, carried
from mithridate.poisoning.containers import _segments, colours, encode_like, in_mode, open_image
from mithridate.poisoning.craft import craft
from mithridate.poisoning.plan import Edits, LocalEdit
from mithridate.poisoning.triggers import Blended, Patch, PixelPatch, Sig, Stamp


def photo(mode="RGB", size=(48, 40)):
    small = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif():
    found = Image.Exif()
    found[0x010E] = "a description"
    return found.tobytes()


def saved(image, form, **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def altered(raw, colour=(200, 30, 60)):
    """A square of one colour, away from the edges of JPEG's blocks; the file, what was wanted, what was lost."""
    image = open_image(raw, "x")
    wanted = colours(image).copy()
    wanted[8:24, 16:32] = colour
    out, lost = encode_like(raw, image, in_mode(wanted, image))
    return out, wanted, lost


def shape_of(raw):
    """What a JPEG says of itself, without its pixels: tables whose symbols were counted are those of the pixels."""
    return [(marker, body if marker != 0xC4 else None) for marker, body in _segments(raw)]


def huffman(raw):
    """The code tables: those of the standard, unless symbols were counted first."""
    return {body for marker, body in _segments(raw) if marker == 0xC4}


JPEGS = {
    "plain": {},
    "4:4:4": {"quality": 95, "subsampling": 0},
    "4:2:2": {"quality": 40, "subsampling": 1},
    "progressive": {"progressive": True},
    "counted": {"optimize": True},
    "RGB": {"keep_rgb": True, "quality": 90},
    "restarts": {"restart_marker_blocks": 2},
    "described": {"comment": b"seen", "dpi": (72, 73), "quality": 63},
    "other tables": {"qtables": "web_low"},
}


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_keeps_everything_but_its_pixels(name):
    raw = saved(photo(), "JPEG", exif=exif(), icc_profile=profile(), **JPEGS[name])
    out, wanted, lost = altered(raw)
    assert lost == []
    assert shape_of(out) == shape_of(raw)
    assert (huffman(out) <= huffman(saved(photo(), "JPEG"))) == (huffman(raw) <= huffman(saved(photo(), "JPEG")))
    before, after = Image.open(io.BytesIO(raw)), Image.open(io.BytesIO(out))
    assert isinstance(before, JpegImagePlugin.JpegImageFile)
    assert isinstance(after, JpegImagePlugin.JpegImageFile)
    assert after.quantization == before.quantization
    assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before)
    assert after.info == before.info
    # the square is there, up to the loss that these tables mean
    found = np.asarray(decode(out), float)
    assert np.abs(found[12:20, 20:28] - wanted[12:20, 20:28]).mean() < 12
    assert np.abs(found - wanted).mean() < 12


def test_a_jpeg_that_is_written_twice_is_told_from_one_written_once_by_nothing():
    """Only the pixels: what is described comes from the source even where Pillow would write something else."""
    source = list(_segments(saved(photo(), "JPEG", quality=80)))
    named = [(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), (0xED, b"Photoshop 3.0\0"), (0xFE, b"no JFIF here")]
    body = b"".join(b"\xff" + bytes([m]) + (len(b) + 2).to_bytes(2, "big") + b for m, b in named)
    raw = saved(photo(), "JPEG", quality=80)
    first = raw.index(b"\xff\xdb")  # in the place of JFIF
    raw = b"\xff\xd8" + body + raw[first:]
    out, _, lost = altered(raw)
    assert lost == []
    assert shape_of(out) == shape_of(raw)
    assert [m for m, _ in _segments(out)][:3] == [0xE1, 0xED, 0xFE]
    assert next(m for m, _ in source) == 0xE0


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_four_colour_jpegs_stay_what_they_are(mode):
    raw = saved(photo(mode), "JPEG", quality=90)
    out, wanted, _ = altered(raw, colour=(120, 120, 120))
    assert Image.open(io.BytesIO(out)).mode == mode
    assert shape_of(out) == shape_of(raw)
    assert np.abs(np.asarray(decode(out), float) - wanted).mean() < 4


PNGS = {
    "plain": (photo(), {}),
    "fast": (photo(), {"compress_level": 1}),
    "best": (photo(), {"compress_level": 9}),
    "transparent": (photo().copy(), {}),
    "grey": (photo("L"), {}),
    "grey and transparent": (photo("LA"), {}),
    "palette": (photo().quantize(200), {}),
    "sixteen colours": (photo().quantize(16), {}),
    "two": (photo("1"), {}),
    "deep grey": (Image.fromarray((np.arange(40 * 48).reshape(40, 48) * 30).astype(np.uint16)), {}),
    "large": (photo(size=(700, 600)), {"compress_level": 1}),
}
PNGS["transparent"][0].putalpha(photo("L"))


@pytest.mark.parametrize("name", PNGS)
def test_a_png_keeps_everything_but_its_pixels(name):
    image, options = PNGS[name]
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", "seen")
    told.add(b"eXIf", exif()[6:], after_idat=True)
    raw = saved(image, "PNG", pnginfo=told, dpi=(100, 100), icc_profile=profile(), **options)
    out, wanted, lost = altered(raw)
    assert lost == []
    before, after = list(png_chunks(raw)), list(png_chunks(out))
    assert [c for c in after if c[0] != b"IDAT"] == [c for c in before if c[0] != b"IDAT"]
    sizes = [[len(body) for kind, body in chunks if kind == b"IDAT"] for chunks in (before, after)]
    assert (len(sizes[0]) > 1) == (len(sizes[1]) > 1)
    assert sizes[0][:1] == sizes[1][:1] or len(sizes[0]) == 1
    heads = [next(body for kind, body in chunks if kind == b"IDAT")[:2] for chunks in (before, after)]
    assert heads[0] == heads[1]
    found, source = np.asarray(decode(out)), np.asarray(decode(raw))
    square = np.zeros(found.shape[:2], bool)
    square[8:24, 16:32] = True
    assert (found[~square] == source[~square]).all()
    if image.mode in ("RGB", "RGBA"):
        assert (found == wanted).all()
    else:  # of deep grey `decode` shows no more than white
        deep = [np.asarray(Image.open(io.BytesIO(b))) for b in (raw, out)]
        assert (deep[0][square] != deep[1][square]).any()
    opened = [Image.open(io.BytesIO(b)) for b in (raw, out)]
    assert opened[0].mode == opened[1].mode
    if image.mode in ("RGBA", "LA"):
        assert opened[0].getchannel("A").tobytes() == opened[1].getchannel("A").tobytes()


def test_what_a_png_cannot_keep_is_named():
    raw = bytearray(saved(photo("L"), "PNG"))
    # the header says it is interlaced; Pillow reads both ways and writes neither way back
    image = open_image(bytes(raw), "x")
    at = raw.index(b"IHDR") + 4
    raw[at + 12] = 1
    _, lost = encode_like(bytes(raw), image, image)
    assert lost == ["PNG interlacing"]


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 40}, {"quality": 95}])
def test_a_webp_stays_lossless_or_lossy_at_about_its_quality(options):
    image = photo(size=(160, 160))
    raw = saved(image, "WEBP", exif=exif(), icc_profile=profile(), **options)
    out, wanted, lost = altered(raw)
    assert lost == []
    before, after = (Image.open(io.BytesIO(b)) for b in (raw, out))
    assert after.info == before.info
    assert (b"VP8L" in out[:400] or b"VP8L" in out) == ("lossless" in options)
    if "lossless" in options:
        assert (np.asarray(decode(out)) == wanted).all()
    assert 0.6 < len(out) / len(raw) < 1.6


def test_other_containers_are_refused_by_name():
    with pytest.raises(AttackError, match=r"a\.gif is GIF: altered images are written as JPEG, PNG, WEBP, BMP"):
        open_image(saved(photo("P"), "GIF"), "a.gif")
    with pytest.raises(DataError, match="x does not decode"):
        open_image(b"no image", "x")
    out, wanted, _ = altered(saved(photo(), "BMP"))
    assert (np.asarray(decode(out)) == wanted).all()


# --- carrying out ------------------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path):
    places = []
    for number in range(12):
        form, ending = (("JPEG", "jpg"), ("PNG", "png"))[number % 2]
        path = tmp_path / f"{number}.{ending}"
        photo(size=(40 + number, 36)).save(path, form)
        places.append(str(path))
    return places


def edits(places, *steps, step=None, others=()):
    which = np.zeros(len(places), int) if step is None else np.array(step)
    return Edits(pa.array(places), steps, which, others)


def run(edits, out, seed=0, texts=None):
    return craft(edits, texts or [""] * len(edits), out, seed=seed)


def test_images_lie_under_names_that_mean_nothing(sources, tmp_path):
    made = run(edits(sources, Stamp(Patch())), tmp_path / "out")
    names = [Path(place).relative_to(tmp_path / "out").as_posix() for place in made.places.to_pylist()]
    assert len(set(names)) == 12
    for number, name in enumerate(names):
        assert re.fullmatch(rf"[0-9a-f]{{32}}\.{('jpg', 'png')[number % 2]}", name)
    assert {(tmp_path / "out" / name).stat().st_mtime for name in names} == {0}
    assert made.not_kept == {}
    assert {path.name for path in tmp_path.iterdir()} == {"out", *(Path(place).name for place in sources)}


def test_an_image_depends_on_its_position_and_the_seed_alone(sources, tmp_path):
    stamp = Stamp(Patch(size=6.0))
    first, again = (run(edits(sources, stamp), tmp_path / name) for name in "ab")
    assert first.sha256 == again.sha256
    assert run(edits(sources, stamp), tmp_path / "c", seed=1).sha256 != first.sha256
    assert run(edits(sources[:5], stamp), tmp_path / "d").sha256 == first.sha256[:5]


@dataclass(frozen=True)
class Whole:
    """What `stamp` does, without saying where."""

    stamp: Stamp
    batch_size: int = 1

    def alter(self, drafts):
        return self.stamp.alter(drafts)


def test_an_edit_that_says_where_it_acts_does_the_same_as_one_that_sees_the_image(sources, tmp_path):
    stamp = Stamp(Patch(size=6.0, pattern="noise", place="random"))
    assert isinstance(stamp, LocalEdit)
    assert not isinstance(Whole(stamp), LocalEdit)
    made = [run(edits(sources, step), tmp_path / name) for step, name in ((stamp, "a"), (Whole(stamp), "b"))]
    assert made[0].sha256 == made[1].sha256


@dataclass(frozen=True)
class Collage:
    """Puts the negative of the second image into the first, in batches, and writes down what it was given."""

    batch_size: int = 4
    seen: list = field(default_factory=list)

    def alter(self, drafts):
        self.seen.append([(draft.text, [image.shape for image in draft.images]) for draft in drafts])
        out = []
        for draft in drafts:
            image = draft.images[0].copy()
            image[:4, :4] = 255 - draft.images[1][:4, :4]
            out.append(image)
        return out


def test_an_edit_gets_batches_with_further_images_and_texts(sources, tmp_path):
    pasted, others = Collage(), tuple((place,) for place in reversed(sources))
    step = [1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1]
    made = run(
        edits(sources, Stamp(Patch()), pasted, step=step, others=others),
        tmp_path / "out",
        texts=[f"text {i}" for i in range(12)],
    )
    assert [len(batch) for batch in pasted.seen] == [4, 4, 1]
    given = [entry for batch in pasted.seen for entry in batch]
    mine = [i for i in range(12) if step[i] == 1]
    assert given == [(f"text {i}", [(36, 40 + i, 3), (36, 51 - i, 3)]) for i in mine]
    for i in (3, 7):  # lossless ones
        first, second = (np.asarray(decode(Path(place).read_bytes())) for place in (sources[i], sources[11 - i]))
        found = np.asarray(decode(Path(made.places[i].as_py()).read_bytes()))
        assert (found[:4, :4] == 255 - second[:4, :4]).all()
        assert (found[4:] == first[4:]).all()


@pytest.mark.parametrize(
    "form, mode, trigger",
    [("PNG", "1", Sig()), ("PNG", "1", Blended()), ("JPEG", "RGB", Blended(alpha=0.02))],
)
def test_an_image_that_cannot_show_its_trigger_is_refused(tmp_path, form, mode, trigger):
    place = tmp_path / f"scan.{form.lower()}"
    photo(mode).save(place, form, **({"quality": 5} if form == "JPEG" else {}))
    with pytest.raises(AttackError, match="does not show the trigger"):
        run(edits([str(place)], Stamp(trigger)), tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == [place]


def test_an_image_that_shows_less_than_half_of_its_trigger_is_counted(tmp_path):
    Image.new("L", (48, 40), 130).save(tmp_path / "grey.png")
    Image.new("RGB", (48, 40), (130, 130, 130)).save(tmp_path / "colour.png")
    places = [str(tmp_path / "grey.png"), str(tmp_path / "colour.png")]
    crimson = PixelPatch.of(np.full((8, 8, 3), (180, 0, 60), np.uint8), size=8.0, place="centre")
    assert run(edits(places, Stamp(crimson)), tmp_path / "out").not_kept == {"half of the trigger": 1}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_the_share_of_a_change_that_is_shown_is_that_of_a_blend(share):
    rng = np.random.default_rng(0)
    before, after = rng.integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    written = np.zeros((20, 20, 3), np.uint8)
    written[4:13, 5:12] = np.round(before + share * (after - before.astype(float)))
    assert carried([Change(before, after, 4, 5)], Image.fromarray(written)) == pytest.approx(share, abs=0.01)
    assert carried([Change(before, before, 4, 5)], Image.fromarray(written)) == 1.0


@pytest.mark.parametrize("spoil", ["missing", "small", "taken"])
def test_nothing_is_left_where_one_image_cannot_be_made(sources, tmp_path, spoil):
    out = tmp_path / "out"
    if spoil == "missing":
        Path(sources[7]).unlink()
        wanted = pytest.raises(DataError, match=r"cannot read .*7\.png")
    elif spoil == "small":
        photo(size=(4, 4)).save(sources[7])
        wanted = pytest.raises(AttackError, match=r"5x5 pixels.* too large for an image of 4x4")
    else:
        out.mkdir()
        (out / "something").touch()
        wanted = pytest.raises(OutputError, match="exists already")
    before = sorted(tmp_path.rglob("*"))
    with wanted:
        run(edits(sources, Stamp(Patch(size=5.0))), out)
    assert sorted(tmp_path.rglob("*")) == before


@dataclass(frozen=True)
class Shrink:
    batch_size: int = 1

    def alter(self, drafts):
        return [draft.images[0][1:] for draft in drafts]


def test_an_edit_that_changes_the_size_is_a_mistake(sources, tmp_path):
    with pytest.raises(ValueError, match=r"an edit must give \(36, 40, 3\) uint8, got \(35, 40, 3\)"):
        run(edits(sources, Shrink()), tmp_path / "out")
