"""A report as Markdown: what a pull request, a paper's appendix or a terminal pager shows."""

from __future__ import annotations

import re

from mithridate.report.document import Cell, Report, Section, Table
from mithridate.report.numbers import has_intervals, is_number, show
from mithridate.text import one_line, visible_json

# Of ASCII punctuation, what Markdown as GitHub reads it gives a meaning inside a line.
_ACTIVE = re.compile(r"([\\`*_\[\]|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Addresses become links without any mark-up.
_ADDRESS = re.compile(r"://|(?<=www)\.|(?<=mailto):", re.IGNORECASE)
_LINE_START = re.compile(r"^([#+=-]|\d+(?=[.)]))")


def to_markdown(report: Report) -> str:
    """`report` without its images: summary, warnings, tables, provenance."""
    parts = [f"# {escape(report.title)}"]
    if report.about:
        parts.append(escape(report.about))
    if report.summary:
        parts.append("\n".join(f"- {escape(line)}" for line in report.summary))
    if report.warnings:
        parts.append("## Warnings")
        parts.append("\n".join(f"- **{escape(w.code)}**: {escape(w.message)}" for w in report.warnings))
        parts.append("What each one means and what to do: docs/warnings.md.")
    if report.tables:
        parts.append("## Results")
        parts.extend(table_markdown(table) for table in report.tables)
    if has_intervals(report):
        parts.append("Square brackets hold 95 % intervals.")
    for section in report.sections:
        parts.extend(_section(section))
    if report.figures or report.retrievals or any(section.figures for section in report.sections):
        parts.append("Figures, and what is retrieved by each model, are in report.html.")
    if report.provenance:
        # A string inside JSON has no line break, so no caption can close the fence.
        parts.append(f"## Provenance\n\n```json\n{visible_json(report.provenance, indent=2)}\n```")
    return "\n\n".join(parts) + "\n"


def escape(text: object) -> str:
    """`text` on one line, shown by Markdown as it is: no mark-up, no HTML, no link, no image, no new cell."""
    line = re.sub("[&<>]", lambda found: _ENTITIES[found[0]], one_line(text))
    line = _ACTIVE.sub(r"\\\1", line)
    line = _ADDRESS.sub(lambda found: found[0].replace(":", "&#58;").replace(".", "&#46;"), line)
    return _LINE_START.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", line)


def _section(section: Section) -> list[str]:
    parts = [f"## {escape(section.title)}"]
    if section.question:
        parts.append(escape(section.question))
    for each in section.claims:
        source = f" ({escape(each.source)})" if each.source else ""
        parts.append(f"- **{escape(each.claim)}**{source}\n  {escape(each.explanation)}")
    parts.extend(table_markdown(table) for table in section.tables)
    if section.failures:
        lines = [f"- {escape(cell)}: {escape(reason)}" for cell, reason in section.failures.items()]
        parts.append("\n".join(["### What is missing, and why", "", *lines]))
    if section.commands:
        lines = [f"{command}  # {one_line(what)}" for what, command in section.commands.items()]
        parts.append("To make these numbers again:\n\n```\n" + "\n".join(map(one_line, lines)) + "\n```")
    return parts


def table_markdown(table: Table) -> str:
    """One table, with its title and its note."""
    parts = [f"### {escape(table.title)}"]
    if table.columns:
        numeric = [any(is_number(row[i]) for row in table.rows) for i in range(len(table.columns))]
        lines = [
            [escape(column) for column in table.columns],
            ["---:" if right else "---" for right in numeric],
            *([_cell(cell) for cell in row] for row in table.rows),
        ]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    if not table.rows:
        parts.append("No rows.")
    if table.note:
        parts.append(escape(table.note))
    return "\n\n".join(parts)


def _cell(cell: Cell) -> str:
    return escape(cell) if isinstance(cell, str) else str(show(cell))
