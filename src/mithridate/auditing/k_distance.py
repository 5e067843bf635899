"""How far the nearest other images are."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.density import check_density, density, density_note
from mithridate.auditing.evidence import Evidence, Need


@dataclass(frozen=True, kw_only=True)
class KDistance:
    """Distance of an image's vector to the k-th nearest of random other images, mean over several sets of them.

    Definition, region of validity and what the published code does instead are in `auditing/density.py`. Limit: needs
    an encoder that was trained on the poison; a campaign whose share times `references` is at least `k` looks dense.
    """

    k: int = 16
    """Neighbours."""
    references: int = 1024
    """Random images to compare with: campaigns of a share of k / references and more are not seen."""
    draws: int = 4
    """How often references are drawn; scores are means over them."""
    raw: bool = True
    """Compare vectors at the length the encoder gave them; unit vectors throw away what tells poison apart."""

    name: ClassVar[str] = "k-distance"
    measures: ClassVar[str] = "distance to the k-th nearest of random images"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ("lengths", "trained encoder")

    def __post_init__(self) -> None:
        check_density(self.k, self.references, self.draws)

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        options = {"k": self.k, "references": self.references, "draws": self.draws, "raw": self.raw}
        found = density(corpus, "k-distance", rng, **options)
        return Evidence(found, notes=(density_note(self.name, self.k, self.references),))
