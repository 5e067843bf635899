"""What a detector says of every pair, and what a detector is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from mithridate.auditing.corpus import Corpus, Need
from mithridate.auditing.groups import Group
from mithridate.errors import FilterError


@dataclass(frozen=True)
class Evidence:
    """`suspicion` (n,), higher is more suspicious, always; `reason` (n,) why, "" where there is nothing to say.

    `p` (n,): p-values, of a detector that has its own; others get theirs from clean pairs. `groups`: sets of pairs that
    a detector found together, strongest first; `null` the strength of the strongest where chance alone deals. `notes`:
    what a reader must know, each `code: sentence` (docs/warnings.md).
    """

    suspicion: np.ndarray
    reason: np.ndarray = field(default_factory=lambda: np.empty(0, object))
    p: np.ndarray | None = None
    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()
    null: float = 0.0

    def __post_init__(self) -> None:
        wrong = int((~np.isfinite(self.suspicion)).sum())
        if wrong:
            raise FilterError(f"{wrong} of {len(self.suspicion)} suspicions are not finite; the detector is at fault")
        if not len(self.reason):
            object.__setattr__(self, "reason", np.full(len(self.suspicion), "", object))


@runtime_checkable
class Detector(Protocol):
    """A small frozen dataclass: options in, evidence out. It holds no data, and never sees a label or a manifest."""

    name: ClassVar[str]
    measures: ClassVar[str]  # what a suspicion is, as the axis of a figure
    own_level: ClassVar[float | None]  # above it a filter drops a pair, where nobody names a threshold
    needs: ClassVar[tuple[Need, ...]]  # besides embeddings

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        """Evidence on each pair: one finite suspicion, and where there is more to say reasons, p-values, groups.

        Permuting, splitting or sharding the corpus changes no score: draw by `corpus.order`. Works in blocks: nothing
        is of size (n, n). One that takes long reports to `corpus.progress`. Raises `FilterError` where the corpus does
        not allow it.
        """
        ...
