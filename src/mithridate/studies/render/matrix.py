"""Attacks against defences as a page shows them: a ranking, a table and a heat map a measure."""

from mithridate.report.document import Cell, Curve, Figure, Table
from mithridate.report.numbers import show, show_tick
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.board import PAIRS, SECONDS, SUCCESS, UNPOISONED, Board, BoardCell
from mithridate.studies.analysis.ranking import RULE, UNDEFENDED, Standing, below_the_floor, standings
from mithridate.studies.render.figures import with_ends

_LEVELS = {UNDEFENDED: "without a defence", UNPOISONED: "without poison"}
_BRACKETS = "In brackets: the models are not above the floor, so that their resistance says nothing."


def matrix_tables(board: Board, *, name: str) -> tuple[Table, ...]:
    """The ranking, and what is left of every attack, with intervals; then utility."""
    measures = (SUCCESS, *board.utility)
    tables = [measure_table(board, measure, name=f"{name}-{_file_name(measure)}") for measure in measures]
    return (ranking_table(board, name=f"{name}-ranking"), *tables)


def ranking_table(board: Board, *, name: str) -> Table:
    """One row a defence: its ranks, what it leaves of the attacks, what it costs."""
    columns = (
        "rank",
        "defence",
        SUCCESS,
        f"difference from {UNDEFENDED}",
        *board.utility,
        PAIRS,
        "seconds of training",
    )
    rows = tuple(_ranked(standing, board) for standing in standings(board))
    level = f"The floor is {board.floor} above {show_tick(board.level)}."
    return Table(name, "Defences, ranked", columns, rows, f"{RULE} {level} {_over(board)}")


def ranking_in_words(board: Board) -> str:
    """What leaves least of the attacks, in a sentence, beside no defence and no poison."""
    found = standings(board)
    ranked = [standing for standing in found if standing.verdict == "ranked" and standing.defence != UNDEFENDED]
    if not ranked:
        floor = f"{board.floor} above {show_tick(board.level)}"
        return f"No defence is ranked: none has models above the floor ({floor}) for all attacks."
    best = ", ".join(f"{s.defence} ({show(s.success).value}, rank {_rank(s.ranks)})" for s in ranked[:3])
    levels = {s.defence: show(s.success).value for s in found if s.defence in (UNDEFENDED, UNPOISONED)}
    beside = ", ".join(f"{level} {words}" for name, words in _LEVELS.items() if (level := levels.get(name)))
    return f"Least success over all attacks: {best}{f'; {beside}' if beside else ''}. Ranks that overlap are ties."


def _rank(ranks: tuple[int, int] | None) -> str:
    if ranks is None:
        return ""
    best, worst = ranks
    return str(best) if best == worst else f"{best} to {worst}"


def _ranked(standing: Standing, board: Board) -> tuple[Cell, ...]:
    rank = _rank(standing.ranks) or {"reference": "–"}.get(standing.verdict, standing.verdict)
    gain = None if standing.gain is None else standing.gain.estimate
    pairs, seconds = (standing.means.get(of) for of in (PAIRS, SECONDS))
    costs = (None if pairs is None else round(pairs), None if seconds is None else round(seconds, 1))
    return (rank, standing.defence, standing.success, gain, *(standing.utility.get(u) for u in board.utility), *costs)


def measure_table(board: Board, measure: str, *, name: str) -> Table:
    """One row an attack, one column a defence, with intervals over seeds and test units."""
    defences = _columns(board)
    rows = []
    for attack in board.attacks:
        cells = [board.cell(attack, defence) for defence in defences]
        measures = {cell.measure for cell in cells if cell is not None}
        first = (attack, ", ".join(sorted(measures))) if measure == SUCCESS else (attack,)
        rows.append((*first, *(None if cell is None else cell.estimates.get(measure) for cell in cells)))
    head = ("attack", "measure") if measure == SUCCESS else ("attack",)
    return Table(name, _title(measure), (*head, *defences), tuple(rows), _over(board, units=True))


def matrix_figures(board: Board, *, name: str) -> tuple[Figure, ...]:
    """A heat map for success and for each measure of utility."""
    return tuple(_heat(board, measure, name=f"{name}-{_file_name(measure)}") for measure in (SUCCESS, *board.utility))


def _heat(board: Board, measure: str, *, name: str) -> Figure:
    defences = _columns(board)
    curves = []
    for attack in board.attacks:
        found = [_estimate(board.cell(attack, defence), measure) for defence in defences]
        middle, low, high = zip(*map(with_ends, found))
        missed = [i for i, defence in enumerate(defences) if below_the_floor(board, attack, defence)]
        curves.append(
            Curve(
                attack,
                tuple(float(i) for i in range(len(defences))),
                middle,
                low=low,
                high=high,
                bracketed=tuple(missed) if measure == SUCCESS else (),
            )
        )
    brackets = f" {_BRACKETS}" if any(curve.bracketed for curve in curves) else ""
    chance = board.chance.get(measure)
    level = f" Chance: {show(chance).value}." if chance is not None else ""
    note = f"{_over(board, units=True)} Point at a cell for its interval.{level}{brackets}"
    return Figure(
        name, _title(measure), "heat", "defence", "attack", tuple(curves), note, ticks=tuple(defences), z_label=measure
    )


def _columns(board: Board) -> list[str]:
    return [*(defence.name for defence in board.defences), UNPOISONED]


def _estimate(cell: BoardCell | None, measure: str) -> Estimate | None:
    return None if cell is None else cell.estimates.get(measure)


def _title(measure: str) -> str:
    return "Success of each attack under each defence" if measure == SUCCESS else f"Utility: {measure}"


def _over(board: Board, *, units: bool = False) -> str:
    """How many seeds there are, and what intervals are over."""
    seeds = len(board.seeds)
    if seeds == 1:
        return f"One seed; 95 % intervals over {'test units' if units else 'attacks'}."
    return f"Means over {seeds} seeds; 95 % intervals over seeds{'' if units else ' and attacks'}."


def _file_name(measure: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in measure.lower())
