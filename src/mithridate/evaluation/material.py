"""What every goal is measured with, and what an evaluation gains by measuring it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress
from mithridate.encoder.embeddings import Embeddings
from mithridate.encoder.encoder import Encoder
from mithridate.evaluation.measurement import Measurement, Predictions, TriggeredImage, UnitRanks, Warning
from mithridate.evaluation.triggered import LabelledImages, classes_of_test
from mithridate.evaluation.zeroshot import zero_shot_weights
from mithridate.metrics import names
from mithridate.metrics.classification import chance_accuracy
from mithridate.metrics.retrieval import TargetRanks
from mithridate.randomness import stream
from mithridate.statistics.differences import mean_over, rate_over
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import chance_hit, chance_min_rank


@dataclass
class Findings:
    """What an evaluation gains, in the order in which it was measured."""

    measurements: list[Measurement] = field(default_factory=list)
    ranks: list[UnitRanks] = field(default_factory=list)
    warnings: list[Warning] = field(default_factory=list)
    triggered: list[TriggeredImage] = field(default_factory=list)
    predictions: Predictions | None = None


@dataclass
class Material:
    """Test pairs and models. `embedded` and `encoders` have the same names; `model` is the one that is evaluated."""

    pairs: Pairs
    embedded: Mapping[str, Embeddings]
    encoders: Mapping[str, Encoder]
    model: str
    reference: str | None
    seed: int
    cache: Path | str | None
    cache_limit: int | None
    progress: Progress
    poisoned: frozenset[str] = frozenset()
    """Locations of images that carry false captions on purpose."""

    @cached_property
    def counted(self) -> np.ndarray:
        """(m,) which test images utility counts: those that carry no false caption on purpose."""
        return np.array([location not in self.poisoned for location in self.pairs.images.to_pylist()], dtype=bool)

    @cached_property
    def image_of_pair(self) -> np.ndarray:
        """(n,) the image that each caption belongs to."""
        return self.pairs.image_index.astype(np.int64)

    @cached_property
    def classes(self) -> LabelledImages:
        """The test images of exactly one class that carry no false caption on purpose."""
        return classes_of_test(self.pairs, self.counted)

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """By model the embeddings of the classes, from prompts."""
        return {
            name: zero_shot_weights(encoder, self.classes.names, progress=self.progress)
            for name, encoder in self.encoders.items()
        }

    @property
    def chance(self) -> float:
        """Share of images that a random class is right for."""
        return chance_accuracy(1, len(self.classes.names))

    def uids_of_images(self, images: np.ndarray) -> tuple[str, ...]:
        """An image is named by its first pair."""
        first = np.unique(self.pairs.image_index, return_index=True)[1]
        return tuple(self.pairs.uid.take(pa.array(first[images])).to_pylist())

    def uids(self, rows: np.ndarray) -> tuple[str, ...]:
        return tuple(self.pairs.uid.take(pa.array(rows)).to_pylist())


def retrieval_rows(
    model: str, ranks: TargetRanks, *, goal: str, group: str, seed: int, image: np.ndarray | None = None
) -> list[Measurement]:
    """Hit@K (K within the gallery, and 10), MinRank, median and extreme ranks and Precision@10 of one model.

    Intervals are over the `image` (q,) that each query belongs to, or over queries. Equal ranks have equal intervals:
    the draws depend on goal and group, not on the model.
    """
    size = {"targets": ranks.targets, "gallery": ranks.gallery}

    def row(metric: str, value: Estimate, by_chance: float | None) -> Measurement:
        return Measurement(model=model, metric=metric, value=value, goal=goal, group=group, chance=by_chance)

    def mean(metric: str, values: np.ndarray) -> Estimate:
        return mean_over(values, image, rng=stream(seed, f"interval of {metric}, {group}, {goal}"))

    precision = mean(names.PRECISION, ranks.in_top / names.PRECISION_AT)
    return [
        *(
            row(names.hit(k), rate_over(ranks.rank < k, image), chance_hit(k, **size))
            for k in names.HITS
            if k <= ranks.gallery or k == 10
        ),
        row(names.MIN_RANK, mean(names.MIN_RANK, ranks.rank), chance_min_rank(**size)),
        row(names.MEDIAN_RANK, Estimate(float(np.median(ranks.rank))), None),
        row(names.LOWEST_RANK, Estimate(float(ranks.rank.min())), None),
        row(names.HIGHEST_RANK, Estimate(float(ranks.rank.max())), None),
        row(names.PRECISION, precision, ranks.targets / ranks.gallery),
    ]


def unit_ranks(
    task: str, goal: str, uid: tuple[str, ...], image: np.ndarray, ranks: Mapping[str, TargetRanks]
) -> UnitRanks:
    """The ranks of all models for the same queries."""
    first = next(iter(ranks.values()))
    plain = {model: tuple(r.rank.tolist()) for model, r in ranks.items()}
    return UnitRanks(
        task=task,
        goal=goal,
        uid=uid,
        image=tuple(image.tolist()),
        ranks=plain,
        targets=first.targets,
        gallery=first.gallery,
    )
