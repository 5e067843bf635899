"""Where the stages of a study lie, and whether they are there. What is there is whole."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mithridate.data.pairs import Pairs
from mithridate.encoder.encoder import Encoder
from mithridate.folders import new_folder, write_atomically
from mithridate.studies.stages.stage import Keys, Stage, write_record

if TYPE_CHECKING:
    from mithridate.studies.stages.trained_model import TrainedModel

V = TypeVar("V")
Progress = Callable[[str, int, int], None]
OnStep = Callable[[int, int, int], None]

_REMEMBERED = 8  # sets of pairs


def silent(what: str, done: int, total: int) -> None:
    pass


class Store:
    """The stages below `out`; `epochs` are the keys of trainings that shall keep the model of every epoch.

    `cache` takes the place of the caches of decoded images below `out`. `progress` and `on_training` report how far a
    stage is: what is done and of how many; the latter gives the `on_step` of a training. `processes` of each training.
    """

    def __init__(
        self,
        out: Path,
        epochs: frozenset[str] = frozenset(),
        *,
        keys: Keys | None = None,
        cache: Path | str | None = None,
        cache_limit: int | None = None,
        progress: Progress = silent,
        on_training: "Callable[[TrainedModel], OnStep] | None" = None,
        processes: int = 1,
    ) -> None:
        self.out, self.epochs, self.keys, self.processes = Path(out), epochs, keys or Keys(), processes
        self.progress, self.cache_limit = progress, cache_limit
        self._cache, self._on_training = cache, on_training
        self._read: dict[Any, Any] = {}

    def sendable(self) -> "Store":
        """The same store for another process, which reports no progress."""
        return Store(
            self.out,
            self.epochs,
            keys=self.keys,
            cache=self._cache,
            cache_limit=self.cache_limit,
            processes=self.processes,
        )

    def folder(self, stage: Stage) -> Path:
        """Where a stage lies or will lie."""
        return self.out / "stages" / stage.kind / self.keys.of(stage)

    def is_done(self, stage: Stage) -> bool:
        """Whether a stage is done, and what it gave is still there."""
        return stage.is_done(self.folder(stage), epochs=self.keeps_epochs(stage))

    def keeps_epochs(self, stage: Stage) -> bool:
        """Whether a training shall keep the model of every epoch."""
        return self.keys.of(stage) in self.epochs

    def cache(self, pairs: Any) -> Path | str:
        """The image cache for these pairs: one for a toy dataset with all that is made of it, one for what is read."""
        if self._cache is not None:
            return self._cache
        toy = pairs.clean.toy
        return self.out / "cache" / ("read" if toy is None else self.keys.of(toy))

    def on_step(self, stage: "TrainedModel") -> OnStep:
        """What a training calls after every step."""
        return (lambda step, total, batch_size: None) if self._on_training is None else self._on_training(stage)

    @contextmanager
    def new(self, stage: Stage) -> Iterator[Path]:
        """A folder to write a stage into; it is there when the block ends, with how long that took."""
        folder, begin = self.folder(stage), time.perf_counter()
        folder.parent.mkdir(parents=True, exist_ok=True)
        for part in folder.parent.glob(f".{folder.name}-*"):  # what killed processes left; nobody else writes it
            shutil.rmtree(part, ignore_errors=True)
        with new_folder(folder, overwrite=True) as part:
            yield part
            record = {**self.record(stage), "seconds": round(time.perf_counter() - begin, 3)}
            write_record(part, record)

    def record(self, stage: Stage) -> dict[str, Any]:
        """What is written beside a stage's result: its kind, and how it was made."""
        return {"kind": stage.kind, **self.keys.made_by(stage)}

    def drop(self, stage: Stage) -> None:
        """Delete what a stage gave, so far as it takes room."""
        stage.drop(self.folder(stage))

    def link(self, name: str, stage: Stage, below: str = "") -> None:
        """Make `name` in `out` a link to what a stage gave, or to what lies `below` there."""
        link, target = self.out / name, self.folder(stage) / below
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and link.resolve() != target.resolve():
            link.unlink()  # of source that was edited since
        if not link.exists():
            link.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)

    def remember(self, what: Any, read: "Callable[[Store], V]") -> V:
        """What `read` gives for `what`, read once while it is among the last few."""
        if what not in self._read:
            while len(self._read) >= _REMEMBERED:
                del self._read[next(iter(self._read))]
            self._read[what] = read(self)
        return self._read[what]

    # --- what stages gave -------------------------------------------------------------------------------

    def pairs(self, of: Any) -> Pairs:
        """The pairs of `CleanPairs`, `PoisonedPairs` or `FilteredPairs`."""
        return of.read(self)

    def encoder(self, of: Any, epoch: int | None = None) -> Encoder:
        """An `InitialModel`, or a `TrainedModel` after `epoch`, by default the last."""
        return of.load(self, epoch)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False))
