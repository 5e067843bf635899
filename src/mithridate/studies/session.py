"""What the process that was started knows of a run: how many cells are done, how long the rest takes, what failed."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mithridate.folders import sweep_below
from mithridate.studies.execute import FAILED, failure, give_up
from mithridate.studies.graph import Graph
from mithridate.studies.plan import InputFingerprints
from mithridate.studies.record import read_record
from mithridate.studies.spec.study import Cell, Study
from mithridate.studies.store import Store
from mithridate.studies.timing import seconds_left


@dataclass(frozen=True)
class CellProgress:
    """A cell that was finished, or failed: how many of all are done, and how many seconds the rest may take."""

    cell: Cell
    key: str
    failed: str | None
    done: int
    of: int
    seconds: float  # since the run began
    left: float | None


@dataclass(frozen=True)
class RunSummary:
    """What a run left: `failed` cells with what went wrong."""

    done: int
    of: int
    seconds: float
    failed: tuple[tuple[Cell, str], ...] = ()


@dataclass
class StudyRun:
    """What the process that was started knows of a run."""

    graph: Graph
    wanted: list[str]
    out: Path
    on_cell: Callable[[CellProgress], None]
    begun: float = field(default_factory=time.perf_counter)
    jobs: int = 1

    @classmethod
    def begin(
        cls,
        study: Study,
        chosen: Study,
        out: Path,
        fingerprints: InputFingerprints,
        on_cell: Callable[[CellProgress], None],
        *,
        jobs: int = 1,
    ) -> "StudyRun":
        graph = Graph.of(study.cells, fingerprints, out)
        wanted = list(Graph.of(chosen.cells, fingerprints, out).cells)
        run = cls(graph, wanted, out, on_cell, jobs=jobs)
        for path in (out / FAILED).glob("*.json"):  # tried again
            path.unlink(missing_ok=True)
        sweep_below(out)
        return run

    def done(self) -> int:
        return sum(self.graph.has(key) for key in self.wanted)

    def left(self) -> int:
        return len(self.wanted) - self.done()

    def tell(self, what: str, key: str) -> None:
        done, seconds = self.done(), time.perf_counter() - self.begun
        reason = failure(self.out, key) if what == "failed" else None
        message = None if what != "failed" else (reason or {}).get("error", "it failed")
        left = seconds_left(self.graph, self.wanted)
        left = None if left is None else left / self.jobs
        self.on_cell(CellProgress(self.graph.cells[key][0], key, message, done, len(self.wanted), seconds, left))

    def end(self, *, keep: bool = False) -> RunSummary:
        """What came of it. What no cell needs any more goes, and where all is done the caches of toy worlds too.

        Unless it is to be kept, or was to be in an earlier run.
        """
        record = read_record(self.out)
        keep = keep or (record is not None and record.kept)
        store = Store(self.out, keys=self.graph.keys)
        for key in () if keep else self.wanted:  # killed when a cell was done, what it had needed stayed
            if self.graph.has(key):
                give_up(self.graph, store, key)
        if not keep and not self.graph.left():
            for gone in (*(self.out / "cache").glob("[!r]*"), *self.out.glob("stages/models/*/.*-gone")):
                shutil.rmtree(gone, ignore_errors=True)
        failed = []
        for key in self.wanted:
            if self.graph.has(key, look=True):
                continue
            reason = failure(self.out, key)
            message = reason.get("error", "it failed") if reason else "not made: the run ended before"
            failed += [(cell, message) for cell in self.graph.cells[key]]
        return RunSummary(self.done(), len(self.wanted), time.perf_counter() - self.begun, tuple(failed))
