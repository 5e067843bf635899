"""Which pairs go: a level of suspicion, a share of clean pairs that may be lost, or a number of pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from mithridate.auditing.scores import Scores
from mithridate.errors import FilterError


@dataclass(frozen=True)
class Cut:
    """`keep` (n,): which pairs stay. No pair that stays is more suspicious than `level`."""

    keep: np.ndarray
    level: float


@runtime_checkable
class Threshold(Protocol):
    """A small frozen dataclass that draws a line through scores."""

    name: ClassVar[str]

    def cut(self, scores: Scores, reference: Scores | None) -> Cut:
        """Which pairs stay; `reference` are scores of pairs known to be clean. Raises `FilterError`."""
        ...


@dataclass(frozen=True)
class Above:
    """Pairs above an absolute level go; a pair at it stays."""

    level: float
    name: ClassVar[str] = "above"

    def __post_init__(self) -> None:
        if not np.isfinite(self.level):
            raise FilterError(f"a level must be a finite number, got {self.level}")

    def cut(self, scores: Scores, reference: Scores | None) -> Cut:
        # a level outside the scores is not refused: that nothing exceeds 0.8 is a result
        return Cut(scores.suspicion <= self.level, self.level)


@dataclass(frozen=True)
class CleanQuantile:
    """Pairs above this quantile of pairs known to be clean go: of clean pairs like these, 1 - `quantile` are lost."""

    quantile: float
    name: ClassVar[str] = "clean-quantile"

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise FilterError(f"a quantile must lie in (0, 1), got {self.quantile}; 0.95 keeps 95 % of clean pairs")

    def cut(self, scores: Scores, reference: Scores | None) -> Cut:
        if reference is None:
            raise FilterError("a clean quantile needs embeddings of pairs known to be clean, got none")
        rare = min(self.quantile, 1 - self.quantile)
        if rare * len(reference) < 1:
            raise FilterError(
                f"the quantile {self.quantile} of {len(reference)} clean pairs lies beyond all of them; expected at "
                f"least {int(np.ceil(1 / rare))} clean pairs"
            )
        level = float(np.quantile(reference.suspicion, self.quantile))
        return Cut(scores.suspicion <= level, level)


@dataclass(frozen=True)
class Budget:
    """The most suspicious pairs go, a fixed number (`pairs`) or `share` of all, rounded down.

    Equal suspicions: those with the smaller uid go first.
    """

    pairs: int | None = None
    share: float | None = None
    name: ClassVar[str] = "budget"

    def __post_init__(self) -> None:
        if (self.pairs is None) == (self.share is None):
            raise FilterError(f"expected exactly one of pairs and share, got {self.pairs} and {self.share}")
        if self.pairs is not None and self.pairs < 1:
            raise FilterError(f"a budget must be at least one pair, got {self.pairs}")
        if self.share is not None and not 0 < self.share < 1:
            raise FilterError(f"a budget's share must lie in (0, 1), got {self.share}")

    def cut(self, scores: Scores, reference: Scores | None) -> Cut:
        n = len(scores)
        count = self.pairs if self.pairs is not None else int((self.share or 0) * n)
        if count > n:
            raise FilterError(f"a budget of {count} pairs is larger than the data, which have {n}")
        if count < 1:
            raise FilterError(f"a share of {self.share} of {n} pairs is less than one pair; give a larger one")
        keep = np.ones(n, dtype=bool)
        order = scores.ranked()
        keep[order[:count]] = False
        # the largest that stays; where all go, nothing stays below the least
        return Cut(keep, float(scores.suspicion[order[min(count, n - 1)]]))
