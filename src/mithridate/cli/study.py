"""`mithridate study FILE|PRESET --out DIR`, `mithridate study status|leaderboard|list`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.cli.common import Plugins, Threads, emit, parse, suggest, with_plugins
from mithridate.cli.progress import duration
from mithridate.cli.workers import EngineOptions
from mithridate.folders import claim
from mithridate.text import say

if TYPE_CHECKING:
    from mithridate.report.figures import FigureStyle
    from mithridate.studies.analysis.outcomes import Outcome
    from mithridate.studies.session import CellProgress, RunSummary
    from mithridate.studies.spec.study import Cell, Study
    from mithridate.studies.status import StudyStatus

_HEADLINE = ("Hit@10", "ASR", "PSR", "AUROC", "IR@10")


@dataclass(frozen=True)
class StudyCommand:
    """Train and measure everything that a study file asks for; write tables, figures and a page.

    Killed and started again it goes on, also with other --jobs or --ray. `mithridate study list` names the presets,
    `mithridate study status DIR` tells how far one is.
    """

    shared: ClassVar[bool] = True  # a dry run only looks

    file: Annotated[Positional[str], arg(metavar="FILE|PRESET")]
    """The study file, or the name of a preset."""
    out: Path
    """Folder of the study: its stages, and the tables, figures and page."""
    data: str | None = None
    """A profile of the file (toy), or a folder with the data."""
    seeds: tuple[int, ...] = ()
    """In place of the file's."""
    only: tuple[str, ...] = ()
    """These experiments alone."""
    keep_models: bool = False
    """Keep the weights of every model, and every poisoned set; by default they go when no cell needs them any more."""
    dry_run: bool = False
    """Tell what would be done and how long it would take, and do nothing."""
    figure_width: float = 5.6
    """Inches that figures are wide: 3.25 fits a column of a two-column paper."""
    figure_font_size: float = 10.5
    """Points of the text in figures."""
    figure_font: str | None = None
    """Font of the text in figures: Times New Roman, serif."""
    processes: int = 1
    """Processes of each training, one a GPU where there are GPUs; torchrun begins them."""
    plugin: Plugins = ()
    engine: OmitArgPrefixes[EngineOptions] = field(default_factory=EngineOptions)
    threads: Threads = None
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> int:
        # torch is not loaded for --help
        from mithridate.report.figures import FigureStyle
        from mithridate.studies.run import run_study
        from mithridate.studies.spec.load import read_study, study_path
        from mithridate.studies.status import preview_study

        study = read_study(self.file, data=self.data, seeds=self.seeds)
        if self.dry_run:
            _print_preview(preview_study(study, self.out, only=self.only), as_json=self.json)
            return 0
        style = FigureStyle(self.figure_width, self.figure_font_size, self.figure_font)
        with claim(self.out):
            summary = run_study(
                study,
                self.out,
                engine=self.engine.engine,
                processes=self.processes,
                only=self.only,
                keep_models=self.keep_models,
                text=study_path(self.file).read_text(encoding="utf-8"),
                data=self.data,
                on_cell=lambda progress: say(_line(progress, study, self.out), stderr=True),
            )
            return self._finish(study, summary, style)

    def _finish(self, study: "Study", summary: "RunSummary", style: "FigureStyle") -> int:
        from mithridate.studies.analysis.outcomes import read_outcomes
        from mithridate.studies.status import cell_name

        for cell, message in summary.failed:
            say(f"mithridate: failed: {cell_name(cell)}: {message}", stderr=True)
        outcomes = read_outcomes(study, self.out)
        page = _write(study, outcomes, self.out, summary.failed, style) if outcomes else None
        result = {
            "out": str(self.out),
            "cells": summary.of,
            "done": summary.done,
            "failed": len({cell_name(cell) for cell, _ in summary.failed}),
        }
        emit({**result, "seconds": round(summary.seconds, 1), "page": str(page)}, as_json=self.json)
        if summary.failed and not self.json:
            suggest("study", "status", self.out)
        elif page is not None and not self.json:
            say(f"next: open {page}; its tables and figures are in {self.out}")
        return 1 if summary.failed else 0


def _print_preview(status: "StudyStatus", *, as_json: bool) -> None:
    left = status.stages_left
    if as_json:
        experiments = [asdict(each) for each in status.experiments]
        emit({"experiments": experiments, "stages left": left, "seconds": status.seconds_left}, as_json=True)
        return
    _print_table(status)
    say("", f"{status.cells} cells, {status.distinct_cells} of them distinct; shared stages are done once")
    say(f"stages left: {', '.join(f'{count} {kind}' for kind, count in left.items()) or 'none'}")
    if left and status.seconds_left is None:
        say("time left: unknown until the first cell is done")
    elif left and status.seconds_left is not None:
        how = "estimated by a few steps of training" if status.estimated else "by what is done"
        more = ", ".join(f"{count} {work}" for work, count in status.not_counted.items())
        besides = f"; not counted: {more}" if more else ""
        say(f"time left: about {duration(status.seconds_left)} of one process, {how}{besides}")


def _write(
    study: "Study", outcomes: "list[Outcome]", out: Path, failed: "Sequence[tuple[Cell, str]]", style: "FigureStyle"
) -> Path:
    from mithridate.studies.render.page import write_study

    reached = {outcome.cell.experiment for outcome in outcomes} | {cell.experiment for cell, _ in failed}
    shown = tuple(experiment for experiment in study.experiments if experiment.name in reached)
    seconds = {"of training": round(sum(outcome.numbers["seconds"] for outcome in outcomes), 1)}
    return write_study(replace(study, experiments=shown), outcomes, out, seconds=seconds, failed=failed, style=style)


def _line(progress: "CellProgress", study: "Study", out: Path) -> str:
    from mithridate.studies.analysis.outcomes import read_outcomes
    from mithridate.studies.status import cell_name

    begin = f"{progress.done} of {progress.of}, {cell_name(progress.cell)}"
    if progress.failed is not None:
        return f"{begin}: FAILED: {progress.failed}"
    alone = replace(study, experiments=(replace(study.experiments[0], cells=(progress.cell,)),))
    (outcome,) = read_outcomes(alone, out) or [None]
    numbers = "" if outcome is None else _headline(outcome)
    left = f"; about {duration(progress.left)} left" if progress.left else ""
    return f"{begin}: {numbers}; {duration(progress.seconds)}{left}"


def _headline(outcome: "Outcome") -> str:
    from mithridate.report.numbers import show

    parts = []
    for measure in _HEADLINE:
        values = {model: outcome.values.get((model, outcome.last, measure)) for model in ("poisoned", "clean")}
        shown = [show(float(array.mean())).value for array in values.values() if array is not None]
        if shown:
            parts.append(f"{measure} {' against '.join(shown)}")
        elif measure in outcome.estimates:
            parts.append(f"{measure} {show(outcome.estimates[measure].value).value}")
    return ", ".join(parts)


def _print_table(status: "StudyStatus") -> None:
    width = max(len(row.experiment) for row in status.experiments)
    say(f"{'experiment':<{width}}  cells   done")
    for row in status.experiments:
        say(f"{row.experiment:<{width}}  {row.cells:>5}  {row.done:>5}  {row.title}")


@dataclass(frozen=True)
class Status:
    """How far a study is: what is done, what is being done, what failed."""

    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """The folder of a study."""
    plugin: Plugins = ()
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> int:
        from mithridate.studies.status import study_status

        status = study_status(self.folder)
        if self.json:
            progress = {"experiments": [asdict(each) for each in status.experiments], "working": list(status.working)}
            seconds = {"seconds spent": status.seconds_spent, "seconds left": status.seconds_left}
            emit({**progress, "failed": status.failed, **seconds}, as_json=True)
            return 0
        _print_table(status)
        for line in status.working:
            say(f"in progress: {line}")
        for name, message in status.failed.items():
            say(f"failed: {name}: {message}")
        if status.seconds_spent:
            say(f"spent: {', '.join(f'{duration(each)} on {kind}' for kind, each in status.seconds_spent.items())}")
        left, seconds = sum(status.stages_left.values()), status.seconds_left
        rest = (
            "unknown until the first cell is done" if seconds is None else f"about {duration(seconds)} of one process"
        )
        say(f"{left} stages left; {rest}" if left else "done")
        return 0


@dataclass(frozen=True)
class Leaderboard:
    """Defences ranked from the files of one matrix or several, as a page in Markdown.

    `tables/matrix.json` of a study with a matrix is such a file. Of the others the defences are added that the first
    lacks; what was measured at another budget is refused.
    """

    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...")]
    """Matrices, as studies wrote them."""
    json: bool = False
    """The joined matrix in place of the page: one JSON object."""

    def run(self) -> int:
        from mithridate.studies.analysis.board import joined, read_board
        from mithridate.studies.render.leaderboard import leaderboard_markdown

        board, doubled = joined([read_board(path) for path in self.files])
        for name in doubled:
            say(f"mithridate: {name} is in several files; the first one that has it counts", stderr=True)
        if self.json:
            emit(asdict(board), as_json=True)
            return 0
        say(*leaderboard_markdown(board, files=[str(path) for path in self.files]).splitlines())
        return 0


def run(argv: Sequence[str]) -> int:
    argv = with_plugins(argv)
    if argv and argv[0] == "list":
        from mithridate.studies.spec.load import preset_names, read_study

        for name in preset_names():
            study = read_study(name)
            say(f"{name:<14} {study.title}")
        return 0
    if argv and argv[0] == "status":
        return parse(Status, argv[1:], prog="study status").run()
    if argv and argv[0] == "leaderboard":
        return parse(Leaderboard, argv[1:], prog="study leaderboard").run()
    return parse(StudyCommand, argv, prog="study").run()
