"""A table as LaTeX that a paper includes: booktabs, intervals small beside their value, every text escaped."""

from __future__ import annotations

import re

from mithridate.report.document import Cell, Table
from mithridate.report.numbers import is_number, show
from mithridate.text import one_line

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "\u202f": r"\,",
    # after the end of a row, `[` and `*` would be its options
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_PATTERN = re.compile("[" + "".join(map(re.escape, _SPECIAL)) + "]")


def escape(text: object) -> str:
    """`text` on one line, shown by LaTeX as it is."""
    return _PATTERN.sub(lambda found: _SPECIAL[found[0]], one_line(text))


def to_latex(table: Table) -> str:
    """`table` as a `table` environment; it needs the packages booktabs and, for quotation marks, T1 fonts."""
    numeric = [any(is_number(row[i]) for row in table.rows) for i in range(len(table.columns))]
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape(table.title)}}}",
        rf"  \label{{tab:{re.sub('[^a-z0-9-]+', '-', table.name.lower())}}}",
    ]
    if table.columns:
        lines += [
            rf"  \begin{{tabular}}{{{''.join('r' if right else 'l' for right in numeric)}}}",
            r"    \toprule",
            _row([escape(column) for column in table.columns]),
            r"    \midrule",
            *(_row([_cell(cell) for cell in row]) for row in table.rows),
            r"    \bottomrule",
            r"  \end{tabular}",
        ]
    if table.note:
        lines.append(rf"  \par\smallskip\footnotesize {escape(table.note)}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _row(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _cell(cell: Cell) -> str:
    if not is_number(cell):
        return escape(show(cell).value)
    shown = show(cell)
    value, low, high, aside = (_number(text) for text in shown)
    if shown.aside:
        return rf"{value} {{\scriptsize ({aside})}}"
    return rf"{value} {{\scriptsize [{low}, {high}]}}" if shown.low else value


def _number(text: str) -> str:
    """Digits as LaTeX sets them: a true minus."""
    return escape(text.replace("-", "−").replace("+", "＋")).replace("＋", "$+$")
