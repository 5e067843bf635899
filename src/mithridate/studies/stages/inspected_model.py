"""A model inspected by somebody who has clean pairs of their own, and perhaps the start, and never the manifest."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mithridate.data.jpeg import decoding
from mithridate.inspection.findings_file import read_findings, write_findings
from mithridate.inspection.inspect import Inspection, inspect
from mithridate.sealed import read_sealed_json, write_sealed_json
from mithridate.studies.stages.clean_pairs import CleanPairs
from mithridate.studies.stages.stage import Stage, below

if TYPE_CHECKING:
    from mithridate.studies.stages.initial_model import InitialModel
    from mithridate.studies.stages.trained_model import TrainedModel
    from mithridate.studies.store import Store

SAID = "said.json"


@dataclass(frozen=True)
class InspectedModel(Stage):
    """`model` inspected with the clean `pairs`; `start` is None where its owner has none."""

    model: "InitialModel | TrainedModel"
    start: "InitialModel | TrainedModel | None"
    pairs: CleanPairs
    nulls: int
    compare: bool
    seed: int

    kind: ClassVar[str] = "inspected"
    work: ClassVar[str | None] = "inspections"

    def run(self, store: "Store") -> None:
        """Inspect; the findings are written, and `said.json`: what of them is held against the truth."""
        with store.new(self) as folder:
            found = inspect(
                store.encoder(self.model),
                store.pairs(self.pairs),
                start=None if self.start is None else store.encoder(self.start),
                nulls=self.nulls,
                compare=self.compare,
                seed=self.seed,
                cache=store.cache(self.pairs),
                progress=store.progress,
            )
            write_findings(found, folder)
            write_sealed_json(folder / SAID, said(found))

    def reads(self) -> Iterator[Stage]:
        return below((self.model, self.start, self.pairs))

    def findings(self, store: "Store") -> Inspection:
        """The whole inspection."""
        return read_findings(store.folder(self))

    def said(self, store: "Store") -> dict[str, Any]:
        """Verdict, findings and cost, as `said` has them."""
        return read_sealed_json(store.folder(self) / SAID)

    def conditions(self) -> dict[str, str]:
        return {"decoding": decoding()}


def said(inspection: Inspection) -> dict[str, Any]:
    """Verdict, processor seconds, and the findings in their order: what is held against the truth."""
    names = ("probe", "kind", "strength", "null", "flagged", "target", "token", "pair")
    return {
        "verdict": inspection.verdict,
        "seconds": float(sum(inspection.seconds.values())),
        "findings": [{name: getattr(finding, name) for name in names} for finding in inspection.findings],
    }
