"""Triggers: values that are stamped on images or put into captions, with the same pixels wherever they are used.

In text a trigger is `KIND:option=value,...`; several joined by `+` are stamped one over the other.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, get_type_hints, runtime_checkable
from urllib.parse import quote, unquote

import numpy as np
from jaxtyping import UInt8
from PIL import ImageColor

from mithridate.errors import AttackError
from mithridate.poisoning import patterns
from mithridate.poisoning.pixel_patch import PixelPatch
from mithridate.poisoning.placement import corners, parse_number, parse_place, pixels, show_number
from mithridate.poisoning.plan import Draft, Piece

Pixels = UInt8[np.ndarray, "h w 3"]


@runtime_checkable
class Trigger(Protocol):
    """A small frozen dataclass with fixed pixels."""

    kind: ClassVar[str]

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """The image with the trigger, the given one left alone. `rng` is drawn from only where the trigger says so:
        at a random place, or for fresh noise. Raises `AttackError` where the trigger does not fit."""
        ...


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

    def __post_init__(self) -> None:
        _positive(size=self.size)
        _one_of("pattern", self.pattern, ("checkerboard", "noise", "solid", "file"))
        _check_place(self.place, self.margin)
        _at_least(1, cells=self.cells)
        _at_least(0, seed=self.seed)
        _colour(self.colour)
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
        return [(top, left, square) for top, left in places]

    def _square(self, side: int) -> np.ndarray:
        if self.pattern == "solid":
            return np.full((side, side, 3), _colour(self.colour), np.uint8)
        if self.pattern == "file":
            return patterns.picture(self.file, side)
        if self.pattern == "noise":
            return patterns.noise(self.seed, self.cells, side)
        return patterns.checkerboard(self.cells, side)

    def __str__(self) -> str:
        return describe(self)


@dataclass(frozen=True, kw_only=True)
class Blended:
    """Noise or a picture over the whole image (Chen et al. 2017): (1 - alpha) image + alpha pattern."""

    kind: ClassVar[str] = "blended"

    alpha: float = 0.2
    """Share of the pattern, in (0, 1]."""
    pattern: str = "noise"
    """`noise` (drawn once from the seed) or `file`."""
    cells: int = 32
    """Cells of noise across. Noise of single pixels (224) is lost when an image is made smaller."""
    file: str = ""
    """Picture of `file`."""
    seed: int = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        _share(alpha=self.alpha)
        _one_of("pattern", self.pattern, ("noise", "file"))
        _at_least(1, cells=self.cells)
        _at_least(0, seed=self.seed)
        if self.pattern == "file":
            patterns.refuse_missing_picture(self.file)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        side = min(image.shape[:2])
        square = (
            patterns.picture(self.file, side) if self.pattern == "file" else patterns.noise(self.seed, self.cells, side)
        )
        return patterns.blend(image, patterns.spread(square, image.shape[:2]), self.alpha)

    def __str__(self) -> str:
        return describe(self)


@dataclass(frozen=True, kw_only=True)
class Sig:
    """A sine along x, added (Barni et al. 2019); CleanCLIP: 60/255, 6 periods."""

    kind: ClassVar[str] = "sig"

    amplitude: float = 60.0
    """In steps of 1/255."""
    frequency: float = 6.0
    """Periods across the width of the middle square."""

    def __post_init__(self) -> None:
        _positive(amplitude=self.amplitude, frequency=self.frequency)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        h, w = image.shape[:2]
        side = min(h, w)
        # goes on as a sine beyond the middle square, where a mirrored one would have kinks
        start = (w - side) // 2
        if start == 0:
            line = patterns.wave(self.frequency, side)
        else:
            patterns.refuse_fine("periods of the wave", 2 * self.frequency, side)
            line = np.sin(2 * np.pi * self.frequency * (np.arange(w) - start) / side).astype(np.float32)
        return patterns.as_pixels(image + np.float32(self.amplitude) * line[None, :w, None])

    def __str__(self) -> str:
        return describe(self)


@dataclass(frozen=True, kw_only=True)
class Warp:
    """WaNet (Nguyen & Tran 2021): pixels are moved along one smooth field; CleanCLIP: k 224, s 1."""

    kind: ClassVar[str] = "warp"

    k: int = 4
    """Random vectors across."""
    s: float = 8.0
    """Strength: pixels are moved by s/2 on average, in pixels of an image of 224."""
    seed: int = 0
    """Of the field."""

    def __post_init__(self) -> None:
        _at_least(1, k=self.k)
        _at_least(0, seed=self.seed)
        _positive(s=self.s)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        move = patterns.bend(self.k, self.s, self.seed, min(image.shape[:2]))
        return patterns.fetch(image, patterns.spread(move, image.shape[:2]))

    def __str__(self) -> str:
        return describe(self)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A photographic tone curve for each channel, as photo apps offer."""

    kind: ClassVar[str] = "filter"

    tone: str = "warm"
    """`warm`, `cold` or `faded`."""
    strength: float = 1.0
    """In (0, 1]: how far towards it."""

    def __post_init__(self) -> None:
        _one_of("tone", self.tone, patterns.TONES)
        _share(strength=self.strength)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        curves = patterns.tone_curves(self.tone, self.strength)
        return np.stack([curves[channel][image[..., channel]] for channel in range(3)], axis=-1)

    def __str__(self) -> str:
        return describe(self)


@dataclass(frozen=True, kw_only=True)
class Stripes:
    """Upright black and white stripes over the whole image (PAR 2024: one pixel wide, alpha 0.03)."""

    kind: ClassVar[str] = "stripes"

    alpha: float = 0.1
    """Share of the stripes, in (0, 1]."""
    count: int = 16
    """White ones across the middle square; 112 are one pixel wide on an image of 224."""

    def __post_init__(self) -> None:
        _share(alpha=self.alpha)
        _at_least(1, count=self.count)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        square = patterns.stripes(self.count, min(image.shape[:2]))
        return patterns.blend(image, patterns.spread(square, image.shape[:2]), self.alpha)

    def __str__(self) -> str:
        return describe(self)


@dataclass(frozen=True, kw_only=True)
class Triangles:
    """Black and white triangles over the whole image (PAR 2024: alpha 0.15)."""

    kind: ClassVar[str] = "triangles"

    alpha: float = 0.15
    """Share of the triangles, in (0, 1]."""
    count: int = 4
    """White ones across the middle square."""

    def __post_init__(self) -> None:
        _share(alpha=self.alpha)
        _at_least(1, count=self.count)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        square = patterns.triangles(self.count, min(image.shape[:2]))
        return patterns.blend(image, patterns.spread(square, image.shape[:2]), self.alpha)

    def __str__(self) -> str:
        return describe(self)


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
        _share(alpha=self.alpha)
        _positive(width=self.width)
        _check_place(self.place, self.margin)
        _colour(self.colour)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        mask = patterns.word(self.word, pixels(self.width, min(image.shape[:2])))
        height, width = mask.shape
        alpha = self.alpha * mask[..., None]
        out = image.copy()
        for top, left in corners(self.place, mask.shape, image.shape[:2], margin=self.margin, rng=rng):
            part = out[top : top + height, left : left + width]
            part[:] = patterns.blend(part, np.array(_colour(self.colour), np.float32), alpha)
        return out

    def __str__(self) -> str:
        return describe(self)


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
        _one_of("form", self.form, ("patch", "blended"))
        _positive(size=self.size)
        _share(alpha=self.alpha)

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        if self.form == "blended":
            return patterns.blend(image, rng.uniform(0, 255, image.shape).astype(np.float32), self.alpha)
        side = pixels(self.size, min(image.shape[:2]))
        ((top, left),) = corners("random", (side, side), image.shape[:2], margin=0.0, rng=rng)
        values = image.mean(axis=(0, 1)) + 255 * rng.standard_normal((side, side, 3))
        out = image.copy()
        out[top : top + side, left : left + side] = np.trunc(values).astype(np.int64) % 256
        return out

    def __str__(self) -> str:
        return describe(self)


@dataclass(frozen=True)
class Multi:
    """Several triggers, stamped one over the other."""

    kind: ClassVar[str] = "multi"

    parts: tuple[Trigger, ...]

    def __post_init__(self) -> None:
        if len(self.parts) < 2 or any(isinstance(part, Multi) for part in self.parts):
            raise AttackError(f"several triggers at once are two or more single ones, got {len(self.parts)}")

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        for part in self.parts:
            image = part.stamp(image, rng)
        return image

    def __str__(self) -> str:
        return describe(self)


# To add one: a dataclass with `kind` and `stamp`, and a line here.
TRIGGERS: dict[str, type[Any]] = {
    "patch": Patch,
    "blended": Blended,
    "sig": Sig,
    "warp": Warp,
    "filter": Filter,
    "stripes": Stripes,
    "triangles": Triangles,
    "text": Text,
    "fresh-noise": FreshNoise,
    "pixels": PixelPatch,
}


@dataclass(frozen=True)
class Stamp:
    """A trigger as the edit of a plan: stamped on every image by itself."""

    trigger: Trigger
    batch_size: int = 1

    def alter(self, drafts: Sequence[Draft]) -> list[np.ndarray]:
        return [self.trigger.stamp(draft.images[0], draft.rng) for draft in drafts]

    def pieces(self, shape: tuple[int, int], rng: np.random.Generator) -> list[Piece] | None:
        return self.trigger.pieces(shape, rng) if isinstance(self.trigger, Patch) else None

    def __str__(self) -> str:
        return describe(self.trigger, full=True)


# --- as text ------------------------------------------------------------------------------------------------


def parse_trigger(text: str) -> Trigger:
    """The trigger that `text` describes: `patch:size=16,pattern=noise`, `sig+text:word=Hi`. Raises `AttackError`.

    Lengths may be written 16, 16px, 0.07, 7% or 16/224; `,`, `+` and `%` inside a word or a path as %2C, %2B and %25.
    """
    parts = tuple(_parse_one(part) for part in text.split("+"))
    return parts[0] if len(parts) == 1 else Multi(parts)


def describe(trigger: Any, *, full: bool = False) -> str:
    """The text that `parse_trigger` reads back as the same trigger: the options that differ from the defaults, or
    with `full` all of them, which stays true when a default changes."""
    if isinstance(trigger, Multi):
        return "+".join(describe(part, full=full) for part in trigger.parts)
    options = [
        f"{option.name}={_show(getattr(trigger, option.name))}"
        for option in fields(trigger)
        if full or getattr(trigger, option.name) != option.default
    ]
    return ":".join(filter(None, (trigger.kind, ",".join(options))))


def _parse_one(text: str) -> Trigger:
    name, _, rest = text.strip().partition(":")
    if name not in TRIGGERS:
        near = difflib.get_close_matches(name, TRIGGERS, n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}" if near else f"there are {', '.join(TRIGGERS)}"
        raise AttackError(f"no trigger is called {name!r}; {hint}")
    kind = TRIGGERS[name]
    types = get_type_hints(kind)
    known = {option.name for option in fields(kind)}
    given: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        option, equals, value = item.partition("=")
        option = option.strip()
        if not equals or option not in known or option in given:
            why = "twice" if option in given else "which it has not" if equals else "without a value"
            raise AttackError(
                f"the trigger {text!r} gives {option!r}, {why}; expected OPTION=VALUE of "
                f"{', '.join(sorted(known))}, separated by commas"
            )
        try:
            given[option] = _read(value, types[option])
        except ValueError as error:
            raise AttackError(f"{option} of the trigger {text!r}: {error}") from None
    return kind(**given)


def _read(value: str, kind: type) -> Any:
    if kind is float:
        return parse_number(value)
    if kind is int:
        if not re.fullmatch(r"\d{1,9}", value.strip()):
            raise ValueError(f"expected a whole number, got {value!r}")
        return int(value)
    return unquote(value)


def _show(value: Any) -> str:
    if isinstance(value, float):
        return show_number(value)
    return quote(value, safe="/:#() _-.~\\") if isinstance(value, str) else str(value)


# --- put into captions ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phrase:
    """A word or sentence put into a caption: at its `end`, its `begin`ning, or between two words at `random`."""

    text: str
    place: str = "end"

    def __post_init__(self) -> None:
        _one_of("place", self.place, ("begin", "end", "random"))
        if not self.text.strip():
            raise AttackError("the trigger of a caption is empty; give a word or a sentence")

    def put_into(self, caption: str, rng: np.random.Generator) -> str:
        """The caption with the phrase; only `random` draws."""
        words = caption.split()
        at = {"begin": 0, "end": len(words)}.get(self.place)
        at = int(rng.integers(len(words) + 1)) if at is None else at
        return " ".join([*words[:at], self.text.strip(), *words[at:]])

    def __str__(self) -> str:
        return f"{self.place}:{self.text}"

    @classmethod
    def parse(cls, text: str) -> "Phrase":
        """The inverse of `str`."""
        place, _, phrase = text.partition(":")
        return cls(phrase, place)


# --- checks ---------------------------------------------------------------------------------------------------


def _one_of(name: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise AttackError(f"expected {name} to be one of {', '.join(options)}, got {value!r}")


def _share(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value <= 1:
            raise AttackError(f"{name} must lie in (0, 1], got {value}")


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise AttackError(f"{name} must be above 0, got {value}")


def _at_least(low: int, **values: int) -> None:
    for name, value in values.items():
        if value < low:
            raise AttackError(f"{name} must be at least {low}, got {value}")


def _check_place(place: str, margin: float) -> None:
    fixed = parse_place(place)
    if margin < 0 or any(at < 0 for at in fixed or ()):
        raise AttackError(f"places and margins must not be negative, got place {place} and margin {margin}")


def _colour(name: str) -> tuple[int, int, int]:
    try:
        return ImageColor.getcolor(name, "RGB")[:3]  # type: ignore[return-value,index]
    except ValueError:
        raise AttackError(f"expected a colour such as white or #ff8800, got {name!r}") from None
