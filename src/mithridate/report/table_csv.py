"""A table as CSV, for programs: numbers to the last digit, the ends of an interval in columns of their own."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable

from mithridate.report.document import Cell, Published, Table
from mithridate.statistics.estimate import Estimate
from mithridate.text import one_line

_FORMULA = ("=", "+", "-", "@")

Read = Callable[[Cell], str]


def to_csv(table: Table) -> str:
    """`table` with one header line.

    An estimate fills `NAME`, `NAME low`, `NAME high`, a published number `NAME`, `NAME difference`, `NAME inside`
    (yes or no). What is missing is empty.
    """
    columns: list[tuple[str, int, Read]] = []
    for i, name in enumerate(table.columns):
        cells = [row[i] for row in table.rows]
        columns.append((name, i, _value))
        if any(isinstance(cell, Estimate) and cell.low is not None for cell in cells):
            columns += [(f"{name} low", i, _part("low")), (f"{name} high", i, _part("high"))]
        if any(isinstance(cell, Published) for cell in cells):
            columns += [(f"{name} difference", i, _part("difference")), (f"{name} inside", i, _part("inside"))]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_text(name) for name, _, _ in columns])
    writer.writerows([read(row[i]) for _, i, read in columns] for row in table.rows)
    return buffer.getvalue()


def _part(name: str) -> Read:
    return lambda cell: _value(getattr(cell, name, None))


def _text(cell: object) -> str:
    """Text that a spreadsheet takes for text: a cell that it would calculate begins with an apostrophe."""
    text = one_line(cell)
    return f"'{text}" if text[:1] in _FORMULA else text


def _value(cell: Cell) -> str:
    if isinstance(cell, Estimate):
        return _value(cell.value)
    if isinstance(cell, Published):
        return _value(cell.published)
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return repr(float(cell)) if math.isfinite(cell) else ""
    return "" if cell is None else _text(cell)
