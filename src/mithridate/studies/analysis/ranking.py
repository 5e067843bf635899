"""Which defence leaves least of the attacks, with ties shown as ties."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mithridate.statistics.differences import Difference
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.board import PAIRS, SECONDS, SUCCESS, UNPOISONED, Board
from mithridate.studies.analysis.contrast import paired
from mithridate.studies.analysis.select import estimate_of

UNDEFENDED = "none"

RULE = (
    "Defences are ranked by their mean success over all attacks, least first. Two are tied where the 95 % interval of "
    "their difference, paired by attack and seed, covers 0. A defence has the ranks from one more than the number of "
    "those that beat it to the number of those that it does not beat, itself among them. Intervals are over seeds and "
    "attacks, and not corrected for the number of pairs. A defence whose models are not above the floor, beyond their "
    "noise, is not ranked: a model that has learned nothing resists everything."
)


@dataclass(frozen=True)
class Standing:
    """A defence over all attacks. `ranks`: the best and the worst that the noise leaves it; None where not ranked.

    `gain`: its success minus that of the undefended model. `means`: pairs and seconds.
    """

    defence: str
    verdict: Literal["ranked", "not learned", "incomplete", "reference"]
    success: Estimate
    utility: dict[str, Estimate]
    gain: Difference | None
    means: dict[str, float]
    ranks: tuple[int, int] | None = None


Values = dict[int, np.ndarray]
"""seed -> (attacks,) numbers."""


def standings(board: Board) -> list[Standing]:
    """Of every defence of the board: the ranked ones first, best first, then the others, last the model without poison.

    A defence that was not measured against every attack with every seed is `incomplete`, and its numbers are over what
    there is.
    """
    success = {name: found for name in _names(board) if (found := _values(board, name, SUCCESS))}
    whole = {name for name in success if _is_whole(board, name)}
    found = [_standing(board, name, success, whole=name in whole) for name in success]
    ranked = sorted((s for s in found if s.verdict == "ranked"), key=lambda s: s.success.value)
    gaps = {
        (a.defence, b.defence): _gap(success[a.defence], success[b.defence])
        for a in ranked
        for b in ranked
        if a is not b
    }
    ranks = []
    for one in ranked:
        others = [other.defence for other in ranked if other is not one]
        beaten_by = sum(gaps[one.defence, other].low > 0 for other in others)
        beats = sum(gaps[one.defence, other].high < 0 for other in others)
        ranks.append(replace(one, ranks=(1 + beaten_by, len(ranked) - beats)))
    order = ("not learned", "incomplete", "reference")
    rest = sorted((s for s in found if s.verdict != "ranked"), key=lambda s: (order.index(s.verdict), s.success.value))
    return [*ranks, *rest]


def _names(board: Board) -> Sequence[str]:
    return [*(defence.name for defence in board.defences), UNPOISONED]


def _is_whole(board: Board, defence: str) -> bool:
    cells = [board.cell(attack, defence) for attack in board.attacks]
    return all(cell is not None and sorted(cell.seeds, key=int) == board.seeds for cell in cells)


def _values(board: Board, defence: str, measure: str) -> Values:
    """Of the seeds that all of its cells have."""
    cells = [cell for attack in board.attacks if (cell := board.cell(attack, defence)) is not None]
    seeds = [seed for seed in board.seeds if cells and all(measure in cell.seeds.get(seed, {}) for cell in cells)]
    return {int(seed): np.array([cell.seeds[seed][measure] for cell in cells]) for seed in seeds}


def _standing(board: Board, defence: str, success: dict[str, Values], *, whole: bool) -> Standing:
    mean = estimate_of(success[defence], same=True)
    assert mean is not None  # a defence without values is not asked for
    estimates = {name: estimate_of(_values(board, defence, name), same=True) for name in board.utility}
    utility = {name: estimate for name, estimate in estimates.items() if estimate is not None}
    base = success.get(UNDEFENDED)
    comparable = base is not None and whole and _is_whole(board, UNDEFENDED) and defence != UNDEFENDED
    gain = _gap(success[defence], base) if base is not None and comparable else None
    means = {
        name: float(np.mean(list(found.values())))
        for name in (PAIRS, SECONDS)
        if (found := _values(board, defence, name))
    }
    floor = utility.get(board.floor)
    learned = floor is not None and (floor.value if floor.low is None else floor.low) > board.level
    if defence == UNPOISONED:
        return Standing(defence, "reference", mean, utility, gain, means)
    verdict = "incomplete" if not whole else "ranked" if learned else "not learned"
    return Standing(defence, verdict, mean, utility, gain, means)


def _gap(first: Values, second: Values) -> Difference:
    """The difference of two rates over the same attacks, which is at most 1."""
    found = paired(first, second, same=True)
    return replace(found, low=max(-1.0, found.low), high=min(1.0, found.high))


def below_the_floor(board: Board, attack: str, defence: str) -> bool:
    """Whether the models of a cell are not above the floor, beyond their noise."""
    cell = board.cell(attack, defence)
    floor = None if cell is None else cell.estimates.get(board.floor)
    return floor is not None and (floor.value if floor.low is None else floor.low) <= board.level
