"""What the success of an attack on classification is measured with, and what a report gains by it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress
from mithridate.encoder.embeddings import Embeddings
from mithridate.encoder.encoder import Encoder
from mithridate.evaluation.triggered import LabelledImages
from mithridate.metrics.classification import chance_accuracy
from mithridate.report.document import Ranking, Table, Warning


@dataclass
class Findings:
    """What a report gains: by part, in order."""

    tables: list[Table] = field(default_factory=list)
    summary: list[str] = field(default_factory=list)
    headline: dict[str, Any] = field(default_factory=dict)
    rankings: list[Ranking] = field(default_factory=list)
    warnings: list[Warning] = field(default_factory=list)


@dataclass(frozen=True)
class Material:
    """What all aims are measured with. `weights`: by model, of the classes of the test images."""

    pairs: Pairs
    embedded: Mapping[str, Embeddings]
    encoders: Mapping[str, Encoder]
    classes: LabelledImages
    weights: dict[str, np.ndarray]
    seed: int
    cache: Path | str | None
    cache_limit: int | None
    progress: Progress

    @property
    def chance(self) -> float:
        return chance_accuracy(1, len(self.classes.names))

    def uids(self, images: np.ndarray) -> tuple[str, ...]:
        """An image is named by its first pair."""
        first = np.unique(self.pairs.image_index, return_index=True)[1]
        return tuple(self.pairs.uid.take(pa.array(first[images])).to_pylist())


def model_name(name: str) -> str:
    """How a table calls a model."""
    return name if name == "model" else f"{name} model"
