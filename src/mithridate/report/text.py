"""Text from strangers on its way to a page."""

from __future__ import annotations

from typing import Any

from mithridate.text import one_line, visible_json

__all__ = ["indented_json", "one_line"]


def indented_json(value: Any) -> str:
    """`value` to the last digit, for people to read; what is not visible is escaped."""
    return visible_json(value, indent=2)
