"""A report as one HTML file that asks nothing of anybody: no request, no script, readable offline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from itertools import count
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from mithridate.report.document import Cell, Figure, Headline, Hit, Report, Section, Table
from mithridate.report.figures import figure_svg
from mithridate.report.numbers import MISSING, Shown, has_intervals, is_number, share, show
from mithridate.text import one_line, visible_json

WIDE = 6
"""With more columns a table, or a matrix, takes the whole width of the page."""

_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def to_html(report: Report) -> str:
    """`report` as a page, whole: style, figures and thumbnails are inside it."""
    template = environment().get_template("page.html.j2")
    numbers = count(1)
    return template.render(
        report=report,
        style=style(),
        groups=[(group, [_tile(each) for each in headlines]) for group, headlines in report.groups().items()],
        tables=[_table(table) for table in report.tables],
        has_intervals=has_intervals(report),
        figures=[_figure(figure, next(numbers)) for figure in report.figures],
        sections=[_section(section, numbers) for section in report.sections],
        claims=sum(len(section.claims) for section in report.sections),
        retrievals=[
            (
                retrieval.query,
                [(model, [_hit(hit) for hit in hits]) for model, hits in retrieval.hits.items()],
            )
            for retrieval in report.retrievals
        ],
        provenance=[(key, _record(value), not _is_plain(value)) for key, value in report.provenance.items()],
    )


def style() -> Markup:
    """The style sheet of every page."""
    return Markup(resources.files("mithridate.report").joinpath("templates/page.css").read_text("utf-8"))


@cache
def environment() -> jinja2.Environment:
    """What pages are rendered with: everything is escaped, and a name that is missing is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("mithridate.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["line"] = one_line
    made.filters["typeset"] = _typeset
    return made


def _typeset(shown: Shown) -> Markup:
    """A number with a true minus and, where there is an interval, a thin space inside it."""
    value, low, high, aside = (text.replace("-", "−") for text in shown)
    if shown.aside:
        return Markup('{} <span class="interval">{}</span>').format(value, aside)
    if not shown.low:
        return Markup("{}").format(value)
    return Markup('{} <span class="interval">[{},\u202f{}]</span>').format(value, low, high)


class _Row(NamedTuple):
    name: str
    shown: Shown
    bar: float | None  # per cent


def _tile(headline: Headline) -> tuple[str, list[_Row]]:
    rows = headline.values.items()
    shown = [show(cell) for _, cell in rows]
    bars = [share(cell) for _, cell in rows]
    rates = all(bar is not None or text.value == MISSING for bar, text in zip(bars, shown))
    return headline.measure, [
        _Row(name, text, round(100 * bar, 2) if rates and bar is not None else None)
        for (name, _), text, bar in zip(rows, shown, bars)
    ]


def _table(table: Table) -> dict[str, Any]:
    numeric = [any(is_number(row[i]) for row in table.rows) for i in range(len(table.columns))]
    return {
        "title": table.title,
        "note": table.note,
        "columns": list(zip(table.columns, numeric)),
        "wide": len(table.columns) > WIDE,
        "rows": [[(_cell(cell), right) for cell, right in zip(row, numeric)] for row in table.rows],
    }


def _figure(figure: Figure, number: int) -> dict[str, Any]:
    return {
        "title": figure.title,
        "note": figure.note,
        "svg": Markup(figure_svg(figure, prefix=f"figure-{number}")),
        "wide": figure.kind == "heat" and len(figure.ticks) > WIDE,
    }


def _section(section: Section, numbers: Iterator[int]) -> dict[str, Any]:
    return {
        "name": section.name,
        "title": section.title,
        "question": section.question,
        "claims": section.claims,
        "tables": [_table(table) for table in section.tables],
        "figures": [_figure(figure, next(numbers)) for figure in section.figures],
        "cells": None if section.cells is None else _table(section.cells),
        "commands": section.commands,
        "failures": section.failures,
    }


def _cell(cell: Cell) -> Markup | str:
    return _typeset(show(cell)) if is_number(cell) else show(cell).value


def _hit(hit: Hit) -> dict[str, Any]:
    labels = ", ".join(map(one_line, hit.labels))
    similarity = show(hit.similarity).value.replace("-", "−")
    spoken = [f"labels: {labels}" if labels else "no label", "target" if hit.is_target else "not a target"]
    return {
        "source": f"data:image/jpeg;base64,{hit.thumbnail}" if _BASE64.fullmatch(hit.thumbnail) else None,
        "alt": "; ".join(spoken),
        "labels": labels or MISSING,
        "similarity": similarity,
        "is_target": hit.is_target,
    }


def _is_plain(value: Any) -> bool:
    return not isinstance(value, dict | list | tuple)


def _record(value: Any) -> str:
    """A value of the provenance as it is, to the last digit."""
    return one_line(value) if isinstance(value, str) else visible_json(value, indent=2)
