"""JPEGs decoded at a part of their size, against the exact path."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mithridate.data.cache import open_images
from mithridate.data.jpeg import ScaledDecoder, decoding, scaled_decoder
from mithridate.errors import MithridateError


def photograph(wide: int, tall: int, *, mode="RGB", form="JPEG", **options):
    """The bytes of a picture with edges and soft places."""
    rng = np.random.default_rng(wide * tall)
    cells = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    coded = io.BytesIO()
    cells.resize((wide, tall), Image.Resampling.BICUBIC).convert(mode).save(coded, form, **options)
    return coded.getvalue()


def recipe(size: int | list[int] = 224, **changed):
    return json.dumps({"size": size, "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0, **changed})


def exact(raw, name):
    from mithridate.encoder.preprocessing import resizing

    return np.asarray(resizing(name)(Image.open(io.BytesIO(raw)).convert("RGB")))


def scaled(raw: bytes, name: str):
    decoder = scaled_decoder(name)
    assert decoder is not None
    return decoder(raw)


def decibels(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2))


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize(
    ("wide", "tall"), [(500, 375), (375, 500), (1024, 768), (1023, 771), (517, 389), (2000, 301), (256, 1999)]
)
def test_pixels_are_near_those_of_the_whole_picture(wide, tall, mode):
    raw, name = photograph(wide, tall, quality=92), recipe(resize_mode=mode)
    found = scaled(raw, name)
    assert found is not None
    assert found.shape == (224, 224, 3) and found.dtype == np.uint8
    assert decibels(found, exact(raw, name)) > 38


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 2}])
def test_every_coding_of_a_jpeg(mode, options):
    if mode == "L":
        options = {name: value for name, value in options.items() if name != "subsampling"}
    raw = photograph(800, 600, mode=mode, **options)
    found = scaled(raw, recipe())
    assert found is not None and decibels(found, exact(raw, recipe())) > 38


@pytest.mark.parametrize(
    "raw",
    [
        photograph(224, 224),
        photograph(255, 240),  # an eighth less would be too small
        photograph(100, 80),
        photograph(800, 600, form="PNG"),
        photograph(800, 600, mode="CMYK"),
        photograph(800, 600)[:4000],
        b"\xff\xd8\xff",
        b"",
    ],
    ids=["its size", "hardly larger", "smaller", "png", "cmyk", "cut short", "no more than a start", "empty"],
)
def test_what_only_the_exact_path_does(raw):
    assert scaled(raw, recipe()) is None


def test_preparations_that_it_does_not_know():
    assert scaled_decoder(recipe(resize_mode="longest")) is None
    assert scaled_decoder(recipe(interpolation="lanczos")) is None
    assert scaled_decoder(recipe(size=[224, 336])) is None
    squash = scaled_decoder(recipe(size=[224, 336], resize_mode="squash"))
    assert squash is not None and (squash.height, squash.width) == (224, 336)


def test_the_scale_is_the_smallest_that_holds_what_is_wanted():
    decoder = ScaledDecoder(224, 224, "shortest", Image.Resampling.BICUBIC)
    assert [decoder._eighths(*size) for size in [(1792, 2000), (448, 448), (447, 448), (225, 300), (9000, 9000)]] == [
        1,
        4,
        5,
        None,
        None,
    ]


def test_both_ways_have_caches_of_their_own_and_agree_where_nothing_is_scaled(tmp_path, monkeypatch):
    from mithridate.encoder.embed import image_source, pixel_recipe
    from mithridate.encoder.encoder import load_encoder

    tiny = load_encoder("mithridate-tiny")  # of 64 pixels

    for name, raw in (
        ("same", photograph(64, 64)),
        ("large", photograph(300, 200)),
        ("png", photograph(90, 80, form="PNG")),
    ):
        (tmp_path / f"{name}.jpg").write_bytes(raw)
    places = pa.array([str(tmp_path / f"{name}.jpg") for name in ("same", "large", "png")])
    found, recipes = {}, set()
    for way in ("scaled", "exact"):
        monkeypatch.setenv("MITHRIDATE_DECODING", way)
        recipes.add(pixel_recipe(tiny))
        kept = image_source(tiny, places, cache=tmp_path / "cache").gather(np.arange(3))
        found[way] = image_source(tiny, places, cache=None).gather(np.arange(3))
        assert (kept == found[way]).all()
    assert len(recipes) == 2 and len(list((tmp_path / "cache").iterdir())) == 2
    differs = [(a != b).any() for a, b in zip(found["scaled"], found["exact"])]
    assert differs == [False, True, False]


def test_what_the_shortcut_leaves_is_decoded_or_bad(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(photograph(800, 600)[:4000])
    (tmp_path / "whole.png").write_bytes(photograph(800, 600, form="PNG"))
    source = open_images(
        pa.array([str(tmp_path / "cut.jpg"), str(tmp_path / "whole.png")]),
        lambda image: np.asarray(image.resize((224, 224))),
        shape=(224, 224, 3),
        recipe="test",
        folder=tmp_path / "cache",
        shortcut=scaled_decoder(recipe()),
    )
    assert list(source.bad) == [0] and source.gather(np.arange(2))[1].any()


def test_another_way_is_refused(monkeypatch):
    monkeypatch.setenv("MITHRIDATE_DECODING", "fast")
    with pytest.raises(MithridateError, match=r"MITHRIDATE_DECODING must be one of scaled, exact, got 'fast'"):
        decoding()
