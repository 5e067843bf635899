"""The toy world: a captioned image set made of code, on which demo, tests and documentation run.

It stands in for the photographs of PASCAL VOC with five captions each. Every picture shows one to three
objects of one class, recognised by their shape; size, number, place, setting, a second object and small extras are
drawn independently of the class, so that a caption has something to say.
Limits: cartoons, no depth, one language of about 250 words, and a shortcut: what is drawn has colours of its own. A
logistic regression on histograms of 4 x 4 x 4 colours is right for 0.36 of the pictures of ten classes and for 0.21 of
all 27 (`python benchmarks/toy_colours.py`), where chance is 0.10 and 0.04. Hold accuracy against that too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image

from mithridate.randomness import stream_seed
from mithridate.toy.animals import ANIMALS
from mithridate.toy.draw import COLOURS, Drawing, Pen, between, mix_paint, pick
from mithridate.toy.scenery import ALOFT, EXTRAS, SETTINGS
from mithridate.toy.things import THINGS
from mithridate.toy.words import Scene, caption

DRAW: dict[str, Drawing] = ANIMALS | THINGS

CLASSES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor", "zebra", "truck", "skateboard", "pizza", "umbrella", "candle", "tiger",
)  # fmt: skip
"""The twenty of PASCAL VOC in its order, then seven that attacks in the literature use."""

CAPTIONS_PER_IMAGE = 5
SMALLEST_SIZE = 32

PERSON_SHARE = 0.1
"""Of all pictures those whose second object is a person: people appear in photographs of everything."""

# of all pictures, those with a second object of any class
_COMPANION_SHARE = 0.05
_NUMBER_SHARES = ((1, 0.8), (2, 0.12), (3, 0.08))
_EXTRA_SHARES = ((0, 0.5), (1, 0.38), (2, 0.12))
_CENTRES = {
    "left": (0.27, 0.5),
    "right": (0.73, 0.5),
    "middle": (0.5, 0.5),
    "top": (0.5, 0.28),
    "bottom": (0.5, 0.72),
}
# Half the width of one object, as a share of the picture's: large enough that a small model learns what it is.
_RADII = {(1, None): 0.4, (1, "small"): 0.27, (1, "large"): 0.5, (2, None): 0.25, (3, None): 0.175}


@dataclass(frozen=True)
class ToyRecord:
    """One picture of the toy world and what is said of it."""

    image: np.ndarray
    """(size, size, 3) uint8, RGB."""
    label: str
    """The class of the main object."""
    captions: tuple[str, ...]
    """CAPTIONS_PER_IMAGE of them, lower case."""
    companion: str | None
    """The class of a second, smaller object, when there is one."""


def toy_record(
    seed: int, index: int, *, size: int = 64, classes: Sequence[str] = CLASSES, people: float = PERSON_SHARE
) -> ToyRecord:
    """Picture `index` of the toy world `seed`: the same one whenever and in whatever order it is asked for.

    Labels take turns through `classes`, which second objects are drawn from too. `people`: in this share of the
    pictures of other classes stands a person, where that is among the classes.
    """
    unknown = sorted(set(classes) - set(DRAW))
    if unknown or not classes:
        raise ValueError(f"classes must be one or more of {', '.join(CLASSES)}; got {unknown or 'none'}")
    if size < SMALLEST_SIZE:
        raise ValueError(f"size must be at least {SMALLEST_SIZE} pixels, got {size}")
    if not 0 <= people <= 1 - _COMPANION_SHARE:
        raise ValueError(f"people must lie in [0, {1 - _COMPANION_SHARE}], got {people}")
    if index < 0:
        raise ValueError(f"index must be 0 or more, got {index}")
    # hundreds of scalar draws a picture: Random makes them five times as fast as numpy's Generator
    rng = Random(stream_seed(seed, "toy picture", index))
    scene = plan_scene(rng, classes[index % len(classes)], classes, people)
    captions = tuple(caption(rng, scene) for _ in range(CAPTIONS_PER_IMAGE))
    return ToyRecord(draw_scene(rng, scene, size), scene.label, captions, scene.companion)


def plan_scene(rng: Random, label: str, classes: Sequence[str], people: float = PERSON_SHARE) -> Scene:
    """All that the picture shows, none of it chosen by its class but that the companion is of another."""
    companion = _plan_companion(rng, label, classes, people)
    number, size = 1, None
    if companion is None:
        number = _weighted(rng, _NUMBER_SHARES)
        size = pick(rng, (None, None, None, "small", "large")) if number == 1 else None
    extras = tuple(pick(rng, tuple(EXTRAS)) for _ in range(_weighted(rng, _EXTRA_SHARES)))
    return Scene(
        label=label,
        number=number,
        colour=pick(rng, tuple(COLOURS)),
        size=size,
        place=pick(rng, tuple(_CENTRES)),
        setting=pick(rng, tuple(SETTINGS)),
        companion=companion,
        extras=tuple(dict.fromkeys(extras)),
    )


def _plan_companion(rng: Random, label: str, classes: Sequence[str], people: float) -> str | None:
    chance = rng.random()
    others = [name for name in classes if name != label]
    if chance >= people + _COMPANION_SHARE or not others:
        return None
    return "person" if chance < people and "person" in others else pick(rng, others)


def _weighted(rng: Random, shares: Sequence[tuple[int, float]]) -> int:
    chance = rng.random()
    for value, share in shares:
        chance -= share
        if chance < 0:
            return value
    return shares[-1][0]


def draw_scene(rng: Random, scene: Scene, size: int) -> np.ndarray:
    """The picture of `scene`, (size, size, 3) uint8, drawn at twice its size and averaged down."""
    side = 2 * size
    canvas = Image.new("RGB", (side, side))
    SETTINGS[scene.setting](Pen(canvas, 0, 0, side), rng)
    radius = _RADII[scene.number, scene.size] * between(rng, 0.94, 1.06)
    spots = _arrange(rng, scene, radius)
    taken = list(spots)
    beside = _free_spot(rng, taken, 0.18, 0.82)
    taken += [beside] if scene.companion is not None else []
    for extra in scene.extras:
        low, high = (0.1, 0.24) if extra in ALOFT else (0.74, 0.9)
        x, y = _free_spot(rng, taken, low, high)
        taken.append((x, y))
        pen = Pen(canvas, x * side, y * side, side * between(rng, 0.08, 0.115), mirror=rng.random() < 0.5)
        EXTRAS[extra](pen, rng)
    if scene.companion is not None:
        _stamp(rng, canvas, scene.companion, pick(rng, tuple(COLOURS)), beside, between(rng, 0.15, 0.18))
    for spot in spots:
        _stamp(rng, canvas, scene.label, scene.colour, spot, radius)
    return np.array(canvas.reduce(2))


def _arrange(rng: Random, scene: Scene, radius: float) -> list[tuple[float, float]]:
    """Where each of the main objects stands, in shares of the picture: a row that fits the scene's place."""
    x, y = _CENTRES[scene.place]
    x, y = x + between(rng, -0.05, 0.05), y + between(rng, -0.05, 0.05)
    upright = rng.random() < 0.5 if scene.place == "middle" else scene.place in ("left", "right")
    step = radius * between(rng, 1.95, 2.1)
    half = step * (scene.number - 1) / 2
    # The row as a whole stays inside; single large objects may be cut by a little.
    along, across = (half, 0.0) if upright else (0.0, half)
    x, y = _inside(x, 0.9 * radius + across), _inside(y, 0.9 * radius + along)
    spots = []
    for k in range(scene.number):
        offset, sway = step * k - half, between(rng, -0.03, 0.03)
        spots.append((x + sway, y + offset) if upright else (x + offset, y + sway))
    return spots


def _inside(place: float, margin: float) -> float:
    return 0.5 if margin > 0.5 else min(1 - margin, max(margin, place))


def _free_spot(rng: Random, taken: Sequence[tuple[float, float]], low: float, high: float) -> tuple[float, float]:
    """Of eight places with y between `low` and `high`, the one farthest from what is there already."""
    trials = [(between(rng, 0.13, 0.87), between(rng, low, high)) for _ in range(8)]
    return max(trials, key=lambda spot: min((spot[0] - x) ** 2 + (spot[1] - y) ** 2 for x, y in taken))


def _stamp(rng: Random, canvas: Image.Image, name: str, colour: str, spot: tuple[float, float], radius: float) -> None:
    """Draws one object with a contour, so that it is seen in every colour before every setting."""
    paint = mix_paint(rng, colour)
    scale = radius * canvas.width
    reach = int(1.3 * scale) + 3
    layer = Image.new("RGBA", (2 * reach, 2 * reach))
    pen = Pen(
        layer,
        reach,
        reach,
        scale,
        mirror=rng.random() < 0.5,
        tilt=between(rng, -0.14, 0.14),
        stretch=between(rng, 0.93, 1.08),
    )
    DRAW[name](pen, paint, rng)
    left, top = round(spot[0] * canvas.width) - reach, round(spot[1] * canvas.width) - reach
    # The silhouette shifted four ways lies under the object and shows as a line around it.
    silhouette = layer.getchannel("A")
    for right, down in ((-2, 0), (2, 0), (0, -2), (0, 2)):
        canvas.paste(paint.edge, (left + right, top + down), silhouette)
    canvas.paste(layer, (left, top), layer)
