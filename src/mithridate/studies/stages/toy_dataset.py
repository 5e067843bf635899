"""A toy dataset, drawn by code."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mithridate.data.pairs import Pairs
from mithridate.data.read import read_pairs
from mithridate.studies.spec.data import ToySpec
from mithridate.studies.stages.stage import Stage
from mithridate.toy.toy import CAPTIONS_PER_IMAGE
from mithridate.toy.world import write_toy_world

if TYPE_CHECKING:
    from mithridate.studies.store import Store


@dataclass(frozen=True)
class ToyDataset(Stage):
    """Training and test pictures with their captions; `seed` draws them."""

    toy: ToySpec
    seed: int

    kind: ClassVar[str] = "toy"

    def run(self, store: "Store") -> None:
        """Draw the pictures of both parts."""
        toy = self.toy
        with store.new(self) as folder:
            write_toy_world(
                folder / "data",
                train=toy.train,
                test=toy.test,
                seed=self.seed,
                size=toy.size,
                classes=toy.classes,
                people=toy.people,
                progress=lambda done, total: store.progress("drawing the toy world", done, total),
            )

    def pairs(self, store: "Store", part: str) -> Pairs:
        """The pairs of one part (train, test)."""
        return read_pairs(store.folder(self) / "data", split=part)

    def count(self) -> int:
        """Pairs to train on."""
        return CAPTIONS_PER_IMAGE * self.toy.train
