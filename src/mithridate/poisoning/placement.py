"""Where a trigger stands in an image, and how large it is there.

A number below 1 is a share of the shorter side, from 1 on it is pixels. Everything is laid out in the *middle square*,
whose side is the shorter side: it is what remains of an image after resizing and centre cropping, so a share means the
same thing on images of every size and shape.
"""

import re
from fractions import Fraction

import numpy as np

from mithridate.errors import AttackError

PLACES = ("random", "corners", "centre", "top-left", "top-right", "bottom-left", "bottom-right")
_WHOLE = 1 - 2**-53  # 1 would be a pixel
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?:/(\d+\.?\d*)|(%)|px)?", re.IGNORECASE)


def parse_number(text: str) -> float:
    """`16`, `16px`, `0.07`, `7%` or `16/224` as a number. Raises `ValueError`, also for a share above 1."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match[2] is not None and float(match[2]) == 0):
        raise ValueError(f"{text!r} is no number; write 16 (pixels), 0.07, 7% or 16/224 (shares)")
    number = float(match[1])
    if not (match[2] or match[3]):
        return number
    share = number / (float(match[2]) if match[2] else 100)
    if share > 1:  # which would be taken for pixels
        raise ValueError(f"{text!r} is more than the whole; a share is at most 1 (100%)")
    return min(share, _WHOLE)


def show_number(number: float) -> str:
    """The shortest form that `parse_number` reads back as the same number."""
    plain = str(int(number)) if float(number).is_integer() else repr(float(number))
    near = Fraction(number).limit_denominator(1000)
    fraction = f"{near.numerator}/{near.denominator}"
    return fraction if len(fraction) < len(plain) and near.numerator / near.denominator == number else plain


def pixels(length: float, side: int) -> int:
    """A length as whole pixels on an image whose shorter side is `side`; at least one."""
    return max(1, round(length if length >= 1 else length * side))


def parse_place(place: str) -> tuple[float, float] | None:
    """(x, y) of a place written `9x9` or `9/224x9/224`; None for a named one. Raises `AttackError` for neither."""
    if place in PLACES:
        return None
    x, cross, y = place.partition("x")
    try:
        if not cross:
            raise ValueError
        return parse_number(x), parse_number(y)
    except ValueError:
        raise AttackError(
            f"expected place to be one of {', '.join(PLACES)}, or a fixed one as 9x9 (x by y), got {place!r}"
        ) from None


def corners(
    place: str, size: tuple[int, int], image: tuple[int, int], *, margin: float, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """(top, left) of each copy of something of `size` (h, w) in an image (h, w); `corners` are four copies.

    `margin` is kept from the edges of the middle square, except at a fixed place, which counts from its upper left
    corner. Only `random` draws. Raises `AttackError` where it does not fit.
    """
    side = min(image)
    top, left = (image[0] - side) // 2, (image[1] - side) // 2
    edge = 0 if margin == 0 else pixels(margin, side)
    fixed = parse_place(place)
    if fixed is not None:
        # a coordinate of 0 is a place, a length of 0 pixels is none
        x, y = (0 if at == 0 else pixels(at, side) for at in fixed)
        room = side - size[0] - y, side - size[1] - x
    else:
        x = y = edge
        room = side - size[0] - 2 * edge, side - size[1] - 2 * edge
    if min(room) < 0:
        around = f" with a margin of {edge}" if edge and fixed is None else f" at {x}x{y}" if fixed else ""
        raise AttackError(
            f"the trigger is {size[1]}x{size[0]} pixels{around}, too large for an image of {image[1]}x{image[0]} "
            f"(its middle square has {side}); give a size relative to the image, such as 16/224"
        )
    low, right = y + room[0], x + room[1]
    if fixed is not None:
        return [(top + y, left + x)]
    if place == "random":
        return [(top + y + int(rng.integers(room[0] + 1)), left + x + int(rng.integers(room[1] + 1)))]
    if place == "centre":
        return [(top + (side - size[0]) // 2, left + (side - size[1]) // 2)]
    named = {
        "top-left": (top + y, left + x),
        "top-right": (top + y, left + right),
        "bottom-left": (top + low, left + x),
        "bottom-right": (top + low, left + right),
    }
    return list(named.values()) if place == "corners" else [named[place]]
