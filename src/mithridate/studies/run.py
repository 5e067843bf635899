"""A study carried out: by one process that gives the stages to an engine, from any moment on."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mithridate.engine.calls import Engine
from mithridate.errors import StudyError
from mithridate.folders import claim
from mithridate.studies.execute import RUNNING, Execution
from mithridate.studies.inputs import begin_folder
from mithridate.studies.session import CellProgress, RunSummary, StudyRun
from mithridate.studies.spec.cells import selected
from mithridate.studies.spec.study import Study
from mithridate.studies.stages.trained_model import TrainedModel
from mithridate.studies.store import OnStep, Progress, Store, silent


def run_study(
    study: Study,
    out: Path,
    *,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
    processes: int = 1,
    only: Sequence[str] = (),
    keep_models: bool = False,
    text: str | None = None,
    data: str | None = None,
    on_cell: Callable[[CellProgress], None] = lambda progress: None,
    progress: Progress = silent,
    on_training: "Callable[[TrainedModel], OnStep] | None" = None,
) -> RunSummary:
    """Train and measure every cell of `study` that is not done in `out`, on `engine`.

    Killed and started again it goes on, also on another engine. `processes` of each training: torchrun begins them, on
    one machine. `only`: some experiments. `text` is the study's file, `data` what its profile was chosen by: both are
    kept in `out`. `progress` and `on_training` are those of `Store`, where the engine is this process.

    Raises `StudyError` where `out` holds another study, and `OutputError` where another process works on it.
    """
    if processes < 1:
        raise StudyError(f"processes must be at least 1, got {processes}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise StudyError("a study is one process, which begins torchrun itself: leave torchrun out, pass --processes")
    out = Path(out)
    chosen = selected(study, only)
    with claim(out):
        jobs = engine.jobs or 1
        fingerprints = begin_folder(study, out, text=text, data=data, processes=jobs, keep_models=keep_models)
        (out / RUNNING).unlink(missing_ok=True)  # of a run that was killed
        run = StudyRun.begin(study, chosen, out, fingerprints, on_cell, jobs=jobs)
        if run.left():
            store = Store(
                out,
                frozenset(run.graph.epochs),
                keys=run.graph.keys,
                progress=progress,
                on_training=on_training,
                processes=processes,
            )
            Execution(run.graph, store, run.wanted, tell=run.tell, keep_models=keep_models).run(engine)
        return run.end(keep=keep_models)
