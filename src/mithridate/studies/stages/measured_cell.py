"""All that is measured of a cell."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mithridate.data.jpeg import decoding
from mithridate.studies.measure import measure
from mithridate.studies.stages.clean_pairs import CleanPairs
from mithridate.studies.stages.stage import Stage

if TYPE_CHECKING:
    from mithridate.studies.stages.audited_pairs import AuditedPairs
    from mithridate.studies.stages.classified_images import ClassifiedImages
    from mithridate.studies.stages.filtered_pairs import FilteredPairs
    from mithridate.studies.stages.initial_model import InitialModel
    from mithridate.studies.stages.inspected_model import InspectedModel
    from mithridate.studies.stages.poisoned_pairs import PoisonedPairs
    from mithridate.studies.stages.trained_model import TrainedModel
    from mithridate.studies.stages.unplanted_model import UnplantedModel
    from mithridate.studies.store import Store


@dataclass(frozen=True)
class MeasuredCell(Stage):
    """A cell's model, beside the clean one where there is one, on the same test pairs."""

    model: "TrainedModel"
    clean: "TrainedModel | None"
    test: CleanPairs
    seed: int
    start: "InitialModel | TrainedModel | None" = None
    poison: "PoisonedPairs | None" = None
    filtered: "AuditedPairs | FilteredPairs | None" = None
    classified: "tuple[tuple[str, ClassifiedImages], ...]" = ()  # by model
    shift: "TrainedModel | None" = None  # a second clean model, of another order of the pairs
    epochs: bool = False
    inspected: "tuple[tuple[str, InspectedModel], ...]" = ()  # by model
    repaired: "UnplantedModel | None" = None

    kind: ClassVar[str] = "measured"

    def run(self, store: "Store") -> None:
        """Measure and write what `analysis/outcomes.py` reads."""
        with store.new(self) as folder:
            measure(self, store, folder)

    def epochs_of(self) -> Iterator[Stage]:
        if self.epochs:
            yield self.model

    def trainings(self) -> "list[TrainedModel]":
        """The trainings that led from the start to the cell's model, the last first."""
        chain = [self.model]
        begun = self.model.start if self.clean is None else self.clean.start
        while isinstance(chain[-1].start, type(self.model)) and chain[-1].start != begun:
            chain.append(chain[-1].start)
        return chain

    def alike(self) -> list[tuple[str, ...]]:
        return [(self.kind, str(self.epochs)), (self.kind,)]

    def conditions(self) -> dict[str, str]:
        return {"decoding": decoding()}
