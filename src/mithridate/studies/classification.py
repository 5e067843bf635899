"""Test images classified by a cell's model: by prompts, and by a linear probe, with triggers too."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mithridate.data.labelled import class_index, match_classes
from mithridate.data.pairs import Pairs
from mithridate.encoder.encoder import Encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation.evaluate import poisoned_images
from mithridate.evaluation.probe import LbfgsProbe, image_features, source_features
from mithridate.evaluation.triggered import TriggeredImages
from mithridate.evaluation.zeroshot import zero_shot
from mithridate.metrics import names
from mithridate.poisoning.goals import TriggerToClass
from mithridate.poisoning.manifest import Manifest
from mithridate.poisoning.triggers import parse_trigger
from mithridate.randomness import stream
from mithridate.studies.store import Store

if TYPE_CHECKING:
    from mithridate.studies.stages.classified_images import ClassifiedImages

VALUES = "values.npz"
"""File of the numbers of each unit."""


def classify(stage: "ClassifiedImages", store: Store) -> dict[str, np.ndarray]:
    """Whether each test image of one class is classified rightly: by prompts, by a probe on clean training images; and
    whether the probe takes each triggered image of another class for the target."""
    test, cache = of_one_class(store.pairs(stage.test)), store.cache(stage.test)
    model = store.encoder(stage.model)
    classes = match_classes(test)
    found: dict[str, np.ndarray] = {}
    if stage.prompts:
        found["zero-shot"] = right_by_prompts(model, test, cache)
    if stage.train is not None:
        seen = of_one_class(store.pairs(stage.train))
        seen = seen.where(np.isin(np.array([label[0] for label in seen.labels.to_pylist()], object), classes))
        missing = sorted(set(classes) - set(seen.classes))
        if missing:
            raise EvaluationError(f"a probe needs training images of every class of the test, got none of {missing[0]}")
        there = store.cache(stage.train)
        features = [image_features(model, pairs, cache=at) for pairs, at in ((seen, there), (test, cache))]
        label, wanted = class_index(test, classes), []
        manifest = None if stage.poison is None else stage.poison.manifest(store)
        for goal in () if manifest is None else manifest.goals:
            if isinstance(goal, TriggerToClass) and goal.target in classes:
                asked = (label != classes.index(goal.target)) & counted_pairs(test, manifest)
                images = test.where(asked).image.to_pylist()
                stamped = TriggeredImages(images, parse_trigger(goal.trigger), model)
                features.append(source_features(model, stamped, len(images)))
                wanted.append(np.full(len(images), classes.index(goal.target)))
        rng = stream(0, "probe of a cell")
        # AdamW's steps are too few on sets of a few batches: it read 0.22 where logistic regression reads 0.29
        scores = LbfgsProbe().fit_predict(features[0], class_index(seen, classes), np.concatenate(features[1:]), rng)
        taken = scores.argmax(axis=1)
        found["probe"] = (taken[: len(test)] == label).astype(np.int8)
        if wanted:
            found[names.PROBE_ASR] = (taken[len(test) :] == np.concatenate(wanted)).astype(np.int8)
    return found


def right_by_prompts(model: Encoder, test: Pairs, cache: Path | str) -> np.ndarray:
    """(images of one class,) whether prompts classify each rightly."""
    alone = of_one_class(test)
    ranks = zero_shot(model, alone, classes=match_classes(alone), cache=cache).ranks
    return (ranks == 0).astype(np.int8)


def of_one_class(pairs: Pairs) -> Pairs:
    """One pair of each image that has one class."""
    first = pairs.take(np.unique(pairs.image_index, return_index=True)[1])
    return first.where(np.array([len(found or ()) == 1 for found in first.labels.to_pylist()], bool))


def counted_pairs(pairs: Pairs, manifest: Manifest | None) -> np.ndarray:
    """(n,) which `pairs` have images that carry no false caption on purpose."""
    poisoned = frozenset() if manifest is None else poisoned_images(manifest.goals)
    fine = np.array([location not in poisoned for location in pairs.images.to_pylist()], dtype=bool)
    return fine[pairs.image_index]
