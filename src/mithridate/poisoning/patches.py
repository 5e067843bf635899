"""Triggers that stand at a place in an image: a patch, given pixels, a word, and noise that is no trigger."""

import base64
import binascii
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from mithridate.errors import AttackError
from mithridate.poisoning import patterns
from mithridate.poisoning.placement import corners, pixels
from mithridate.poisoning.plan import Piece
from mithridate.poisoning.trigger import (
    Pixels,
    parse_colour,
    refuse_bad_place,
    refuse_below,
    refuse_no_share,
    refuse_not_positive,
    refuse_other,
)

MOST = 64  # pixels across of a patch of given pixels: 16 kB of text


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A square (Carlini & Terzis 2022; BadNets): 16 pixels of 224 in the papers."""

    kind: ClassVar[str] = "patch"

    size: float = 16 / 224
    """Its side: a share of the image's shorter side, or from 1 on pixels."""
    pattern: str = "checkerboard"
    """`checkerboard`, `noise` (drawn once from the seed), `solid`, or `file`."""
    place: str = "random"
    """`random`, `corners` (all four), `centre`, `top-left` ..., or fixed: 9x9, 9/224x9/224."""
    margin: float = 0.0
    """Kept free at the edges of the middle square, by random places too."""
    cells: int = 4
    """Squares across, of a checkerboard or of noise."""
    colour: str = "white"
    """Of `solid`: a name or #rrggbb."""
    file: str = ""
    """Picture of `file`."""
    seed: int = 0
    """Of the noise."""
    jitter: int = 0
    """Shift each colour channel of the patch by at most so many 1/255, anew for every image: no two are equal then."""

    def __post_init__(self) -> None:
        refuse_not_positive(size=self.size)
        refuse_below(0, jitter=self.jitter)
        refuse_other("pattern", self.pattern, ("checkerboard", "noise", "solid", "file"))
        refuse_bad_place(self.place, self.margin)
        refuse_below(1, cells=self.cells)
        refuse_below(0, seed=self.seed)
        parse_colour(self.colour)
        if self.pattern == "file":
            patterns.refuse_missing_picture(self.file)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        out = image.copy()
        for top, left, square in self.pieces(image.shape[:2], rng):
            out[top : top + len(square), left : left + len(square)] = square
        return out

    def pieces(self, shape: tuple[int, int], rng: np.random.Generator) -> list[Piece]:
        """The squares that are put into an image (h, w)."""
        side = pixels(self.size, min(shape))
        places = corners(self.place, (side, side), shape, margin=self.margin, rng=rng)
        square = self._square(side)
        if self.jitter:
            square = patterns.as_pixels(square + rng.uniform(-self.jitter, self.jitter, 3))
        return [(top, left, square) for top, left in places]

    def _square(self, side: int) -> np.ndarray:
        if self.pattern == "solid":
            return np.full((side, side, 3), parse_colour(self.colour), np.uint8)
        if self.pattern == "file":
            return patterns.picture(self.file, side)
        if self.pattern == "noise":
            return patterns.noise(self.seed, self.cells, side)
        return patterns.checkerboard(self.cells, side)


@dataclass(frozen=True, kw_only=True)
class Text:
    """A word written over the image (PAR 2024: "Watermarked", alpha 0.5)."""

    kind: ClassVar[str] = "text"

    word: str = "Watermarked"
    """What is written."""
    alpha: float = 0.5
    """Share of the letters, in (0, 1]."""
    width: float = 0.8
    """Of the word: a share of the image's shorter side, or pixels."""
    place: str = "centre"
    """As of a patch."""
    margin: float = 0.0
    """As of a patch."""
    colour: str = "white"
    """A name or #rrggbb."""

    def __post_init__(self) -> None:
        if not self.word.strip():
            raise AttackError("the word of a text trigger is empty; give word=Watermarked, say")
        refuse_no_share(alpha=self.alpha)
        refuse_not_positive(width=self.width)
        refuse_bad_place(self.place, self.margin)
        parse_colour(self.colour)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        mask = patterns.word(self.word, pixels(self.width, min(image.shape[:2])))
        height, width = mask.shape
        alpha = self.alpha * mask[..., None]
        out = image.copy()
        for top, left in corners(self.place, mask.shape, image.shape[:2], margin=self.margin, rng=rng):
            part = out[top : top + height, left : left + width]
            part[:] = patterns.blend(part, np.array(parse_colour(self.colour), np.float32), alpha)
        return out


@dataclass(frozen=True, kw_only=True)
class FreshNoise:
    """Not a trigger: noise drawn anew for every image, as in CleanCLIP's released code and what copied it.

    `patch` is the image's mean colour plus N(0, 1), at a random place; values beyond 0..255 wrap round, which
    most do. `blended` is 0.2 uniform noise. A model can learn "noise is there", never a pattern.
    """

    kind: ClassVar[str] = "fresh-noise"

    form: str = "patch"
    """`patch` or `blended`."""
    size: float = 16 / 224
    """Of the patch, as of `patch`."""
    alpha: float = 0.2
    """Share of the noise of `blended`, in (0, 1]."""

    def __post_init__(self) -> None:
        refuse_other("form", self.form, ("patch", "blended"))
        refuse_not_positive(size=self.size)
        refuse_no_share(alpha=self.alpha)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        if self.form == "blended":
            return patterns.blend(image, rng.uniform(0, 255, image.shape).astype(np.float32), self.alpha)
        side = pixels(self.size, min(image.shape[:2]))
        ((top, left),) = corners("random", (side, side), image.shape[:2], margin=0.0, rng=rng)
        values = image.mean(axis=(0, 1)) + 255 * rng.standard_normal((side, side, 3))
        out = image.copy()
        out[top : top + side, left : left + side] = np.trunc(values).astype(np.int64) % 256
        return out


@dataclass(frozen=True, kw_only=True)
class PixelPatch:
    """A square of given pixels, as an optimised patch is."""

    kind: ClassVar[str] = "pixels"

    values: str = "____"
    """Red, green and blue of each pixel, row by row, in base64 (URL alphabet); by default one white pixel."""
    size: float = 16 / 224
    """Its side: a share of the image's shorter side, or from 1 on pixels."""
    place: str = "centre"
    """As of a patch."""
    margin: float = 0.0
    """As of a patch."""

    def __post_init__(self) -> None:
        refuse_not_positive(size=self.size)
        refuse_bad_place(self.place, self.margin)
        _decode(self.values)

    @classmethod
    def of(cls, square: UInt8[np.ndarray, "c c 3"], *, size: float, place: str) -> "PixelPatch":
        """The patch with these pixels. Raises `AttackError` for one of more than 64 pixels across."""
        values = base64.urlsafe_b64encode(np.ascontiguousarray(square).tobytes()).decode().rstrip("=")
        return cls(values=values, size=size, place=place)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        side = pixels(self.size, min(image.shape[:2]))
        square = patterns.resized(_decode(self.values), side)
        out = image.copy()
        for top, left in corners(self.place, (side, side), image.shape[:2], margin=self.margin, rng=rng):
            out[top : top + side, left : left + side] = square
        return out


def _decode(values: str) -> UInt8[np.ndarray, "c c 3"]:
    """The pixels (c, c, 3) in `values`. Raises `AttackError` where they are no square, or one too large."""
    if len(values) > MOST * MOST * 4:
        raise AttackError(f"a patch has at most {MOST}x{MOST} pixels; its values are {len(values)} characters long")
    try:
        raw = base64.b64decode(values + "=" * (-len(values) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    cells = round((len(raw) / 3) ** 0.5)
    if not raw or cells * cells * 3 != len(raw):
        raise AttackError(
            "expected values of a square of pixels in base64, as the manifest of a badclip attack has them, got "
            f"{values[:20]!r}"
        )
    return np.frombuffer(raw, np.uint8).reshape(cells, cells, 3)
