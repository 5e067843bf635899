"""Local outlier factor that knows local dimensions."""

from dataclasses import dataclass
from typing import ClassVar

from mithridate.auditing.density import Density


@dataclass(frozen=True, kw_only=True)
class Dao(Density):
    """Dimension-aware outlier score: mean over neighbours of their local dimension times the log ratio of k-distances.

    Definition, region of validity and what the published code does instead are in `auditing/density.py`. Limit: as
    k-distance; local dimensions by few neighbours are noisy.
    """

    name: ClassVar[str] = "dao"
    measures: ClassVar[str] = "log ratio of k-distances times local dimension"
