"""All stages of a study with what each needs, each once, and which of them are there."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mithridate.studies.plan import InputFingerprints, measured
from mithridate.studies.spec.study import Cell
from mithridate.studies.stages.stage import Keys, Stage


@dataclass(frozen=True)
class Task:
    """A stage by its key, with the keys of what it needs."""

    key: str
    stage: Stage
    needs: tuple[str, ...]
    folder: Path


@dataclass
class Graph:
    """`cells`: the cells that each measurement is of. `users`: the measurements that a stage is needed for."""

    tasks: dict[str, Task] = field(default_factory=dict)
    cells: dict[str, list[Cell]] = field(default_factory=dict)
    users: dict[str, set[str]] = field(default_factory=dict)
    epochs: set[str] = field(default_factory=set)
    keys: Keys = field(default_factory=Keys)
    _there: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, cells: Iterable[Cell], fingerprints: InputFingerprints, out: Path) -> "Graph":
        return cls.of_stages(((measured(cell, fingerprints), cell) for cell in cells), out)

    @classmethod
    def of_stages(cls, wanted: Iterable[tuple[Stage, Cell | None]], out: Path) -> "Graph":
        """As `of`, of the stages that measure; None where one is of no cell."""
        graph = cls()
        for stage, cell in wanted:
            key = graph._add(stage, Path(out))
            graph.cells.setdefault(key, []).extend([] if cell is None else [cell])
            graph.epochs |= {graph.keys.of(training) for training in stage.epochs_of()}
        for key in graph.cells:
            for below in graph.below(key):
                graph.users.setdefault(below, set()).add(key)
        return graph

    def _add(self, stage: Stage, out: Path) -> str:
        key = self.keys.of(stage)
        if key not in self.tasks:
            needs = dict.fromkeys(self._add(need, out) for need in stage.needs())
            self.tasks[key] = Task(key, stage, tuple(needs), out / "stages" / stage.kind / key)
        return key

    def below(self, key: str) -> Iterator[str]:
        """A stage with all that it stands on, each once."""
        seen: set[str] = set()
        left = [key]
        while left:
            here = left.pop()
            if here not in seen:
                seen.add(here)
                yield here
                left += self.tasks[here].needs

    def has(self, key: str, *, look: bool = False) -> bool:
        """Whether a stage is done and there. What was there once is not looked for again, unless `look`."""
        if key not in self._there or look:
            task = self.tasks[key]
            if task.stage.is_done(task.folder, epochs=key in self.epochs):
                self._there.add(key)
            else:
                self._there.discard(key)
        return key in self._there

    def missing(self, key: str) -> list[Task]:
        """What is to be done for `key`, itself among it, each after what it needs."""
        found: dict[str, Task] = {}

        def visit(here: str) -> None:
            if here in found or self.has(here):
                return
            for need in self.tasks[here].needs:
                visit(need)
            found[here] = self.tasks[here]

        visit(key)
        return list(found.values())

    def left(self, wanted: Iterable[str] | None = None) -> list[Task]:
        """All that is to be done for these measurements, by default for every one, each once."""
        keys = self.cells if wanted is None else wanted
        return list({task.key: task for key in keys for task in self.missing(key)}.values())
