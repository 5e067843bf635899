"""Local outlier factor that knows local dimensions."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.density import check_density, density, density_note
from mithridate.auditing.evidence import Evidence, Need


@dataclass(frozen=True, kw_only=True)
class Dao:
    """Dimension-aware outlier score: mean over neighbours of their local dimension times the log ratio of k-distances.

    Definition, region of validity and what the published code does instead are in `auditing/density.py`. Limit: as
    k-distance; local dimensions by few neighbours are noisy.
    """

    k: int = 16
    """Neighbours."""
    references: int = 1024
    """Random images to compare with: campaigns of a share of k / references and more are not seen."""
    draws: int = 4
    """How often references are drawn; scores are means over them."""
    raw: bool = True
    """Compare vectors at the length the encoder gave them; unit vectors throw away what tells poison apart."""

    name: ClassVar[str] = "dao"
    measures: ClassVar[str] = "log ratio of k-distances times local dimension"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ("lengths", "trained encoder")

    def __post_init__(self) -> None:
        check_density(self.k, self.references, self.draws)

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        options = {"k": self.k, "references": self.references, "draws": self.draws, "raw": self.raw}
        found = density(corpus, "dao", rng, **options)
        return Evidence(found, notes=(density_note(self.name, self.k, self.references),))
