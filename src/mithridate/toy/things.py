"""How each lifeless class of the toy world is drawn: distinguished by outline and parts, never by colour."""

import math
from random import Random

from mithridate.toy.draw import CHALK, INK, Colour, Drawing, Paint, Pen, Real, between

_GLASS: Colour = (186, 222, 240)
_STEEL: Colour = (150, 154, 162)
# Lighter than INK, so that wheels are seen at night.
_RUBBER: Colour = (74, 76, 84)
_LAMP: Colour = (255, 232, 120)
_FLAME: Colour = (255, 150, 30)


def _wheel(pen: Pen, x: Real, y: Real, radius: Real) -> None:
    pen.disc(_RUBBER, x, y, radius)
    pen.disc(_STEEL, x, y, radius * 0.5)


def draw_aeroplane(pen: Pen, paint: Paint, rng: Random) -> None:
    sweep = between(rng, -0.1, 0.1)
    pen.poly(paint.shade, 0.2, -0.1, -0.12, -0.1, -0.4 + sweep, -0.62, -0.24 + sweep, -0.62)
    pen.poly(paint.body, -0.62, -0.05, -0.98, -0.62, -0.78, -0.62, -0.4, -0.15)
    pen.poly(
        paint.body, -0.95, -0.1, -0.6, -0.2, 0.55, -0.2, 0.82, -0.12, 0.98, 0.04, 0.85, 0.15, 0.5, 0.2,
        -0.5, 0.16,
    )  # fmt: skip
    pen.poly(paint.shade, -0.72, -0.04, -1.0, 0.12, -0.86, 0.14, -0.5, 0.02)
    for k in range(5):
        pen.disc(_GLASS, -0.42 + 0.2 * k, -0.06, 0.055)
    pen.poly(_GLASS, 0.64, -0.14, 0.8, -0.1, 0.88, 0.0, 0.66, -0.01)
    pen.poly(paint.shade, 0.24, 0.06, -0.14, 0.06, -0.52 + sweep, 0.72, -0.32 + sweep, 0.72)
    pen.oval(_STEEL, 0.08, 0.38, 0.16, 0.08)


def draw_bicycle(pen: Pen, paint: Paint, rng: Random) -> None:
    rise = between(rng, -0.06, 0.06)
    for x in (-0.56, 0.56):
        pen.ring(_RUBBER, 0.1, x, 0.32, 0.38)
        pen.disc(_STEEL, x, 0.32, 0.06)
        for angle in (0.3, 1.35, 2.4):
            u, v = 0.34 * math.cos(angle), 0.34 * math.sin(angle)
            pen.line(_STEEL, 0.02, x - u, 0.32 - v, x + u, 0.32 + v)
    # The diamond frame: crank, saddle post, steering head, rear hub.
    pen.line(paint.body, 0.1, -0.06, 0.32, -0.22, -0.3, 0.36, -0.3, -0.06, 0.32, -0.56, 0.32, -0.22, -0.3)
    pen.line(paint.body, 0.1, 0.56, 0.32, 0.32, -0.52)
    pen.line(paint.body, 0.08, -0.22, -0.3, -0.27, -0.48 + rise)
    pen.line(INK, 0.08, 0.2, -0.62 + rise, 0.34, -0.56, 0.52, -0.64 + rise)
    pen.poly(INK, -0.46, -0.56 + rise, -0.08, -0.52 + rise, -0.12, -0.44 + rise, -0.4, -0.42 + rise)
    pen.disc(INK, -0.06, 0.32, 0.09)


def draw_motorbike(pen: Pen, paint: Paint, rng: Random) -> None:
    for x in (-0.58, 0.6):
        pen.disc(_RUBBER, x, 0.38, 0.38)
        pen.disc(_STEEL, x, 0.38, 0.2)
        pen.disc(INK, x, 0.38, 0.07)
    pen.line(_STEEL, 0.11, 0.6, 0.38, 0.34, -0.42)
    pen.poly(paint.shade, -0.3, 0.02, 0.3, 0.02, 0.2, 0.46, -0.22, 0.46)
    pen.disc(_STEEL, -0.02, 0.26, 0.16)
    pen.line(_STEEL, 0.1, 0.1, 0.52, -0.4, 0.56, -0.92, 0.46)
    pen.poly(paint.body, -0.22, -0.08, -0.1, -0.38, 0.3, -0.44, 0.44, -0.2, 0.3, 0.08, -0.2, 0.1)
    pen.poly(paint.body, -0.98, -0.14, -0.7, -0.2, -0.1, -0.02, -0.2, 0.12, -0.6, -0.04)
    pen.poly(INK, -0.84, -0.3, -0.7, -0.34, -0.08, -0.16, -0.16, -0.02, -0.74, -0.16)
    pen.poly(paint.body, 0.36, 0.02, 0.6, -0.1, 0.9, 0.02, 0.98, 0.2, 0.64, 0.06)
    bar = between(rng, -0.08, 0.05)
    pen.line(INK, 0.09, 0.4, -0.42, 0.16, -0.68 + bar, 0.04, -0.64 + bar)
    pen.disc(paint.shade, 0.5, -0.38, 0.17)
    pen.disc(_LAMP, 0.57, -0.38, 0.11)


def draw_boat(pen: Pen, paint: Paint, rng: Random) -> None:
    belly = between(rng, -0.08, 0.08)
    pen.line(INK, 0.08, 0.02, 0.4, 0.02, -0.98)
    pen.poly(CHALK, -0.08, -0.86, -0.08, 0.26, -0.74 + belly, 0.26)
    pen.poly(paint.tint, 0.12, -0.74, 0.12, 0.26, 0.7 + belly, 0.26)
    pen.poly(paint.mark, 0.02, -0.98, 0.26, -0.9, 0.02, -0.8)
    pen.poly(paint.body, -0.95, 0.38, 0.98, 0.34, 0.66, 0.86, -0.64, 0.86)
    pen.poly(paint.shade, -0.95, 0.38, 0.98, 0.34, 0.92, 0.46, -0.88, 0.5)
    for x in (-0.35, 0.0, 0.35):
        pen.disc(CHALK, x, 0.65, 0.065)


def draw_bus(pen: Pen, paint: Paint, rng: Random) -> None:
    low = between(rng, -0.04, 0.04)
    pen.poly(paint.body, -0.95, -0.6, 0.86, -0.6, 0.95, -0.48, 0.98, 0.5, -0.98, 0.5, -0.98, -0.52)
    pen.box(paint.shade, -0.98, 0.2 + low, 0.98, 0.3 + low)
    for k in range(4):
        x = -0.86 + 0.36 * k
        pen.box(_GLASS, x, -0.42, x + 0.29, 0.02)
    pen.box(_GLASS, 0.62, -0.42, 0.97, 0.42)
    pen.line(INK, 0.04, 0.79, -0.42, 0.79, 0.42)
    pen.box(_LAMP, -0.84, -0.56, 0.5, -0.48)
    for x in (-0.58, 0.42):
        _wheel(pen, x, 0.52, 0.2)


def draw_car(pen: Pen, paint: Paint, rng: Random) -> None:
    roof = between(rng, -0.06, 0.06)
    pen.poly(paint.body, -0.62, -0.02, -0.38, -0.46 + roof, 0.26, -0.46 + roof, 0.58, -0.02)
    pen.poly(_GLASS, -0.48, -0.02, -0.32, -0.36 + roof, -0.08, -0.36 + roof, -0.08, -0.02)
    pen.poly(_GLASS, 0.02, -0.02, 0.02, -0.36 + roof, 0.2, -0.36 + roof, 0.44, -0.02)
    pen.poly(paint.body, -0.96, 0.02, -0.85, -0.07, 0.6, -0.07, 0.94, 0.08, 0.98, 0.36, -0.98, 0.36)
    pen.line(paint.shade, 0.04, -0.03, -0.02, -0.03, 0.32)
    pen.box(paint.mark, 0.04, 0.06, 0.16, 0.1)
    pen.disc(_LAMP, 0.9, 0.15, 0.08)
    pen.box((200, 40, 40), -0.98, 0.04, -0.9, 0.18)
    for x in (-0.55, 0.55):
        _wheel(pen, x, 0.38, 0.23)


def draw_truck(pen: Pen, paint: Paint, rng: Random) -> None:
    top = between(rng, -0.72, -0.58)
    pen.box(INK, -0.95, 0.3, 0.9, 0.42)
    pen.box(paint.body, -0.98, top, 0.32, 0.32)
    for x in (-0.65, -0.33, -0.01):
        pen.line(paint.shade, 0.05, x, top + 0.06, x, 0.28)
    # A gap, then the lower cab: no bus or car has that step.
    pen.poly(paint.body, 0.42, -0.32, 0.74, -0.32, 0.88, 0.0, 0.98, 0.06, 0.98, 0.42, 0.42, 0.42)
    pen.poly(_GLASS, 0.52, -0.22, 0.7, -0.22, 0.8, 0.02, 0.52, 0.02)
    pen.disc(_LAMP, 0.92, 0.2, 0.07)
    for x in (-0.7, -0.26, 0.66):
        _wheel(pen, x, 0.46, 0.21)


def draw_train(pen: Pen, paint: Paint, rng: Random) -> None:
    for x, y, radius in ((0.4, -0.82, 0.14), (0.16, -0.9, 0.12), (-0.06, -0.94, 0.09)):
        pen.disc(CHALK, x + between(rng, -0.05, 0.05), y, radius)
    pen.line(_STEEL, 0.08, -1.0, 0.84, 1.0, 0.84)
    pen.poly(paint.shade, 0.42, -0.2, 0.38, -0.54, 0.32, -0.64, 0.72, -0.64, 0.66, -0.54, 0.62, -0.2)
    pen.disc(paint.shade, 0.08, -0.28, 0.14)
    pen.box(paint.body, -0.4, -0.26, 0.84, 0.3)
    pen.disc(paint.body, 0.82, 0.02, 0.26)
    for x in (-0.06, 0.3):
        pen.line(paint.shade, 0.06, x, -0.26, x, 0.3)
    pen.box(paint.body, -0.92, -0.52, -0.34, 0.42)
    pen.box(_GLASS, -0.78, -0.38, -0.5, -0.04)
    pen.box(paint.shade, -1.0, -0.64, -0.26, -0.5)
    pen.box(INK, -0.92, 0.3, 0.82, 0.44)
    pen.poly(paint.mark, 0.8, 0.32, 1.0, 0.78, 0.66, 0.78)
    for x, radius in ((-0.68, 0.26), (-0.16, 0.26), (0.26, 0.18), (0.6, 0.18)):
        _wheel(pen, x, 0.8 - radius, radius)
    pen.line(CHALK, 0.06, -0.68, 0.54, -0.16, 0.54, 0.26, 0.62)
    pen.disc(_LAMP, 0.98, -0.1, 0.08)


def draw_skateboard(pen: Pen, paint: Paint, rng: Random) -> None:
    kick = between(rng, 0.2, 0.3)
    for x in (-0.52, 0.52):
        pen.poly(_STEEL, x - 0.12, 0.08, x + 0.12, 0.08, x + 0.05, 0.26, x - 0.05, 0.26)
        _wheel(pen, x, 0.3, 0.15)
    # Thin, with both ends bent up, and grip tape along the top.
    top = (-1.0, -kick, -0.92, -kick - 0.1, -0.66, -0.09, 0.66, -0.09, 0.92, -kick - 0.1, 1.0, -kick)
    pen.poly(paint.body, *top, 0.84, -0.02, 0.7, 0.12, -0.7, 0.12, -0.84, -0.02)
    pen.line(paint.mark, 0.07, -0.92, -kick - 0.06, -0.66, -0.07, 0.66, -0.07, 0.92, -kick - 0.06)


def draw_bottle(pen: Pen, paint: Paint, rng: Random) -> None:
    neck = between(rng, 0.1, 0.14)
    pen.poly(
        paint.body, -neck, -0.85, neck, -0.85, neck, -0.42, 0.34, -0.14, 0.34, 0.88, 0.28, 0.97,
        -0.28, 0.97, -0.34, 0.88, -0.34, -0.14, -neck, -0.42,
    )  # fmt: skip
    pen.box(paint.mark, -neck - 0.04, -0.98, neck + 0.04, -0.8)
    pen.box(CHALK, -0.34, 0.1, 0.34, 0.62)
    pen.box(paint.shade, -0.34, 0.28, 0.34, 0.44)
    pen.line(paint.tint, 0.07, -0.2, -0.12, -0.2, 0.06)
    pen.line(paint.tint, 0.07, -0.2, 0.68, -0.2, 0.86)


def draw_chair(pen: Pen, paint: Paint, rng: Random) -> None:
    lean = between(rng, 0.0, 0.12)
    for x, foot in ((-0.22, 0.72), (0.56, 0.76)):
        pen.line(paint.shade, 0.1, x, 0.15, x, foot)
    for x in (-0.5, 0.0):
        pen.line(paint.body, 0.12, x - lean + 0.06, -0.95, x, 0.15)
    for y in (-0.86, -0.58, -0.3):
        slant = lean * y
        pen.line(paint.body, 0.13, -0.52 + slant, y, 0.06 + slant, y)
    pen.poly(paint.body, -0.58, 0.06, 0.38, 0.06, 0.66, 0.26, -0.34, 0.26)
    pen.poly(paint.shade, -0.34, 0.26, 0.66, 0.26, 0.66, 0.36, -0.34, 0.36)
    for x, foot in ((-0.5, 0.88), (-0.3, 0.97), (0.6, 0.97)):
        pen.line(paint.body, 0.11, x, 0.2, x, foot)


def draw_diningtable(pen: Pen, paint: Paint, rng: Random) -> None:
    deep = between(rng, 0.3, 0.4)
    for x in (-0.5, 0.5):
        pen.line(paint.shade, 0.1, x, -0.1, x, 0.62)
    pen.poly(paint.body, -0.62, -deep, 0.62, -deep, 1.0, 0.14, -1.0, 0.14)
    pen.box(paint.shade, -1.0, 0.13, 1.0, 0.27)
    for x in (-0.88, 0.88):
        pen.line(paint.body, 0.14, x, 0.26, x, 0.9)
    for x in (-0.45, 0.45):
        pen.oval(CHALK, x, -0.06, 0.28, 0.1)
        pen.oval(_STEEL, x, -0.06, 0.16, 0.055)
    pen.poly(_GLASS, -0.1, -0.6, 0.1, -0.6, 0.04, -0.3, -0.04, -0.3)
    pen.line(_GLASS, 0.05, 0, -0.3, 0, -0.14)
    pen.oval(_GLASS, 0, -0.12, 0.09, 0.035)


def draw_pottedplant(pen: Pen, paint: Paint, rng: Random) -> None:
    for angle, length in ((-1.25, 0.85), (1.25, 0.85), (-0.7, 1.05), (0.7, 1.05), (0.0, 1.15)):
        bend = angle + between(rng, -0.1, 0.1)
        u, v = math.sin(bend), -math.cos(bend)
        x, y = u * length, 0.3 + v * length
        pen.poly(
            paint.body if abs(angle) != 0.7 else paint.shade, 0, 0.34,
            x * 0.55 - v * 0.17, 0.3 + (y - 0.3) * 0.55 + u * 0.17, x, y,
            x * 0.55 + v * 0.17, 0.3 + (y - 0.3) * 0.55 - u * 0.17,
        )  # fmt: skip
        pen.line(paint.tint, 0.04, 0, 0.3, x * 0.85, 0.3 + (y - 0.3) * 0.85)
    pen.poly(paint.shade, -0.36, 0.36, 0.36, 0.36, 0.26, 0.97, -0.26, 0.97)
    pen.box(paint.body, -0.44, 0.28, 0.44, 0.46)


def draw_sofa(pen: Pen, paint: Paint, rng: Random) -> None:
    back = between(rng, -0.56, -0.44)
    for x in (-0.8, 0.8):
        pen.box(INK, x - 0.07, 0.55, x + 0.07, 0.74)
    pen.poly(paint.body, -0.76, 0.2, -0.76, back + 0.1, -0.66, back, 0.66, back, 0.76, back + 0.1, 0.76, 0.2)
    pen.line(paint.shade, 0.05, 0, back + 0.04, 0, 0.1)
    for x in (-0.36, 0.36):
        pen.poly(
            paint.tint, x - 0.36, 0.14, x - 0.3, 0.06, x + 0.3, 0.06, x + 0.36, 0.14, x + 0.35, 0.32,
            x - 0.35, 0.32,
        )  # fmt: skip
    pen.box(paint.shade, -0.8, 0.32, 0.8, 0.6)
    for side in (-1, 1):
        pen.box(paint.body, min(side * 0.7, side * 0.98), -0.06, max(side * 0.7, side * 0.98), 0.6)
        pen.disc(paint.body, side * 0.84, -0.06, 0.17)
        pen.disc(paint.shade, side * 0.84, -0.06, 0.09)


def draw_tvmonitor(pen: Pen, paint: Paint, rng: Random) -> None:
    spread = between(rng, 0.28, 0.46)
    for side in (-1, 1):
        pen.line(paint.mark if paint.mark == INK else _STEEL, 0.06, 0, -0.56, side * spread, -0.98)
        pen.disc(paint.body, side * spread, -0.96, 0.06)
    pen.poly(paint.shade, -0.1, 0.5, 0.1, 0.5, 0.16, 0.76, -0.16, 0.76)
    pen.box(paint.shade, -0.46, 0.74, 0.46, 0.88)
    pen.box(paint.body, -0.97, -0.6, 0.97, 0.6)
    pen.box((38, 52, 84), -0.82, -0.46, 0.82, 0.44)
    pen.poly((96, 128, 176), -0.6, -0.46, -0.2, -0.46, -0.66, 0.44, -0.82, 0.44, -0.82, -0.06)
    pen.poly((96, 128, 176), 0.0, -0.46, 0.14, -0.46, -0.32, 0.44, -0.46, 0.44)
    pen.disc(_LAMP, 0.82, 0.52, 0.05)


def draw_pizza(pen: Pen, paint: Paint, rng: Random) -> None:
    # A round with one slice taken out; the gap is what a ball or a wheel does not have.
    start = between(rng, -1.2, -0.8)
    arc = [start + 0.95 + k * (2 * math.pi - 0.95) / 16 for k in range(17)]
    for colour, radius in ((paint.shade, 0.96), (paint.body, 0.8)):
        pen.poly(colour, 0, 0, *(v for a in arc for v in (radius * math.cos(a), radius * math.sin(a))))
    for k in range(4):
        angle = start + 0.95 + (k + 1) * (2 * math.pi - 0.95) / 5
        pen.line(paint.shade, 0.04, 0, 0, 0.9 * math.cos(angle), 0.9 * math.sin(angle))
    topping = paint.mark if paint.mark == CHALK else (150, 30, 30)
    for k in range(5):
        angle = start + 0.95 + (k + 0.5) * (2 * math.pi - 0.95) / 5
        pen.disc(topping, 0.54 * math.cos(angle), 0.54 * math.sin(angle), 0.15)


def draw_umbrella(pen: Pen, paint: Paint, rng: Random) -> None:
    dome = between(rng, -0.96, -0.84)
    pen.line(_STEEL, 0.1, 0, -0.9, 0, 0.76, 0.06, 0.9, 0.2, 0.94, 0.32, 0.86, 0.34, 0.7)
    pen.poly(
        paint.body, -0.97, 0.06, -0.9, -0.34, -0.62, -0.68, -0.26, dome + 0.06, 0, dome,
        0.26, dome + 0.06, 0.62, -0.68, 0.9, -0.34, 0.97, 0.06, 0.64, -0.1, 0.33, 0.06, 0, -0.1,
        -0.33, 0.06, -0.64, -0.1,
    )  # fmt: skip
    for side in (-1, 1):
        pen.poly(paint.shade, 0, dome, side * 0.33, 0.06, side * 0.64, -0.1, side * 0.97, 0.06, side * 0.56, -0.5)
    pen.line(INK, 0.06, 0, dome, 0, -1.0)


def draw_candle(pen: Pen, paint: Paint, rng: Random) -> None:
    sway, top = between(rng, -0.12, 0.12), between(rng, -0.4, -0.25)
    pen.oval(paint.shade, 0, 0.84, 0.7, 0.15)
    pen.ring(paint.shade, 0.09, 0.76, 0.72, 0.16)
    pen.box(paint.body, -0.24, top, 0.24, 0.84)
    pen.oval(paint.tint, 0, top, 0.24, 0.08)
    pen.poly(paint.tint, -0.24, top, -0.1, top, -0.1, top + 0.3, -0.17, top + 0.42, -0.24, top + 0.34)
    pen.line(INK, 0.05, 0, top, 0, top - 0.16)
    pen.poly(_FLAME, sway, -1.0, 0.17, top - 0.26, 0.1, top - 0.06, -0.1, top - 0.06, -0.17, top - 0.26)
    pen.poly(_LAMP, sway * 0.5, -0.78, 0.08, top - 0.2, 0.0, top - 0.08, -0.08, top - 0.2)


THINGS: dict[str, Drawing] = {
    "aeroplane": draw_aeroplane,
    "bicycle": draw_bicycle,
    "boat": draw_boat,
    "bottle": draw_bottle,
    "bus": draw_bus,
    "candle": draw_candle,
    "car": draw_car,
    "chair": draw_chair,
    "diningtable": draw_diningtable,
    "motorbike": draw_motorbike,
    "pizza": draw_pizza,
    "pottedplant": draw_pottedplant,
    "skateboard": draw_skateboard,
    "sofa": draw_sofa,
    "train": draw_train,
    "truck": draw_truck,
    "tvmonitor": draw_tvmonitor,
    "umbrella": draw_umbrella,
}
