"""A model out of which that was taken which its inspection flagged."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from mithridate.data.jpeg import decoding
from mithridate.encoder.encoder import Encoder, load_encoder, save_encoder
from mithridate.errors import InspectionError
from mithridate.inspection.inspect import Inspection
from mithridate.repairing.repair import Repaired, repair
from mithridate.sealed import read_sealed_json, write_sealed_json
from mithridate.studies.inspection_truth import as_planted
from mithridate.studies.stages.inspected_model import SAID, InspectedModel
from mithridate.studies.stages.stage import Stage, below

if TYPE_CHECKING:
    from mithridate.studies.stages.poisoned_pairs import PoisonedPairs
    from mithridate.studies.store import Store

MODEL = "model"


@dataclass(frozen=True)
class UnplantedModel(Stage):
    """The model of `inspected`, repaired with the same clean pairs. `told`: the poison, which the repair then knows.

    None is made where nothing was flagged, and where a repair does not apply to what was.
    """

    inspected: InspectedModel
    methods: tuple[str, ...] = ()
    verify: bool = True
    told: "PoisonedPairs | None" = None

    kind: ClassVar[str] = "unplanted"
    work: ClassVar[str | None] = "repairs"
    droppable: ClassVar[bool] = True

    def run(self, store: "Store") -> None:
        """Repair, and inspect again where that is asked for."""
        inspection = self.inspected.findings(store)
        if self.told is not None:
            inspection = replace(inspection, findings=as_planted(self.told.manifest(store).goals))
        record: dict[str, Any] = {"methods": [], "seconds": 0.0, "verdict": None, "found": []}
        with store.new(self) as folder:
            made = self._repaired(store, inspection) if inspection.flagged else None
            if made is not None:
                (folder / MODEL).mkdir()
                save_encoder(made.encoder, folder / MODEL)
                record = {"methods": list(made.methods), "seconds": made.seconds, "verdict": made.verdict}
                found = () if made.left is None else made.left.flagged
                record["found"] = [f"{f.probe}: {f.about}" for f in found]
            write_sealed_json(folder / SAID, record)

    def _repaired(self, store: "Store", inspection: Inspection) -> Repaired | None:
        of = self.inspected
        with suppress(InspectionError):  # of a repair that needs another kind of finding, or of model
            return repair(
                store.encoder(of.model),
                inspection,
                store.pairs(of.pairs),
                start=None if of.start is None else store.encoder(of.start),
                methods=self.methods or None,
                verify=self.verify,
                seed=of.seed,
                cache=store.cache(of.pairs),
                progress=store.progress,
            )
        return None

    def reads(self) -> Iterator[Stage]:
        return below((self.inspected, self.told))

    def load(self, store: "Store", epoch: int | None = None) -> Encoder:
        """The repaired model; where none was made the suspect as it is."""
        assert epoch is None  # only what was trained has epochs
        folder = store.folder(self) / MODEL
        return load_encoder(str(folder)) if folder.is_dir() else self.inspected.model.load(store)

    def said(self, store: "Store") -> dict[str, Any]:
        """Methods, processor seconds, and the verdict on what is left, with what was found again."""
        return read_sealed_json(store.folder(self) / SAID)

    def conditions(self) -> dict[str, str]:
        return {"decoding": decoding()}
