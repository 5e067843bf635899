"""Premises of an evaluation that are checked, and what is said when one fails. Each code is a heading in
docs/warnings.md: raised if, means, do."""

from typing import Any

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs
from mithridate.errors import EvaluationError
from mithridate.poisoning.manifest import Manifest
from mithridate.report.document import Warning
from mithridate.statistics.estimate import Estimate

FEW_QUERIES = 30
FEW_TARGETS = 16
CLEAN_FACTOR = 1.5
COLLAPSE = 0.1
OVERALL = 0.05


def few_queries(name: str, queries: int) -> list[Warning]:
    if queries >= FEW_QUERIES:
        return []
    return [
        Warning(
            "few-queries",
            f"{name} is measured on {queries} queries; one of them moves Hit@K by {1 / queries:.3f}",
        )
    ]


def few_targets(name: str, targets: int) -> list[Warning]:
    if targets >= FEW_TARGETS:
        return []
    return [
        Warning(
            "few-targets",
            f"{name} is measured with {targets} target image{'s' if targets > 1 else ''}; one of them moves the "
            f"share of targets that find class A by {1 / targets:.3f}",
        )
    ]


def control_contains_target(name: str, labelled: np.ndarray) -> list[Warning]:
    """`labelled` (c,): is each caption of the control of the target class."""
    if not labelled.any():
        return []
    return [
        Warning(
            "control-contains-target",
            f"{name}: {int(labelled.sum())} of {len(labelled)} captions of the random control are of the target class "
            "and retrieve it rightly",
        )
    ]


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


def unheld_manifest(manifest: Manifest | None, run: dict[str, Any] | None) -> list[Warning]:
    """The record of the run (`run.json`) names other data than those that `manifest` is about, poisoned or clean."""
    data = None if run is None else run.get("data")
    if manifest is None or data is None or data in (manifest.data["poisoned"], manifest.data["clean"]):
        return []
    return [
        Warning(
            "unheld-manifest",
            f"the model was trained on other data (fingerprint {str(data)[:12]}) than the manifest is of "
            f"({manifest.data['poisoned'][:12]}, clean {manifest.data['clean'][:12]}); give --train to hold it against",
        )
    ]


def clean_succeeds(name: str, *, clean_hit: float, chance_hit: float) -> list[Warning]:
    if clean_hit <= CLEAN_FACTOR * chance_hit:
        return []
    return [
        Warning(
            "clean-model-succeeds",
            f"{name}: the clean model reaches Hit@10 {clean_hit:.3f}, chance is {chance_hit:.3f}; "
            "not all of the poisoned model's success is the attack's",
        )
    ]


def clean_is_fooled(name: str, clean: Estimate, chance: float) -> list[Warning]:
    """The clean model is taken in more often than by chance, beyond its interval."""
    if clean.low is None or clean.low <= chance:
        return []
    return [
        Warning(
            "clean-model-fooled",
            f"{name}: on the clean model success is {clean.value:.3f}, chance is {chance:.3f}; not all of the poisoned "
            "model's success is the attack's",
        )
    ]


def no_classifier(name: str, accuracy: float, chance: float) -> list[Warning]:
    return [
        Warning(
            "no-classifier",
            f"the {name} classifies untouched test images no better than chance ({accuracy:.3f}, chance {chance:.3f}); "
            "what it takes triggered ones for means little",
        )
    ]


def no_clean_model() -> list[Warning]:
    return [
        Warning("no-clean-model", "no clean model is given, so the attack's success has only chance to be held against")
    ]


def unequal_recipes(poisoned: dict[str, Any] | None, clean: dict[str, Any] | None) -> list[Warning]:
    """Compare the records of two training runs (`run.json`)."""
    if poisoned is None or clean is None:
        return []
    compared = [
        (name, *(run.get("config", {}).get(name) for run in (poisoned, clean)))
        for name in ("batch_size", "epochs", "lr", "min_lr", "freeze", "augment", "weight_decay", "precision")
    ] + [(name, poisoned.get(name), clean.get(name)) for name in ("weights", "objective")]
    if poisoned.get("weights") is None or clean.get("weights") is None:  # else one encoder may go by two paths
        compared.append(("encoder", poisoned.get("encoder"), clean.get("encoder")))
    found = [f"{name} {first} and {second}" for name, first, second in compared if first != second]
    if not found:
        return []
    return [Warning("unequal-recipes", f"the poisoned and the clean model were trained with {'; '.join(found)}")]


def collapsed_class(utility: dict[str, dict[str, float]]) -> list[Warning]:
    """`utility`: for each group of images, the fall of TR@10 and IR@10 from the clean to the poisoned model."""
    overall = utility.get("all", {})
    if any(fall > OVERALL for fall in overall.values()):
        return []
    hidden = [
        f"{way.upper()}@10 of {group} by {fall:.3f}"
        for group, falls in utility.items()
        for way, fall in falls.items()
        if group not in ("all", "other classes") and fall > COLLAPSE
    ]
    if not hidden:
        return []
    return [Warning("collapsed-class", f"overall utility looks unharmed while the poison lowers {', '.join(hidden)}")]


def missing_poison(reason: str) -> list[Warning]:
    return [Warning("no-densities", f"the distances of poisoned pairs are not shown: {reason}")]


def target_added(place: str) -> list[Warning]:
    return [
        Warning(
            "target-added", f"the target image {place} is not in the gallery; it was added to it for the attack alone"
        )
    ]
