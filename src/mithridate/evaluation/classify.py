"""Labelled images classified by a model: by prompts, and by a linear probe on its frozen features."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch

from mithridate.data.labelled import class_index, match_classes
from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, _silent
from mithridate.encoder.encoder import Encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation.measurement import ClassSet, Evaluation, Measurement, TestData, UnitRanks
from mithridate.evaluation.overlap import refuse_overlap, refuse_twins
from mithridate.evaluation.probe import PROBES, Probe, cross_fit, image_features
from mithridate.evaluation.zeroshot import TEMPLATES, zero_shot_weights
from mithridate.metrics import names
from mithridate.metrics.classification import ClassScores, chance_accuracy, class_scores, top_ks, unit_length
from mithridate.randomness import stream
from mithridate.version import __version__

ZERO_SHOT = names.ZERO_SHOT
_MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class Classification:
    """What `classify` measured: the same n images of c classes as each method scored them.

    `methods`: zero-shot first, then the probe where one was asked for. `uid` (n,) of the images, `image` (n,) which
    pairs show the same image. `probe_images`: how many images the probe was trained on, None where it was
    cross-validated in `folds`, or where there is none.
    """

    methods: tuple[ClassScores, ...]
    uid: tuple[str, ...]
    image: tuple[int, ...]
    probe_images: int | None
    folds: int | None
    provenance: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.methods[0].classes

    def chance(self, k: int = 1) -> float:
        """Top-k accuracy of a random order of the classes."""
        return chance_accuracy(k, len(self.classes))

    def record(self) -> dict[str, Any]:
        """Top-1, top-5 (from five classes on) and mean recall of each method, and of chance; what JSON can hold."""
        ks = top_ks(len(self.classes))
        found: dict[str, Any] = {
            method.name: {f"top-{k}": asdict(method.accuracy(k)) for k in ks}
            | {"mean recall": asdict(method.mean_per_class_recall())}
            for method in self.methods
        }
        found["chance"] = {f"top-{k}": self.chance(k) for k in ks} | {"mean recall": 1 / len(self.classes)}
        return found

    def evaluation(self) -> Evaluation:
        """As an evaluation of one model, for `compare`: accuracies, and each image's rank by method."""
        measurements, ranks = [], []
        for method, task in zip(self.methods, (names.ZERO_SHOT, names.PROBE_ACCURACY), strict=False):
            row = Measurement(model=_MODEL, metric=task, value=method.accuracy(), chance=self.chance())
            measurements.append(row)
            by_model = {_MODEL: tuple(method.ranks.tolist())}
            ranks.append(
                UnitRanks(
                    task=task,
                    uid=self.uid,
                    image=self.image,
                    ranks=by_model,
                    targets=1,
                    gallery=len(self.classes),
                )
            )
        data = self.provenance["test data"]
        return Evaluation(
            models=(_MODEL,),
            test=TestData(fingerprint=data["fingerprint"], pairs=len(self.uid), images=len(set(self.image))),
            measurements=tuple(measurements),
            ranks=tuple(ranks),
            classes=ClassSet(names=self.classes, images=len(self.uid), left_out=0),
            provenance=self.provenance,
        )


def classify(
    encoder: Encoder,
    pairs: Pairs,
    *,
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    probe: Probe | None = None,
    probe_train: Pairs | None = None,
    probe_folds: int | None = None,
    seed: int = 0,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    progress: Progress = _silent,
) -> Classification:
    """Classify the images of `pairs` (`read_labelled`), zero-shot and, with `probe`, by a linear probe.

    `classes`: the names that the set should have, in any order. `templates`: prompts (default: OpenAI's 80 for
    ImageNet). A probe is trained on `probe_train`, which may share no image with `pairs`, or cross-validated over
    `pairs` in `probe_folds`. Raises `DataError` for classes and images that do not fit, `EvaluationError` for a
    probe without exactly one of the two.
    """
    _refuse_half_a_probe(probe, probe_train, probe_folds)
    # the order of the caller's list must not move a number
    chosen = tuple(sorted(match_classes(pairs, classes)))
    if probe_train is not None:
        match_classes(probe_train, chosen)
        refuse_overlap(probe_train, pairs)
    elif probe_folds is not None:
        refuse_twins(pairs)
    where: dict[str, Any] = {"cache": cache, "cache_limit": cache_limit, "progress": progress}
    templates = TEMPLATES["openai"] if templates is None else templates
    weights = zero_shot_weights(encoder, chosen, templates, progress=progress)
    features = image_features(encoder, pairs, **where)[pairs.image_index]
    labels = class_index(pairs, chosen)
    methods = [ClassScores(ZERO_SHOT, chosen, labels, class_scores(unit_length(features), weights))]
    if probe is not None:
        rng = stream(seed, "probe")
        if probe_train is not None:
            trained = image_features(encoder, probe_train, **where)[probe_train.image_index]
            scores = probe.fit_predict(trained, class_index(probe_train, chosen), features, rng)
        else:
            assert probe_folds is not None
            scores = cross_fit(probe, features, labels, folds=probe_folds, rng=rng)
        methods.append(ClassScores(f"{probe_name(probe)} probe", chosen, labels, scores))
    options = asdict(probe) if is_dataclass(probe) and not isinstance(probe, type) else {}
    return Classification(
        methods=tuple(methods),
        uid=tuple(pairs.uid.to_pylist()),
        image=tuple(pairs.image_index.tolist()),
        probe_images=None if probe_train is None else len(probe_train),
        folds=probe_folds,
        provenance={
            "model": encoder.name,
            "test data": {"fingerprint": pairs.fingerprint, "images": len(pairs)},
            "probe data": None
            if probe_train is None
            else {"fingerprint": probe_train.fingerprint, "images": len(probe_train)},
            "probe": None if probe is None else {"name": probe_name(probe), **options},
            "probe folds": probe_folds,
            "templates": len(templates),
            "seed": seed,
            "versions": {
                "mithridate": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "scikit-learn": sklearn.__version__,
                "python": platform.python_version(),
            },
        },
    )


def probe_name(probe: Probe) -> str:
    """The name of a probe in `PROBES`, else of its class."""
    return next((name for name, kind in PROBES.items() if type(probe) is kind), type(probe).__name__)


def _refuse_half_a_probe(probe: Probe | None, train: Pairs | None, folds: int | None) -> None:
    given = [train is not None, folds is not None]
    if probe is None and any(given):
        raise EvaluationError("images to train a probe on were given, but no probe; add --probe lbfgs or adamw")
    if probe is not None and sum(given) != 1:
        raise EvaluationError(
            "a probe needs either training images (--probe-train) or a number of folds (--probe-folds), got "
            f"{'both' if all(given) else 'neither'}"
        )
