"""The stages of a study done on the engine: what is missing, each after what it needs, and what failed written down."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mithridate.engine.calls import Engine, Outcome, Resources
from mithridate.engine.run import run_graph
from mithridate.sealed import DamagedFile, read_object
from mithridate.studies.graph import Graph
from mithridate.studies.store import Store, write_json

FAILED, LOG, RUNNING = "failed", "log.jsonl", "running.json"
_ROUNDS = 3  # what is found damaged by the stage that reads it is made again
_WITHOUT_GPU = ("toy",)  # kinds of stages that run no model

Tell = Callable[[str, str], None]  # what happened (cell, failed), to which measurement


@dataclass(frozen=True)
class StageRunner:
    """What a worker does with the key of a stage; `store` is what this process works with, another's is made of it."""

    graph: Graph
    store: Store

    def begin(self) -> Callable[[str], None]:
        return lambda key: self.graph.tasks[key].stage.run(self.store)

    def __getstate__(self) -> dict[str, Any]:
        return {"graph": self.graph, "store": self.store.sendable()}


class Execution:
    """One run over the measurements `wanted`, in order. `graph` is of the whole study.

    Weights and sets go when no measurement needs them any more, unless `keep_models`.
    """

    def __init__(
        self, graph: Graph, store: Store, wanted: Sequence[str], *, tell: Tell, keep_models: bool = False
    ) -> None:
        self.graph, self.store, self.out, self.wanted = graph, store, store.out, list(wanted)
        self.tell, self.keep_models = tell, keep_models
        self._running: dict[str, str] = {}

    def run(self, engine: Engine) -> None:
        """Until every wanted measurement is made, or has failed, or more failed than the engine allows."""
        failures = 0
        try:
            for _ in range(_ROUNDS):
                left = self.graph.left(key for key in self.wanted if failure(self.out, key) is None)
                if not left or (engine.max_errors is not None and failures > engine.max_errors):
                    return
                failed = run_graph(
                    StageRunner(self.graph, self.store),
                    {task.key: task.needs for task in left},
                    engine=engine,
                    resources_of=lambda key: self._resources(key, engine.resources),
                    on_begin=self._begin,
                    on_end=self._end,
                )
                failures += len(failed)
        finally:
            (self.out / RUNNING).unlink(missing_ok=True)

    def _resources(self, key: str, resources: Resources) -> Resources:
        return replace(resources, gpus=0.0) if self.graph.tasks[key].stage.kind in _WITHOUT_GPU else resources

    def _begin(self, key: str) -> None:
        self._running[key] = self.graph.tasks[key].stage.kind
        write_json(self.out / RUNNING, self._running)

    def _end(self, key: str, outcome: Outcome) -> None:
        self._running.pop(key, None)
        write_json(self.out / RUNNING, self._running)
        if outcome.error is not None:
            # else what it needed is damaged or gone, and is made again in the next round
            if all(self.graph.has(need, look=True) for need in self.graph.tasks[key].needs):
                self._fail(key, outcome)
            return
        self._log(key, outcome)
        if key in self.graph.cells and self.graph.has(key):
            if not self.keep_models:
                give_up(self.graph, self.store, key)
            self.tell("cell", key)

    def _log(self, key: str, outcome: Outcome) -> None:
        """One line for every stage that was done: what a study cost, and that nothing was done twice."""
        line = {
            "kind": self.graph.tasks[key].stage.kind,
            "key": key,
            "seconds": round(outcome.seconds, 3),
            "at": round(time.time(), 3),
            "pid": outcome.pid,
        }
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _fail(self, key: str, outcome: Outcome) -> None:
        """A stage fails, and with it the measurements that need it."""
        record = {"error": outcome.error, "traceback": outcome.trace}
        _write_failure(self.out, key, record)
        for cell in self.wanted:
            if cell in self.graph.users.get(key, ()) and not self.graph.has(cell):
                if cell != key and failure(self.out, cell) is not None:
                    continue
                _write_failure(self.out, cell, record)
                self.tell("failed", cell)


def give_up(graph: Graph, store: Store, key: str) -> None:
    """Take away models and sets that only this measurement and finished ones needed."""
    for below in graph.below(key):
        task = graph.tasks[below]
        if task.stage.droppable and all(graph.has(user) for user in graph.users[below]):
            store.drop(task.stage)


def failure(out: Path, key: str) -> dict[str, Any] | None:
    """What went wrong with a stage, where something did."""
    try:
        record = read_object(Path(out) / FAILED / f"{key}.json")
        return {**record, "error": str(record.get("error", "it failed"))}
    except FileNotFoundError:
        return None
    except (OSError, DamagedFile):
        return {"error": "the failure record is unreadable"}


def running(out: Path) -> dict[str, str]:
    """The stages that the run which works on `out` has begun, with their kinds; what a killed run left says nothing."""
    try:
        return {str(key): str(kind) for key, kind in read_object(Path(out) / RUNNING).items()}
    except (OSError, DamagedFile):
        return {}


def _write_failure(out: Path, key: str, record: dict[str, Any]) -> None:
    folder = Path(out) / FAILED
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{key}.json", record)
