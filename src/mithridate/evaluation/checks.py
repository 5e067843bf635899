"""Premises of an evaluation that are checked. Each code is a heading in docs/warnings.md: raised if, means, do.

A check gives back one `Warning` with the values that its sentence says, or none.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs
from mithridate.errors import EvaluationError
from mithridate.evaluation.measurement import Warning
from mithridate.metrics import names
from mithridate.metrics.retrieval import TargetRanks
from mithridate.poisoning.manifest import Manifest
from mithridate.statistics.differences import rate_over
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import chance_hit

FEW_QUERIES = 30
FEW_TARGETS = 16
CLEAN_FACTOR = 1.5
COLLAPSE = 0.1
OVERALL = 0.05

Value = str | int | float | None


def _warning(code: str, **values: Value) -> list[Warning]:
    return [Warning(code=code, values=values)]


def few_queries(goal: str, queries: int) -> list[Warning]:
    """Each of fewer than 30 queries moves Hit@K by more than three points."""
    return _warning("few-queries", goal=goal, queries=queries, step=1 / queries) if queries < FEW_QUERIES else []


def few_targets(goal: str, targets: int) -> list[Warning]:
    """Each of fewer than 16 target images moves what they find by more than six points."""
    return _warning("few-targets", goal=goal, targets=targets, step=1 / targets) if targets < FEW_TARGETS else []


def control_contains_target(goal: str, labelled: np.ndarray) -> list[Warning]:
    """`labelled` (c,): is each caption of the control of the target class."""
    if not labelled.any():
        return []
    return _warning("control-contains-target", goal=goal, of_target=int(labelled.sum()), captions=len(labelled))


def refuse_foreign_manifest(manifest: Manifest | None, train: Pairs | None) -> None:
    """Raise `EvaluationError` where `train` is not the set that `manifest` tells the truth about.

    The fingerprint of the set decides; copies (tables with images, shards) rename images and so have another one, and
    are known by the uids and captions of the poisoned pairs.
    """
    if manifest is None or train is None or train.fingerprint == manifest.data["poisoned"]:
        return
    if train.fingerprint == manifest.data["clean"]:
        raise EvaluationError("the training data are the clean set that the attack started from, not the poisoned one")
    # positions in `train`, null where it lacks the uid
    rows = pa.compute.index_in(manifest.poisoned["uid"], value_set=train.uid)  # type: ignore[attr-defined]
    if rows.null_count:
        raise EvaluationError(
            f"the manifest is of another data set: the training data lack {rows.null_count} of its {len(manifest)} "
            "poisoned pairs"
        )
    other = sum(a != b for a, b in zip(train.text.take(rows).to_pylist(), manifest.poisoned["text"].to_pylist()))
    if other:
        raise EvaluationError(
            f"the manifest is of another data set: {other} of its {len(manifest)} poisoned pairs have other captions "
            "in the training data"
        )


def unheld_manifest(manifest: Manifest | None, run: Mapping[str, Any] | None) -> list[Warning]:
    """The record of the run (`run.json`) names other data than those that `manifest` is about, poisoned or clean."""
    data = None if run is None else run.get("data")
    if manifest is None or data is None or data in (manifest.data["poisoned"], manifest.data["clean"]):
        return []
    return _warning(
        "unheld-manifest", trained=str(data), poisoned=manifest.data["poisoned"], clean=manifest.data["clean"]
    )


def clean_succeeds(goal: str, model: str, ranks: TargetRanks) -> list[Warning]:
    """The reference `model` finds targets among the first ten more than 1.5 times as often as chance."""
    hit, chance = ranks.hit(10), chance_hit(10, targets=ranks.targets, gallery=ranks.gallery)
    if hit <= CLEAN_FACTOR * chance:
        return []
    return _warning("clean-model-succeeds", goal=goal, model=model, hit=hit, chance=chance)


def below_chance(goal: str, model: str, ranks: TargetRanks, image: np.ndarray | None = None) -> list[Warning]:
    """Ten places of a random ranking hold a target more often than the reference `model`'s, beyond its interval.

    `image` (q,): which image each query belongs to.
    """
    hit, chance = rate_over(ranks.rank < 10, image), chance_hit(10, targets=ranks.targets, gallery=ranks.gallery)
    if hit.high is None or hit.high >= chance:
        return []
    return _warning("below-chance", goal=goal, model=model, hit=hit.value, high=hit.high, chance=chance)


def clean_is_fooled(goal: str, model: str, success: Estimate, chance: float) -> list[Warning]:
    """The reference `model` is taken in more often than by chance, beyond its interval."""
    if success.low is None or success.low <= chance:
        return []
    return _warning("clean-model-fooled", goal=goal, model=model, success=success.value, chance=chance)


def no_classifier(model: str, accuracy: Estimate, chance: float) -> list[Warning]:
    """`model` classifies untouched test images no better than chance, by its interval."""
    if accuracy.low is None or accuracy.low > chance:
        return []
    return _warning("no-classifier", model=model, accuracy=accuracy.value, chance=chance)


def no_clean_model() -> list[Warning]:
    """There is no model without poison to hold success against."""
    return _warning("no-clean-model")


_RECIPE = ("batch_size", "epochs", "lr", "min_lr", "freeze", "augment", "weight_decay", "precision")


def unequal_recipes(
    model: str, run: Mapping[str, Any] | None, reference: str, of_reference: Mapping[str, Any] | None
) -> list[Warning]:
    """Compare the records of two training runs (`run.json`)."""
    if run is None or of_reference is None:
        return []
    both = (run, of_reference)
    compared = [(name, *(each.get("config", {}).get(name) for each in both)) for name in _RECIPE]
    compared += [(name, *(each.get(name) for each in both)) for name in ("weights", "objective")]
    if any(each.get("weights") is None for each in both):  # else one encoder may go by two paths
        compared.append(("encoder", *(each.get("encoder") for each in both)))
    differing = "; ".join(f"{name} {first} and {second}" for name, first, second in compared if first != second)
    return _warning("unequal-recipes", model=model, reference=reference, differences=differing) if differing else []


def collapsed_class(falls: Mapping[str, Mapping[str, float]]) -> list[Warning]:
    """`falls`: by group of images the fall of each measure of utility since the reference model; one warning a fall."""
    if any(fall > OVERALL for fall in falls.get(names.ALL, {}).values()):
        return []
    return [
        Warning(code="collapsed-class", values={"group": group, "metric": metric, "fall": fall})
        for group, by_metric in falls.items()
        for metric, fall in by_metric.items()
        if group not in (names.ALL, names.OTHER_CLASSES) and fall > COLLAPSE
    ]


def missing_poison(reason: str) -> list[Warning]:
    """The distances of poisoned pairs are not shown."""
    return _warning("no-densities", reason=reason)


def target_added(location: str) -> list[Warning]:
    """The target image is not among the test images."""
    return _warning("target-added", location=location)
