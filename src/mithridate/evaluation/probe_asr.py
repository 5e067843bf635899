"""Success of triggers and of single targets where a linear probe on frozen features tells the classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from mithridate.encoder.embed import image_source
from mithridate.evaluation.material import Findings, Material
from mithridate.evaluation.measurement import Measurement, UnitRanks
from mithridate.evaluation.probe import PROBES, Probe, draw_folds, source_features
from mithridate.evaluation.triggered import TriggeredImages
from mithridate.metrics import names
from mithridate.metrics.attack_success import attack_success_rate
from mithridate.metrics.classification import ClassScores, true_ranks
from mithridate.poisoning.goals import ImageToClass, TriggerToClass
from mithridate.poisoning.triggers import Trigger, parse_trigger
from mithridate.randomness import stream
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import rate

FOLDS = 5


@dataclass(frozen=True)
class ProbeScores:
    """Of the test images, of each goal's triggered images, of the single targets: (n, classes) each."""

    untouched: Float[np.ndarray, "n c"]
    stamped: dict[str, Float[np.ndarray, "_ c"]]
    targets: Float[np.ndarray, "t c"] | None


def probe_scores(
    m: Material, name: str, probe: Probe, triggers: Mapping[str, tuple[Trigger, int]], targets: Sequence[str]
) -> ProbeScores:
    """Scores of every image by a probe that has not seen it: of the other folds, triggered or not.

    `triggers`: by key of the goal the trigger and its class. Single `targets` (locations) are scored by a probe of all
    labelled test images, which they are not among.
    """
    encoder, label = m.encoders[name], m.classes.label
    where = {"cache": m.cache, "limit": m.cache_limit, "progress": m.progress}
    source = image_source(encoder, m.pairs.images, **where)
    untouched = source_features(encoder, source, len(m.pairs.images), progress=m.progress)[m.classes.image]
    locations = m.pairs.images.to_pylist()
    of_class, stamped = {}, {}
    for goal, (trigger, target) in triggers.items():
        of_class[goal] = np.flatnonzero(label != target)
        images = [locations[i] for i in m.classes.image[of_class[goal]]]
        stamping = TriggeredImages(images, trigger, encoder, m.seed)
        stamped[goal] = source_features(encoder, stamping, len(images), progress=m.progress)
    classes = len(m.classes.names)
    scores = np.zeros((len(label), classes))
    found = {goal: np.zeros((len(rows), classes)) for goal, rows in of_class.items()}
    fold = draw_folds(label, FOLDS, stream(m.seed, "folds of the probe"))  # the same for every model
    for number in range(FOLDS):
        test = fold == number
        held = {goal: test[rows] for goal, rows in of_class.items()}
        asked = [untouched[test], *(stamped[goal][mine] for goal, mine in held.items())]
        rng = stream(m.seed, "probe of a fold", number)
        predicted = probe.fit_predict(untouched[~test], label[~test], np.concatenate(asked), rng)
        parts = np.split(predicted, np.cumsum([len(part) for part in asked])[:-1])
        scores[test] = parts[0]
        for (goal, mine), part in zip(held.items(), parts[1:]):
            found[goal][mine] = part
    if not targets:
        return ProbeScores(scores, found, None)
    source = image_source(encoder, pa.array(targets, pa.string()), **where)
    wanted = source_features(encoder, source, len(targets), progress=m.progress)
    rng = stream(m.seed, "probe of single targets")
    return ProbeScores(scores, found, probe.fit_predict(untouched, label, wanted, rng))


def measure_probe(
    m: Material, probe: Probe, triggers: Sequence[TriggerToClass], images: Sequence[ImageToClass], found: Findings
) -> tuple[str, int]:
    """ASR and PSR where a linear probe classifies by each model's frozen features; adds to `found`.

    Gives back the probe's name and the number of folds.
    """
    parsed = {goal.key: (parse_trigger(goal.trigger), m.classes.index(goal.target)) for goal in triggers}
    wanted = np.array([m.classes.index(goal.target) for goal in images], np.int64)
    label = m.classes.label
    ranks: dict[str, dict[str, tuple[int, ...]]] = {key: {} for key in parsed}
    for name in m.encoders:
        scores = probe_scores(m, name, probe, parsed, [goal.image for goal in images])

        def row(
            metric: str, value: Estimate, goal: str = "", group: str = names.ALL, unit: str = "image", *, model=name
        ) -> Measurement:
            return Measurement(
                model=model, metric=metric, value=value, goal=goal, group=group, unit=unit, chance=m.chance
            )

        accuracy = ClassScores(name, m.classes.names, label, scores.untouched).accuracy()
        found.measurements.append(row(names.PROBE_ACCURACY, accuracy))
        for key, (_, target) in parsed.items():
            others = label != target
            after = true_ranks(scores.stamped[key], np.full(int(others.sum()), target))
            before = true_ranks(scores.untouched[others], np.full(int(others.sum()), target))
            found.measurements.append(row(names.PROBE_ASR, _taken(after, label[others], target), key))
            found.measurements.append(row(names.PROBE_ASR, _taken(before, label[others], target), key, names.UNTOUCHED))
            ranks[key][name] = tuple(after.tolist())
        if scores.targets is not None:
            psr = rate(true_ranks(scores.targets, wanted) == 0)
            found.measurements.append(row(names.PROBE_PSR, psr, names.SINGLE_IMAGES, unit="target"))
    for key, (_, target) in parsed.items():
        tested = m.classes.image[label != target]
        found.ranks.append(
            UnitRanks(
                task=names.PROBE,
                goal=key,
                uid=m.uids_of_images(tested),
                image=tuple(tested.tolist()),
                ranks=ranks[key],
                targets=1,
                gallery=len(m.classes.names),
            )
        )
    known = (name for name, kind in PROBES.items() if isinstance(probe, kind))
    return next(known, type(probe).__name__), FOLDS


def _taken(rank: np.ndarray, label: np.ndarray, target: int) -> Estimate:
    return attack_success_rate(np.where(rank == 0, target, -1), label, target=target)
