"""A model after training."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mithridate.data.jpeg import decoding
from mithridate.encoder.encoder import CONFIG, Encoder, load_encoder
from mithridate.errors import OutputError
from mithridate.studies.stages.stage import RECORD, Stage, is_whole, remove, write_record
from mithridate.studies.stages.torchrun import train_in_processes
from mithridate.training.clip import Clip
from mithridate.training.config import TrainConfig
from mithridate.training.loop import train, training_precision
from mithridate.training.objective import Objective
from mithridate.training.run import METRICS, MODEL, RUN, STATE, epoch_folder

if TYPE_CHECKING:
    from mithridate.studies.stages.audited_pairs import AuditedPairs
    from mithridate.studies.stages.clean_pairs import CleanPairs
    from mithridate.studies.stages.filtered_pairs import FilteredPairs
    from mithridate.studies.stages.initial_model import InitialModel
    from mithridate.studies.stages.poisoned_pairs import PoisonedPairs
    from mithridate.studies.store import Store


@dataclass(frozen=True)
class TrainedModel(Stage):
    """`start` trained on `pairs` with `objective` by the recipe `config`."""

    start: "InitialModel | TrainedModel"
    pairs: "AuditedPairs | CleanPairs | PoisonedPairs | FilteredPairs"
    objective: Objective
    config: TrainConfig

    kind: ClassVar[str] = "models"
    droppable: ClassVar[bool] = True

    def run(self, store: "Store") -> None:
        """Train, or go on where a killed training was; in several processes where the store says so."""
        folder, epochs = store.folder(self), store.keeps_epochs(self)
        if folder.is_dir() and (not (folder / RUN).is_file() or (folder / RECORD).is_file()):
            shutil.rmtree(folder)  # killed before it began; or done, and its model damaged or deleted since
        folder.parent.mkdir(parents=True, exist_ok=True)
        if all((folder / part / CONFIG).is_file() for part in self._models(epochs)):
            count = len(self.pairs.read(store))  # killed before it had written down that it was done
        else:
            count = self._train_anew_where_damaged(store, folder)
        (folder / STATE).unlink(missing_ok=True)
        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        seconds = _training_seconds(folder, self.config.batch_size)
        record = {**store.record(self), "seconds": round(seconds, 3), "pairs": count}
        write_record(folder, record, (METRICS, *self._models(epochs)))

    def _train_anew_where_damaged(self, store: "Store", folder: Path) -> int:
        if store.processes > 1:
            return train_in_processes(self, store)
        try:
            return self.train(store)
        except OutputError:
            # what lies there is damaged; a full disk fails again
            shutil.rmtree(folder, ignore_errors=True)
            return self.train(store)

    def train(self, store: "Store") -> int:
        """The training alone; gives back the number of pairs."""
        pairs = self.pairs.read(store)
        train(
            self.start.load(store),
            pairs,
            objective=self.objective,
            config=replace(self.config, save_epochs=store.keeps_epochs(self)),
            out=store.folder(self),
            cache=store.cache(self.pairs),
            progress=store.progress,
            on_step=store.on_step(self),
        )
        return len(pairs)

    def load(self, store: "Store", epoch: int | None = None) -> Encoder:
        """The model after `epoch`, by default the last."""
        folder = store.folder(self)
        return load_encoder(str(folder if epoch is None else epoch_folder(folder, epoch)))

    @property
    def initial(self) -> "InitialModel":
        """The model that the first training began with."""
        return self.start.initial

    def is_done(self, folder: Path, *, epochs: bool = False) -> bool:
        parts = self._models(epochs)
        return all((folder / part / CONFIG).is_file() for part in parts) and is_whole(folder, (METRICS, *parts))

    def _models(self, epochs: bool) -> list[str]:
        """Where in its folder the model lies, and with `epochs` that of each epoch."""
        each = range(1, self.config.epochs + 1) if epochs else ()
        return [MODEL, *(f"epochs/{epoch:03d}" for epoch in each)]

    def drop(self, folder: Path) -> None:
        """Delete the weights; what the training measured stays."""
        for path in (folder / MODEL, folder / "epochs"):
            remove(path)

    def cost(self) -> float:
        """Pairs times epochs; an objective that is not plain CLIP counts twice."""
        return self.config.epochs * self.pairs.count() * (1 if type(self.objective) is Clip else 2)

    def alike(self) -> list[tuple[str, ...]]:
        encoder = self.initial.encoder
        return [(self.kind, encoder, type(self.objective).__name__), (self.kind, encoder), (self.kind,)]

    def conditions(self) -> dict[str, str]:
        return {"decoding": decoding(), "precision": training_precision(self.config)}


def _training_seconds(folder: Path, batch_size: int) -> float:
    """How long the steps of a training took, also where it was killed and went on."""
    seconds = 0.0
    for line in (folder / METRICS).read_text(encoding="utf-8").splitlines():
        seconds += batch_size / max(float(json.loads(line)["pairs_per_s"]), 1e-9)
    return seconds
