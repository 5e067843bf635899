"""Test images classified by a model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from mithridate.data.jpeg import decoding
from mithridate.studies.classification import VALUES, classify
from mithridate.studies.stages.clean_pairs import CleanPairs
from mithridate.studies.stages.stage import Stage

if TYPE_CHECKING:
    from mithridate.studies.stages.initial_model import InitialModel
    from mithridate.studies.stages.poisoned_pairs import PoisonedPairs
    from mithridate.studies.stages.trained_model import TrainedModel
    from mithridate.studies.stages.unplanted_model import UnplantedModel
    from mithridate.studies.store import Store


@dataclass(frozen=True)
class ClassifiedImages(Stage):
    """Test images classified by prompts, and where `train` is given by a probe on those images.

    With `poison` the probe tells what test images with its triggers are taken for, too.
    """

    model: "InitialModel | TrainedModel | UnplantedModel"
    test: CleanPairs
    prompts: bool
    train: CleanPairs | None = None
    poison: "PoisonedPairs | None" = None

    kind: ClassVar[str] = "classified"

    def run(self, store: "Store") -> None:
        """Classify; written is whether each test image is right, and each triggered one taken for the target."""
        with store.new(self) as folder:
            np.savez(folder / VALUES, **classify(self, store))  # type: ignore[arg-type]

    def conditions(self) -> dict[str, str]:
        return {"decoding": decoding()}
