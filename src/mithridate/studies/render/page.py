"""A study as files: the report and its page, tables and figures for a paper."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from mithridate.errors import DataError, OutputError
from mithridate.folders import write_atomically
from mithridate.report.document import Cell as Shown
from mithridate.report.document import Figure, Report, Section, Table
from mithridate.report.figures import FigureStyle, save_figure
from mithridate.report.latex import to_latex
from mithridate.report.markdown import table_markdown
from mithridate.report.table_csv import to_csv
from mithridate.report.write import write_report
from mithridate.studies.analysis.board import Board, board_of
from mithridate.studies.analysis.by_count import by_count
from mithridate.studies.analysis.outcomes import Outcome
from mithridate.studies.render.figures import MAX_POINTS, study_figure, thinned
from mithridate.studies.render.inspections import inspection_figures, inspection_tables, inspections_in_words
from mithridate.studies.render.matrix import matrix_figures, matrix_tables, ranking_in_words
from mithridate.studies.render.tables import slopes_table, study_table
from mithridate.studies.render.words import axes_in_words, findings
from mithridate.studies.spec.study import (
    Cell,
    Experiment,
    ShowFigure,
    ShowInspections,
    ShowMatrix,
    ShowSlopes,
    ShowTable,
    Study,
)
from mithridate.version import __version__

MAX_PAGE = 5_000_000
"""Bytes of a page; what a browser on a telephone opens without thinking."""

Failed = Sequence[tuple[Cell, str]]


def write_study(
    study: Study,
    outcomes: list[Outcome],
    out: Path,
    *,
    seconds: dict | None = None,
    failed: Failed = (),
    style: FigureStyle | None = None,
) -> Path:
    """Write what came out of a study into the folder `out`; gives back the page, `out`/report.html.

    `report.json` and `.md` beside it; `tables/` as Markdown, LaTeX and CSV, a matrix as JSON; `figures/` as SVG, PNG
    and PDF; those of an earlier call are replaced. `failed`: cells that raised, and what they said. `style`: of the
    figures' files.
    """
    out = Path(out)
    report = study_report(study, outcomes, seconds=seconds, failed=failed)
    try:
        for folder in ("tables", "figures"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        tables = [table for section in report.sections for table in section.tables]
        kept = [_write_table(table, out / "tables") for table in (claims_table(report), *tables) if table.rows]
        kept += [_write_figure(figure, out / "figures", style) for s in report.sections for figure in s.figures]
        kept += [
            _write_board(experiment, shown, outcomes, study, out / "tables") for experiment, shown in _matrices(study)
        ]
        for path in (*(out / "tables").iterdir(), *(out / "figures").iterdir()):
            if path.stem not in kept:  # of an earlier call
                path.unlink()
    except OSError as error:
        raise OutputError(f"cannot write into {out}: {error.strerror or error}") from error
    write_report(report, out)
    page = out / "report.html"
    most = MAX_POINTS
    while page.stat().st_size > MAX_PAGE and most > 50:
        most //= 4
        write_report(_lighter(report, most), out)
    return page


def study_report(
    study: Study, outcomes: Sequence[Outcome], *, seconds: Mapping[str, Any] | None = None, failed: Failed = ()
) -> Report:
    """All that came out of a study: a section an experiment."""
    sections = tuple(_section(study, experiment, outcomes, failed) for experiment in study.experiments)
    cells, seeds = study.cells, sorted({cell.seed for cell in study.cells})
    measured = f"{len(outcomes)} of {len(cells)} cells in {_count(len(sections), 'experiment')} were measured"
    words = [f"{measured}, {_count(len(seeds), 'seed')}{f', profile {study.profile}' if study.profile else ''}."]
    verdicts = [each.verdict for section in sections for each in section.claims]
    if verdicts:
        counts = [(v, verdicts.count(v)) for v in ("held", "refuted", "open", "not learned", "not measured")]
        shown = ", ".join(f"{number} {verdict}" for verdict, number in counts if number)
        words.append(f"Of {_count(len(verdicts), 'claim')}: {shown}.")
    boards = [_board(study, experiment, shown, outcomes) for experiment, shown in _matrices(study)]
    words += [ranking_in_words(board) for board in boards if board is not None]
    words += _inspections(study, outcomes)
    if failed:
        words.append(f"{_count(len(failed), 'cell')} failed; each is named in its experiment.")
    return Report(
        title=study.title,
        about=study.about,
        summary=tuple(words),
        tables=(),
        sections=sections,
        provenance={
            "study": study.name,
            "profile": study.profile,
            "seeds": seeds,
            "cells": len(cells),
            "versions": _versions(),
            **({"seconds": dict(seconds)} if seconds else {}),
            "statistics": "95 % intervals over seeds and test units, tests paired by seed where both sides have the "
            "same ones; what each is: docs/statistics.md and docs/studies.md",
        },
    )


def _section(study: Study, experiment: Experiment, outcomes: Sequence[Outcome], failed: Failed) -> Section:
    done = [outcome for outcome in outcomes if outcome.cell.experiment == experiment.name]
    own = by_count(done)
    tables, figures, failures = [], [], {}
    for shown in experiment.shows:
        if isinstance(shown, ShowTable):
            tables.append(study_table(shown, own, name=f"{experiment.name}-{len(tables) + 1}"))
            continue
        if isinstance(shown, ShowSlopes):
            tables.append(slopes_table(shown, own, name=f"{experiment.name}-{len(tables) + 1}"))
            continue
        if isinstance(shown, ShowInspections):
            name = f"{experiment.name}-{len(tables) + 1}"
            tables += inspection_tables(shown, own, name=name)
            figures += inspection_figures(shown, own, name=name)
            continue
        if isinstance(shown, ShowMatrix):
            board = _board(study, experiment, shown, outcomes)
            name = f"{experiment.name}-{len(tables) + 1}"
            tables += () if board is None else matrix_tables(board, name=name)
            figures += () if board is None else matrix_figures(board, name=name)
            continue
        figure, reason = _figure(shown, own, name=f"{experiment.name}-{len(figures) + 1}")
        if figure is not None:
            figures.append(figure)
        else:
            failures[f"figure: {shown.title or shown.name or shown.y or shown.z}"] = reason
    for cell, reason in failed:
        if cell.experiment == experiment.name:
            failures[f"cell {axes_in_words({**cell.axis, 'seed': cell.seed})}"] = reason
    return Section(
        experiment.name,
        experiment.title,
        experiment.asks,
        findings(experiment.claims, own),
        tuple(tables),
        tuple(figures),
        _cells(experiment, done, failed),
        _commands(study, experiment),
        failures,
    )


def _figure(shown: ShowFigure, outcomes: Sequence[Outcome], *, name: str) -> tuple[Figure | None, str]:
    """The figure, or why there is none: a page is not lost over one figure."""
    try:
        return study_figure(shown, outcomes, name=name), "nothing of it was measured"
    except DataError as error:
        return None, str(error)


def _cells(experiment: Experiment, outcomes: Sequence[Outcome], failed: Failed) -> Table | None:
    """Every cell with its state and what it cost."""
    if not experiment.cells:
        return None
    axes = list(dict.fromkeys(axis for cell in experiment.cells for axis, _ in cell.axes))
    done = {(outcome.cell.axes, outcome.cell.seed): outcome for outcome in outcomes}
    wrong = {(cell.axes, cell.seed) for cell, _ in failed if cell.experiment == experiment.name}
    rows: list[tuple[Shown, ...]] = []
    for cell in experiment.cells:
        outcome = done.get((cell.axes, cell.seed))
        state = "done" if outcome else "failed" if (cell.axes, cell.seed) in wrong else "not run"
        numbers = outcome.numbers if outcome else {}
        counts = [None if (n := numbers.get(name)) is None else int(n) for name in ("pairs", "count", "seconds")]
        rows.append((*(cell.axis.get(axis) for axis in axes), cell.seed, state, *counts))
    return Table(
        f"{experiment.name}-cells", "Cells", (*axes, "seed", "state", "pairs", "poisoned pairs", "seconds"), tuple(rows)
    )


def _commands(study: Study, experiment: Experiment) -> dict[str, str]:
    """A command line for each seed of an experiment; what is done already is not done again."""
    packaged = resources.files("mithridate.studies").joinpath("presets", f"{study.name}.yaml").is_file()
    file = study.name if packaged else "FILE"
    drawn = all(cell.data.toy is not None for cell in experiment.cells)
    data = f" --data {study.profile}{'' if drawn else '=FOLDER'}" if study.profile else ""
    line = f"mithridate study {file} --out DIR{data} --only {experiment.name} --seeds"
    seeds = sorted({cell.seed for cell in experiment.cells})
    return {
        f"seed {seed}: {_count(sum(cell.seed == seed for cell in experiment.cells), 'cell')}": f"{line} {seed}"
        for seed in seeds
    }


def claims_table(report: Report) -> Table:
    """Every claim of a study with its verdict."""
    rows = [
        (section.title, each.claim, each.verdict, each.explanation, each.source or None)
        for section in report.sections
        for each in section.claims
    ]
    return Table("claims", "Claims", ("experiment", "claim", "verdict", "what was measured", "source"), tuple(rows))


def _write_table(table: Table, folder: Path) -> str:
    write_atomically(folder / f"{table.name}.md", table_markdown(table) + "\n")
    write_atomically(folder / f"{table.name}.tex", to_latex(table))
    write_atomically(folder / f"{table.name}.csv", to_csv(table))
    return table.name


def _matrices(study: Study) -> list[tuple[Experiment, ShowMatrix]]:
    return [(e, shown) for e in study.experiments for shown in e.shows if isinstance(shown, ShowMatrix)]


def _inspections(study: Study, outcomes: Sequence[Outcome]) -> list[str]:
    """What inspections said, a line for each experiment that shows their verdicts."""
    of = {e.name: [outcome for outcome in outcomes if outcome.cell.experiment == e.name] for e in study.experiments}
    shows = [(e, shown) for e in study.experiments for shown in e.shows if isinstance(shown, ShowInspections)]
    lines = [inspections_in_words(shown, of[e.name]) for e, shown in shows]
    return [line for line in lines if line is not None]


def _board(study: Study, experiment: Experiment, shown: ShowMatrix, outcomes: Sequence[Outcome]) -> Board | None:
    own = by_count([outcome for outcome in outcomes if outcome.cell.experiment == experiment.name])
    return board_of(shown, own, title=study.title, profile=study.profile)


def _write_board(
    experiment: Experiment, shown: ShowMatrix, outcomes: Sequence[Outcome], study: Study, folder: Path
) -> str:
    board = _board(study, experiment, shown, outcomes)
    if board is None:
        return ""
    write_atomically(folder / f"{experiment.name}.json", board.to_json() + "\n")
    return experiment.name


def _write_figure(figure: Figure, folder: Path, style: FigureStyle | None) -> str:
    save_figure(figure, *(folder / f"{figure.name}.{ending}" for ending in ("svg", "png", "pdf")), style=style)
    return figure.name


def _lighter(report: Report, most: int) -> Report:
    """The report with fewer points in its scatter figures."""
    sections = [
        replace(section, figures=tuple(thinned(figure, most) for figure in section.figures))
        for section in report.sections
    ]
    return replace(report, sections=tuple(sections))


def _versions() -> dict[str, str]:
    names = ("torch", "open_clip_torch", "numpy")
    return {"mithridate": __version__, "python": platform.python_version(), **{n: metadata.version(n) for n in names}}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
