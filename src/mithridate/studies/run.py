"""A study carried out: by one process or several, on one folder, from any moment on."""

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mithridate.errors import StudyError
from mithridate.plugins import SentPlugins
from mithridate.processes import start_worker
from mithridate.studies.graph import Graph
from mithridate.studies.inputs import begin_folder
from mithridate.studies.plan import InputFingerprints
from mithridate.studies.session import CellProgress, RunSummary, StudyRun
from mithridate.studies.spec.cells import selected
from mithridate.studies.spec.study import Study
from mithridate.studies.stages.trained_model import TrainedModel
from mithridate.studies.store import OnStep, Progress, Store, silent
from mithridate.studies.worker import Worker
from mithridate.threads import thread_count, threads_of_children

_DEATHS = 3  # of processes that are replaced
_PATIENCE = 3.0  # seconds that a process has to end in order


def run_study(
    study: Study,
    out: Path,
    *,
    jobs: int = 1,
    only: Sequence[str] = (),
    keep_models: bool = False,
    text: str | None = None,
    data: str | None = None,
    on_cell: Callable[[CellProgress], None] = lambda progress: None,
    progress: Progress = silent,
    on_training: "Callable[[TrainedModel], OnStep] | None" = None,
) -> RunSummary:
    """Train and measure every cell of `study` that is not done in `out`, in `jobs` processes.

    Others may work on `out` at the same time; what they do is not done again, and waited for. Killed and started
    again it goes on. `only`: some experiments. `text` is the study's file, `data` what its profile was chosen by: both
    are kept in `out`. Under `torchrun` every process takes part in the trainings and the first does the rest.
    `progress` and `on_training` are those of `Store`, with one job.

    Raises `StudyError` where `out` holds another study.
    """
    if jobs < 1:
        raise StudyError(f"jobs must be at least 1, got {jobs}")
    out = Path(out)
    chosen = selected(study, only)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        from mithridate.studies.together import run_together

        if jobs > 1:
            raise StudyError("under torchrun the processes train together; leave out --jobs")
        return run_together(study, chosen, out, keep_models=keep_models, text=text, data=data, on_cell=on_cell)
    fingerprints = begin_folder(study, out, text=text, data=data, processes=jobs, keep_models=keep_models)
    run = StudyRun.begin(study, chosen, out, fingerprints, on_cell, jobs=jobs)
    if run.left():
        if jobs == 1:
            epochs = frozenset(run.graph.epochs)
            store = Store(out, epochs, keys=run.graph.keys, progress=progress, on_training=on_training)
            Worker(run.graph, out, run.wanted, tell=run.tell, keep_models=keep_models, store=store).run()
        else:
            _in_processes(run, study, chosen, fingerprints, jobs, keep_models)
    return run.end(keep=keep_models)


# --- several processes ------------------------------------------------------------------------------


def _in_processes(
    run: StudyRun, study: Study, chosen: Study, fingerprints: InputFingerprints, jobs: int, keep_models: bool
) -> None:
    """`jobs` processes at the study, each with its share of the cores."""
    context = multiprocessing.get_context("spawn")
    events: Any = context.Queue()
    ours = (SentPlugins(), study, chosen, fingerprints, run.out, keep_models)
    with threads_of_children(max(1, thread_count() // jobs)):
        processes = [start_worker(context, _work, *ours, shared=(events,)) for _ in range(jobs)]
        deaths = 0
        try:
            while any(process.is_alive() for process in processes):
                _listen(run, events, 0.5)
                for i, process in enumerate(processes):
                    if process.exitcode not in (None, 0) and deaths < _DEATHS and run.left():
                        deaths += 1
                        process.join()
                        processes[i] = start_worker(context, _work, *ours, shared=(events,))
            _listen(run, events, 0.5)
        finally:
            for process in processes:
                process.terminate()  # it takes away what it has half-written
            for process in processes:
                process.join(_PATIENCE)
                if process.is_alive():
                    process.kill()
                    process.join()
            events.close()


def _listen(run: StudyRun, events: Any, seconds: float) -> None:
    import queue

    end = time.perf_counter() + seconds
    while (left := end - time.perf_counter()) > 0:
        try:
            run.tell(*events.get(timeout=left))
        except queue.Empty:
            return


def _work(
    _plugins: SentPlugins,
    study: Study,
    chosen: Study,
    fingerprints: InputFingerprints,
    out: Path,
    keep_models: bool,
    events: Any,
) -> None:
    """What a process of its own does; plugins are loaded before anything of theirs is unpickled."""
    graph = Graph.of(study.cells, fingerprints, out)
    wanted = list(Graph.of(chosen.cells, fingerprints, out).cells)
    Worker(graph, out, wanted, tell=lambda *event: events.put(event), keep_models=keep_models).run()
