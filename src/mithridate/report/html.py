"""A report as one HTML file that asks nothing of anybody: no request, no script, readable offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import count
from math import isfinite
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from mithridate.report.document import Cell, Effect, Figure, Headline, Hit, JudgedClaim, Report, Section, Table
from mithridate.report.figures import figure_svg
from mithridate.report.numbers import MISSING, Shown, has_intervals, is_number, share, show
from mithridate.text import one_line, visible_json

WIDE = 6
"""With more columns a table, or a matrix, takes the whole width of the page."""

VERDICTS = ("held", "refuted", "open", "not learned", "not measured")
BASELINES = ("chance", "random captions")

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
        judged=[
            (number, section.title, [_claim(claim) for claim in section.claims])
            for number, section in enumerate(report.sections, 1)
            if section.claims
        ],
        dots=any(claim.effects for section in report.sections for claim in section.claims),
        counts=_counts(report),
        retrievals=retrieved(report),
        triggered=triggered(report),
        provenance=[(key, _record(value), not _is_plain(value)) for key, value in report.provenance.items()],
    )


def retrieved(report: Report) -> list[tuple[str, list[tuple[str, list[dict[str, Any]]]]]]:
    """Of each caption what each model finds, as `show_retrievals` shows it."""
    return [
        (each.query, [(model, [_hit(hit) for hit in hits]) for model, hits in each.hits.items()])
        for each in report.retrievals
    ]


def triggered(report: Report) -> list[tuple[str, list[dict[str, Any]]]]:
    """By goal the images with its trigger, as `show_triggered` shows them."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in report.triggered:
        taken = [(model, name, name == each.wanted) for model, name in each.taken.items()]
        groups.setdefault(each.goal, []).append(
            {"source": _source(each.thumbnail), "label": each.label, "taken": taken}
        )
    return list(groups.items())


def _counts(report: Report) -> list[tuple[str, int]]:
    """How many claims came out how."""
    verdicts = [claim.verdict for section in report.sections for claim in section.claims]
    return [(name, verdicts.count(name)) for name in VERDICTS if name in verdicts]


def _claim(claim: JudgedClaim) -> dict[str, Any]:
    # the badge has said the verdict already
    explanation = claim.explanation.replace(f"{claim.verdict.capitalize()}: ", "", 1)
    return {
        "verdict": claim.verdict,
        "claim": claim.claim,
        "plot": _dots(claim.effects),
        "explanation": explanation,
        "source": claim.source,
    }


def _dots(effects: Sequence[Effect]) -> Markup:
    """Differences with their intervals on one line about 0, from -1 to 1, or wide enough for what is larger."""
    kept = [e for e in effects if all(map(isfinite, (e.value, e.low, e.high)))]
    if not kept:
        return Markup("")
    reach = max(1.0, *(abs(end) for e in kept for end in (e.value, e.low, e.high)))
    step = min(4.0, 20.0 / len(kept))
    parts = [Markup('<line class="zero" x1="100" x2="100" y1="0" y2="24"/>')]
    for number, e in enumerate(kept):
        y = 12 + step * (number - (len(kept) - 1) / 2)
        x, low, high = (round(100 + 96 * end / reach, 1) for end in (e.value, e.low, e.high))
        parts.append(Markup('<line class="ends" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(low, high, y, y))
        parts.append(Markup('<circle cx="{}" cy="{}" r="{}"/>').format(x, y, 3 if len(kept) < 6 else 2))
    spoken = "; ".join(f"{one_line(e.label)} {show(e.value)}".strip() for e in kept[:6])
    text = Markup('<svg class="dots" viewBox="0 0 200 24" preserveAspectRatio="none" role="img" aria-label="{}">')
    return text.format(spoken) + Markup("").join(parts) + Markup("</svg>")


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
    baseline: bool  # what no model did: chance, random captions


def _tile(headline: Headline) -> tuple[str, list[_Row]]:
    rows = headline.values.items()
    shown = [show(cell) for _, cell in rows]
    bars = [share(cell) for _, cell in rows]
    rates = all(bar is not None or text.value == MISSING for bar, text in zip(bars, shown))
    return headline.measure, [
        _Row(name, text, round(100 * bar, 2) if rates and bar is not None else None, name in BASELINES)
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
        "source": _source(hit.thumbnail),
        "alt": "; ".join(spoken),
        "labels": labels or MISSING,
        "similarity": similarity,
        "is_target": hit.is_target,
    }


def _source(thumbnail: str) -> str | None:
    """The address of a JPEG in base64; None where it is none."""
    return f"data:image/jpeg;base64,{thumbnail}" if _BASE64.fullmatch(thumbnail) else None


def _is_plain(value: Any) -> bool:
    return not isinstance(value, dict | list | tuple)


def _record(value: Any) -> str:
    """A value of the provenance as it is, to the last digit."""
    return one_line(value) if isinstance(value, str) else visible_json(value, indent=2)
