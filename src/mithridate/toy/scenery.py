"""What surrounds the objects of the toy world: settings that fill the picture, extras that stand about.

Both are drawn independently of the class, so neither tells what the main object is.
"""

from collections.abc import Callable
from random import Random

from mithridate.toy.draw import CHALK, COLOURS, INK, Colour, Pen, Real, between, mix, pick, vary

Scenery = Callable[[Pen, Random], None]
"""A setting draws in x and y from 0 to 1 over the whole picture, an extra in -1 to 1 like any object."""


def _sky(pen: Pen, rng: Random, top: Colour, bottom: Colour, horizon: Real) -> None:
    top, bottom = vary(rng, top, 20), vary(rng, bottom, 20)
    for k in range(4):
        pen.box(mix(top, bottom, k / 3), 0, horizon * k / 4, 1, horizon * (k + 1) / 4 + 0.01)


def _hill(pen: Pen, colour: Colour, left: Real, peak: Real, right: Real, top: Real, foot: Real) -> None:
    pen.poly(colour, left, foot, peak, top, right, foot)


def meadow(pen: Pen, rng: Random) -> None:
    horizon = between(rng, 0.42, 0.58)
    _sky(pen, rng, (110, 176, 240), (200, 228, 250), horizon)
    grass = vary(rng, (112, 190, 84), 22)
    pen.box(grass, 0, horizon, 1, 1)
    blade = mix(grass, (30, 90, 30), 0.45)
    for _ in range(14):
        x, y = rng.random(), between(rng, horizon + 0.04, 0.98)
        pen.poly(blade, x - 0.015, y, x, y - 0.06, x + 0.015, y)


def beach(pen: Pen, rng: Random) -> None:
    horizon, shore = between(rng, 0.24, 0.34), between(rng, 0.46, 0.58)
    _sky(pen, rng, (120, 200, 245), (216, 238, 248), horizon)
    pen.box(vary(rng, (40, 150, 190), 20), 0, horizon, 1, shore + 0.1)
    sand = vary(rng, (240, 222, 168), 14)
    slope = between(rng, -0.06, 0.06)
    pen.poly(CHALK, 0, shore - slope - 0.025, 1, shore + slope - 0.025, 1, 1, 0, 1)
    pen.poly(sand, 0, shore - slope, 1, shore + slope, 1, 1, 0, 1)
    for _ in range(8):
        pen.disc(mix(sand, (150, 120, 70), 0.4), rng.random(), between(rng, shore + 0.1, 1), 0.009)


def street(pen: Pen, rng: Random) -> None:
    _sky(pen, rng, (170, 186, 204), (206, 214, 222), 0.6)
    kerb, x = between(rng, 0.56, 0.66), between(rng, -0.15, 0.0)
    while x < 1:
        wide, roof = between(rng, 0.2, 0.32), between(rng, 0.12, 0.32)
        wall = vary(rng, pick(rng, ((176, 112, 92), (198, 180, 150), (150, 156, 170))), 18)
        pen.box(wall, x, roof, x + wide - 0.015, kerb)
        for row in (roof + 0.05, roof + 0.17):
            for column in (x + 0.04, x + wide * 0.55):
                pen.box((70, 84, 104), column, row, column + 0.05, row + 0.07)
        x += wide
    pen.box((190, 190, 186), 0, kerb, 1, kerb + 0.06)
    pen.box(vary(rng, (98, 98, 104), 14), 0, kerb + 0.06, 1, 1)
    for k in range(3):
        pen.box(CHALK, 0.08 + 0.34 * k, 0.83, 0.26 + 0.34 * k, 0.86)


def snow(pen: Pen, rng: Random) -> None:
    horizon = between(rng, 0.4, 0.55)
    _sky(pen, rng, (150, 168, 200), (196, 206, 224), 0.75)
    drift = between(rng, -0.08, 0.08)
    white = vary(rng, (234, 240, 250), 8)
    pen.poly(
        mix(white, (120, 140, 190), 0.25), 0, horizon + drift, 0.6, horizon - 0.05, 1, horizon - drift,
        1, 1, 0, 1,
    )  # fmt: skip
    pen.poly(white, 0, horizon + 0.2, 0.45, horizon + 0.1 + drift, 1, horizon + 0.22, 1, 1, 0, 1)
    for _ in range(22):
        pen.disc((255, 255, 255), rng.random(), rng.random(), 0.014)


def sea(pen: Pen, rng: Random) -> None:
    horizon = between(rng, 0.14, 0.26)
    _sky(pen, rng, (150, 206, 240), (222, 238, 246), horizon)
    water = vary(rng, (30, 96, 176), 22)
    pen.box(water, 0, horizon, 1, 1)
    crest = mix(water, CHALK, 0.45)
    for row in range(5):
        y, x = horizon + 0.1 + 0.15 * row, between(rng, -0.2, 0.0)
        for k in range(4):
            u = x + 0.33 * k
            pen.line(crest, 0.018, u, y, u + 0.07, y - 0.035, u + 0.14, y, u + 0.21, y - 0.035)


def night(pen: Pen, rng: Random) -> None:
    _sky(pen, rng, (24, 26, 74), (66, 60, 122), 1)
    for _ in range(20):
        pen.disc((250, 244, 200), rng.random(), between(rng, 0, 0.85), pick(rng, (0.007, 0.012)))
    x, y = between(rng, 0.1, 0.9), between(rng, 0.08, 0.16)
    pen.disc((244, 240, 210), x, y, 0.075)
    pen.disc((32, 33, 84), x + 0.035, y - 0.02, 0.065)
    pen.box((26, 38, 46), 0, between(rng, 0.86, 0.92), 1, 1)


def room(pen: Pen, rng: Random) -> None:
    floor = between(rng, 0.66, 0.78)
    wall = vary(rng, pick(rng, ((236, 214, 180), (206, 196, 222), (228, 190, 182), (196, 214, 196))), 14)
    pen.box(wall, 0, 0, 1, floor)
    stripe = mix(wall, CHALK, 0.4)
    for k in range(7):
        pen.box(stripe, 0.04 + 0.15 * k, 0, 0.09 + 0.15 * k, floor)
    wood = vary(rng, (164, 110, 64), 16)
    pen.box(wood, 0, floor, 1, 1)
    for k in range(5):
        pen.line(mix(wood, INK, 0.35), 0.012, 0.1 + 0.2 * k, floor, -0.05 + 0.275 * k, 1)
    pen.box(CHALK, 0, floor - 0.035, 1, floor)
    x = between(rng, 0.05, 0.7)
    pen.box((250, 250, 246), x, 0.08, x + 0.25, 0.36)
    for u in (0.02, 0.135):
        for v in (0.1, 0.23):
            pen.box((160, 206, 240), x + u, v, x + u + 0.095, v + 0.11)


def desert(pen: Pen, rng: Random) -> None:
    horizon = between(rng, 0.4, 0.55)
    _sky(pen, rng, (250, 190, 120), (252, 226, 170), horizon)
    sand = vary(rng, (222, 152, 76), 16)
    pen.box(sand, 0, horizon, 1, 1)
    peak = between(rng, 0.2, 0.8)
    _hill(pen, mix(sand, INK, 0.15), peak - 0.6, peak, peak + 0.6, horizon - 0.14, horizon + 0.06)
    _hill(pen, mix(sand, CHALK, 0.25), -0.3, 1 - peak, 1.3, horizon + 0.08, horizon + 0.3)
    x, y = pick(rng, (0.08, 0.9)), horizon + 0.14
    cactus = vary(rng, (60, 120, 70))
    pen.line(cactus, 0.05, x, y, x, y - 0.28)
    pen.line(cactus, 0.035, x - 0.07, y - 0.2, x - 0.07, y - 0.12, x + 0.07, y - 0.12, x + 0.07, y - 0.22)


def forest(pen: Pen, rng: Random) -> None:
    dark = vary(rng, (34, 78, 48), 14)
    pen.box(dark, 0, 0, 1, 0.75)
    x = between(rng, -0.05, 0.06)
    while x < 1:
        wide = between(rng, 0.05, 0.09)
        pen.box(vary(rng, (88, 62, 44), 12), x, 0, x + wide, between(rng, 0.66, 0.76))
        x += wide + between(rng, 0.08, 0.16)
    pen.box(vary(rng, (70, 96, 50), 12), 0, 0.7, 1, 1)
    for _ in range(9):
        pen.disc(vary(rng, (46, 116, 60), 22), rng.random(), between(rng, 0.0, 0.1), 0.11)


def mountains(pen: Pen, rng: Random) -> None:
    foot = between(rng, 0.66, 0.78)
    _sky(pen, rng, (120, 160, 220), (226, 214, 226), foot)
    rock = vary(rng, (124, 120, 136), 16)
    for x, colour in ((between(rng, 0.55, 0.9), mix(rock, INK, 0.2)), (between(rng, 0.1, 0.45), rock)):
        top = between(rng, 0.12, 0.28)
        _hill(pen, colour, x - 0.5, x, x + 0.5, top, foot)
        cap = (foot - top) * 0.3
        half = 0.5 * cap / (foot - top)
        pen.poly(
            CHALK, x, top, x - half, top + cap, x - half * 0.3, top + cap * 0.7,
            x + half * 0.2, top + cap, x + half * 0.5, top + cap * 0.75, x + half, top + cap,
        )  # fmt: skip
    pen.box(vary(rng, (104, 132, 92), 16), 0, foot, 1, 1)


def draw_sun(pen: Pen, rng: Random) -> None:
    for k in range(4):
        u, v = ((1, 0), (0.7, 0.7), (0, 1), (-0.7, 0.7))[k]
        pen.line((255, 190, 40), 0.16, -u, -v, u, v)
    pen.disc(vary(rng, (255, 214, 60)), 0, 0, 0.66)


def draw_cloud(pen: Pen, rng: Random) -> None:
    white = vary(rng, (240, 243, 248), 8)
    for x, y, radius in ((-0.6, 0.15, 0.38), (-0.1, -0.15, 0.5), (0.5, 0.1, 0.42)):
        pen.disc(mix(white, INK, 0.2), x, y + 0.07, radius)
    for x, y, radius in ((-0.6, 0.1, 0.38), (-0.1, -0.2, 0.5), (0.5, 0.05, 0.42), (0, 0.15, 0.36)):
        pen.disc(white, x, y, radius)


def draw_balloon(pen: Pen, rng: Random) -> None:
    pen.line(INK, 0.07, 0, 0.3, 0.12, 0.65, -0.05, 1)
    colour = vary(rng, COLOURS[pick(rng, ("red", "yellow", "blue", "pink", "green"))])
    pen.oval(INK, 0, -0.3, 0.58, 0.7)
    pen.oval(colour, 0, -0.3, 0.5, 0.62)
    pen.oval(mix(colour, CHALK, 0.7), -0.18, -0.52, 0.1, 0.16)


def draw_ball(pen: Pen, rng: Random) -> None:
    colour = vary(rng, COLOURS[pick(rng, ("red", "orange", "blue", "green", "pink"))])
    pen.disc(INK, 0, 0.2, 0.8)
    pen.disc(colour, 0, 0.2, 0.7)
    pen.poly(CHALK, -0.68, 0.08, 0.68, -0.02, 0.7, 0.3, -0.68, 0.38)


def draw_flower(pen: Pen, rng: Random) -> None:
    pen.line((44, 130, 50), 0.16, 0, 0, 0, 1)
    pen.poly((44, 130, 50), 0, 0.8, 0.5, 0.4, 0.3, 0.8)
    petal = vary(rng, COLOURS[pick(rng, ("red", "yellow", "purple", "pink", "white"))])
    for x, y in ((0, -0.72), (0.42, -0.42), (0.26, 0.04), (-0.26, 0.04), (-0.42, -0.42)):
        pen.disc(petal, x, y, 0.3)
    pen.disc((240, 180, 40), 0, -0.33, 0.25)


def draw_stone(pen: Pen, rng: Random) -> None:
    grey = vary(rng, (136, 136, 142), 16)
    pen.poly(INK, -0.98, 0.88, -0.8, 0.1, -0.3, -0.32, 0.36, -0.2, 0.86, 0.3, 0.98, 0.88)
    pen.poly(grey, -0.86, 0.78, -0.7, 0.15, -0.26, -0.2, 0.32, -0.08, 0.75, 0.35, 0.86, 0.78)
    pen.poly(mix(grey, CHALK, 0.4), -0.6, 0.15, -0.24, -0.12, 0.25, -0.02, 0.0, 0.25)


def draw_fence(pen: Pen, rng: Random) -> None:
    wood = vary(rng, pick(rng, ((232, 226, 214), (170, 120, 76))))
    for y in (0.05, 0.5):
        pen.line(INK, 0.26, -1, y, 1, y)
        pen.line(wood, 0.14, -1, y, 1, y)
    for x in (-0.72, -0.24, 0.24, 0.72):
        pen.poly(INK, x - 0.2, 0.9, x - 0.2, -0.4, x, -0.72, x + 0.2, -0.4, x + 0.2, 0.9)
        pen.poly(wood, x - 0.12, 0.84, x - 0.12, -0.36, x, -0.56, x + 0.12, -0.36, x + 0.12, 0.84)


def draw_tree(pen: Pen, rng: Random) -> None:
    pen.box((104, 68, 40), -0.15, 0.1, 0.15, 1)
    leaf = vary(rng, (46, 128, 52), 20)
    for x, y, radius in ((-0.38, -0.05, 0.46), (0.38, -0.05, 0.46), (0, -0.5, 0.5)):
        pen.disc(mix(leaf, INK, 0.5), x, y, radius)
    for x, y, radius in ((-0.38, -0.05, 0.38), (0.38, -0.05, 0.38), (0, -0.5, 0.42), (0, -0.1, 0.4)):
        pen.disc(leaf, x, y, radius)


def draw_box(pen: Pen, rng: Random) -> None:
    card = vary(rng, (206, 160, 104))
    pen.box(INK, -0.88, -0.48, 0.88, 0.92)
    pen.box(card, -0.78, -0.38, 0.78, 0.82)
    pen.line(mix(card, INK, 0.5), 0.1, -0.78, -0.38, 0.78, 0.82)
    pen.line(mix(card, INK, 0.5), 0.1, 0.78, -0.38, -0.78, 0.82)


def draw_mushroom(pen: Pen, rng: Random) -> None:
    pen.poly(INK, -0.3, 0.0, 0.3, 0.0, 0.4, 0.95, -0.4, 0.95)
    pen.poly((244, 232, 206), -0.2, 0.0, 0.2, 0.0, 0.28, 0.85, -0.28, 0.85)
    pen.poly(INK, -0.98, 0.2, -0.8, -0.45, -0.35, -0.85, 0.35, -0.85, 0.8, -0.45, 0.98, 0.2)
    pen.poly(vary(rng, (206, 44, 40)), -0.84, 0.1, -0.7, -0.38, -0.3, -0.72, 0.3, -0.72, 0.7, -0.38, 0.84, 0.1)
    for x, y in ((-0.45, -0.15), (0.02, -0.45), (0.45, -0.12)):
        pen.disc(CHALK, x, y, 0.15)


SETTINGS: dict[str, Scenery] = {
    "meadow": meadow,
    "beach": beach,
    "street": street,
    "snow": snow,
    "sea": sea,
    "night": night,
    "room": room,
    "desert": desert,
    "forest": forest,
    "mountains": mountains,
}
ALOFT: dict[str, Scenery] = {"sun": draw_sun, "cloud": draw_cloud, "balloon": draw_balloon}
AGROUND: dict[str, Scenery] = {
    "ball": draw_ball,
    "flower": draw_flower,
    "stone": draw_stone,
    "fence": draw_fence,
    "tree": draw_tree,
    "box": draw_box,
    "mushroom": draw_mushroom,
}
EXTRAS: dict[str, Scenery] = ALOFT | AGROUND
