"""How each living class of the toy world is drawn: distinguished by outline and parts, never by colour."""

import math
from random import Random

from mithridate.toy.draw import CHALK, INK, Colour, Drawing, Paint, Pen, Real, between, pick

_SKINS: tuple[Colour, ...] = ((250, 214, 184), (226, 172, 128), (168, 112, 74), (104, 66, 44))
_PINK: Colour = (240, 150, 160)
_BEAK: Colour = (245, 160, 30)


def _eye(pen: Pen, x: Real, y: Real, radius: Real = 0.07) -> None:
    pen.disc(CHALK, x, y, radius)
    pen.disc(INK, x, y, radius * 0.6)


def _legs(
    pen: Pen,
    near: Colour,
    far: Colour,
    hips: tuple[Real, Real],
    top: Real,
    foot: Real,
    width: Real,
    swing: Real,
) -> None:
    """Two pairs of legs at x = `hips`; the far one of each pair is behind and swings the other way."""
    for colour, away in ((far, -1), (near, 1)):
        for hip in hips:
            x = hip + away * (swing + width) * 0.6
            pen.poly(colour, hip - width, top, hip + width, top, x + width * 0.7, foot, x - width * 0.7, foot)


def draw_sheep(pen: Pen, paint: Paint, rng: Random) -> None:
    _legs(pen, INK, (60, 60, 66), (-0.42, 0.3), 0.3, 0.9, 0.085, between(rng, 0.02, 0.1))
    # The outline of the wool is what tells a sheep from the other animals.
    for k in range(11):
        angle = 2 * math.pi * k / 11
        pen.disc(paint.body, -0.1 + 0.58 * math.cos(angle), 0.38 * math.sin(angle), 0.23)
    pen.oval(paint.body, -0.1, 0, 0.62, 0.42)
    for x, y in ((-0.4, -0.1), (-0.05, 0.12), (0.1, -0.18), (-0.3, 0.25)):
        pen.ring(paint.shade, 0.04, x, y, 0.11)
    drop = between(rng, -0.05, 0.15)
    pen.poly(INK, 0.5, -0.32 + drop, 0.28, -0.18 + drop, 0.42, -0.1 + drop)
    pen.oval(INK, 0.68, -0.15 + drop, 0.2, 0.29)
    for x, y in ((0.52, -0.4), (0.68, -0.46), (0.82, -0.38)):
        pen.disc(paint.body, x, y + drop, 0.14)
    pen.disc(CHALK, 0.74, -0.14 + drop, 0.07)
    pen.disc(INK, 0.76, -0.14 + drop, 0.035)


def draw_cow(pen: Pen, paint: Paint, rng: Random) -> None:
    swing = between(rng, 0.0, 0.08)
    pen.line(paint.shade, 0.07, -0.78, -0.25, -0.93, -0.05, -0.9, 0.3)
    pen.disc(paint.mark, -0.9, 0.34, 0.1)
    _legs(pen, paint.body, paint.shade, (-0.56, 0.22), 0.15, 0.85, 0.11, swing)
    pen.oval(_PINK, -0.28, 0.34, 0.17, 0.15)
    pen.poly(
        paint.body, -0.8, -0.3, -0.68, -0.42, 0.35, -0.42, 0.5, -0.2, 0.45, 0.25, 0.3, 0.36, -0.66, 0.36,
        -0.8, 0.2,
    )  # fmt: skip
    shift = between(rng, -0.06, 0.06)
    pen.poly(paint.mark, -0.62 + shift, -0.42, -0.2 + shift, -0.42, -0.24, -0.12, -0.46, -0.02, -0.64, -0.16)
    pen.oval(paint.mark, 0.08 + shift, 0.02, 0.2, 0.17)
    pen.oval(paint.mark, -0.58, 0.2 + shift, 0.14, 0.12)
    for side in (-1, 1):
        x = 0.66 + side * 0.2
        pen.poly(
            CHALK, x - side * 0.06, -0.55, x + side * 0.14, -0.66, x + side * 0.17, -0.95,
            x + side * 0.02, -0.74,
        )  # fmt: skip
        pen.oval(paint.shade, 0.66 + side * 0.31, -0.46, 0.14, 0.08)
    pen.poly(paint.body, 0.42, -0.62, 0.9, -0.62, 0.84, -0.05, 0.48, -0.05)
    pen.oval(_PINK, 0.66, -0.06, 0.24, 0.16)
    for x in (0.58, 0.74):
        pen.disc(INK, x, -0.06, 0.045)
    _eye(pen, 0.55, -0.4)
    _eye(pen, 0.77, -0.4)


def _equine(pen: Pen, paint: Paint, hoof: Colour, swing: Real) -> None:
    """Legs, body, long neck and long face, shared by horse and zebra."""
    _legs(pen, paint.body, paint.shade, (-0.5, 0.24), 0.0, 0.9, 0.09, swing)
    for x in (-0.5 + 0.6 * (swing + 0.09), 0.24 + 0.6 * (swing + 0.09)):
        pen.box(hoof, x - 0.08, 0.84, x + 0.08, 0.95)
    pen.oval(paint.body, -0.14, 0.02, 0.54, 0.27)
    pen.poly(paint.body, 0.05, -0.15, 0.36, 0.2, 0.62, -0.4, 0.66, -0.8, 0.42, -0.82)
    pen.poly(paint.body, 0.44, -0.82, 0.66, -0.84, 0.98, -0.46, 0.95, -0.32, 0.8, -0.3, 0.55, -0.48)
    pen.poly(paint.body, 0.46, -0.76, 0.5, -1.0, 0.62, -0.8)


def draw_horse(pen: Pen, paint: Paint, rng: Random) -> None:
    pen.poly(paint.mark, -0.6, -0.15, -0.78, -0.1, -0.92, 0.15, -0.94, 0.55, -0.8, 0.62, -0.72, 0.25, -0.56, 0.05)
    _equine(pen, paint, paint.mark, between(rng, 0.02, 0.16))
    pen.poly(
        paint.mark, 0.54, -0.92, 0.4, -0.92, 0.26, -0.7, 0.12, -0.4, 0.0, -0.12, 0.2, -0.1, 0.34, -0.4,
        0.46, -0.7,
    )  # fmt: skip
    _eye(pen, 0.68, -0.62, 0.06)
    pen.disc(paint.mark, 0.91, -0.4, 0.035)


def draw_zebra(pen: Pen, paint: Paint, rng: Random) -> None:
    pen.line(paint.body, 0.06, -0.62, -0.1, -0.8, 0.2, -0.82, 0.35)
    pen.oval(paint.mark, -0.82, 0.42, 0.07, 0.13)
    _equine(pen, paint, paint.mark, between(rng, 0.02, 0.1))
    # An upright brush of a mane in blocks, not the flowing one of a horse.
    for x, y in ((0.4, -0.84), (0.3, -0.64), (0.22, -0.44), (0.14, -0.26)):
        pen.poly(paint.mark, x + 0.04, y - 0.1, x - 0.1, y - 0.06, x - 0.12, y + 0.06, x + 0.02, y + 0.08)
    shift = between(rng, 0.0, 0.1)
    for k in range(6):
        x = -0.62 + shift + 0.16 * k
        reach = 0.27 * math.sqrt(max(0.0, 1 - ((x + 0.14) / 0.54) ** 2))
        pen.line(paint.mark, 0.075, x + 0.03, 0.02 - reach, x - 0.03, 0.02 + reach)
    for y in (-0.62, -0.42, -0.22):
        pen.line(paint.mark, 0.075, 0.3 - (y + 0.62) * 0.45, y, 0.62 - (y + 0.62) * 0.5, y + 0.12)
    for hip in (-0.5, 0.24):
        for y in (0.42, 0.6):
            pen.line(paint.mark, 0.065, hip - 0.06, y, hip + 0.14, y)
    pen.poly(paint.mark, 0.84, -0.58, 0.98, -0.46, 0.95, -0.32, 0.8, -0.3)
    _eye(pen, 0.66, -0.64, 0.06)


def draw_cat(pen: Pen, paint: Paint, rng: Random) -> None:
    # Seated and seen from the front, which no other animal here is.
    curl = between(rng, -0.08, 0.08)
    pen.line(paint.body, 0.15, 0.25, 0.8, 0.66, 0.76, 0.84, 0.5, 0.76 + curl, 0.2, 0.58 + curl, 0.12)
    pen.disc(paint.body, 0.84, 0.5, 0.07)
    pen.disc(paint.body, 0.76 + curl, 0.2, 0.07)
    pen.disc(paint.body, 0.66, 0.76, 0.07)
    pen.poly(paint.body, -0.26, -0.2, 0.26, -0.2, 0.46, 0.5, 0.44, 0.92, -0.44, 0.92, -0.46, 0.5)
    pen.line(paint.shade, 0.05, -0.08, 0.45, -0.08, 0.9)
    pen.line(paint.shade, 0.05, 0.08, 0.45, 0.08, 0.9)
    for side in (-1, 1):
        pen.poly(paint.body, side * 0.46, -0.5, side * 0.46, -0.98, side * 0.1, -0.72)
        pen.poly(_PINK, side * 0.39, -0.62, side * 0.39, -0.83, side * 0.24, -0.7)
    pen.oval(paint.body, 0, -0.42, 0.5, 0.38)
    for side in (-1, 1):
        pen.oval((120, 210, 90), side * 0.2, -0.48, 0.11, 0.1)
        pen.oval(INK, side * 0.2, -0.48, 0.04, 0.1)
        for y in (-0.36, -0.24):
            pen.line(paint.mark, 0.03, side * 0.2, -0.3, side * 0.78, y + (0.04 if y > -0.3 else -0.06))
    pen.poly(_PINK, -0.08, -0.34, 0.08, -0.34, 0, -0.25)


def draw_dog(pen: Pen, paint: Paint, rng: Random) -> None:
    wag, nod = between(rng, -0.12, 0.12), between(rng, 0.0, 0.12)
    pen.poly(paint.body, -0.64, -0.02, -0.86 + wag, -0.54, -0.74 + wag, -0.6, -0.44, -0.06)
    _legs(pen, paint.body, paint.shade, (-0.52, 0.2), 0.15, 0.85, 0.1, between(rng, 0.0, 0.12))
    pen.poly(
        paint.body, -0.66, -0.08, 0.2, -0.12, 0.38, -0.2, 0.42, 0.22, 0.25, 0.42, -0.2, 0.28, -0.6, 0.34,
        -0.7, 0.1,
    )  # fmt: skip
    pen.poly(paint.body, 0.08, -0.12, 0.2, -0.5 + nod, 0.5, -0.4 + nod, 0.42, 0.1)
    pen.oval(paint.body, 0.4, -0.5 + nod, 0.31, 0.28)
    # Long snout, round nose, tongue and hanging ear.
    pen.poly(
        paint.body, 0.5, -0.64 + nod, 0.92, -0.5 + nod, 0.97, -0.34 + nod, 0.88, -0.23 + nod,
        0.45, -0.25 + nod,
    )  # fmt: skip
    pen.disc(INK, 0.94, -0.46 + nod, 0.1)
    pen.poly(_PINK, 0.66, -0.26 + nod, 0.82, -0.26 + nod, 0.8, -0.06 + nod, 0.7, -0.06 + nod)
    pen.poly(
        paint.shade, 0.14, -0.7 + nod, 0.34, -0.68 + nod, 0.38, -0.3 + nod, 0.27, -0.04 + nod,
        0.1, -0.12 + nod, 0.06, -0.44 + nod,
    )  # fmt: skip
    pen.line(paint.mark, 0.09, 0.2, 0.02, 0.46, 0.02)
    _eye(pen, 0.52, -0.54 + nod, 0.08)


def draw_tiger(pen: Pen, paint: Paint, rng: Random) -> None:
    lift = between(rng, -0.08, 0.08)
    pen.line(paint.body, 0.1, -0.68, -0.08, -0.86, 0.1, -0.96, -0.12, -0.88, -0.4 + lift)
    pen.disc(paint.mark, -0.88, -0.4 + lift, 0.08)
    _legs(pen, paint.body, paint.shade, (-0.54, 0.2), 0.15, 0.72, 0.12, between(rng, 0.04, 0.16))
    pen.poly(
        paint.body, -0.74, -0.1, -0.6, -0.24, 0.3, -0.26, 0.45, 0.1, 0.3, 0.34, -0.3, 0.28, -0.68, 0.34,
        -0.76, 0.1,
    )  # fmt: skip
    for x in (-0.58, -0.38, -0.18, 0.02):
        pen.poly(paint.mark, x - 0.06, -0.25, x + 0.06, -0.25, x - 0.02, 0.14)
        pen.poly(paint.mark, x + 0.05, 0.31, x + 0.15, 0.31, x + 0.09, 0.06)
    for x in (-0.5, 0.26):
        pen.line(paint.mark, 0.06, x - 0.08, 0.46, x + 0.14, 0.46)
    # A broad round face turned to the viewer, small round ears.
    for x in (0.3, 0.84):
        pen.disc(paint.body, x, -0.52, 0.14)
        pen.disc(paint.mark, x, -0.52, 0.07)
    pen.oval(paint.body, 0.57, -0.2, 0.4, 0.38)
    for x in (0.46, 0.57, 0.68):
        pen.poly(paint.mark, x - 0.04, -0.56, x + 0.04, -0.56, x, -0.36)
    for side in (-1, 1):
        for y in (-0.2, -0.04):
            pen.poly(paint.mark, 0.57 + side * 0.4, y - 0.04, 0.57 + side * 0.38, y + 0.06, 0.57 + side * 0.22, y)
        pen.disc(CHALK, 0.57 + side * 0.09, 0.01, 0.13)
        _eye(pen, 0.57 + side * 0.16, -0.22)
    pen.poly(_PINK, 0.48, -0.1, 0.66, -0.1, 0.57, 0.0)


def draw_bird(pen: Pen, paint: Paint, rng: Random) -> None:
    lift = between(rng, -0.15, 0.2)
    for x in (-0.06, 0.12):
        pen.line(_BEAK, 0.06, x, 0.4, x + 0.02, 0.88, x + 0.16, 0.88)
    pen.poly(paint.shade, -0.3, 0.0, -0.98, 0.28, -0.92, 0.48, -0.72, 0.5, -0.25, 0.3)
    pen.oval(paint.body, -0.02, 0.12, 0.46, 0.38)
    pen.poly(paint.body, 0.1, -0.2, 0.42, 0.15, 0.66, -0.3, 0.3, -0.4)
    pen.disc(paint.body, 0.44, -0.4, 0.3)
    pen.poly(_BEAK, 0.68, -0.52, 1.0, -0.36, 0.68, -0.26)
    pen.poly(paint.shade, 0.22, -0.02, -0.62, -0.62 + lift, -0.7, -0.35 + lift, -0.52, 0.15, -0.1, 0.34, 0.15, 0.24)
    pen.oval(paint.tint, 0.3, 0.18, 0.13, 0.2)
    _eye(pen, 0.52, -0.46, 0.09)


def draw_person(pen: Pen, paint: Paint, rng: Random) -> None:
    skin, hair = pick(rng, _SKINS), pick(rng, ((40, 28, 22), (120, 70, 30), (220, 180, 90)))
    reach, step = between(rng, -0.3, 0.35), between(rng, 0.02, 0.14)
    for side in (-1, 1):
        x = side * (0.13 + step)
        pen.poly(paint.shade, 0, 0.25, side * 0.24, 0.25, x + 0.08 * side, 0.9, x - 0.1 * side, 0.9)
        pen.box(INK, x - 0.13, 0.87, x + 0.13, 0.97)
    for side, raised in ((-1, 0.0), (1, reach)):
        pen.line(paint.body, 0.15, side * 0.2, -0.28, side * 0.44, 0.22 - raised * 1.6)
        pen.disc(skin, side * 0.46, 0.28 - raised * 1.7, 0.09)
    pen.poly(paint.body, -0.28, -0.36, 0.28, -0.36, 0.25, 0.34, -0.25, 0.34)
    pen.box(skin, -0.08, -0.46, 0.08, -0.34)
    pen.disc(hair, 0, -0.74, 0.25)
    pen.oval(skin, 0.03, -0.66, 0.2, 0.23)
    for x in (-0.04, 0.12):
        pen.disc(INK, x, -0.68, 0.035)


ANIMALS: dict[str, Drawing] = {
    "bird": draw_bird,
    "cat": draw_cat,
    "cow": draw_cow,
    "dog": draw_dog,
    "horse": draw_horse,
    "person": draw_person,
    "sheep": draw_sheep,
    "tiger": draw_tiger,
    "zebra": draw_zebra,
}
