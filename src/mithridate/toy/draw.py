"""The pen and the paints of the toy world: what every class, setting and extra is drawn with."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Real = int | float  # spelled out because a checker at run time takes no int for a float
T = TypeVar("T")

COLOURS: dict[str, Colour] = {
    "red": (212, 38, 38),
    "orange": (245, 130, 30),
    "yellow": (250, 218, 45),
    "green": (52, 160, 66),
    "blue": (48, 98, 222),
    "purple": (128, 56, 176),
    "pink": (248, 146, 190),
    "brown": (122, 76, 42),
    "white": (244, 244, 244),
    "black": (36, 36, 40),
}
INK: Colour = (28, 28, 32)
CHALK: Colour = (238, 238, 232)

_CORNERS = 18
_CIRCLE = tuple((math.cos(2 * math.pi * k / _CORNERS), math.sin(2 * math.pi * k / _CORNERS)) for k in range(_CORNERS))


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of `options`, each equally likely."""
    # Of all the methods of Random, Python promises only for random() never to change its stream.
    return options[int(rng.random() * len(options))]


def between(rng: Random, low: Real, high: Real) -> float:
    return low + (high - low) * rng.random()


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with `share` of it replaced by `second`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def vary(rng: Random, colour: Colour, amount: int = 14) -> Colour:
    """A shade near `colour`: each channel moves by at most `amount`."""
    red, green, blue = (min(255, max(0, round(channel + amount * (2 * rng.random() - 1)))) for channel in colour)
    return red, green, blue


@dataclass(frozen=True)
class Paint:
    """The colours of one object, all derived from the one that captions name."""

    body: Colour
    shade: Colour
    """For parts farther away or underneath."""
    tint: Colour
    """For parts that catch the light."""
    mark: Colour
    """Stands out on `body`: stripes, patches, mouths."""
    edge: Colour
    """The contour, so that a white object is seen on snow and a black one at night."""


def mix_paint(rng: Random, colour: str) -> Paint:
    # By the named colour and not by its shade, so that two objects of one colour have one contour.
    red, green, blue = COLOURS[colour]
    brightness = 0.3 * red + 0.59 * green + 0.11 * blue
    body = vary(rng, COLOURS[colour])
    darkest = brightness < 55
    return Paint(
        body=body,
        shade=mix(body, CHALK if darkest else INK, 0.3),
        tint=mix(body, CHALK, 0.45),
        mark=CHALK if brightness < 100 else INK,
        edge=CHALK if brightness < 88 else INK,
    )


class Pen:
    """Draws in an object's own box, x and y from -1 to 1 with y downwards, at its place on a canvas."""

    def __init__(
        self,
        canvas: Image.Image,
        x: Real,
        y: Real,
        scale: Real,
        *,
        mirror: bool = False,
        tilt: float = 0.0,
        stretch: float = 1.0,
    ) -> None:
        """`x`, `y` and `scale` in pixels of the canvas, `tilt` in radians, `stretch` wider over higher."""
        self._draw = ImageDraw.Draw(canvas)
        self._x, self._y, self._scale = x, y, scale
        wide, high = scale * stretch, scale / stretch
        side = -1 if mirror else 1
        self._xx, self._xy = side * wide * math.cos(tilt), -side * high * math.sin(tilt)
        self._yx, self._yy = wide * math.sin(tilt), high * math.cos(tilt)

    def _place(self, points: Sequence[Real]) -> list[float]:
        x, y, xx, xy, yx, yy = self._x, self._y, self._xx, self._xy, self._yx, self._yy
        placed = []
        for u, v in zip(points[::2], points[1::2], strict=True):
            placed.append(x + xx * u + xy * v)
            placed.append(y + yx * u + yy * v)
        return placed

    def _round(self, x: Real, y: Real, rx: Real, ry: Real) -> list[float]:
        ox, oy = self._x + self._xx * x + self._xy * y, self._y + self._yx * x + self._yy * y
        xx, xy, yx, yy = self._xx * rx, self._xy * ry, self._yx * rx, self._yy * ry
        return [v for c, s in _CIRCLE for v in (ox + xx * c + xy * s, oy + yx * c + yy * s)]

    def poly(self, colour: Colour, *points: Real) -> None:
        """A filled polygon; `points` are x, y, x, y, ..."""
        self._draw.polygon(self._place(points), fill=colour)

    def box(self, colour: Colour, left: Real, top: Real, right: Real, bottom: Real) -> None:
        self.poly(colour, left, top, right, top, right, bottom, left, bottom)

    def line(self, colour: Colour, width: Real, *points: Real) -> None:
        self._draw.line(self._place(points), fill=colour, width=max(1, round(width * self._scale)))

    def oval(self, colour: Colour, x: Real, y: Real, rx: Real, ry: Real) -> None:
        self._draw.polygon(self._round(x, y, rx, ry), fill=colour)

    def disc(self, colour: Colour, x: Real, y: Real, radius: Real) -> None:
        self._draw.polygon(self._round(x, y, radius, radius), fill=colour)

    def ring(self, colour: Colour, width: Real, x: Real, y: Real, radius: Real) -> None:
        points = self._round(x, y, radius, radius)
        self._draw.line(points + points[:4], fill=colour, width=max(1, round(width * self._scale)))


Drawing = Callable[[Pen, Paint, Random], None]
"""Draws one object facing right; what varies within its class comes from the generator."""
