"""A study under `torchrun`: the first process does everything but the trainings, in which all take part.

The others wait by looking at a small file in the study's folder, so that no collective is left waiting for an hour.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch.distributed as dist

from mithridate.studies.graph import Graph
from mithridate.studies.inputs import begin_folder, read_fingerprints
from mithridate.studies.session import CellProgress, RunSummary, StudyRun
from mithridate.studies.spec.study import Study
from mithridate.studies.stages.trained_model import TrainedModel
from mithridate.studies.store import Store, write_json
from mithridate.studies.worker import Worker
from mithridate.training.distributed import Processes

_LOOK = 0.1  # seconds between two looks at what to train next


def run_together(
    study: Study,
    chosen: Study,
    out: Path,
    *,
    keep_models: bool,
    text: str | None,
    data: str | None,
    on_cell: Callable[[CellProgress], None],
) -> RunSummary:
    """As `run_study`, in every process of a `torchrun`; the first gives back what came of it.

    An error in a training ends the run: the processes would wait for each other.
    """
    processes = Processes.join()
    name = [uuid4().hex]
    dist.broadcast_object_list(name, src=0, device=processes.device)
    board = Path(out) / f".together-{name[0]}.json"
    if not processes.first:
        return _join_in(study, Path(out), board)
    announced = 0

    def announce(key: str) -> None:
        nonlocal announced
        announced += 1
        write_json(board, {"number": announced, "train": key})

    try:
        fingerprints = begin_folder(study, out, text=text, data=data, keep_models=keep_models)
        run = StudyRun.begin(study, chosen, out, fingerprints, on_cell)
        Worker(
            run.graph,
            out,
            run.wanted,
            tell=run.tell,
            keep_models=keep_models,
            train_together=announce,
        ).run()
        announce("")
        return run.end(keep=keep_models)
    finally:
        # the others look several times a second, and leave by themselves
        time.sleep(10 * _LOOK)
        board.unlink(missing_ok=True)


def _join_in(study: Study, out: Path, board: Path) -> RunSummary:
    """Take part in every training that the first process announces."""
    seen, parent = 0, os.getppid()
    graph: Graph | None = None
    while os.getppid() == parent:
        try:
            notice: dict[str, Any] = json.loads(board.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            notice = {"number": 0}
        if notice["number"] == seen:
            time.sleep(_LOOK)
            continue
        seen = notice["number"]
        if not notice["train"]:
            break
        graph = graph or Graph.of(study.cells, read_fingerprints(out), out)
        stage = graph.tasks[notice["train"]].stage
        assert isinstance(stage, TrainedModel)  # nothing else is announced
        stage.train(Store(out, frozenset(graph.epochs), keys=graph.keys))
    return RunSummary(0, 0, 0.0)
