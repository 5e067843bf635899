"""What a trigger is, and checks of its options."""

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import ImageColor

from mithridate.errors import AttackError
from mithridate.poisoning.placement import parse_place

Pixels = UInt8[np.ndarray, "h w 3"]


@runtime_checkable
class Trigger(Protocol):
    """A small frozen dataclass with fixed pixels."""

    kind: ClassVar[str]

    def stamp(self, image: Pixels, rng: np.random.Generator) -> Pixels:
        """The image with the trigger, the given one left alone. `rng` is drawn from only where the trigger says so:
        at a random place, or for fresh noise. Raises `AttackError` where the trigger does not fit."""
        ...


def refuse_other(name: str, value: str, options: Sequence[str]) -> None:
    if value not in options:
        raise AttackError(f"expected {name} to be one of {', '.join(options)}, got {value!r}")


def refuse_no_share(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value <= 1:
            raise AttackError(f"{name} must lie in (0, 1], got {value}")


def refuse_not_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise AttackError(f"{name} must be above 0, got {value}")


def refuse_below(low: int, **values: int) -> None:
    for name, value in values.items():
        if value < low:
            raise AttackError(f"{name} must be at least {low}, got {value}")


def refuse_bad_place(place: str, margin: float) -> None:
    fixed = parse_place(place)
    if margin < 0 or any(at < 0 for at in fixed or ()):
        raise AttackError(f"place and margin must not be negative, got place {place} and margin {margin}")


def parse_colour(name: str) -> tuple[int, int, int]:
    try:
        return ImageColor.getcolor(name, "RGB")[:3]  # type: ignore[return-value,index]
    except ValueError:
        raise AttackError(f"expected a colour such as white or #ff8800, got {name!r}") from None
