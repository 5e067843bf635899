"""How far a study is: what is done, what is being done, what failed, and how long the rest takes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mithridate.errors import StudyError
from mithridate.folders import writer_of
from mithridate.studies.execute import failure, running
from mithridate.studies.graph import Graph
from mithridate.studies.inputs import fingerprint_inputs, read_fingerprints
from mithridate.studies.record import read_folder, refuse_other
from mithridate.studies.spec.cells import selected
from mithridate.studies.spec.study import Cell, Study
from mithridate.studies.timing import seconds_by_trial, seconds_left, seconds_spent


@dataclass(frozen=True, kw_only=True)
class ExperimentStatus:
    """How many cells of an experiment are done."""

    experiment: str
    cells: int
    done: int
    title: str


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """`working`: stages that were begun; `failed`: by cell, what went wrong; seconds are of one process.

    `seconds_left` is None where too little is done to tell; `estimated`: it comes from a few steps of training, and
    `not_counted`, other work and how much of it, comes on top.
    """

    experiments: tuple[ExperimentStatus, ...]
    cells: int
    distinct_cells: int
    stages_left: dict[str, int]
    seconds_left: float | None
    estimated: bool = False
    not_counted: dict[str, int] = field(default_factory=dict)
    seconds_spent: dict[str, float] = field(default_factory=dict)
    working: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)


def study_status(folder: Path) -> StudyStatus:
    """How far the study in `folder` is. Raises `StudyError` where it holds none, or has not read its data yet."""
    study = read_folder(folder)
    try:
        graph = Graph.of(study.cells, read_fingerprints(folder), folder)
    except KeyError as error:
        raise StudyError(f"{folder} is still loading its data; retry in a minute") from error
    pid = writer_of(folder)
    begun = {} if pid is None else running(folder)
    working = tuple(f"{kind} {key}, for process {pid}" for key, kind in begun.items() if key in graph.tasks)
    failed = {
        cell_name(cell): reason.get("error", "")
        for key, cells in graph.cells.items()
        if not graph.has(key) and (reason := failure(folder, key)) is not None
        for cell in cells
    }
    left = seconds_left(graph)
    return _status(study, graph, left, seconds_spent=seconds_spent(folder), working=working, failed=failed)


def preview_study(study: Study, out: Path, *, only: Sequence[str] = ()) -> StudyStatus:
    """What `run_study` would do in `out`, and how long it would take; nothing is written. Raises as it does."""
    refuse_other(study, out)
    chosen = selected(study, only)
    graph = Graph.of(chosen.cells, fingerprint_inputs(chosen), out)
    left = seconds_left(graph)
    estimated = left is None
    not_counted = Counter(task.stage.work for task in graph.left() if task.stage.work and estimated)
    seconds = seconds_by_trial(graph) if estimated else left
    return _status(chosen, graph, seconds, estimated=estimated, not_counted=dict(not_counted))


def cell_name(cell: Cell) -> str:
    """A cell in words: its experiment, labels and seed."""
    labels = ", ".join(f"{axis} {label}" for axis, label in cell.axes)
    return f"{cell.experiment}: {labels}, seed {cell.seed}" if labels else f"{cell.experiment}, seed {cell.seed}"


def _status(study: Study, graph: Graph, left: float | None, **more) -> StudyStatus:
    keys = {id(cell): key for key, cells in graph.cells.items() for cell in cells}
    experiments = tuple(
        ExperimentStatus(
            experiment=experiment.name,
            cells=len(experiment.cells),
            done=sum(graph.has(keys[id(cell)]) for cell in experiment.cells),
            title=experiment.title,
        )
        for experiment in study.experiments
    )
    return StudyStatus(
        experiments=experiments,
        cells=sum(len(cells) for cells in graph.cells.values()),
        distinct_cells=len(graph.cells),
        stages_left=dict(Counter(task.stage.kind for task in graph.left())),
        seconds_left=left,
        **more,
    )
