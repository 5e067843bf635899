"""What a detector says of pairs, by uid."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.errors import FilterError

Progress = Callable[[str, int, int], None]  # what, done, of how many


def silent(_what: str, _done: int, _total: int) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Scores:
    """What a detector says of n pairs: `uid` (n,), `suspicion` (n,), higher is more suspicious, always."""

    uid: pa.ChunkedArray
    suspicion: np.ndarray

    def __post_init__(self) -> None:
        if self.suspicion.shape != (len(self.uid),):
            raise ValueError(f"expected one suspicion for each of {len(self.uid)} pairs, got {self.suspicion.shape}")
        wrong = int((~np.isfinite(self.suspicion)).sum())
        if wrong:
            raise FilterError(f"{wrong} of {len(self)} suspicions are not finite; the detector is at fault")

    def __len__(self) -> int:
        return len(self.uid)

    def ranked(self) -> np.ndarray:
        """Rows from the most to the least suspicious, (n,); equal ones in the order of their uids."""
        return np.lexsort((uid_order(self.uid).argsort(), -self.suspicion))


def uid_order(uid: pa.ChunkedArray) -> np.ndarray:
    """Rows in the order of their uids, (n,): an order that does not depend on how the pairs lie."""
    return pc.sort_indices(uid).to_numpy().astype(np.int64)
