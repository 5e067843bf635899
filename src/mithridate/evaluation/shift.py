"""How far a model lies from its reference: per test item, as similarity of representations, and as a map.

What the distances mean for two models of different starts is said in `metrics/shift.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Int

from mithridate.data.pairs import Pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.errors import EvaluationError
from mithridate.evaluation.distances import distributions
from mithridate.evaluation.measurement import Distribution, Measurement, ProjectedItems
from mithridate.metrics import names
from mithridate.metrics.shift import cosine_distance, linear_cka, project
from mithridate.randomness import stream
from mithridate.statistics.differences import mean_over
from mithridate.statistics.estimate import Estimate

IMAGES, TEXTS = "images", "texts"
_METRICS = {IMAGES: (names.SHIFT_IMAGE, names.CKA_IMAGE), TEXTS: (names.SHIFT_TEXT, names.CKA_TEXT)}
_SHOWN = 400  # of each modality: what a page can hold and an eye can tell apart


def measure_shift(
    embedded: Mapping[str, Embeddings],
    pairs: Pairs,
    groups: Mapping[str, np.ndarray],
    *,
    model: str,
    reference: str,
    seed: int = 0,
    method: Literal["pca", "tsne"] = "pca",
) -> tuple[list[Measurement], list[Distribution], list[ProjectedItems]]:
    """Mean cosine distance and linear CKA by group, distributions of the distances, and a map of both models.

    `embedded` holds both models' embeddings of `pairs`; `groups` are masks (n,) of pairs, the first all of them. Raises
    `EvaluationError` where the embeddings are not of the same data, or of different width.
    """
    before, after = embedded[reference], embedded[model]
    for e in (before, after):
        if e.uid.to_pylist() != pairs.uid.to_pylist() or not np.array_equal(e.image_index, pairs.image_index):
            raise EvaluationError("the shift needs embeddings of the same test pairs, got other uids or images")
    sides = {IMAGES: (before.image, after.image), TEXTS: (before.text, after.text)}
    distances = {modality: cosine_distance(*both) for modality, both in sides.items()}
    masks = {name: {IMAGES: _images(pairs, mask), TEXTS: mask} for name, mask in groups.items()}
    index = pairs.image_index.astype(np.int64)
    rows, shown = [], {name: mask for name, mask in masks.items() if name != names.ALL or len(masks) == 1}
    histograms = []
    for modality, found in distances.items():
        distance, cka = _METRICS[modality]
        for name, mask in masks.items():
            at = mask[modality]
            # captions of one image move together
            rng = stream(seed, f"interval of {distance}, {name}")
            mean = mean_over(found[at], index[at] if modality == TEXTS else None, rng=rng)
            rows.append(Measurement(model=model, metric=distance, value=mean, group=name))
            alignment = linear_cka(*(side[at] for side in sides[modality]))
            if not np.isnan(alignment):
                rows.append(Measurement(model=model, metric=cka, value=Estimate(alignment), group=name))
        of_group = {name: found[mask[modality]] for name, mask in shown.items()}
        histograms += distributions(of_group, model=model, metric=distance)
    at = tuple(_chosen(shown, modality, stream(seed, f"{modality} on the map")) for modality in (IMAGES, TEXTS))
    rng = stream(seed, "map")
    places = project((before.image, before.text), (after.image, after.text), (at[0], at[1]), method=method, rng=rng)
    projected = []
    for name, by_modality in zip((reference, model), places):
        for group, mask in shown.items():
            for modality, chosen, points in zip((IMAGES, TEXTS), at, by_modality):
                x, y = points[mask[modality][chosen]].T.round(4)
                projected.append(
                    ProjectedItems(
                        model=name,
                        method=method,
                        modality=modality,
                        group=group,
                        x=tuple(x.tolist()),
                        y=tuple(y.tolist()),
                    )
                )
    return rows, histograms, projected


def _images(pairs: Pairs, mask: np.ndarray) -> np.ndarray:
    images = np.zeros(len(pairs.images), bool)
    images[pairs.image_index[mask]] = True
    return images


def _chosen(
    groups: Mapping[str, Mapping[str, np.ndarray]], modality: str, rng: np.random.Generator
) -> Int[np.ndarray, " k"]:
    """Items to show, at most `_SHOWN`: as many of each group where there are."""
    share = _SHOWN // len(groups)
    parts: Sequence[np.ndarray] = [np.flatnonzero(masks[modality]) for masks in groups.values()]
    return np.unique(np.concatenate([np.sort(rng.permutation(part)[:share]) for part in parts]))
