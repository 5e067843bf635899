"""A difference between two models in words."""

from __future__ import annotations

from mithridate.report.numbers import show, show_p
from mithridate.statistics.differences import Difference, inside_noise


def sentence(difference: Difference) -> str:
    """`lower, significant: -0.120 [-0.19, -0.05], p = 0.002 after Holm`."""
    p = difference.p if difference.corrected is None else difference.corrected
    numbers = f"{show(difference.estimate)}, {show_p(p)}{' after Holm' if difference.corrected is not None else ''}"
    if inside_noise(difference):
        return f"not significant: {numbers}"
    return f"{'higher' if difference.value > 0 else 'lower'}, significant: {numbers}"
