"""A matrix as a page of the documentation, in Markdown: made from its file, so that it says nothing else."""

import json
from collections.abc import Sequence
from dataclasses import replace

from mithridate.report.document import Table
from mithridate.report.markdown import escape, table_markdown
from mithridate.studies.analysis.board import SUCCESS, UNPOISONED, Board
from mithridate.studies.render.matrix import measure_table, ranking_in_words, ranking_table
from mithridate.text import one_line


def leaderboard_markdown(board: Board, *, files: Sequence[str]) -> str:
    """The page: how it was made, the ranking, what is left of each attack, what each defence is, how to add one."""
    files, profile = [one_line(file) for file in files], one_line(board.profile)
    made = f"mithridate study leaderboard {' '.join(files)}"
    seeds = "**one seed**" if len(board.seeds) == 1 else f"{len(board.seeds)} seeds"
    own = [f"Profile {escape(profile)}, {seeds}: {len(board.attacks)} attacks, {len(board.defences)} defences."]
    if len(board.seeds) == 1:
        own.append("Intervals of one seed do not hold what another seed would differ by.")
    success = measure_table(board, SUCCESS, name="success")
    parts = [
        f"# Leaderboard: {escape(board.title)}",
        f"Made by `mithridate study matrix --data {profile}` and `{made}`; edit nothing here.",
        " ".join(own),
        escape(ranking_in_words(board)),
        table_markdown(ranking_table(board, name="ranking")),
        table_markdown(replace(_turned(success, head=2), title="What is left of each attack")),
        *(table_markdown(_turned(measure_table(board, each, name="utility"), head=1)) for each in board.utility),
        table_markdown(_what_each_is(board)),
        "## Add a defence",
        "Write it as a [plugin](extending.md), measure it at the same budget, and join the files:",
        "```\n"
        f"mithridate study matrix --data {profile} --plugin my_defence.py --out runs/mine\n"
        f"mithridate study leaderboard {files[0]} runs/mine/tables/matrix.json --json > joined.json\n"
        "mithridate study leaderboard joined.json > leaderboard.md\n"
        "```",
        "A file with another budget, other attacks or other seeds is refused. The budget of all cells:",
        f"```json\n{json.dumps({**board.budget, 'seeds': board.seeds}, ensure_ascii=False)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _turned(table: Table, *, head: int) -> Table:
    """Defences in rows, as more can come: each fills a line. The first `head` columns name what was in rows."""
    columns = ("defence", *(", ".join(map(str, row[:head])) for row in table.rows))
    rows = tuple((table.columns[i], *(row[i] for row in table.rows)) for i in range(head, len(table.columns)))
    return replace(table, columns=columns, rows=rows)


def _what_each_is(board: Board) -> Table:
    """A defence's parts as the study file had them."""
    rows = [
        (
            defence.name,
            json.dumps(defence.parts, ensure_ascii=False) if defence.parts else "plain training",
            f"mithridate {defence.version}",
        )
        for defence in board.defences
    ]
    rows.append((UNPOISONED, "plain training on the clean pairs", f"mithridate {board.defences[0].version}"))
    return Table("defences", "What each defence is", ("defence", "parts", "measured with"), tuple(rows))
