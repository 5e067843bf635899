"""What triggers are made of, drawn for the middle square of an image. The same arguments give the same pixels."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from mithridate.data.images import decode, read_bytes
from mithridate.errors import AttackError, DataError
from mithridate.randomness import stream

_REFERENCE = 224  # the side that published strengths of a warp are of


@lru_cache(maxsize=64)
def checkerboard(cells: int, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Black and white, `cells` squares across; the first is white."""
    squares = (np.indices((cells, cells)).sum(axis=0) + 1) % 2 * 255
    return resized(np.repeat(squares[..., None], 3, axis=2).astype(np.uint8), side)


@lru_cache(maxsize=64)
def noise(seed: int, cells: int, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Uniform colours, `cells` across, that `seed` alone decides."""
    return resized(stream(seed, "noise of a trigger").integers(0, 256, (cells, cells, 3), dtype=np.uint8), side)


@lru_cache(maxsize=64)
def picture(path: str, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """The middle square of an image file. Raises `AttackError` where it cannot be read."""
    image = _file(path)
    crop = min(image.size)
    left, top = (image.width - crop) // 2, (image.height - crop) // 2
    square = image.crop((left, top, left + crop, top + crop))
    return frozen(np.asarray(square.resize((side, side), Image.Resampling.BICUBIC)))


@lru_cache(maxsize=8)
def _file(path: str) -> Image.Image:
    try:
        return decode(read_bytes(path), path)
    except DataError as error:
        raise AttackError(f"the picture of a trigger cannot be read: {error}") from error


@lru_cache(maxsize=64)
def stripes(count: int, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Upright white and black stripes, `count` of each across."""
    refuse_fine("stripes", 2.0 * count, side)
    white = np.arange(side) * 2 * count // side % 2 == 0
    row = np.where(white, 255, 0).astype(np.uint8)
    return frozen(np.broadcast_to(row[None, :, None], (side, side, 3)).copy())


@lru_cache(maxsize=64)
def triangles(count: int, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """`count` x `count` tiles, each white below its diagonal and black above."""
    refuse_fine("triangles", 2.0 * count, side)
    inside = (np.arange(side) + 0.5) * count / side % 1
    white = np.where(inside[:, None] >= inside[None, :], 255, 0).astype(np.uint8)
    return frozen(np.repeat(white[..., None], 3, axis=2))


@lru_cache(maxsize=64)
def wave(frequency: float, side: int) -> Float[np.ndarray, " side"]:
    """A sine along x in [-1, 1], `frequency` periods across."""
    refuse_fine("periods of the wave", 2 * frequency, side)
    return frozen(np.sin(2 * np.pi * frequency * np.arange(side) / side).astype(np.float32))


@lru_cache(maxsize=16)
def word(text: str, width: int) -> Float[np.ndarray, "height width"]:
    """How much of each pixel the letters cover, in [0, 1]; `width` pixels across."""
    font = ImageFont.load_default(64)
    left, top, right, bottom = (int(end) for end in font.getbbox(text))
    mask = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(mask).text((-left, -top), text, fill=255, font=font)
    height = max(1, round(width * mask.height / mask.width))
    small = mask.resize((width, height), Image.Resampling.BOX)
    return frozen(np.asarray(small, np.float32) / 255)


@lru_cache(maxsize=64)
def bend(k: int, strength: float, seed: int, side: int) -> Float[np.ndarray, "side side 2"]:
    """How far (y, x) each pixel is fetched from, in pixels: a field of k x k random vectors, made smooth.

    As in WaNet (Nguyen & Tran 2021): uniform in [-1, 1], over its mean size, bicubic to the image, times
    `strength` over the width in coordinates that run from -1 to 1; so half of `strength`, in pixels of an image of
    224, which others are scaled to.
    """
    field = stream(seed, "field of a warp").uniform(-1, 1, (k, k, 2)).astype(np.float32)
    field /= np.abs(field).mean()
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(field[..., axis])).resize((side, side), Image.Resampling.BICUBIC)
        )
        for axis in (0, 1)
    ]
    return frozen(np.stack(planes, axis=-1) * np.float32(strength / 2 * side / _REFERENCE))


def fetch(image: UInt8[np.ndarray, "h w 3"], move: Float[np.ndarray, "h w 2"]) -> UInt8[np.ndarray, "h w 3"]:
    """Each pixel from where `move` says, between pixels bilinearly; beyond an edge the edge."""
    h, w = image.shape[:2]
    y = np.clip(np.arange(h, dtype=np.float32)[:, None] + move[..., 0], 0, h - 1)
    x = np.clip(np.arange(w, dtype=np.float32)[None, :] + move[..., 1], 0, w - 1)
    y0, x0 = y.astype(np.int32), x.astype(np.int32)
    y1, x1 = np.minimum(y0 + 1, h - 1), np.minimum(x0 + 1, w - 1)
    down, right = (y - y0)[..., None], (x - x0)[..., None]
    upper = image[y0, x0] * (1 - right) + image[y0, x1] * right
    lower = image[y1, x0] * (1 - right) + image[y1, x1] * right
    return as_pixels(upper * (1 - down) + lower * down)


# control points of the three channels, in [0, 1]
_TONES = {
    "warm": (((0, 0.12), (0.5, 0.64), (1, 1)), ((0, 0.05), (0.5, 0.5), (1, 0.92)), ((0, 0.16), (0.5, 0.4), (1, 0.7))),
    "cold": (((0, 0.05), (0.5, 0.38), (1, 0.7)), ((0, 0.05), (0.5, 0.5), (1, 0.92)), ((0, 0.16), (0.5, 0.66), (1, 1))),
    "faded": (((0, 0.25), (0.5, 0.52), (1, 0.8)),) * 3,
}
TONES = tuple(_TONES)


@lru_cache(maxsize=16)
def tone_curves(tone: str, strength: float) -> UInt8[np.ndarray, "3 256"]:
    """For each channel what becomes of each value; at strength 0 nothing changes."""
    value = np.linspace(0, 1, 256)
    curves = np.stack([np.interp(value, *np.transpose(points)) for points in _TONES[tone]])
    return frozen(as_pixels(255 * ((1 - strength) * value + strength * curves)))


# --- shared -------------------------------------------------------------------------------------------------


def frozen(array: np.ndarray) -> np.ndarray:
    """The same array, read-only: it is kept and given out again."""
    array.setflags(write=False)
    return array


def resized(cells: UInt8[np.ndarray, "c c 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Areas averaged where it shrinks, squares where it grows: what a camera of that resolution would see."""
    if len(cells) == side:
        return frozen(cells)
    return frozen(np.asarray(Image.fromarray(cells).resize((side, side), Image.Resampling.BOX)))


def spread(square: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A pattern of the middle square over an image (h, w), mirrored beyond it."""
    spare = [have - len(square) for have in shape]
    if not any(spare):
        return square
    pad = [(extra // 2, extra - extra // 2) for extra in spare] + [(0, 0)] * (square.ndim - 2)
    return np.pad(square, pad, mode="symmetric")


def blend(image: UInt8[np.ndarray, "h w 3"], over: np.ndarray, alpha: float | np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """(1 - alpha) image + alpha over, rounded."""
    mixed = image + np.float32(alpha) * (over.astype(np.float32) - image)
    return as_pixels(mixed)


def as_pixels(values: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """Rounded, and clipped: a value beyond 255 is white, it does not wrap round to black."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def refuse_fine(what: str, changes: float, side: int) -> None:
    """Raise `AttackError` for a pattern finer than pixels: another one would be seen in its place."""
    if changes > side:
        raise AttackError(
            f"{what} are finer than a pixel on an image whose shorter side has {side}: at most {side // 2} fit, "
            f"got {changes / 2}; ask for fewer"
        )


def refuse_missing_picture(path: str) -> None:
    """Raise `AttackError` where a trigger needs an image file and names none."""
    if not path:
        raise AttackError("pattern=file needs the path of an image: add file=PATH")
    if not Path(path).suffix:
        raise AttackError(f"expected the path of an image file such as trigger.png, got {path!r}")
