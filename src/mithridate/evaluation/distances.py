"""Distributions of cosine distances: of poisoned pairs beside clean ones, and of any other distances by group."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from mithridate.data.pairs import Pairs, make_pairs
from mithridate.encoder.embed import embed
from mithridate.errors import DataError
from mithridate.evaluation import checks
from mithridate.evaluation.material import Findings, Material
from mithridate.evaluation.measurement import Distribution
from mithridate.metrics import names
from mithridate.poisoning.manifest import Manifest
from mithridate.randomness import stream

CLEAN_PAIRS, POISONED_PAIRS = "clean test pairs", "poisoned pairs"
_BINS = 60
_MOST_PAIRS = 5000  # a density of more looks the same


def distributions(
    distances: Mapping[str, Float[np.ndarray, " _"]], *, model: str, metric: str
) -> tuple[Distribution, ...]:
    """The distances of each group in 60 bins, the same for all groups."""
    everything = np.concatenate(list(distances.values()))
    edges = np.linspace(everything.min(), everything.max() + 1e-6, _BINS + 1)
    return tuple(
        Distribution(
            model=model,
            metric=metric,
            group=group,
            edges=tuple(edges.tolist()),
            density=tuple(np.histogram(values, edges, density=True)[0].tolist()),
            median=float(np.median(values)),
        )
        for group, values in distances.items()
    )


def poison_distances(m: Material, manifest: Manifest, found: Findings) -> tuple[Distribution, ...]:
    """Of the poisoned pairs and of the clean test pairs, under the reference model or, without one, the evaluated one.

    Warns where the images of the poisoned pairs cannot be read.
    """
    model = m.reference or m.model
    table = manifest.poisoned
    if len(table) > _MOST_PAIRS:
        rng = stream(m.seed, "poisoned pairs of the distribution")
        table = table.take(pa.array(np.sort(rng.choice(len(table), _MOST_PAIRS, replace=False))))
    pairs: Pairs = make_pairs(table["image"], table["text"])
    try:
        poison = embed(m.encoders[model], pairs, cache=m.cache, cache_limit=m.cache_limit)
    except DataError as error:
        found.warnings += checks.missing_poison(str(error))
        return ()
    distances = {CLEAN_PAIRS: 1 - m.embedded[model].similarity(), POISONED_PAIRS: 1 - poison.similarity()}
    return distributions(distances, model=model, metric=names.COSINE_DISTANCE)
