"""One process at a study: it takes what nobody has taken, does it, and waits for the others where it must."""

import json
import os
import random
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mithridate.errors import MithridateError
from mithridate.sealed import DamagedFile, read_object
from mithridate.studies.graph import Graph, Task
from mithridate.studies.locks import Locks
from mithridate.studies.stages.trained_model import TrainedModel
from mithridate.studies.store import Store, write_json

FAILED, LOCKS, LOG = "failed", "locks", "log.jsonl"
_WAIT = (0.2, 2.0)  # seconds between two looks where all is taken: short first

Tell = Callable[[str, str, float], None]  # what happened (cell, failed), to which measurement, seconds


class Worker:
    """`wanted`: keys of the measurements to be made, in order. `graph` is of the whole study."""

    def __init__(
        self,
        graph: Graph,
        out: Path,
        wanted: Sequence[str],
        *,
        tell: Tell,
        keep_models: bool = False,
        train_together: Callable[[str], None] | None = None,
        store: Store | None = None,
    ) -> None:
        self.graph, self.out, self.wanted, self.tell = graph, Path(out), list(wanted), tell
        self.keep_models, self.train_together = keep_models, train_together
        self.store = store or Store(out, frozenset(graph.epochs), keys=graph.keys)
        self.locks = Locks(self.out / LOCKS)

    def run(self) -> None:
        """Until every wanted measurement is made, by whomever, or has failed.

        `train_together` is called with the key of each training before it begins, where several processes take part.
        """
        waited = _WAIT[0]
        while True:
            left = [key for key in self.wanted if not self.graph.has(key) and not self._failed(key)]
            if not left:
                return
            task = self._pick(left)
            if task is None:
                # not all at once: others look too
                time.sleep(waited * random.uniform(0.7, 1.3))
                waited = min(_WAIT[1], waited * 1.5)
                continue
            waited = _WAIT[0]
            self._do(task)

    def _pick(self, left: Sequence[str]) -> Task | None:
        """Something to do, claimed; None where others do all that can be done now."""
        tried: set[str] = set()
        for key in left:
            for task in self.graph.missing(key):
                if task.key in tried:
                    continue
                tried.add(task.key)
                if failure(self.out, task.key) is not None:
                    self._pass_on(task.key, key)
                    break
                if not all(self.graph.has(need) for need in task.needs) or not self.locks.take(task.key):
                    continue
                # done, or failed, by another between the look and the claim
                if self.graph.has(task.key, look=True) or failure(self.out, task.key) is not None:
                    self.locks.release(task.key)
                    continue
                return task
        return None

    def _do(self, task: Task) -> None:
        clock = time.perf_counter()
        try:
            if isinstance(task.stage, TrainedModel) and self.train_together is not None:
                self.train_together(task.key)
            task.stage.run(self.store)
        except Exception as error:
            if all(self.graph.has(need, look=True) for need in task.needs):
                self._fail(task.key, error)
            if isinstance(task.stage, TrainedModel) and self.train_together is not None:
                raise  # the others are in the middle of it
            # else another process, with another choice of cells, gave up what this one needs: it is made again
        else:
            self._log(task, time.perf_counter() - clock)
        finally:
            self.locks.release(task.key)
        if task.key in self.graph.cells and self.graph.has(task.key):
            if not self.keep_models:
                give_up(self.graph, self.store, task.key)
            self.tell("cell", task.key, time.perf_counter() - clock)

    def _log(self, task: Task, seconds: float) -> None:
        """One line for every stage that was done, by whomever: what a study cost, and that nothing was done twice."""
        line = {
            "kind": task.stage.kind,
            "key": task.key,
            "seconds": round(seconds, 3),
            "at": round(time.time(), 3),
            "pid": os.getpid(),
        }
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _failed(self, key: str) -> bool:
        return failure(self.out, key) is not None

    def _fail(self, key: str, error: Exception) -> None:
        message = str(error) if isinstance(error, MithridateError) else f"{type(error).__name__}: {error}"
        record = {"error": message, "traceback": "".join(traceback.format_exception(error))}
        _write_failure(self.out, key, record)
        if key in self.graph.cells:
            self.tell("failed", key, 0.0)

    def _pass_on(self, key: str, cell: str) -> None:
        """A cell fails with what it needs."""
        if cell != key:
            _write_failure(self.out, cell, failure(self.out, key) or {})
            self.tell("failed", cell, 0.0)


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


def _write_failure(out: Path, key: str, record: dict[str, Any]) -> None:
    folder = Path(out) / FAILED
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{key}.json", record)
