"""How a cell looks. Nothing else in the package formats a number of a report."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeGuard

from mithridate.report.document import Cell, Published, Report
from mithridate.statistics.estimate import Estimate
from mithridate.text import one_line

MISSING = "–"
LARGEST = 1e300  # beyond it, as for NaN and infinity, there is no number to show


class Shown(NamedTuple):
    """A cell as text: its value, for an estimate with an interval the ends of it, and what else there is to it."""

    value: str
    low: str = ""
    high: str = ""
    aside: str = ""

    def __str__(self) -> str:
        value = f"{self.value} [{self.low}, {self.high}]" if self.low else self.value
        return f"{value} ({self.aside})" if self.aside else value


def show(cell: Cell) -> Shown:
    """How `cell` looks: the type, the magnitude and whether it is whole decide, never the name of its column.

    A float up to 1 is a rate (0.936; two significant digits below 0.01, in an estimate below 0.001), a larger
    one a rank (27.41, 1,250.5), an integer a count (12,345); what is missing or not finite is a dash.
    """
    if isinstance(cell, Estimate):
        return _show_estimate(cell)
    if isinstance(cell, Published):
        return _show_published(cell)
    if isinstance(cell, bool):
        return Shown("yes" if cell else "no")
    if isinstance(cell, int):
        return Shown(f"{cell:,}")
    if isinstance(cell, float):
        return Shown(_fixed(cell, _decimals(cell, small=0.01)))
    return Shown(MISSING if cell is None else one_line(cell))


def is_number(cell: Cell) -> bool:
    """Whether `cell` belongs in a column that is aligned to the right."""
    return isinstance(cell, Estimate | Published | float | int) and not isinstance(cell, bool)


def has_intervals(report: Report) -> bool:
    """Whether a table of `report` shows an interval."""
    tables = (*report.tables, *(table for section in report.sections for table in section.tables))
    return any(show(cell).low for table in tables for row in table.rows for cell in row)


def show_tick(value: float) -> str:
    """A round number beside an axis."""
    return f"{value:,.6g}".replace("-", "−")


def show_short(value: float | None) -> str:
    """A number in a narrow place: a rate with two decimals, what is larger with three digits."""
    if not _finite(value):
        return MISSING
    size = abs(value)
    return f"{value:z,.{2 if size <= 1 else 1 if size < 100 else 0}f}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share in per cent inside a sentence: 97 %, 4.2 %, 0.031 %."""
    if not _finite(share):
        return MISSING
    size = abs(100 * share)
    number = _fixed(100 * share, 0 if size >= 9.95 else 1 if size >= 0.1 else _decimals(size, small=0.1))
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} %"


def show_percent(share: float) -> str:
    """A round share in a sentence: 0.5 %, 2 %."""
    return f"{100 * share:.3g} %"


def show_p(p: float) -> str:
    """A p-value after what it belongs to."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def share(cell: Cell) -> float | None:
    """How long the bar of a rate is, 0 to 1; None for what is not a rate."""
    value = cell.value if isinstance(cell, Estimate) else cell
    return value if isinstance(value, float) and 0 <= value <= 1 else None


def _show_estimate(estimate: Estimate) -> Shown:
    value, low, high = estimate.value, estimate.low, estimate.high
    if not _finite(value):
        return Shown(MISSING)
    decimals = _decimals(value, small=0.001)
    shown = _fixed(value, decimals)
    if not _finite(low) and not _finite(high):
        return Shown(shown)
    if not _finite(low) or not _finite(high):
        return Shown(shown, _fixed(low, decimals), _fixed(high, decimals))
    # One digit less than the value will do, unless the rounded interval has no width or leaves the value out.
    for digits in range(max(decimals - 1, 0), decimals + 2):
        ends = _fixed(low, digits), _fixed(high, digits)
        if ends[0] != ends[1] and round(low, digits) <= round(value, decimals) <= round(high, digits):
            return Shown(shown, *ends)
    digits = max(decimals - 1, 0) if low == value == high else decimals
    return Shown(shown, _fixed(low, digits), _fixed(high, digits))


def _show_published(cell: Published) -> Shown:
    """The number; aside from it how much higher or lower ours is, and whether it lies in our interval."""
    shown = show(None if cell.published is None else float(cell.published)).value
    if not _finite(cell.published) or not _finite(cell.difference):
        return Shown(shown)
    decimals = _decimals(max(abs(cell.published), abs(cell.difference)), small=0.001)
    number = _fixed(cell.difference, decimals)
    aside = f"ours {number if number.startswith('-') else f'+{number}'}"
    inside = {None: "", True: ", inside", False: ", outside"}[cell.inside]
    return Shown(shown, aside=aside + inside)


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and abs(value) < LARGEST


def _decimals(value: float, *, small: float) -> int:
    """Digits after the point; a rate below `small` has two significant ones."""
    if not _finite(value):
        return 0
    size = abs(value)
    if size == 0 or small <= size <= 1:
        return 3
    if size < small:
        return min(1 - math.floor(math.log10(size)), 8)
    return 2 if size < 100 else 1


def _fixed(value: float | None, decimals: int) -> str:
    if not _finite(value):
        return MISSING
    if 0 < abs(value) < 1e-6 or abs(value) >= 1e12:
        return f"{value:.1e}"
    return f"{value:z,.{decimals}f}"
