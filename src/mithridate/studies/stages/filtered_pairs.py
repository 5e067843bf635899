"""What a filter leaves of pairs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mithridate.auditing.evidence import Detector
from mithridate.auditing.filter import filter
from mithridate.auditing.threshold import Threshold
from mithridate.data.pairs import Pairs
from mithridate.studies.stages.removal import write_removal
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
            manifest = self.embedded.pairs.manifest(store)
            measures = self.detector.measures
            write_removal(folder, filtered.scores, filtered.keep, filtered.image_index, manifest, measures)

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
