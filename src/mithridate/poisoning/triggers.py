"""Triggers: values that are stamped on images or put into captions, with the same pixels wherever they are used.

In text a trigger is `KIND:option=value,...`; several joined by `+` are stamped one over the other.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_type_hints
from urllib.parse import quote, unquote

import numpy as np

from mithridate.errors import AttackError
from mithridate.poisoning.overlays import Blended, Filter, Sig, Stripes, Triangles, Warp
from mithridate.poisoning.patches import FreshNoise, Patch, PixelPatch, Text
from mithridate.poisoning.placement import parse_number, show_number
from mithridate.poisoning.plan import Draft, Piece
from mithridate.poisoning.trigger import Pixels, Trigger, refuse_other


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
        refuse_other("place", self.place, ("begin", "end", "random"))
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
