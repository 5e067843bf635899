"""From bytes to pixels: every mode is kept right or refused, and no image takes more memory or time than stated."""

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import open_clip
import pytest
import simplejpeg
from PIL import Image, ImageFile

from mithridate.data.doctor import doctor
from mithridate.data.images import MAX_DECODING_MEMORY, MAX_RATIO, MAX_SCANS, decode, jpeg_scans, narrowed
from mithridate.data.jpeg import ScaledDecoder
from mithridate.data.pairs import make_pairs
from mithridate.errors import DataError


def encoded(image, form="PNG", **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (12, 16), dtype=np.uint8)


@pytest.mark.parametrize(("form", "order"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("PPM", "<u2")])
def test_greys_of_16_bits_are_scaled_not_clipped(grey, form, order):
    deep = Image.fromarray((grey.astype(np.uint16) * 257).astype(order))
    pixels = np.asarray(decode(encoded(deep, form)))
    assert (pixels == grey[..., None]).all()
    dark = Image.fromarray(np.full((12, 16), 255, np.uint16))
    assert np.asarray(decode(encoded(dark, form))).max() <= 1


MODES = ["1", "L", "LA", "P", "RGB", "RGBA"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "GIF", "WEBP"])
def test_other_modes_are_as_pillow_converts_them(grey, mode, form):
    image = Image.fromarray(np.stack([grey, grey.T[:12].repeat(2, 1)[:, :16], grey[::-1]], -1)).convert(mode)
    try:
        raw = encoded(image, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    except OSError:
        pytest.skip(f"{form} has no {mode}")
    with Image.open(io.BytesIO(raw)) as opened:
        assert (np.asarray(decode(raw)) == np.asarray(opened.convert("RGB"))).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_without_a_scale_are_refused(grey, kind):
    with pytest.raises(DataError, match=r"x\.tif holds numbers of 32 bits.*convert it to 8 or 16 bits"):
        decode(encoded(Image.fromarray(grey.astype(kind)), "TIFF"), "x.tif")


def test_blank_tiny_and_narrow_images_are_findings(tmp_path, grey):
    images = {
        "blank.png": Image.new("RGB", (20, 20), (255, 255, 255)),
        "black.jpg": Image.new("L", (20, 20)),
        "pixel.gif": Image.new("L", (1, 1)),
        "line.png": Image.fromarray(np.tile(grey[:, :10], (1, 40))[:9]),
        "good.png": Image.fromarray(grey),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
    pairs = make_pairs([str(tmp_path / name) for name in images], list("abcde"))
    found = {finding.code: finding.message for finding in doctor(pairs, workers=1)}
    assert "2 of 5" in found["blank-image"] and "blank.png" in found["blank-image"]
    assert "1 of 5" in found["tiny-image"] and "pixel.gif of 1x1" in found["tiny-image"]
    assert "1 of 5" in found["narrow-image"] and "line.png of 400x9" in found["narrow-image"]


# --- bombs ---------------------------------------------------------------------------------------------------------


def progressive(size, scans):
    """A progressive JPEG whose last scan is repeated."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
    raw = encoded(Image.fromarray(noise), "JPEG", progressive=True, quality=30)
    last = raw.rindex(b"\xff\xda")
    return raw[:-2] + raw[last:-2] * scans + b"\xff\xd9"


@pytest.mark.parametrize("scans", [MAX_SCANS, 3000])
def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(scans, monkeypatch):
    raw = progressive(600, scans)
    for where, name in ((ImageFile.ImageFile, "load"), (simplejpeg, "decode_jpeg")):
        monkeypatch.setattr(where, name, lambda *_, **__: pytest.fail("its scans were decoded"))
    with pytest.raises(DataError, match=rf"x\.jpg is a JPEG of {jpeg_scans(raw)} scans"):
        decode(raw, "x.jpg")
    assert ScaledDecoder(64, 64, "shortest", Image.Resampling.BICUBIC)(raw) is None  # the exact path refuses it


def test_scans_count_by_the_pixels_they_pass_over():
    raw = progressive(64, 40)
    assert decode(raw).size == (64, 64)
    header = bytearray(raw)
    at = header.index(b"\xff\xc2")
    header[at + 5 : at + 9] = struct.pack(">HH", 7900, 7900)
    with pytest.raises(DataError, match="scans over 7900x7900 pixels"):
        decode(bytes(header))


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width, height, kind=2, depth=8):
    """A PNG of zeros, by hand: Pillow would need the memory to write it."""
    row = b"\0" * (1 + (width * depth * {0: 1, 2: 3, 6: 4}[kind] + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (30, 20_000), (3, 1001)])
def test_a_line_is_cut_to_its_middle_before_it_is_resized(shape):
    image = Image.fromarray(np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape).astype(np.uint8))
    cut = narrowed(image)
    assert max(cut.size) <= MAX_RATIO * min(cut.size) + 1
    lost = max(image.size) - max(cut.size)
    assert lost % 2 == 0
    axis = int(shape[1] > shape[0])
    middle = np.take(np.asarray(image), range(lost // 2, max(shape) - lost // 2), axis)
    assert (np.asarray(cut) == middle).all()


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (320, 10), (64, 64), (200, 7)])
@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
def test_ordinary_images_have_open_clips_own_pixels(tiny, size, mode):
    from dataclasses import replace

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    config = {**tiny.config, "preprocess_cfg": {**tiny.config["preprocess_cfg"], "resize_mode": mode}}
    cfg = config["preprocess_cfg"]
    options = {name: cfg[name] for name in ("mean", "std", "interpolation", "resize_mode", "fill_color")}
    transform: Any = open_clip.image_transform(cfg["size"], is_train=False, **options)
    wanted = transform(image)
    mean, std = (np.array(cfg[name], np.float32)[:, None, None] for name in ("mean", "std"))
    found = replace(tiny, config=config).to_pixels(image).transpose(2, 0, 1)
    assert (np.round((wanted.numpy() * std + mean) * 255) == found).all()


LARGEST = {
    "png": "png(8000, 8000, 6, 16)",
    "progressive jpeg": "encoded(Image.new('RGB', (8000, 8000), 'red'), 'JPEG', progressive=True, subsampling=0)",
    "cmyk jpeg": "encoded(Image.new('CMYK', (8000, 8000), (9, 99, 199, 20)), 'JPEG')",
    "webp": "encoded(Image.new('RGB', (8000, 8000), (9, 99, 199)), 'WEBP', method=0)",
    "jpeg 2000": "encoded(Image.new('RGBA', (4000, 4000), (9, 99, 199, 20)), 'JPEG2000')",
    "line": "png(1, 20_000, 0)",
}
CHILD = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from mithridate.data.images import decode, narrowed
raw = Path(sys.argv[1]).read_bytes()
def peak():
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1])
before = peak()
image = narrowed(decode(raw))
scale = 224 / min(image.size)
image.resize((int(image.width * scale), int(image.height * scale)))
print((peak() - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGEST)
def test_no_image_takes_more_memory_than_stated(tmp_path, name):
    (tmp_path / "image").write_bytes(eval(LARGEST[name]))  # noqa: S307 (a table of this file's own)
    code = CHILD.format(tests=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "image")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MAX_DECODING_MEMORY, f"{int(done.stdout) >> 20} MiB"


def test_a_line_takes_no_more_memory_than_any_image(tmp_path):
    (tmp_path / "line.png").write_bytes(png(1, 20_000, 0))
    assert (tmp_path / "line.png").stat().st_size < 300
    code = CHILD.format(tests=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "line.png")], capture_output=True, text=True)
    assert int(done.stdout) < 2**27, done.stderr
