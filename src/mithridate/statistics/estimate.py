"""A number with its interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval and the number of units it is over."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
