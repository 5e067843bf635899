"""Warnings in words: one template for each code of docs/warnings.md. Codes and values are made in `evaluation`."""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Any

from mithridate.evaluation.measurement import Warning as Premise
from mithridate.report.document import Warning
from mithridate.report.numbers import percent, show

# `{name}` is a value of the warning, as `show` shows it; `{name:percent}` a share in per cent.
SENTENCES: dict[str, str] = {}


class _Words(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        return percent(value) if format_spec == "percent" else str(show(value))


def worded(warnings: Iterable[Premise]) -> tuple[Warning, ...]:
    """The warnings as sentences. Raises `KeyError` for a code, or a value, that no template has."""
    return tuple(Warning(w.code, _Words().vformat(SENTENCES[w.code], (), w.values)) for w in warnings)
