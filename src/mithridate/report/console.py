"""A report in a terminal: its headline and its tables, as wide as the terminal is."""

from __future__ import annotations

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from mithridate.report.document import Report, Table
from mithridate.report.numbers import Shown, has_intervals, is_number, show
from mithridate.text import one_line

MAX_ROWS = 24  # a longer table says how many rows are left out, and where they are
NAME_WIDTH = 26
PADDING = 2
BRIEF, MOST_WARNINGS = 16, 4  # lines of what is printed in brief


def print_brief(report: Report, console: Console | None = None) -> None:
    """What a report says in twenty lines of 80 columns; all of it is on the page, or printed by `mithridate report`."""
    console = console or Console(highlight=False)
    console.width = min(80, console.width)
    lines: list[tuple[str, Text]] = [("", Text(one_line(report.title), style="bold"))]
    lines += [("• ", Text(one_line(line))) for line in report.summary]
    for section in report.sections:
        lines += [("• ", Text(one_line(f"{each.verdict}: {each.claim}", limit=78))) for each in section.claims]
        lines += [("! ", Text(one_line(f"{what}: {why}", limit=78))) for what, why in section.failures.items()]
    warnings = [Text(one_line(f"{each.code}: {each.message}", limit=78)) for each in report.warnings]
    room = BRIEF - min(len(warnings), MOST_WARNINGS)
    used = left = 0
    for mark, text in lines:
        used += -(-(len(mark) + cell_len(text.plain)) // (console.width - len(mark) - 1))
        if used > room:
            left += 1
            continue
        console.print(_hanging(mark, text) if mark else text)
    for text in warnings[:MOST_WARNINGS]:
        console.print(_hanging("! ", text))
    left += max(0, len(warnings) - MOST_WARNINGS)
    if left:
        console.print(Text(f"… and {left} more on the page", style="dim"))


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the headline, the warnings and every table; a table too wide is continued below itself."""
    console = console or Console(highlight=False)
    console.print(Text(one_line(report.title), style="bold"))
    for line in report.summary:
        console.print(_hanging("• ", one_line(line)))
    for warning in report.warnings:
        text = Text(one_line(warning.code), style="bold yellow").append(": ", style="yellow")
        console.print(_hanging("! ", text.append(one_line(warning.message), style="not bold default")))
    for group, headlines in report.groups().items():
        # one line a model, one column a measure
        models = list(dict.fromkeys(model for each in headlines for model in each.values))
        table = Table(
            name="headline",
            title=group,
            columns=("", *(each.measure for each in headlines)),
            rows=tuple((model, *(each.values.get(model) for each in headlines)) for model in models),
        )
        _print_table(table, console)
    for table in report.tables:
        _print_table(table, console)
    for section in report.sections:
        console.print()
        console.print(Text(one_line(section.title), style="bold underline"))
        for each in section.claims:
            console.print(_hanging("• ", Text(one_line(each.claim), style="bold")))
            console.print(_hanging("  ", one_line(each.explanation)))
        for table in section.tables:
            _print_table(table, console)
        for cell, reason in section.failures.items():
            console.print(_hanging("! ", one_line(f"{cell}: {reason}")))
    if has_intervals(report):
        console.print(Text("[low, high]: 95 % intervals", style="dim"))
    if report.figures or report.retrievals or any(section.figures for section in report.sections):
        console.print(Text("Figures, and what is retrieved by each model, are in report.html.", style="dim"))


def _hanging(mark: str, text: str | Text) -> Grid:
    """A list item: `text` wraps beside its mark, not under it."""
    grid = Grid.grid(padding=0)
    grid.add_column(width=len(mark))
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark), Text(text) if isinstance(text, str) else text)
    return grid


def _print_table(table: Table, console: Console) -> None:
    console.print()
    console.print(Text(one_line(table.title), style="bold"))
    rows = [[show(cell) for cell in row] for row in table.rows[:MAX_ROWS]]
    keys = _keys(table)
    for n, block in enumerate(_blocks(table, rows, keys, console.width)):
        if n:
            console.print()
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, PADDING, 0, 0), show_edge=False, pad_edge=False)
        for i in block:
            grid.add_column(
                Text(one_line(table.columns[i])),
                justify="right" if any(is_number(row[i]) for row in table.rows) else "left",
                overflow="fold",
                max_width=NAME_WIDTH if i in keys and len(table.columns) > 1 else None,
                header_style="default",
            )
        for row in rows:
            grid.add_row(*(_text(row[i]) for i in block))
        console.print(grid)
    if not table.rows:
        console.print(Text("no rows", style="dim"))
    if len(table.rows) > MAX_ROWS:
        console.print(Text(f"… and {len(table.rows) - MAX_ROWS} more rows, in report.md", style="dim"))
    if table.note:
        console.print(Padding(Text(one_line(table.note), style="dim"), 0))


def _keys(table: Table) -> list[int]:
    """The columns that say what a row is: those of text on the left, the first one anyhow."""
    keys = [0]
    for i in range(1, min(len(table.columns), 3)):
        if not all(isinstance(row[i], str) for row in table.rows):
            break
        keys.append(i)
    return keys


def _blocks(table: Table, rows: list[list[Shown]], keys: list[int], width: int) -> list[list[int]]:
    """Columns to print side by side: as many as fit, the key columns leading every block."""
    if not table.columns:
        return []
    wide = [
        max([cell_len(one_line(name)), *(cell_len(str(row[i])) for row in rows)]) + PADDING
        for i, name in enumerate(table.columns)
    ]
    left = sum(min(wide[i], NAME_WIDTH + PADDING) for i in keys)
    blocks, used = [list(keys)], left
    for i in range(len(keys), len(wide)):
        if used + wide[i] - PADDING > width and len(blocks[-1]) > len(keys):
            blocks.append(list(keys))
            used = left
        blocks[-1].append(i)
        used += wide[i]
    return blocks


def _text(shown: Shown) -> Text:
    text = Text(shown.value)
    return text.append(f" [{shown.low}, {shown.high}]", style="dim") if shown.low else text
