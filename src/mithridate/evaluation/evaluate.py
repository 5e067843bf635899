"""From models, test pairs and the truth to measurements."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress, _silent, embed
from mithridate.encoder.encoder import Encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation import checks
from mithridate.evaluation.captions_goal import Queries, goal_masks, measure_captions_goal
from mithridate.evaluation.distances import poison_distances
from mithridate.evaluation.examples import retrieved_examples
from mithridate.evaluation.image_goal import measure_image_goals, target_location
from mithridate.evaluation.material import Findings, Material
from mithridate.evaluation.measurement import (
    AttackRecord,
    ClassSet,
    Evaluation,
    GroupSize,
    Measurement,
    TestData,
    UnitRanks,
)
from mithridate.evaluation.overlap import shared_images
from mithridate.evaluation.phrase_goal import measure_phrase_goal
from mithridate.evaluation.probe import Probe
from mithridate.evaluation.probe_asr import measure_probe
from mithridate.evaluation.shift import measure_shift
from mithridate.evaluation.trigger_goal import measure_trigger_goal
from mithridate.evaluation.triggered import classes_of_test
from mithridate.evaluation.utility import utility_falls, utility_rows
from mithridate.metrics import names
from mithridate.metrics.classification import ClassScores, class_scores
from mithridate.metrics.retrieval import RetrievalRanks, retrieval_ranks
from mithridate.poisoning.goals import (
    AttackGoal,
    CaptionsToClass,
    CaptionsToImage,
    ImageToClass,
    PhraseToClass,
    RetrievalGoal,
    TriggerToClass,
)
from mithridate.poisoning.manifest import Manifest
from mithridate.poisoning.triggers import Phrase, describe, parse_trigger
from mithridate.randomness import stream
from mithridate.version import __version__

_SHOWN_QUERIES = 4


def evaluate(
    models: Mapping[str, Encoder],
    pairs: Pairs,
    manifest: Manifest | None = None,
    *,
    goals: Sequence[AttackGoal] = (),
    reference: str | None = None,
    train: Pairs | None = None,
    probe: Probe | None = None,
    seed: int = 0,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    runs: Mapping[str, Mapping[str, Any] | None] | None = None,
    progress: Progress = _silent,
) -> Evaluation:
    """Attack success and utility of `models` on test `pairs`, beside random captions and chance.

    `models`: encoders by the names that the caller gives them; the evaluation is about the first. `reference` names
    the one that was trained without poison: by it premises are checked, and shifts measured from it. (It may be the
    first: then only the checks are made.)
    `manifest` says what was attacked; `goals` may be given in its place (for a model of unknown training); without
    goals only utility is measured. Images that a goal names carry false captions on purpose: they stay in the
    galleries, and no measure of utility or accuracy counts them. `train`: what the model was trained on, to look
    for test images in it and to hold the manifest against. `probe`: triggers and single target images are measured
    by this linear probe too. `runs`: records of the training runs (`run.json`) by model, compared and kept. Every
    draw comes from a stream of `seed` of its own.

    Raises `EvaluationError` where a goal has no query or no target in the test pairs, where the reference is another
    encoder, and where the manifest is not of `train`.
    """
    if not models:
        raise EvaluationError("an evaluation needs at least one model, got none")
    model, runs = next(iter(models)), runs or {}
    if reference is not None and reference not in models:
        raise EvaluationError(f"the reference is one of the models ({', '.join(models)}), got {reference!r}")
    other = None if reference == model else reference
    goals = tuple(goals) if manifest is None else manifest.goals
    refuse_unknown_goals(goals, pairs, probed=probe is not None)  # before anything is embedded
    if other is not None:
        refuse_mixed_encoders(models[model], models[other])
    checks.refuse_foreign_manifest(manifest, train)
    embedded = {
        name: embed(encoder, pairs, cache=cache, cache_limit=cache_limit, progress=progress)
        for name, encoder in models.items()
    }
    poisoned = poisoned_images(goals)
    m = Material(pairs, embedded, models, model, reference, seed, cache, cache_limit, progress, poisoned)
    found = Findings()
    probed = _measure_classification(m, goals, probe, found)
    queries = _measure_captions(m, goals, manifest, found)
    utility = {name: retrieval_ranks(e) for name, e in embedded.items()}
    groups = _groups(pairs, goals, m.counted)
    for name, ranks in utility.items():
        found.measurements += utility_rows(name, ranks, pairs, groups)
    found.ranks += _utility_ranks(m, utility)
    distributions = [] if manifest is None else list(poison_distances(m, manifest, found))
    if goals and reference is None:
        found.warnings += checks.no_clean_model()
    if other is not None:
        found.warnings += checks.unequal_recipes(model, runs.get(model), other, runs.get(other))
        if queries:
            falls = utility_falls(utility[other], utility[model], pairs, groups)
            found.warnings += checks.collapsed_class(falls)
    if train is None:
        found.warnings += checks.unheld_manifest(manifest, runs.get(model))
    else:
        found.warnings += shared_images(train, pairs, ignore=poisoned)
    projections = []
    if other is not None:
        rows, histograms, projections = measure_shift(embedded, pairs, groups, model=model, reference=other, seed=seed)
        found.measurements += rows
        distributions += histograms
    return Evaluation(
        models=tuple(models),
        reference=reference,
        goals=goals,
        descriptions=dict(filter(None, map(_description, goals))),
        attack=None if manifest is None else _record(manifest),
        test=TestData(
            fingerprint=pairs.fingerprint,
            pairs=len(pairs),
            images=len(pairs.images),
            poisoned=int((~m.counted).sum()),
        ),
        measurements=tuple(found.measurements),
        ranks=tuple(found.ranks),
        groups=tuple(_size(pairs, name, mask) for name, mask in groups.items()),
        classes=_class_set(m) if "classes" in vars(m) else None,
        predictions=found.predictions,
        probe=probed,
        examples=_examples(m, queries),
        triggered=tuple(found.triggered),
        distributions=tuple(distributions),
        projections=tuple(projections),
        warnings=tuple(found.warnings),
        runs={name: None if run is None else dict(run) for name, run in runs.items()},
        provenance={
            "encoders": {name: encoder.name for name, encoder in models.items()},
            "seed": seed,
            "versions": {
                "mithridate": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        },
    )


def poisoned_images(goals: Sequence[AttackGoal]) -> frozenset[str]:
    """Locations of the images that carry false captions on purpose: single targets, which may be test images."""
    return frozenset(goal.image for goal in goals if isinstance(goal, CaptionsToImage | ImageToClass))


def refuse_unknown_goals(goals: Sequence[AttackGoal], pairs: Pairs, *, probed: bool = False) -> None:
    """Raise `EvaluationError` where `pairs` lack what a goal needs, or a target image is gone.

    `probed`: a probe was asked for, which needs a trigger or a single target image.
    """
    if probed and not any(isinstance(goal, TriggerToClass | ImageToClass) for goal in goals):
        raise EvaluationError(
            "a probe measures triggers and single target images, and no such goal is given; leave the probe out, or "
            "probe a model by itself with mithridate classify"
        )
    for goal in goals:
        match goal:
            case CaptionsToClass() | CaptionsToImage():
                goal_masks(goal, pairs)
            case _:
                classes_of_test(pairs).index(goal.target)
                if isinstance(goal, ImageToClass):
                    target_location(goal)


def refuse_mixed_encoders(encoder: Encoder, reference: Encoder) -> None:
    """Raise `EvaluationError` where the reference is another architecture, or sees images otherwise."""
    for what, first, second in (
        ("architecture", encoder.config["model_cfg"], reference.config["model_cfg"]),
        ("preprocessing", encoder.recipe, reference.recipe),
    ):
        if first != second:
            raise EvaluationError(
                f"{encoder.name} and the reference {reference.name} differ in {what}, so no difference between them is "
                "the poison's; give as reference the same encoder, trained without poison"
            )


# --- goals, by type ----------------------------------------------------------------------------------


def _measure_captions(
    m: Material, goals: Sequence[AttackGoal], manifest: Manifest | None, found: Findings
) -> list[Queries]:
    captions = [goal for goal in goals if isinstance(goal, RetrievalGoal)]
    return [measure_captions_goal(m, goal, captions, manifest, found) for goal in captions]


def _measure_classification(
    m: Material, goals: Sequence[AttackGoal], probe: Probe | None, found: Findings
) -> tuple[str, int] | None:
    """Triggers, single images and phrases; the probe's name and folds."""
    triggers = [goal for goal in goals if isinstance(goal, TriggerToClass)]
    images = [goal for goal in goals if isinstance(goal, ImageToClass)]
    if triggers or images:
        _measure_accuracy(m, found)
    for goal in triggers:
        measure_trigger_goal(m, goal, found)
    if images:
        measure_image_goals(m, images, found)
    for goal in goals:
        if isinstance(goal, PhraseToClass):
            measure_phrase_goal(m, goal, found)
    return None if probe is None else measure_probe(m, probe, triggers, images, found)


def _measure_accuracy(m: Material, found: Findings) -> None:
    """Zero-shot accuracy on the untouched test images."""
    for name, e in m.embedded.items():
        scores = class_scores(e.image[m.classes.image], m.weights[name])
        accuracy = ClassScores(name, m.classes.names, m.classes.label, scores).accuracy()
        found.measurements.append(Measurement(model=name, metric=names.ZERO_SHOT, value=accuracy, chance=m.chance))
        found.warnings += checks.no_classifier(name, accuracy, m.chance)


# --- parts -------------------------------------------------------------------------------------------


def _groups(pairs: Pairs, goals: Sequence[AttackGoal], counted: np.ndarray) -> dict[str, np.ndarray]:
    """Masks (n,) of pairs by what captions' goals have to do with them: all, each class of a goal, the rest.

    Only pairs of `counted` images (m,) are in them; a group without any is left out.
    """
    captions = [goal for goal in goals if isinstance(goal, RetrievalGoal)]
    classes = list(dict.fromkeys(name for goal in captions for name in (goal.source, goal.target)))
    masks = {name: pairs.labelled(name) for name in classes}
    groups = {names.ALL: np.ones(len(pairs), dtype=bool)} | masks
    if masks:
        groups[names.OTHER_CLASSES] = ~np.logical_or.reduce(list(masks.values()))
    kept = counted[pairs.image_index]
    return {name: mask & kept for name, mask in groups.items() if (mask & kept).any()}


def _size(pairs: Pairs, name: str, mask: np.ndarray) -> GroupSize:
    return GroupSize(group=name, images=len(np.unique(pairs.image_index[mask])), captions=int(mask.sum()))


def _utility_ranks(m: Material, utility: Mapping[str, RetrievalRanks]) -> list[UnitRanks]:
    """Ranks of every query, for paired comparisons with other evaluations."""
    first = np.unique(m.pairs.image_index, return_index=True)[1][m.counted]
    kept = np.flatnonzero(m.counted[m.image_of_pair])
    ways = {
        names.TEXT_RETRIEVAL: (first, {name: r.image_to_text[m.counted] for name, r in utility.items()}, len(m.pairs)),
        names.IMAGE_RETRIEVAL: (
            kept,
            {name: r.text_to_image[kept] for name, r in utility.items()},
            len(m.pairs.images),
        ),
    }
    return [
        UnitRanks(
            task=task,
            uid=m.uids(rows),
            image=tuple(m.pairs.image_index[rows].tolist()),
            ranks={name: tuple(each.tolist()) for name, each in ranks.items()},
            targets=1 if task == names.IMAGE_RETRIEVAL else None,
            gallery=gallery,
        )
        for task, (rows, ranks, gallery) in ways.items()
    ]


def _class_set(m: Material) -> ClassSet:
    return ClassSet(names=m.classes.names, images=len(m.classes.label), left_out=m.classes.left_out)


def _examples(m: Material, queries: Sequence[Queries]):
    if not queries:
        return ()
    first = queries[0]
    rows = np.sort(stream(m.seed, "captions whose images are shown").permutation(first.rows)[:_SHOWN_QUERIES])
    return retrieved_examples(m.pairs, m.embedded, rows, first.targets)


def _description(goal: AttackGoal) -> tuple[str, str] | None:
    """Key of the goal, and its trigger or phrase without what is default."""
    match goal:
        case TriggerToClass():
            return goal.key, describe(parse_trigger(goal.trigger))
        case PhraseToClass():
            return goal.key, Phrase.parse(goal.phrase).text
        case _:
            return None


def _record(manifest: Manifest) -> AttackRecord:
    keep = ("attack", "options", "seed", "strength", "data", "versions")
    record = {name: getattr(manifest, name) for name in keep}
    # as the file has them: what is read back equals what was written
    record["options"] = {name: list(v) if isinstance(v, tuple) else v for name, v in manifest.options.items()}
    return AttackRecord(**record)
