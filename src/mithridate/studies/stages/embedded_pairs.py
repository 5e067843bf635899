"""Pairs as an encoder sees them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mithridate.data.jpeg import decoding
from mithridate.encoder.embed import embed
from mithridate.encoder.embeddings import Embeddings
from mithridate.studies.stages.clean_pairs import CleanPairs
from mithridate.studies.stages.stage import Stage, below

if TYPE_CHECKING:
    from mithridate.studies.stages.initial_model import InitialModel
    from mithridate.studies.stages.poisoned_pairs import PoisonedPairs
    from mithridate.studies.stages.trained_model import TrainedModel
    from mithridate.studies.store import Store


_ARRAYS = ("image", "index", "text", "image_length", "text_length")


def _arrays(made: Embeddings) -> tuple[Any, ...]:
    return made.image, made.image_index, made.text, made.image_length, made.text_length


@dataclass(frozen=True)
class EmbeddedPairs(Stage):
    """Embeddings of pairs by an encoder, for a filter."""

    pairs: "CleanPairs | PoisonedPairs"
    encoder: "InitialModel | TrainedModel"

    kind: ClassVar[str] = "embeddings"
    droppable: ClassVar[bool] = True

    def run(self, store: "Store") -> None:
        """Embed images and captions."""
        with store.new(self) as folder:
            made = embed(self.encoder.load(store), self.pairs.read(store), cache=store.cache(self.pairs))
            for name, array in zip(_ARRAYS, _arrays(made)):
                np.save(folder / f"{name}.npy", array, allow_pickle=False)
            record = {"encoder": made.encoder, "weights": made.weights}
            (folder / "encoder.json").write_text(json.dumps(record), encoding="utf-8")

    def read(self, store: "Store") -> Embeddings:
        """The embeddings."""
        folder = store.folder(self)
        record = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        image, index, text, *lengths = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in _ARRAYS)
        return Embeddings(
            self.pairs.read(store).uid, image, index, text, record["encoder"], record["weights"], *lengths
        )

    def reads(self) -> Iterator[Stage]:
        return below(self.pairs)

    def conditions(self) -> dict[str, str]:
        return {"decoding": decoding()}
