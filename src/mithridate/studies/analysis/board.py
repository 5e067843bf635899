"""Every attack against every defence as one value, from the outcomes of a study or from the files of several.

A board holds the numbers of each seed, so that whoever has the file can rank, and add a defence that was measured
elsewhere at the same budget.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import TypeAdapter, ValidationError

from mithridate.errors import StudyError
from mithridate.sealed import read_object
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.outcomes import Outcome
from mithridate.studies.analysis.select import Group, chance, chosen, combine, grouped
from mithridate.studies.spec.defences import PARTS
from mithridate.studies.spec.study import Cell, ShowMatrix
from mithridate.studies.stages.stage import plain_of
from mithridate.version import __version__

FORMAT = "mithridate-matrix/1"
UNPOISONED = "without poison"
"""In the place of a defence: the same recipe with plain CLIP on the clean pairs."""
SUCCESS = "success"
PAIRS, SECONDS = "pairs", "seconds"
"""Pairs that a model was trained on, and how long all of its trainings took."""


class _Strict:
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass(frozen=True)
class BoardCell(_Strict):
    """One attack against one defence: by seed its numbers, and over seeds and test units the estimates of them.

    `measure`: what its success is.
    """

    attack: str
    defence: str
    measure: str
    seeds: dict[str, dict[str, float]]
    estimates: dict[str, Estimate]

    def __post_init__(self) -> None:
        if not all(seed.isascii() and seed.isdigit() for seed in self.seeds):
            raise ValueError(f"seeds must be numbers, got {', '.join(self.seeds)}")


@dataclass(frozen=True)
class BoardDefence(_Strict):
    """A defence, what it is made of (as in a study file), and the version of the package that measured it."""

    name: str
    parts: dict[str, Any]
    version: str


@dataclass(frozen=True)
class Board(_Strict):
    """A matrix. `budget`: what all cells have in common; `attacks`: by label their options."""

    title: str
    profile: str
    budget: dict[str, Any]
    attacks: dict[str, Any]
    defences: tuple[BoardDefence, ...]
    utility: tuple[str, ...]
    floor: str
    """The measure of the floor."""
    level: float
    """What its models must exceed."""
    chance: dict[str, float]
    cells: tuple[BoardCell, ...]
    format: Literal["mithridate-matrix/1"] = field(default=FORMAT)

    def __post_init__(self) -> None:
        names = [defence.name for defence in self.defences]
        if not names or UNPOISONED in names or len(set(names)) < len(names):
            raise ValueError(f"defences must have names of their own, other than {UNPOISONED!r}, got {names}")

    @property
    def seeds(self) -> list[str]:
        return sorted({seed for cell in self.cells for seed in cell.seeds}, key=int)

    def cell(self, attack: str, defence: str) -> BoardCell | None:
        """The cell of an attack and a defence; None where it was not measured."""
        return next((cell for cell in self.cells if (cell.attack, cell.defence) == (attack, defence)), None)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)


def board_of(shown: ShowMatrix, outcomes: Sequence[Outcome], *, title: str, profile: str) -> Board | None:
    """The matrix of an experiment; None where nothing of it was measured.

    Success is that of the cell's model: the repaired one where a defence repairs what its inspection flagged.
    """
    cells = [outcome for outcome in chosen(outcomes, shown.where) if outcome.cell.attack is not None]
    found: list[BoardCell] = []
    attacks: dict[str, Any] = {}
    defences: dict[str, BoardDefence] = {}
    for labels, group in grouped(cells, ("attack", "defence")).items():
        attack, name = map(str, labels)
        cell = group[0].cell
        measure = next((name for name in shown.success if _measured(group, name, "clean")), None)
        if measure is None:
            continue
        attacks.setdefault(attack, plain_of(cell.attack))
        defences.setdefault(name, BoardDefence(name, _parts(cell), __version__))
        found.append(_cell(group, attack, name, measure, _model(cell), shown.utility))
        if all((other.attack, other.defence) != (attack, UNPOISONED) for other in found):
            found.append(_cell(group, attack, UNPOISONED, measure, "clean", shown.utility))
    if not found:
        return None
    first = cells[0].cell
    floor = shown.floor
    level = (
        floor.above if floor.above is not None else (floor.times_chance or 0.0) * (chance(cells, floor.measure) or 0)
    )
    return _plain(
        Board(
            title=title,
            profile=profile,
            budget={name: plain_of(getattr(first, name)) for name in ("data", "start", "train")},
            attacks=attacks,
            defences=tuple(defences.values()),
            utility=shown.utility,
            floor=floor.measure,
            level=level,
            chance={name: known for name in shown.utility if (known := chance(cells, name)) is not None},
            cells=tuple(found),
        )
    )


def _measured(group: Group, measure: str, model: str) -> bool:
    return all((model, outcome.last, measure) in outcome.values for outcome in group)


def _model(cell: Cell) -> str:
    return "repaired" if cell.inspect is not None and cell.inspect.repair else "poisoned"


def _parts(cell: Cell) -> dict[str, Any]:
    """What differs from plain training."""
    found = {name: plain_of(getattr(cell, name)) for name in PARTS if getattr(cell, name) is not None}
    if found["objective"]["is"] == "Clip":
        del found["objective"]
    return _said(found)


def _said(value: Any) -> Any:
    """Without what is nothing."""
    if isinstance(value, dict):
        return {name: _said(inner) for name, inner in value.items() if inner not in (None, [], "")}
    return value


def _cell(group: Group, attack: str, defence: str, measure: str, model: str, utility: Sequence[str]) -> BoardCell:
    names = {SUCCESS: measure, **{name: name for name in utility if _measured(group, name, model)}}
    seeds = {}
    for outcome in sorted(group, key=lambda outcome: outcome.cell.seed):
        numbers = {name: float(outcome.values[model, outcome.last, of].mean()) for name, of in names.items()}
        costs = {} if model == "clean" else {name: outcome.numbers[name] for name in (PAIRS, SECONDS)}
        seeds[str(outcome.cell.seed)] = numbers | costs
    estimates = {name: combine(group, of, model) for name, of in names.items()}
    return BoardCell(attack, defence, measure, seeds, {name: e for name, e in estimates.items() if e is not None})


def _plain(board: Board) -> Board:
    """As it is read back: what is equal before is equal then."""
    return TypeAdapter(Board).validate_json(board.to_json())


def read_board(path: Path) -> Board:
    """The matrix in a file that a study wrote. Raises `StudyError`."""
    try:
        return TypeAdapter(Board).validate_json(json.dumps(read_object(Path(path))))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise StudyError(f"{path} is no matrix of a study: {where}: {first['msg']}") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read: {error}") from error


def joined(boards: Sequence[Board]) -> tuple[Board, list[str]]:
    """The first board with the defences of the others that it lacks, and the names of those that it has already.

    Raises `StudyError` where budgets, attacks, seeds or the floor differ: then figures cannot stand side by side.
    """
    first, *others = boards
    doubled: list[str] = []
    for number, other in enumerate(others, start=2):
        for name in ("budget", "attacks", "utility", "floor", "level", "seeds"):
            if getattr(other, name) != getattr(first, name):
                raise StudyError(
                    f"matrix {number} has another {name} than matrix 1, and only what was measured alike can be ranked "
                    "together; measure it with the same preset, profile, attacks and seeds"
                )
        known = {defence.name for defence in first.defences}
        doubled += [defence.name for defence in other.defences if defence.name in known]
        new = [defence for defence in other.defences if defence.name not in known]
        cells = [cell for cell in other.cells if cell.defence in {defence.name for defence in new}]
        first = replace(first, defences=(*first.defences, *new), cells=(*first.cells, *cells))
    return first, doubled
