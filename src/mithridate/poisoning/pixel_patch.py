"""A trigger whose pixels are given, not drawn: they travel in its text form, so that whoever evaluates has them."""

import base64
import binascii
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from mithridate.errors import AttackError
from mithridate.poisoning.patterns import resized
from mithridate.poisoning.placement import corners, parse_place, pixels

MOST = 64  # pixels across: 16 kB of text


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
        if not 0 < self.size < float("inf"):
            raise AttackError(f"size must be above 0, got {self.size}")
        fixed = parse_place(self.place)
        if self.margin < 0 or any(at < 0 for at in fixed or ()):
            raise AttackError(f"places and margins must not be negative, got place {self.place}, margin {self.margin}")
        _decode(self.values)

    @classmethod
    def of(cls, square: UInt8[np.ndarray, "c c 3"], *, size: float, place: str) -> "PixelPatch":
        """The patch with these pixels. Raises `AttackError` for one of more than 64 pixels across."""
        values = base64.urlsafe_b64encode(np.ascontiguousarray(square).tobytes()).decode().rstrip("=")
        return cls(values=values, size=size, place=place)

    def stamp(self, image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
        side = pixels(self.size, min(image.shape[:2]))
        square = resized(_decode(self.values), side)
        out = image.copy()
        for top, left in corners(self.place, (side, side), image.shape[:2], margin=self.margin, rng=rng):
            out[top : top + side, left : left + side] = square
        return out

    def __str__(self) -> str:
        from mithridate.poisoning.triggers import describe  # which knows this kind among others

        return describe(self)


def _decode(values: str) -> UInt8[np.ndarray, "c c 3"]:
    """The pixels (c, c, 3) in `values`. Raises `AttackError` where they are no square, or one too large."""
    if len(values) > MOST * MOST * 4:
        raise AttackError(f"a patch has at most {MOST}x{MOST} pixels; its values are {len(values):,} characters long")
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
