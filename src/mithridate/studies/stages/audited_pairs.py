"""What an audit leaves of pairs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from mithridate.auditing.scores import Scores
from mithridate.auditing.threshold import Budget
from mithridate.data.pairs import Pairs
from mithridate.studies.spec.study import AuditSpec
from mithridate.studies.stages.removal import write_removal
from mithridate.studies.stages.stage import Stage, below

if TYPE_CHECKING:
    from mithridate.studies.stages.clean_pairs import CleanPairs
    from mithridate.studies.stages.pair_audit import PairAudit
    from mithridate.studies.store import Store


@dataclass(frozen=True)
class AuditedPairs(Stage):
    """The pairs that stay after `audit`: without the worst `share` of the ranking `by`, or without what was flagged.

    Where the ranking is another than the audit's own, as many pairs go as were flagged.
    """

    audit: "PairAudit"
    by: str
    share: float | None = None

    kind: ClassVar[str] = "audited"

    def run(self, store: "Store") -> None:
        """Choose the pairs that stay, and measure how well that found the poison."""
        with store.new(self) as folder:
            found = self.audit.scores(store)
            pairs = self.audit.embedded.pairs.read(store)
            scores = Scores(pairs.uid, found[self.by].astype(np.float64))
            keep = self._kept(found, scores)
            np.save(folder / "keep.npy", keep, allow_pickle=False)
            manifest = self.audit.embedded.pairs.manifest(store)
            write_removal(folder, scores, keep, found["image_index"], manifest, self.by)

    def _kept(self, found: dict[str, np.ndarray], scores: Scores) -> np.ndarray:
        if self.share is not None:
            return Budget(share=self.share).cut(scores, None).keep
        flagged = int((~found["kept"]).sum())
        if AuditSpec.by == self.by or not flagged:
            return found["kept"]
        return Budget(pairs=flagged).cut(scores, None).keep

    def record(self, store: "Store") -> dict[str, Any]:
        """How many pairs stay, and the estimates of how well the audit did."""
        return json.loads((store.folder(self) / "filter.json").read_text(encoding="utf-8"))

    def read(self, store: "Store") -> Pairs:
        """The pairs that stay."""
        keep = np.load(store.folder(self) / "keep.npy", allow_pickle=False)
        return self.audit.embedded.pairs.read(store).where(keep)

    def reads(self) -> Iterator[Stage]:
        return below(self.audit.embedded.pairs)

    @property
    def clean(self) -> "CleanPairs":
        """The pairs before attack and audit."""
        return self.audit.embedded.pairs.clean

    def count(self) -> float:
        """About how many pairs, for estimates of time."""
        return self.audit.embedded.pairs.count()
