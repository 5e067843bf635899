"""How far the nearest other images are."""

from dataclasses import dataclass
from typing import ClassVar

from mithridate.auditing.density import Density


@dataclass(frozen=True, kw_only=True)
class KDistance(Density):
    """Distance of an image's vector to the k-th nearest of random other images, mean over several sets of them.

    Definition, region of validity and what the published code does instead are in `auditing/density.py`. Limit: needs
    an encoder that was trained on the poison; a campaign whose share times `references` is at least `k` looks dense.
    """

    name: ClassVar[str] = "k-distance"
    measures: ClassVar[str] = "distance to the k-th nearest of random images"
