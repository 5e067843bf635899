"""One model on test pairs, under a manifest that lies outside the study."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mithridate.data.jpeg import decoding
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.evaluation_file import read_evaluation, write_evaluation
from mithridate.evaluation.measurement import Evaluation
from mithridate.poisoning.manifest import Manifest, read_manifest
from mithridate.studies.stages.clean_pairs import CleanPairs
from mithridate.studies.stages.stage import Stage

if TYPE_CHECKING:
    from mithridate.studies.stages.initial_model import InitialModel
    from mithridate.studies.stages.trained_model import TrainedModel
    from mithridate.studies.store import Store


@dataclass(frozen=True)
class GivenManifest:
    """A manifest that lies outside the study, known by what it says."""

    fingerprint: str
    path: str = field(metadata={"decides": False})

    @classmethod
    def at(cls, path: Path) -> "GivenManifest":
        """The manifest in a file, or in the folder that holds one. Raises what `read_manifest` raises."""
        manifest = read_manifest(path)
        said = repr((manifest.attack, manifest.goals, manifest.data["poisoned"]))
        return cls(blake2b(said.encode(), digest_size=12).hexdigest(), str(path))

    def read(self) -> Manifest:
        """The manifest."""
        return read_manifest(Path(self.path))


@dataclass(frozen=True)
class EvaluatedModel(Stage):
    """`model`, of a training after `epoch`, evaluated on `test`; `name` is what the evaluation calls it."""

    name: str
    model: "InitialModel | TrainedModel"
    test: CleanPairs
    manifest: GivenManifest
    seed: int
    epoch: int | None = None

    kind: ClassVar[str] = "evaluations"

    def run(self, store: "Store") -> None:
        """Evaluate; the evaluation is written."""
        with store.new(self) as folder:
            model = {self.name: self.model.load(store, self.epoch)}
            evaluation = evaluate(
                model,
                self.test.read(store),
                self.manifest.read(),
                seed=self.seed,
                cache=store.cache(self.test),
                cache_limit=store.cache_limit,
                progress=store.progress,
            )
            write_evaluation(evaluation, folder)

    def read(self, store: "Store") -> Evaluation:
        """The evaluation."""
        return read_evaluation(store.folder(self))

    def epochs_of(self) -> Iterator[Stage]:
        if self.epoch is not None and isinstance(self.model, Stage):
            yield self.model

    def conditions(self) -> dict[str, str]:
        return {"decoding": decoding()}
