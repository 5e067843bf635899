"""`mithridate study FILE|PRESET --out DIR`, `mithridate study status DIR`, `mithridate study list`."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from mithridate.cli.common import Threads, emit, parse
from mithridate.errors import MithridateError
from mithridate.studies.analysis.outcomes import Outcome, read_outcomes
from mithridate.studies.graph import Graph
from mithridate.studies.inputs import fingerprint_inputs, read_fingerprints
from mithridate.studies.locks import Locks
from mithridate.studies.record import read_folder, refuse_other
from mithridate.studies.run import run_study
from mithridate.studies.session import CellProgress, RunSummary
from mithridate.studies.spec.cells import selected
from mithridate.studies.spec.load import preset_names, read_study, study_path
from mithridate.studies.spec.study import Cell, Study
from mithridate.studies.timing import seconds_by_trial, seconds_left, seconds_spent
from mithridate.studies.worker import LOCKS, failure

_HEADLINE = ("Hit@10", "ASR", "PSR", "AUROC", "IR@10")


@dataclass(frozen=True)
class StudyCommand:
    """Train and measure everything that a study file asks for; write tables, figures and a page.

    Killed and started again it goes on. Several processes, also on several machines with a shared folder, may work on
    one DIR at the same time. `mithridate study list` names the presets, `mithridate study status DIR` tells how far
    one is.
    """

    file: Annotated[Positional[str], arg(metavar="FILE|PRESET")]
    """The study file, or the name of a preset."""
    out: Path
    """Folder of the study: its stages, and the tables, figures and page."""
    data: str | None = None
    """A profile of the file (toy), or a folder with the data."""
    jobs: int = 1
    """Processes that work side by side, each with its share of the cores."""
    seeds: tuple[int, ...] = ()
    """In place of the file's."""
    only: tuple[str, ...] = ()
    """These experiments alone."""
    keep_models: bool = False
    """Keep the weights of every model, and every poisoned set; by default they go when no cell needs them any more."""
    dry_run: bool = False
    """Tell what would be done and how long it would take, and do nothing."""
    threads: Threads = None
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> int:
        study = read_study(self.file, data=self.data, seeds=self.seeds)
        if self.dry_run:
            refuse_other(study, self.out)
            self._tell(study)
            return 0
        ran = run_study(
            study,
            self.out,
            jobs=self.jobs,
            only=self.only,
            keep_models=self.keep_models,
            text=study_path(self.file).read_text(encoding="utf-8"),
            data=self.data,
            on_cell=lambda progress: print(_line(progress, study, self.out), file=sys.stderr, flush=True),
        )
        # under torchrun the first process speaks for all
        return self._finish(study, ran) if os.environ.get("RANK", "0") == "0" else 0

    def _finish(self, study: Study, ran: RunSummary) -> int:
        for cell, message in ran.failed:
            print(f"mithridate: failed: {_name(cell)}: {message}", file=sys.stderr)
        outcomes = read_outcomes(study, self.out)
        page = None
        if outcomes:
            page = _write(study, outcomes, self.out, ran.failed)
        told = {
            "out": str(self.out),
            "cells": ran.of,
            "done": ran.done,
            "failed": len({_name(c) for c, _ in ran.failed}),
        }
        emit({**told, "seconds": round(ran.seconds, 1), "page": str(page)}, as_json=self.json)
        return 1 if ran.failed else 0

    def _tell(self, study: Study) -> None:
        chosen = selected(study, self.only)
        graph = Graph.of(chosen.cells, fingerprint_inputs(chosen), self.out)
        rows = _experiments(chosen, graph)
        left = Counter(task.stage.kind for task in graph.left())
        seconds, how = seconds_left(graph), "by what is done"
        if seconds is None:
            seconds, how = seconds_by_trial(graph), "by a few steps of training"
        if self.json:
            emit({"experiments": rows, "stages left": dict(left), "seconds": seconds}, as_json=True)
            return
        _print_table(rows)
        cells = sum(len(each) for each in graph.cells.values())
        print(f"\n{cells} cells, {len(graph.cells)} of them different; what they share is done once")
        print(f"stages left: {', '.join(f'{count} {kind}' for kind, count in left.items()) or 'none'}")
        if left and seconds is None:
            print("time left: unknown until the first cell is done")
        elif left and seconds is not None:
            print(f"time left: about {_time(seconds)} of one process, {how}")


def _write(study: Study, outcomes: list[Outcome], out: Path, failed: Sequence[tuple[Cell, str]]) -> Path:
    from mithridate.studies.render.page import write_study

    reached = {outcome.cell.experiment for outcome in outcomes} | {cell.experiment for cell, _ in failed}
    shown = tuple(experiment for experiment in study.experiments if experiment.name in reached)
    seconds = {"of training": round(sum(outcome.numbers["seconds"] for outcome in outcomes), 1)}
    return write_study(replace(study, experiments=shown), outcomes, out, seconds=seconds, failed=failed)


def _line(progress: CellProgress, study: Study, out: Path) -> str:
    begin = f"{progress.done} of {progress.of}, {_name(progress.cell)}"
    if progress.failed is not None:
        return f"{begin}: FAILED: {progress.failed}"
    (outcome,) = read_outcomes(_one(study, progress.cell), out) or [None]
    told = "" if outcome is None else _headline(outcome)
    left = f"; about {_time(progress.left)} left" if progress.left else ""
    return f"{begin}: {told}; {_time(progress.seconds)}{left}"


def _one(study: Study, cell: Cell) -> Study:
    return replace(study, experiments=(replace(study.experiments[0], cells=(cell,)),))


def _headline(outcome: Outcome) -> str:
    parts = []
    for measure in _HEADLINE:
        values = {model: outcome.values.get((model, outcome.last, measure)) for model in ("poisoned", "clean")}
        shown = [f"{found.mean():.3f}" for found in values.values() if found is not None]
        if shown:
            parts.append(f"{measure} {' against '.join(shown)}")
        elif measure in outcome.estimates:
            parts.append(f"{measure} {outcome.estimates[measure].value:.3f}")
    return ", ".join(parts)


def _name(cell: Cell) -> str:
    labels = ", ".join(f"{axis} {label}" for axis, label in cell.axes)
    return f"{cell.experiment}: {labels}, seed {cell.seed}" if labels else f"{cell.experiment}, seed {cell.seed}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _experiments(study: Study, graph: Graph) -> list[dict[str, Any]]:
    """Of each experiment the number of its cells, and how many are done."""
    keys = {id(cell): key for key, cells in graph.cells.items() for cell in cells}
    return [
        {
            "experiment": experiment.name,
            "cells": len(experiment.cells),
            "done": sum(graph.has(keys[id(cell)]) for cell in experiment.cells),
            "title": experiment.title,
        }
        for experiment in study.experiments
    ]


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    width = max(len(str(row["experiment"])) for row in rows)
    print(f"{'experiment':<{width}}  cells   done")
    for row in rows:
        print(f"{row['experiment']:<{width}}  {row['cells']:>5}  {row['done']:>5}  {row['title']}")


@dataclass(frozen=True)
class Status:
    """How far a study is: what is done, what processes are at, what failed."""

    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """The folder of a study."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> int:
        study = read_folder(self.folder)
        try:
            graph = Graph.of(study.cells, read_fingerprints(self.folder), self.folder)
        except KeyError as error:
            raise MithridateError(f"{self.folder} has not read its data yet; look again in a minute") from error
        rows = _experiments(study, graph)
        working = [
            f"{graph.tasks[key].stage.kind} {key} by process {who['pid']} on {who['host']}"
            for key, who in Locks(self.folder / LOCKS).others().items()
            if key in graph.tasks
        ]
        failed = {
            _name(cell): told.get("error", "")
            for key, cells in graph.cells.items()
            if not graph.has(key) and (told := failure(self.folder, key)) is not None
            for cell in cells
        }
        spent, seconds = seconds_spent(self.folder), seconds_left(graph)
        if self.json:
            far = {"experiments": rows, "working": working, "failed": failed}
            emit(far | {"seconds spent": spent, "seconds left": seconds}, as_json=True)
            return 0
        _print_table(rows)
        for line in working:
            print(f"in work: {line}")
        for name, message in failed.items():
            print(f"failed: {name}: {message}")
        if spent:
            print(f"spent: {', '.join(f'{_time(each)} on {kind}' for kind, each in spent.items())}")
        left = len(graph.left())
        told = "unknown until the first cell is done" if seconds is None else f"about {_time(seconds)} of one process"
        print(f"{left} stages left; {told}" if left else "done")
        return 0


def run(argv: Sequence[str]) -> int:
    if argv and argv[0] == "list":
        for name in preset_names():
            study = read_study(name)
            print(f"{name:<14} {study.title}")
        return 0
    if argv and argv[0] == "status":
        return parse(Status, argv[1:], prog="study status").run()
    return parse(StudyCommand, argv, prog="study").run()
