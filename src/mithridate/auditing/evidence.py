"""What a detector of an audit says of every pair, and what a detector is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.groups import Group
from mithridate.errors import FilterError

Family = Literal["mismatch", "group", "image"]
"""`mismatch`: image and caption disagree; `group`: scores borrow from other pairs; `image`: pixels or counts."""


@dataclass(frozen=True)
class Evidence:
    """`suspicion` (n,), higher is more suspicious, always; `reason` (n,) why, "" where there is nothing to say.

    `groups`: sets of pairs that a detector found together, strongest first.
    """

    suspicion: np.ndarray
    reason: np.ndarray
    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        wrong = int((~np.isfinite(self.suspicion)).sum())
        if wrong:
            raise FilterError(f"{wrong} of {len(self.suspicion)} suspicions are not finite; the detector is at fault")


@runtime_checkable
class AuditDetector(Protocol):
    """A small frozen dataclass: options in, evidence out. It never sees a label or a manifest."""

    name: ClassVar[str]
    family: ClassVar[Family]
    needs_pixels: ClassVar[bool]

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        """Evidence on each pair. Permuting, splitting or sharding the corpus changes no score."""
        ...


def no_reason(n: int) -> np.ndarray:
    """n empty reasons."""
    return np.full(n, "", object)
