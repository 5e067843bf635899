"""Single images held against clean ones: test-time scores side by side. None of them is a proof, either way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, _silent, image_source
from mithridate.encoder.encoder import Encoder
from mithridate.errors import InspectionError
from mithridate.inspection.finding import as_images
from mithridate.inspection.material import own_data, view_of
from mithridate.inspection.scores.registry import SCORES
from mithridate.inspection.scores.score import Score, Screen

FEWEST = 20
"""Clean images of a class from which its own threshold is taken; below it that of all clean images counts."""
_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Screened:
    """What the scores say of m images; those that do not decode are left out and counted.

    By score: `suspicion` (m,) and `threshold` (m,), that of the class an image is taken for; `p` (m,) the share of
    clean images taken for that class whose suspicion is as high, itself counted. `pooled` classes had too few.
    """

    locations: tuple[str, ...]
    predicted: tuple[str, ...]
    suspicion: Mapping[str, Float[np.ndarray, " m"]]
    threshold: Mapping[str, Float[np.ndarray, " m"]]
    p: Mapping[str, Float[np.ndarray, " m"]]
    false_alarms: float
    clean: int
    pooled: tuple[str, ...]
    unreadable: int

    @property
    def flagged(self) -> dict[str, Bool[np.ndarray, " m"]]:
        """By score which images exceed their threshold."""
        return {name: self.suspicion[name] > self.threshold[name] for name in self.suspicion}


def screen(
    encoder: Encoder,
    images: pa.ChunkedArray | pa.Array | list[str],
    pairs: Pairs,
    *,
    scores: Mapping[str, Score] | None = None,
    false_alarms: float = 0.05,
    seed: int = 0,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    progress: Progress = _silent,
) -> Screened:
    """Score `images` (their locations) with every score or with `scores`, against clean `pairs` of the owner's.

    The threshold of a score is what a share `false_alarms` of the clean images exceeds that are taken for the same
    class: what a class looks like is no suspicion. Raises `InspectionError` for clean pairs that do not suffice, and
    where no image decodes.
    """
    if not 0 < false_alarms < 1:
        raise InspectionError(f"false_alarms must be a share between 0 and 1, got {false_alarms}")
    data = own_data(pairs, encoder, cache=cache, cache_limit=cache_limit, progress=progress, seed=seed)
    places = pa.array([str(each) for each in images]) if isinstance(images, list) else images
    source = image_source(encoder, places, cache=cache, limit=cache_limit, progress=progress)
    good = np.array([at for at in range(len(places)) if at not in source.bad], dtype=np.int64)
    if not len(good):
        raise InspectionError(f"none of {len(places)} images decodes; give PNG, JPEG or WebP images")
    material = Screen(view_of(encoder, data.classes), data.classes, data.images, data.captions, seed)
    chosen = {name: kind() for name, kind in SCORES.items()} if scores is None else dict(scores)
    clean_class = material.view.predicted(data.images)
    clean = {name: _by_part(score, material, data.images) for name, score in chosen.items()}
    taken: list[Tensor] = []
    found: dict[str, list[Tensor]] = {name: [] for name in chosen}
    for low in range(0, len(good), _AT_ONCE):
        part = as_images(torch.from_numpy(np.ascontiguousarray(source.gather(good[low : low + _AT_ONCE]))))
        taken.append(material.view.predicted(part))
        for name, score in chosen.items():
            found[name].append(score.suspicion(material, part))
        progress("images", min(low + _AT_ONCE, len(good)), len(good))
    predicted = torch.cat(taken)
    count = torch.bincount(clean_class, minlength=len(data.classes))
    held = {name: _held(torch.cat(found[name]), clean[name], predicted, clean_class, false_alarms) for name in chosen}
    return Screened(
        locations=tuple(str(places[int(at)].as_py()) for at in good),
        predicted=tuple(data.classes[i] for i in predicted.tolist()),
        suspicion={name: each[0].numpy() for name, each in held.items()},
        threshold={name: each[1].numpy() for name, each in held.items()},
        p={name: each[2].numpy() for name, each in held.items()},
        false_alarms=false_alarms,
        clean=len(data.images),
        pooled=tuple(name for name, n in zip(data.classes, count.tolist()) if n < FEWEST),
        unreadable=len(places) - len(good),
    )


def _by_part(score: Score, material: Screen, images: Float[Tensor, "m 3 h w"]) -> Float[Tensor, " m"]:
    return torch.cat([score.suspicion(material, part) for part in images.split(_AT_ONCE)])


def _held(
    suspicion: Float[Tensor, " m"], clean: Float[Tensor, " n"], predicted: Tensor, clean_class: Tensor, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Suspicion, the threshold of the class that each image is taken for, and the p-value there."""
    threshold, p = torch.empty_like(suspicion), torch.empty_like(suspicion)
    for c in predicted.unique().tolist():
        own = clean[clean_class == c]
        own = (own if len(own) >= FEWEST else clean).sort().values
        here = predicted == c
        threshold[here] = own.quantile(1 - share)
        above = len(own) - torch.searchsorted(own, suspicion[here])
        p[here] = (1 + above) / (1 + len(own))
    return suspicion, threshold, p
