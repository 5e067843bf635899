"""The measurements of a cell: one evaluation of its model beside the clean one, and what a study asks for besides."""

from collections.abc import Mapping, Set
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import embed
from mithridate.encoder.encoder import Encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.evaluation_file import write_evaluation
from mithridate.evaluation.measurement import Evaluation, Measurement, goal_classes
from mithridate.metrics import names
from mithridate.metrics.shift import cosine_distance
from mithridate.poisoning.manifest import Manifest
from mithridate.statistics.estimate import Estimate
from mithridate.studies.classification import VALUES, counted_pairs, of_one_class, right_by_prompts
from mithridate.studies.inspection_truth import again, held_against_truth
from mithridate.studies.stages.stage import read_stage_record
from mithridate.studies.store import Store, write_json
from mithridate.training.run import read_run

if TYPE_CHECKING:
    from mithridate.studies.stages.measured_cell import MeasuredCell

FOUND = "found.json"
# what a study calls the model of a cell, that without poison, and that of the cell after what was flagged was taken out
MODEL, CLEAN, REPAIRED = "poisoned", "clean", "repaired"
SECOND = "second clean"  # of another order of the pairs: the control of shifts

Values = dict[tuple[str, int, str], np.ndarray]


def measure(stage: "MeasuredCell", store: Store, folder: Path) -> None:
    """Write into `folder` what `outcomes.py` reads: values of units, what else was found, the evaluation."""
    test, cache = store.pairs(stage.test), store.cache(stage.test)
    manifest = None if stage.poison is None else stage.poison.manifest(store)
    trained = {MODEL: stage.model} | ({} if stage.clean is None else {CLEAN: stage.clean})
    models = {name: store.encoder(one) for name, one in trained.items()}
    last = stage.model.config.epochs
    # recipes differ on purpose where there is a defence
    plain = stage.filtered is None and not _repaired(stage)
    runs = {name: read_run(store.folder(one)) for name, one in trained.items()} if plain else {}
    reference = None if stage.clean is None else CLEAN
    evaluation = evaluate(models, test, manifest, reference=reference, seed=stage.seed, cache=cache, runs=runs)
    values: Values = {}
    counted = counted_pairs(of_one_class(test), manifest) if stage.classified else slice(None)
    for name in models:
        values |= {(name, last, metric): found for metric, found in unit_values(evaluation, name, test).items()}
    others = [(MODEL, stage.model, epoch) for epoch in range(1, last if stage.epochs else 1)]
    others += [("start", stage.start, None)] if stage.start is not None else []
    for name, model, epoch in others:
        assert model is not None
        alone = evaluate({name: store.encoder(model, epoch)}, test, manifest, seed=stage.seed, cache=cache)
        own = unit_values(alone, name, test)
        if epoch is not None and any(classified.prompts for _, classified in stage.classified):
            own["zero-shot"] = right_by_prompts(store.encoder(model, epoch), test, cache)[counted]
        for metric, found in own.items():
            values[name, epoch or last, metric] = found
            if name == "start" and stage.epochs and not _repaired(stage):
                values[MODEL, 0, metric] = found
    if stage.repaired is not None:
        values |= _of_the_repaired(stage, store, test, manifest)
    for model, classified in stage.classified:
        with np.load(store.folder(classified) / VALUES, allow_pickle=False) as found:
            for metric in found.files:
                values[model, last, metric] = found[metric] if metric == names.PROBE_ASR else found[metric][counted]
    moved = {} if stage.shift is None else _shifts(models | {SECOND: store.encoder(stage.shift)}, test, cache)
    for (name, metric), distance in moved.items():
        values[name, last, metric] = distance
    write_evaluation(evaluation, folder)
    np.savez_compressed(folder / VALUES, **{"|".join(map(str, key)): array for key, array in values.items()})  # type: ignore[arg-type]
    goals = () if manifest is None else manifest.goals
    kept = None if stage.filtered is None else stage.filtered.record(store)
    chance = chance_levels(evaluation, test) | _chance_of_classes(stage, test, {metric for *_, metric in values})
    if kept is not None:
        levels = {"AUROC": 0.5, **names.RECALL_AT}
        chance |= {name: level for name, level in levels.items() if name in kept["estimates"]}
    drawn = [m.value.value for m in evaluation.select(metric=names.Z_SCORE, model=MODEL)]  # one a trigger
    record = {
        "last": last,
        "chance": chance,
        "estimates": ({} if kept is None else kept["estimates"])
        | {name: asdict(Estimate(number)) for name, number in _of_the_cell(moved, drawn).items()},
        "numbers": _numbers(stage, store, manifest),
        "suspicion": [] if kept is None else kept["suspicion"],
        "inspections": {name: held_against_truth(one.said(store), goals) for name, one in stage.inspected},
        "again": None if stage.repaired is None else again(stage.repaired.said(store)),
    }
    write_json(folder / FOUND, record)


def _of_the_repaired(stage: "MeasuredCell", store: Store, test: Pairs, manifest: Manifest | None) -> Values:
    """The measures of the model after what was flagged was taken out."""
    assert stage.repaired is not None  # asked for by a cell that has one
    last = stage.model.config.epochs
    alone = evaluate(
        {REPAIRED: stage.repaired.load(store)}, test, manifest, seed=stage.seed, cache=store.cache(stage.test)
    )
    own = unit_values(alone, REPAIRED, test)
    return {(REPAIRED, last, metric): found for metric, found in own.items()}


def _shifts(models: Mapping[str, Encoder], test: Pairs, cache: Path | str) -> dict[tuple[str, str], np.ndarray]:
    """(model, measure) -> (images,) how far embeddings of the cell's model lie from the clean model's, and, as those of
    `clean`, how far those of a second clean model do: that is what another order of the pairs moves."""
    embedded = {name: embed(models[name], test, cache=cache) for name in (CLEAN, MODEL, SECOND)}
    found = {}
    for name, other in ((MODEL, MODEL), (CLEAN, SECOND)):
        texts = cosine_distance(embedded[CLEAN].text, embedded[other].text)
        found[name, names.SHIFT_IMAGE] = cosine_distance(embedded[CLEAN].image, embedded[other].image)
        found[name, names.SHIFT_TEXT] = _by_image(texts, test.image_index)
    return found


def _of_the_cell(moved: Mapping[tuple[str, str], np.ndarray], drawn: list[float]) -> dict[str, float]:
    """How many times as far as the second clean model the cell's model lies from the clean one; a trigger's z-score."""
    found = {names.Z_SCORE: float(drawn[0])} if len(drawn) == 1 else {}
    for metric in (names.SHIFT_IMAGE, names.SHIFT_TEXT):
        if moved and moved[CLEAN, metric].mean() > 0:
            found[f"{metric} ratio"] = float(moved[MODEL, metric].mean() / moved[CLEAN, metric].mean())
    return found


def _repaired(stage: "MeasuredCell") -> bool:
    """Whether the epochs are those of a repair, which began at another model than the start."""
    return stage.clean is not None and stage.model.start != stage.clean.start


def _numbers(stage: "MeasuredCell", store: Store, manifest: Manifest | None) -> dict[str, float]:
    records = [read_stage_record(store.folder(one)) for one in stage.trainings()]
    seconds = sum(record["seconds"] for record in records)
    pairs = records[-1]["pairs"]  # of the training that may be poisoned, not of the repair after it
    strength: dict[str, Any] = {} if manifest is None else manifest.strength
    shown = {name: float(strength[name]) for name in ("count", "rate", "class_share") if name in strength}
    return {"pairs": float(pairs), "seconds": round(seconds, 3), **shown}


# --- values of units --------------------------------------------------------------------------------

# what success is called, by task: Hit@K and MinRank where None
_SUCCESS = {names.ATTACK: None, names.TEXT_TRIGGER: None, names.BACKDOOR: names.ASR, names.TARGETED: names.PSR}
_OTHERS = f"{names.recall_of_images(10)} {names.OTHER_CLASSES}"


def unit_values(evaluation: Evaluation, model: str, pairs: Pairs) -> dict[str, np.ndarray]:
    """By metric one number a unit, from the ranks of `model` on the test `pairs`.

    The unit is the image: captions of one succeed together. Goals of one kind are pooled under the metric's name, and
    stand by themselves under metric and goal where there are several.
    """
    found: dict[str, np.ndarray] = {}
    for task, metric in _SUCCESS.items():
        own = {r.goal: (np.array(r.ranks[model]), np.array(r.image)) for r in evaluation.unit_ranks(task)}
        if not own:
            continue
        rank, image = (np.concatenate(arrays) for arrays in zip(*own.values()))
        pooled = _success(metric, rank, image, len(pairs.images))
        found |= {name: hit for name, hit in pooled.items() if name not in found}
        if len(own) > 1:
            for goal, (rank, image) in own.items():
                each = _success(metric, rank, image, len(pairs.images))
                found |= {f"{name} {evaluation.short_name(goal)}": hit for name, hit in each.items()}
    for task, metric in (
        (names.IMAGE_RETRIEVAL, names.recall_of_images(10)),
        (names.TEXT_RETRIEVAL, names.recall_of_texts(10)),
    ):
        (ranks,) = evaluation.unit_ranks(task)
        found[metric] = _by_image(np.array(ranks.ranks[model]) < 10, np.array(ranks.image))
    others = _other_classes(evaluation, pairs)
    if others is not None:
        (ranks,) = evaluation.unit_ranks(names.IMAGE_RETRIEVAL)
        hit, image = np.array(ranks.ranks[model]) < 10, np.array(ranks.image)
        others = others[np.isin(pairs.image_index, image)]  # utility leaves out images poisoned on purpose
        found[_OTHERS] = _by_image(hit[others], image[others])
    return found


def _other_classes(evaluation: Evaluation, pairs: Pairs) -> np.ndarray | None:
    """(n,) captions of classes that no goal names; None without goals, and where there are none."""
    classes = sorted({name for goal in evaluation.goals for name in goal_classes(goal)})
    if not classes:
        return None
    part = np.logical_or.reduce([pairs.labelled(name) for name in classes])
    return None if part.all() else ~part


def chance_levels(evaluation: Evaluation, pairs: Pairs) -> dict[str, float]:
    """Exact levels of chance by metric; over several goals of one kind, the mean over their queries."""
    found = {}
    for metric in (names.recall_of_images(10), names.recall_of_texts(10)):
        found[metric] = _known(evaluation.find(metric))
    if _other_classes(evaluation, pairs) is not None:
        found[_OTHERS] = found[names.recall_of_images(10)]
    retrieval = [r for task in (names.ATTACK, names.TEXT_TRIGGER) for r in evaluation.unit_ranks(task)]
    if retrieval:
        weights = [len(r.uid) for r in retrieval]
        metrics = [names.hit(k) for k in names.HITS if k <= len(pairs.images)]
        for metric in (*metrics, names.MIN_RANK):
            levels = [_known(evaluation.find(metric, goal=r.goal)) for r in retrieval]
            found[metric] = float(np.average(levels, weights=weights))
    for task, metric in ((names.BACKDOOR, names.ASR), (names.TARGETED, names.PSR)):
        ranks = evaluation.unit_ranks(task)
        if ranks:
            found[metric] = _known(evaluation.find(metric, goal=ranks[0].goal))
    return found


def _known(measurement: Measurement | None) -> float:
    if measurement is None or measurement.chance is None:
        raise EvaluationError("a level of chance that a study needs was not measured; measure the cell again")
    return measurement.chance


def _success(metric: str | None, rank: np.ndarray, image: np.ndarray, gallery: int) -> dict[str, np.ndarray]:
    if metric is not None:
        return {metric: _by_image(rank < 1, image)}
    hits = {names.hit(k): _by_image(rank < k, image) for k in names.HITS if k <= gallery}
    return {**hits, names.MIN_RANK: _by_image(rank, image)}


def _by_image(values: np.ndarray, image: np.ndarray) -> np.ndarray:
    """One number an image, whose mean over the images is that of the n `values`, which belong to images (n,).

    With as many values for every image it is the mean of each; else a share of the sum that the image has.
    """
    found, index = np.unique(image, return_inverse=True)
    return np.bincount(index, weights=values) / (len(values) / len(found))


def _chance_of_classes(stage: "MeasuredCell", test: Pairs, measured: Set[str]) -> dict[str, float]:
    if not stage.classified:
        return {}
    classes = max(1, len(of_one_class(test).classes))
    return dict.fromkeys(measured & {"zero-shot", "probe", names.PROBE_ASR}, 1 / classes)
