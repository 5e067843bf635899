"""What a model is still good for: retrieval of each image's own captions, and of each caption's own image."""

from collections.abc import Mapping

import numpy as np

from mithridate.data.pairs import Pairs
from mithridate.evaluation.measurement import Measurement
from mithridate.metrics import names
from mithridate.metrics.retrieval import RetrievalRanks, recall
from mithridate.statistics.differences import rate_over
from mithridate.statistics.intervals import chance_hit


def utility_rows(
    model: str, ranks: RetrievalRanks, pairs: Pairs, groups: Mapping[str, np.ndarray]
) -> list[Measurement]:
    """Recall@K over the queries of each group; masks (n,) of pairs mark it, the galleries stay whole.

    Intervals are over images.
    """
    index, n, images = pairs.image_index, len(pairs), len(pairs.images)
    captions = np.bincount(index, minlength=images)
    rows = []
    for group, mask in groups.items():
        own = np.unique(index[mask])
        # an image has as many targets as captions
        targets, count = np.unique(captions[own], return_counts=True)
        by_chance = {
            k: float(np.average([chance_hit(k, targets=int(t), gallery=n) for t in targets], weights=count))
            for k in names.RECALLS
        }
        for k in names.RECALLS:
            value = rate_over(ranks.image_to_text[own] < k, own)
            metric = names.recall_of_texts(k)
            rows.append(Measurement(model=model, metric=metric, value=value, group=group, chance=by_chance[k]))
        for k in names.RECALLS:
            value = rate_over(ranks.text_to_image[mask] < k, index[mask])
            metric, chance = names.recall_of_images(k), chance_hit(k, targets=1, gallery=images)
            rows.append(Measurement(model=model, metric=metric, value=value, group=group, chance=chance))
    return rows


def utility_falls(
    before: RetrievalRanks, after: RetrievalRanks, pairs: Pairs, groups: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float]]:
    """By group and metric, how far Recall@10 fell from one model to another; negative where it rose."""
    metrics = {"tr": names.recall_of_texts(10), "ir": names.recall_of_images(10)}
    falls = {}
    for group, mask in groups.items():
        own = np.unique(pairs.image_index[mask])
        parts = [recall(RetrievalRanks(r.image_to_text[own], r.text_to_image[mask]), 10) for r in (before, after)]
        falls[group] = {metric: parts[0][way] - parts[1][way] for way, metric in metrics.items()}
    return falls
