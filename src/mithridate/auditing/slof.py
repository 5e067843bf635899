"""How much further the nearest images are than theirs are."""

from dataclasses import dataclass
from typing import ClassVar

from mithridate.auditing.density import Density


@dataclass(frozen=True, kw_only=True)
class Slof(Density):
    """Simplified local outlier factor: an image's k-distance divided by that of its neighbours, mean over them.

    Definition, region of validity and what the published code does instead are in `auditing/density.py`. Limit: as
    k-distance.
    """

    name: ClassVar[str] = "slof"
    measures: ClassVar[str] = "distance to the k-th nearest, of that of these neighbours"
