"""What a filter leaves of pairs."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mithridate.auditing.evidence import Detector
from mithridate.auditing.filter import filter
from mithridate.auditing.threshold import Threshold
from mithridate.data.pairs import Pairs
from mithridate.evaluation.filter_outcome import poisoned_rows
from mithridate.metrics.detection import detection, losses
from mithridate.statistics.intervals import rate
from mithridate.studies.stages.stage import Stage, below

if TYPE_CHECKING:
    from mithridate.studies.stages.clean_pairs import CleanPairs
    from mithridate.studies.stages.embedded_pairs import EmbeddedPairs
    from mithridate.studies.store import Store


@dataclass(frozen=True)
class FilteredPairs(Stage):
    """The pairs that `detector` finds below `threshold`, which may be set by the clean pairs of `reference`."""

    embedded: "EmbeddedPairs"
    detector: Detector
    threshold: Threshold
    seed: int
    reference: "EmbeddedPairs | None" = None

    kind: ClassVar[str] = "filtered"

    def run(self, store: "Store") -> None:
        """Score and filter the pairs, and measure how well that found the poison."""
        with store.new(self) as folder:
            reference = None if self.reference is None else self.reference.read(store)
            embeddings = self.embedded.read(store)
            filtered = filter(
                embeddings,
                self.detector,
                threshold=self.threshold,
                clean=reference,
                pairs=self.embedded.pairs.read(store),
                seed=self.seed,
            )
            np.save(folder / "keep.npy", filtered.keep, allow_pickle=False)
            estimates = {"clean pairs lost": rate(~filtered.keep)}
            manifest = self.embedded.pairs.manifest(store)
            if manifest is not None:
                bad = poisoned_rows(filtered.scores, manifest)
                lost = losses(filtered.keep, bad, filtered.image_index)
                estimates = {
                    "AUROC": detection(filtered.scores.suspicion, bad, filtered.image_index).auroc,
                    "poison removed": lost.poison_removed,
                    "clean pairs lost": lost.clean_lost,
                }
            record = {
                "pairs": int(filtered.keep.sum()),
                "estimates": {name: asdict(estimate) for name, estimate in estimates.items()},
            }
            (folder / "filter.json").write_text(json.dumps(record), encoding="utf-8")

    def record(self, store: "Store") -> dict[str, Any]:
        """How many pairs stay, and the estimates of how well the filter did."""
        return json.loads((store.folder(self) / "filter.json").read_text(encoding="utf-8"))

    def read(self, store: "Store") -> Pairs:
        """The pairs that stay."""
        return self.embedded.pairs.read(store).where(np.load(store.folder(self) / "keep.npy", allow_pickle=False))

    def reads(self) -> Iterator[Stage]:
        return below(self.embedded.pairs)

    @property
    def clean(self) -> "CleanPairs":
        """The pairs before attack and filter."""
        return self.embedded.pairs.clean

    def count(self) -> float:
        """About how many pairs, for estimates of time."""
        return self.embedded.pairs.count()
