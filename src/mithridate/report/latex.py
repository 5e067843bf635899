"""A table as LaTeX that a paper includes: booktabs, no wider than a column of text, every text escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mithridate.report.document import Cell, Published, Table
from mithridate.report.numbers import Shown, is_number, show
from mithridate.statistics.estimate import Estimate
from mithridate.text import one_line

TEXT_WIDTH = 345.0
"""Points of a line of LaTeX's article at 10 pt, one column."""

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
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "…": r"\dots{}",
    "\u202f": r"\,",
    # after the end of a row, `[` and `*` would be its options
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_PATTERN = re.compile("[" + "".join(map(re.escape, _SPECIAL)) + "]")

_LABELS = {
    "count": "Poisoned pairs",
    "rate": "Poisoned share",
    "class_share": "Share of class A",
    "zero-shot": "Zero-shot",
    "lr": "Learning rate",
}
"""Of axes and measures whose names are a program's."""

_SUCCESS = re.compile(r"(Hit@\d+|ASR|PSR|Precision@\d+)\b")
_RANK = re.compile(r"(MinRank|mean rank)\b")
_UTILITY = re.compile(r"(IR@\d+|TR@\d+|zero-shot|probe|accuracy|AUROC|poison removed)\b")
_COST = re.compile(r"(clean pairs lost|shift|seconds)\b")
_DEFENCES = ("objective", "filter", "repair", "detector", "defence", "augment")
_REFERENCES = ("clean", "chance", "start")  # models that the others are held against
_UP, _DOWN = r"$\uparrow$", r"$\downarrow$"


def escape(text: object) -> str:
    """`text` on one line, shown by LaTeX as it is."""
    return _PATTERN.sub(lambda found: _SPECIAL[found[0]], one_line(text))


def to_latex(table: Table, *, width: float = TEXT_WIDTH) -> str:
    """`table` as a `table` environment of at most `width` points; it needs booktabs and, for quotation marks, T1 fonts.

    Rows are grouped by their first label; a clean model that is the same for all rows stands once, above chance. Arrows
    say which way a measure is better for the side that the first label is of: attacks, or defences (an objective, a
    filter, a repair). Bold is the best of the rows that differ in the first label alone, clean and chance left out.
    Intervals stand beside their value where there is room, else below it; a table that is too wide even so is
    continued below itself.
    """
    layout = _Layout.of(table)
    caption = [f"{escape(table.title).rstrip('.')}.", escape(table.note), *layout.legend()]
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{' '.join(filter(None, caption))}}}",
        rf"  \label{{tab:{re.sub('[^a-z0-9-]+', '-', table.name.lower())}}}",
    ]
    if table.columns:
        lines += [r"  \medskip", *layout.tabulars(width)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


@dataclass(frozen=True)
class _Layout:
    """What a table shows: the rows that are left, how many leading columns are labels, and which cells are bold."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int
    better: tuple[int, ...]  # of each column: 1 higher, -1 lower, 0 neither
    best: frozenset[tuple[int, int]]

    @classmethod
    def of(cls, table: Table) -> _Layout:
        measured = [
            i for i in range(len(table.columns)) if any(isinstance(r[i], Estimate | Published) for r in table.rows)
        ]
        labels = measured[0] if measured else 0
        model = table.columns.index("model") if "model" in table.columns[:labels] else None
        rows = table.rows if model is None else _one_clean_row(table.rows, labels, model)
        defended = labels > 0 and table.columns[0].startswith(_DEFENCES)
        better = tuple(_better(name, defended) if i >= labels > 0 else 0 for i, name in enumerate(table.columns))
        return cls(table.columns, rows, labels, better, _best(rows, labels, model, better))

    def legend(self) -> list[str]:
        """What the caption must say of signs."""
        shown = [show(cell) for row in self.rows for cell in row]
        words = []
        if any(cell.low for cell in shown):
            words.append("In small type: intervals.")
        if any(self.better):
            side = "defence" if self.columns[0].startswith(_DEFENCES) else "attack"
            words.append(f"Arrows: better for the {side}, or for utility.")
        if self.best:
            name = escape(_label(self.columns[0])).lower()
            words.append(f"Bold: the best {name} of rows that are otherwise alike.")
        return words

    def tabulars(self, width: float) -> list[str]:
        """One tabular, or several below each other, in the largest of the forms that fit."""
        everything = list(range(len(self.columns)))
        if not self.labels and any(_points(str(show(c))) > width / 3 for row in self.rows for c in row):
            return self._sentences(width)
        for stacked, size in ((False, 1.0), (True, 1.0), (True, 0.8)):
            if self._width(everything, stacked, size) <= width:
                return self._tabular(everything, stacked=stacked, small=size < 1)
        lines: list[str] = []
        for block in self._blocks(width):
            lines += ([r"  \par\medskip"] if lines else []) + self._tabular(block, stacked=True, small=True)
        return lines

    def _blocks(self, width: float) -> list[list[int]]:
        """Columns side by side, the labels before each block; one block where the labels alone are too wide."""
        keys = list(range(self.labels))
        if self._width(keys, True, 0.8) > width:
            return [list(range(len(self.columns)))]
        blocks = [list(keys)]
        for i in range(self.labels, len(self.columns)):
            if len(blocks[-1]) > len(keys) and self._width([*blocks[-1], i], True, 0.8) > width:
                blocks.append(list(keys))
            blocks[-1].append(i)
        return blocks

    def _width(self, columns: Sequence[int], stacked: bool, size: float) -> float:
        return sum(self._column_width(i, stacked, size) for i in columns) + 12.0 * (len(columns) - 1)

    def _column_width(self, i: int, stacked: bool, size: float) -> float:
        """In points; `size`: of letters, 1 is 10 pt. Small type is of one size whatever stands beside it."""
        found = [size * (_points(_label(self.columns[i])) + (8 if self.better[i] else 0))]
        for row in self.rows:
            value, aside = size * _points(show(row[i]).value), 0.75 * _points(_aside(show(row[i])))
            found.append(max(value, aside) if stacked else value + (aside + 3 if aside else 0))
        return max(found)

    def _tabular(self, columns: list[int], *, stacked: bool, small: bool) -> list[str]:
        numeric = [any(is_number(row[i]) for row in self.rows) for i in columns]
        form = "".join("r" if right else "l" for right in numeric)
        lines = [
            *([r"  \footnotesize"] if small else []),
            rf"  \begin{{tabular}}{{@{{}}{form}@{{}}}}",
            r"    \toprule",
            _row([self._header(i) for i in columns]),
            r"    \midrule",
        ]
        grouped = self.labels > 1 and len({row[0] for row in self.rows}) < len(self.rows)
        before: tuple[Cell, ...] | None = None
        for n, row in enumerate(self.rows):
            reference = self._is_reference(row)
            if before is not None and reference and not self._is_reference(before):
                lines.append(r"    \midrule")
            elif before is not None and grouped and row[0] != before[0] and not reference:
                lines.append(r"    \addlinespace")
            lines += self._written(n, columns, before, stacked=stacked)
            before = row
        return [*lines, r"    \bottomrule", r"  \end{tabular}"]

    def _is_reference(self, row: tuple[Cell, ...]) -> bool:
        """Whether a row is of all groups: the one clean model, or chance."""
        others = [cell for cell in row[: self.labels] if cell not in _REFERENCES]
        return self.labels > 0 and len(others) < self.labels and all(cell == "all" for cell in others)

    def _written(self, n: int, columns: list[int], before: tuple[Cell, ...] | None, *, stacked: bool) -> list[str]:
        row, cells, below = self.rows[n], [], []
        reference = self._is_reference(row)
        for i in columns:
            shown = show(row[i])
            value = _number(shown.value) if is_number(row[i]) else escape(shown.value)
            again = i < self.labels - 1 and before is not None and row[: i + 1] == before[: i + 1]
            if again or (reference and i < self.labels and row[i] == "all"):
                value = ""
            if (n, i) in self.best:
                value = rf"\textbf{{{value}}}"
            aside = rf"{{\scriptsize {_number(_aside(shown))}}}" if _aside(shown) else ""
            cells.append(value if stacked or not aside else f"{value} {aside}")
            below.append(aside)
        return [_row(cells), *([_row(below)] if stacked and any(below) else [])]

    def _header(self, i: int) -> str:
        arrow = {1: f" {_UP}", -1: f" {_DOWN}", 0: ""}[self.better[i]]
        return escape(_label(self.columns[i])) + arrow

    def _sentences(self, width: float) -> list[str]:
        """Columns of sentences wrap; what is short keeps its width."""
        natural = [self._column_width(i, False, 0.8) for i in range(len(self.columns))]
        room = width - 12 * (len(natural) - 1)
        long = [i for i, points in enumerate(natural) if points > room / len(natural)]
        left = room - sum(points for i, points in enumerate(natural) if i not in long)
        weight = {i: natural[i] ** 0.5 for i in long}  # a column twice as long in all is not twice as wide
        share = {i: left * each / sum(weight.values()) for i, each in weight.items()}
        form = "".join(f"p{{{round(share[i])}pt}}" if i in share else "l" for i in range(len(natural)))
        lines = [
            r"  \footnotesize",
            rf"  \begin{{tabular}}{{@{{}}{form}@{{}}}}",
            r"    \toprule",
            _row([self._header(i) for i in range(len(natural))]),
            r"    \midrule",
        ]
        for row in self.rows:
            cells = [escape(show(cell).value) for cell in row]
            wrapped = [rf"\raggedright {c}" if i in share else c for i, c in enumerate(cells)]
            lines.append(rf"    {' & '.join(wrapped)} \tabularnewline")  # raggedright has another \\
        return [*lines, r"    \bottomrule", r"  \end{tabular}"]


def _one_clean_row(rows: tuple[tuple[Cell, ...], ...], labels: int, model: int) -> tuple[tuple[Cell, ...], ...]:
    """The rows with one for the clean model, before those of chance, where its numbers are the same in all groups."""
    clean = [row for row in rows if row[model] == "clean"]
    if len(clean) < 2 or len({row[labels:] for row in clean}) > 1:
        return rows
    one = (*("clean" if i == model else "all" for i in range(labels)), *clean[0][labels:])
    others = [row for row in rows if row[model] != "clean"]
    chance = [i for i, row in enumerate(others) if row[model] == "chance" and row[0] in ("all", "chance")]
    at = chance[0] if chance else len(others)
    return (*others[:at], one, *others[at:])


def _better(measure: str, defended: bool) -> int:
    """1 where a higher number is better, -1 where a lower one, 0 where neither is said."""
    if _UTILITY.match(measure):
        return 1
    if _COST.match(measure):
        return -1
    side = -1 if defended else 1
    return side if _SUCCESS.match(measure) else -side if _RANK.match(measure) else 0


def _best(
    rows: Sequence[tuple[Cell, ...]], labels: int, model: int | None, better: Sequence[int]
) -> frozenset[tuple[int, int]]:
    """Row and column of the best numbers among rows that differ in the first label alone; ties as they are shown."""
    alike: dict[tuple[Cell, ...], list[int]] = {}
    for n, row in enumerate(rows):
        if labels and row[0] != "all" and (model is None or row[model] not in _REFERENCES) and model != 0:
            alike.setdefault(row[1:labels], []).append(n)
    found = set()
    for group in alike.values():
        for i in range(labels, len(better)):
            values = {n: cell.value for n in group if isinstance(cell := rows[n][i], Estimate)}
            if better[i] and len(values) > 1:
                top = (max if better[i] > 0 else min)(values, key=values.__getitem__)
                ties = {n for n in values if show(rows[n][i]).value == show(rows[top][i]).value}
                found |= {(n, i) for n in ties if len(ties) < len(values)}
    return frozenset(found)


def _label(name: str) -> str:
    """A column's name for a reader: of `attack.count` what it is, with a capital where it is a word."""
    own = name if " " in name else name.rpartition(".")[2]
    return _LABELS.get(own, own.replace("_", " ")[:1].upper() + own.replace("_", " ")[1:])


def _aside(shown: Shown) -> str:
    """What stands small beside a value, or below it."""
    return f"({shown.aside})" if shown.aside else f"[{shown.low}, {shown.high}]" if shown.low else ""


def _points(text: str) -> float:
    """About how wide `text` is in Computer Modern at 10 pt, rather too much than too little."""
    wide, narrow = "mwMWQ@—", " .,;:!'|il()[]"
    return sum((8.4 if c in wide else 7.4 if c.isupper() else 2.9 if c in narrow else 5.3 for c in text), 0.0)


def _row(cells: list[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _number(text: str) -> str:
    """Digits as LaTeX sets them: a true minus."""
    return escape(text.replace("-", "−").replace("+", "＋")).replace("＋", "$+$")
