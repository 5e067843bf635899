"""Pairs after an attack."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mithridate.data.jpeg import decoding
from mithridate.data.pairs import Pairs
from mithridate.data.read import read_pairs
from mithridate.data.write import write_table
from mithridate.encoder.surrogate import SurrogateEncoder
from mithridate.poisoning.apply import poison
from mithridate.poisoning.manifest import Manifest, read_manifest, write_manifest
from mithridate.poisoning.plan import Attack
from mithridate.studies.stages.clean_pairs import CleanPairs
from mithridate.studies.stages.stage import Stage, below

if TYPE_CHECKING:
    from mithridate.studies.stages.initial_model import InitialModel
    from mithridate.studies.stages.trained_model import TrainedModel
    from mithridate.studies.store import Store


@dataclass(frozen=True)
class PoisonedPairs(Stage):
    """`pairs` poisoned by `attack`, and the manifest beside them. Gallery and surrogate where the attack needs them."""

    pairs: CleanPairs
    attack: Attack
    seed: int
    gallery: CleanPairs | None = None
    surrogate: "InitialModel | TrainedModel | None" = None

    kind: ClassVar[str] = "poison"
    droppable: ClassVar[bool] = True

    def run(self, store: "Store") -> None:
        """Carry the attack out."""
        surrogate = None
        if self.surrogate is not None:
            surrogate = SurrogateEncoder(self.surrogate.load(store), cache=store.cache(self))
        with store.new(self) as folder:
            data = folder / "data"
            data.mkdir()
            poisoned = poison(
                self.pairs.read(store),
                self.attack,
                seed=self.seed,
                gallery=None if self.gallery is None else self.gallery.read(store),
                surrogate=surrogate,
                images=data / "images",
                progress=store.progress,
            )
            write_table(poisoned.pairs, data, copy_images=False)
            write_manifest(poisoned.manifest, folder / "manifest.json")

    def read(self, store: "Store") -> Pairs:
        """The poisoned pairs."""
        return read_pairs(store.folder(self) / "data")

    def manifest(self, store: "Store") -> Manifest:
        """What was done to them."""
        return read_manifest(store.folder(self))

    def reads(self) -> Iterator[Stage]:
        return below((self.pairs, self.gallery))

    @property
    def clean(self) -> CleanPairs:
        """The pairs that were poisoned."""
        return self.pairs

    def count(self) -> float:
        """About how many pairs, for estimates of time."""
        return self.pairs.count()

    def conditions(self) -> dict[str, str]:
        return {"decoding": decoding()}
