"""JPEG straight to an encoder's pixels: decoded at no more than the resolution that is needed."""

import json
import os
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image

from mithridate.data.images import MAX_PIXELS, too_many_scans
from mithridate.errors import MithridateError

Decoding = Literal["scaled", "exact"]

_COLOURS = ("YCbCr", "Gray", "RGB")  # print colours are converted otherwise than Pillow does
_EIGHTHS = 8  # libjpeg-turbo decodes at n eighths of a picture's size, for less than the whole would cost


def decoding() -> Decoding:
    """How JPEGs larger than needed are decoded: `$MITHRIDATE_DECODING`, else `scaled`.

    `scaled` decodes at the nearest eighth of the size above the one wanted, then resizes; `exact` decodes all and
    resizes as open_clip does. What is not larger than wanted, or no JPEG, gives the same pixels either way.
    """
    wanted = os.environ.get("MITHRIDATE_DECODING") or "scaled"
    if wanted not in get_args(Decoding):
        raise MithridateError(f"MITHRIDATE_DECODING must be one of {', '.join(get_args(Decoding))}, got {wanted!r}")
    return cast(Decoding, wanted)


@dataclass(frozen=True)
class ScaledDecoder:
    """Bytes of a JPEG -> (height, width, 3), or None where only the exact path will do.

    `mode` is open_clip's: `shortest` resizes the shorter side and crops the middle, `squash` ignores proportions.
    """

    height: int
    width: int
    mode: Literal["shortest", "squash"]
    filter: Image.Resampling

    def __call__(self, raw: bytes) -> UInt8[np.ndarray, "height width 3"] | None:
        if not raw.startswith(b"\xff\xd8\xff"):
            return None
        try:
            *shape, colours, _ = simplejpeg.decode_jpeg_header(raw, strict=False)
            tall, wide = (int(side) for side in shape)
            eighths = self._eighths(tall, wide)
            if eighths is None or colours not in _COLOURS or too_many_scans(raw, tall * wide):
                return None
            size = [-(-side * eighths // _EIGHTHS) for side in (tall, wide)]
            small = simplejpeg.decode_jpeg(raw, min_height=size[0], min_width=size[1])
        except (ValueError, KeyError):  # damaged: the exact path decides
            return None
        if list(small.shape) != [*size, 3]:
            return None
        # sizes were rounded up to whole pixels: where the picture ends is between two of them
        left, top, right, bottom = (edge * eighths / _EIGHTHS for edge in self._box(tall, wide))
        box = (left, top, min(right, size[1]), min(bottom, size[0]))
        return np.asarray(Image.fromarray(small).resize((self.width, self.height), self.filter, box))

    def _target(self, tall: int, wide: int) -> tuple[int, int]:
        """Height and width of the whole picture when it is resized, as torchvision rounds them."""
        if self.mode == "squash":
            return self.height, self.width
        if tall <= wide:
            return self.height, int(self.height * wide / tall)
        return int(self.width * tall / wide), self.width

    def _eighths(self, tall: int, wide: int) -> int | None:
        """The smallest scale that holds what is wanted; None where the whole picture is needed, or is too large."""
        if min(tall, wide) < 1 or tall * wide > MAX_PIXELS:
            return None
        height, width = self._target(tall, wide)
        fits = (n for n in range(1, _EIGHTHS) if tall * n >= height * _EIGHTHS and wide * n >= width * _EIGHTHS)
        return next(fits, None)

    def _box(self, tall: int, wide: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is kept, in pixels of the picture; rounded as torchvision's crop."""
        height, width = self._target(tall, wide)
        top, left = round((height - self.height) / 2), round((width - self.width) / 2)
        down, across = tall / height, wide / width
        return left * across, top * down, (left + self.width) * across, (top + self.height) * down


def scaled_decoder(recipe: str) -> ScaledDecoder | None:
    """The decoder for an encoder's `recipe`; None where its preparation is not one that this can do."""
    prepared = json.loads(recipe)
    size, mode = prepared["size"], prepared["resize_mode"]
    height, width = (size, size) if isinstance(size, int) else size
    name = prepared["interpolation"].upper()
    if name not in ("BICUBIC", "BILINEAR") or mode not in ("shortest", "squash"):
        return None
    if mode == "shortest" and height != width:
        return None
    return ScaledDecoder(height, width, mode, Image.Resampling[name])
