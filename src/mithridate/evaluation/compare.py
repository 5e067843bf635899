"""The difference of evaluations on the same test pairs, query by query."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from mithridate.errors import EvaluationError
from mithridate.evaluation.checks import few_queries
from mithridate.evaluation.measurement import Evaluation, UnitRanks, Warning
from mithridate.metrics import names
from mithridate.randomness import stream
from mithridate.statistics.differences import Difference, corrected, paired_difference
from mithridate.version import __version__

NOT_COMPARED = (names.CONTROL, names.ATTACK_IMAGES)  # a baseline; the same pairs seen from the other side
UTILITY = {names.TEXT_RETRIEVAL: names.recall_of_texts, names.IMAGE_RETRIEVAL: names.recall_of_images}


@dataclass(frozen=True)
class Side:
    """One of the models compared: `name` for people, its `evaluation`, and the name of the `model` there."""

    name: str
    evaluation: Evaluation
    model: str


@dataclass(frozen=True, kw_only=True)
class ComparedTask:
    """What all sides ranked: `task` and `goal`, how many queries in how many units, ranks (q,) by side."""

    task: str
    goal: str
    queries: int
    units: int
    ranks: dict[str, Int[np.ndarray, " q"]]


@dataclass(frozen=True, kw_only=True)
class ComparedMetric:
    """One metric of one task: `before` of the first side, `after` of the side `name`, and their paired difference."""

    task: str
    goal: str
    metric: str
    name: str
    before: float
    after: float
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Each later side minus the first. `left_out`: for a task and goal the sides that did not measure it."""

    sides: tuple[Side, ...]
    fingerprint: str
    tasks: tuple[ComparedTask, ...]
    metrics: tuple[ComparedMetric, ...]
    left_out: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[Warning, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


def side(name: str, evaluation: Evaluation, model: str | None = None) -> Side:
    """A side of the comparison; `model` is by default the one evaluated. Raises `EvaluationError`."""
    known = {m for ranks in evaluation.ranks for m in ranks.ranks}
    if not known:
        raise EvaluationError(f"{name} has no ranks of its queries to compare; evaluate it again")
    chosen = evaluation.model if model is None else model
    if chosen not in known:
        raise EvaluationError(f"{name} has no model {chosen!r}; choose --model of {', '.join(sorted(known))}")
    return Side(name, evaluation, chosen)


def compare(sides: Sequence[Side], *, seed: int = 0) -> Comparison:
    """Each later side minus the first, paired on the queries of what all of them ranked.

    Captions of one image are one unit. p-values are corrected (Holm) for all differences of the comparison. Raises
    `EvaluationError` where the test data or the queries differ.
    """
    if len(sides) < 2:
        raise EvaluationError(f"a comparison needs at least two evaluations, got {len(sides)}")
    if len({s.name for s in sides}) < len(sides):
        raise EvaluationError(f"the sides of a comparison need different names, got {', '.join(s.name for s in sides)}")
    fingerprint = _same_data(sides)
    shared, left_out = _shared(sides)
    tasks, metrics, warnings = [], [], []
    for task, goal in shared:
        first = _common(_ranks(sides[0], task, goal), sides)
        image = np.array(first.image, dtype=np.int64)
        units = len(np.unique(image))
        ranks = {s.name: _aligned(first, s, sides[0].name) for s in sides}
        tasks.append(ComparedTask(task=task, goal=goal, queries=len(first.uid), units=units, ranks=ranks))
        # every query an image of its own: then it is the unit anyway
        metrics += _differences(tasks[-1], sides, seed, None if units == len(image) else image)
        if task not in UTILITY:
            warnings += few_queries(sides[0].evaluation.goal_name(goal), len(first.uid))
    holm = corrected([m.difference for m in metrics])
    return Comparison(
        sides=tuple(sides),
        fingerprint=fingerprint,
        tasks=tuple(tasks),
        metrics=tuple(replace(m, difference=d) for m, d in zip(metrics, holm)),
        left_out=left_out,
        warnings=tuple(warnings),
        provenance={"seed": seed, "versions": {"mithridate": __version__}},
    )


def _same_data(sides: Sequence[Side]) -> str:
    found = []
    for s in sides:
        if s.evaluation.test is None:
            raise EvaluationError(f"{s.name} does not say on what test data it was made; evaluate it again")
        found.append(s.evaluation.test.fingerprint)
    for s, fingerprint in zip(sides, found):
        if fingerprint != found[0]:
            raise EvaluationError(
                f"{sides[0].name} and {s.name} were evaluated on different test data (fingerprints {found[0][:12]} "
                f"and {fingerprint[:12]}); evaluate both on the same pairs"
            )
    return found[0]


def _shared(sides: Sequence[Side]) -> tuple[list[tuple[str, str]], dict[tuple[str, str], tuple[str, ...]]]:
    """Task and goal that all sides have ranks of their model for; for the others, the sides that have none."""
    having = [
        {(r.task, r.goal): None for r in s.evaluation.ranks if s.model in r.ranks and r.task not in NOT_COMPARED}
        for s in sides
    ]
    everything = list(dict.fromkeys(key for keys in having for key in keys))
    lacking = {key: tuple(s.name for s, keys in zip(sides, having) if key not in keys) for key in everything}
    shared = [key for key in everything if not lacking[key]]
    if not shared:
        raise EvaluationError("the evaluations have no goal and no utility in common, so nothing can be compared")
    return shared, {key: without for key, without in lacking.items() if without}


def _ranks(s: Side, task: str, goal: str) -> UnitRanks:
    return next(r for r in s.evaluation.unit_ranks(task, goal) if s.model in r.ranks)


def _common(first: UnitRanks, sides: Sequence[Side]) -> UnitRanks:
    """Of utility the queries that all sides counted: an evaluation leaves out the images that its attack poisoned."""
    if first.task not in UTILITY:
        return first
    shared = set.intersection(*(set(_ranks(s, first.task, first.goal).uid) for s in sides))
    kept = [i for i, uid in enumerate(first.uid) if uid in shared]
    return replace(
        first,
        uid=tuple(first.uid[i] for i in kept),
        image=tuple(first.image[i] for i in kept),
        ranks={model: tuple(ranks[i] for i in kept) for model, ranks in first.ranks.items()},
    )


def _aligned(first: UnitRanks, s: Side, name: str) -> Int[np.ndarray, " q"]:
    """The ranks of a side in the order of the first side's queries."""
    ranks = _ranks(s, first.task, first.goal)
    position = {uid: i for i, uid in enumerate(ranks.uid)}
    asked = set(first.uid)
    if not asked or not asked <= position.keys() or (first.task not in UTILITY and asked != position.keys()):
        what = f"{first.task} {first.goal}".strip()
        raise EvaluationError(f"{name} and {s.name} have different queries for {what}, or none; evaluate both again")
    return np.array(ranks.ranks[s.model], dtype=np.int64)[[position[uid] for uid in first.uid]]


def _differences(
    task: ComparedTask, sides: Sequence[Side], seed: int, cluster: Int[np.ndarray, " q"] | None
) -> list[ComparedMetric]:
    hit = UTILITY.get(task.task, names.hit)
    reference = task.ranks[sides[0].name]
    found = []
    for s in sides[1:]:
        mine = task.ranks[s.name]
        measures = {hit(k): (mine < k, reference < k) for k in names.RECALLS}
        measures[names.MEAN_RANK if task.task in UTILITY else names.MIN_RANK] = (mine, reference)
        for metric, (after, before) in measures.items():
            rng = stream(seed, f"difference of {metric}, {task.task} {task.goal}, {s.name}")
            found.append(
                ComparedMetric(
                    task=task.task,
                    goal=task.goal,
                    metric=metric,
                    name=s.name,
                    before=float(before.mean()),
                    after=float(after.mean()),
                    difference=paired_difference(after, before, rng=rng, cluster=cluster),
                )
            )
    return found
