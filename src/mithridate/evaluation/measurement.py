"""What an evaluation gives back: a long table of measurements, and what comparisons and pages need besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pydantic import ConfigDict

from mithridate.metrics import names
from mithridate.poisoning.goals import (
    AttackGoal,
    CaptionsToClass,
    CaptionsToImage,
    ImageToClass,
    PhraseToClass,
    RetrievalGoal,
    TriggerToClass,
)
from mithridate.statistics.estimate import Estimate

STRICT = ConfigDict(extra="forbid")  # of files that are read back
_LARGEST_RANK = 2**62


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number: a row of the long table.

    `model` as the caller named it. `metric` from `metrics/names.py`. `goal`: the key of an `AttackGoal`,
    `names.SINGLE_IMAGES` for all of them that are single images, "" where the number belongs to no attack (utility).
    `group`: which queries it is over ("all", a class, "other classes", "target images"), or the control ("random
    captions", "untouched"). `unit`: what the interval is over (image, caption, target). `epoch`: of a run whose epochs
    were kept, else None. `chance`: the exact level of a random ranking. A metric that is not defined has no row.
    """

    __pydantic_config__ = STRICT

    model: str
    metric: str
    value: Estimate
    goal: str = ""
    group: str = names.ALL
    unit: str = "image"
    epoch: int | None = None
    chance: float | None = None


@dataclass(frozen=True, kw_only=True)
class UnitRanks:
    """0-based rank of the best target for every query, by model: what a paired comparison needs.

    `task` from `metrics/names.py` says what was ranked. `uid` (q,) of the queries (an image is named by its first
    pair), `ranks` (q,) for each model, `image` (q,) a number for the image that each query belongs to: captions of one
    image succeed together. `targets` of `gallery` items were wanted; None where that differs from query to query.
    """

    __pydantic_config__ = STRICT

    task: str
    goal: str = ""
    uid: tuple[str, ...]
    image: tuple[int, ...]
    ranks: dict[str, tuple[int, ...]]
    targets: int | None = None
    gallery: int | None = None

    def __post_init__(self) -> None:
        what = f"ranks of {self.task} {self.goal}".strip()
        for name, values in (("images", self.image), *(("ranks of " + m, r) for m, r in self.ranks.items())):
            if len(values) != len(self.uid):
                raise ValueError(f"{what}: {len(self.uid)} queries need as many {name}, got {len(values)}")
        for model, ranks in self.ranks.items():
            if ranks and not (min(ranks) >= 0 and max(ranks) < _LARGEST_RANK):
                raise ValueError(f"{what}: a rank of {model} is no position (0, 1, ...)")
        if len(set(self.uid)) < len(self.uid):
            raise ValueError(f"{what}: two queries have one uid")


@dataclass(frozen=True, kw_only=True)
class Warning:
    """A premise that does not hold: `code` is the heading in docs/warnings.md, `values` what its sentence says."""

    __pydantic_config__ = STRICT

    code: str
    values: dict[str, str | int | float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TestData:
    """The pairs that everything was measured on."""

    __pydantic_config__ = STRICT
    __test__ = False  # no test class, though pytest would think so

    fingerprint: str
    pairs: int
    images: int
    poisoned: int = 0
    """Images that carry false captions on purpose: in the galleries, and not counted in utility."""


@dataclass(frozen=True, kw_only=True)
class AttackRecord:
    """What the manifest says was done: attack, its options and seed, its strength, fingerprints before and after."""

    __pydantic_config__ = STRICT

    attack: str
    options: dict[str, Any]
    seed: int
    strength: dict[str, int | float]
    data: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class ClassSet:
    """The classes of the test images: `images` have exactly one of them, `left_out` have not."""

    __pydantic_config__ = STRICT

    names: tuple[str, ...]
    images: int
    left_out: int


@dataclass(frozen=True, kw_only=True)
class GroupSize:
    """How many test images and captions a group has."""

    __pydantic_config__ = STRICT

    group: str
    images: int
    captions: int


@dataclass(frozen=True, kw_only=True)
class RetrievedImage:
    """One retrieved image: thumbnail (base64 of a JPEG), labels, cosine similarity, is it a target."""

    __pydantic_config__ = STRICT

    thumbnail: str
    labels: tuple[str, ...]
    similarity: float
    is_target: bool


@dataclass(frozen=True, kw_only=True)
class RetrievedExamples:
    """What the caption `query` retrieves, by model: for each the first few images, best first."""

    __pydantic_config__ = STRICT

    query: str
    images: dict[str, tuple[RetrievedImage, ...]]


@dataclass(frozen=True, kw_only=True)
class TriggeredImage:
    """A test image with the trigger of `goal`: a JPEG in base64, its class, what each model takes it for."""

    __pydantic_config__ = STRICT

    goal: str
    thumbnail: str
    label: str
    taken: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Distances of the items of a group, binned: `edges` (b + 1,) and `density` (b,), which integrates to one."""

    __pydantic_config__ = STRICT

    model: str
    metric: str
    group: str
    edges: tuple[float, ...]
    density: tuple[float, ...]
    median: float

    def __post_init__(self) -> None:
        if len(self.edges) != len(self.density) + 1:
            raise ValueError(f"{len(self.density)} bins have one edge more, got {len(self.edges)} edges")


@dataclass(frozen=True, kw_only=True)
class ProjectedItems:
    """Points (k,) in a plane of images or texts of a group, under one model; the same plane for all models."""

    __pydantic_config__ = STRICT

    model: str
    method: str
    modality: str
    group: str
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"every point needs x and y, got {len(self.x)} x and {len(self.y)} y")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What each single target image is taken for: `wanted` (t,) the adversarial class, `taken` (t,) for each model."""

    __pydantic_config__ = STRICT

    wanted: tuple[str, ...]
    taken: dict[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Measurements of one or more models on the same test pairs, with provenance.

    `models`: the first is the one that the evaluation is about; `reference` names the one that it is held against.
    `descriptions`: how the trigger or phrase of a goal reads to a person, by key of the goal. `runs`: the record of
    each model's training (`run.json`), where there is one. `probe`: name of the linear probe, its number of folds.
    """

    __pydantic_config__ = STRICT

    models: tuple[str, ...]
    reference: str | None = None
    goals: tuple[AttackGoal, ...] = ()
    descriptions: dict[str, str] = field(default_factory=dict)
    attack: AttackRecord | None = None
    test: TestData | None = None
    measurements: tuple[Measurement, ...] = ()
    ranks: tuple[UnitRanks, ...] = ()
    groups: tuple[GroupSize, ...] = ()
    classes: ClassSet | None = None
    predictions: Predictions | None = None
    probe: tuple[str, int] | None = None
    examples: tuple[RetrievedExamples, ...] = ()
    triggered: tuple[TriggeredImage, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    projections: tuple[ProjectedItems, ...] = ()
    warnings: tuple[Warning, ...] = ()
    runs: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model that the evaluation is about."""
        return self.models[0]

    def select(self, **fields: Any) -> Iterator[Measurement]:
        """The measurements whose fields have these values: `select(metric="Hit@10", model="repaired")`."""
        for measurement in self.measurements:
            if all(getattr(measurement, name) == value for name, value in fields.items()):
                yield measurement

    def find(
        self, metric: str, *, model: str | None = None, goal: str = "", group: str = names.ALL, epoch: int | None = None
    ) -> Measurement | None:
        """The one measurement of `model` (by default that which the evaluation is about), or None."""
        model = self.model if model is None else model
        return next(self.select(metric=metric, model=model, goal=goal, group=group, epoch=epoch), None)

    def value(self, metric: str, **fields: Any) -> Estimate:
        """As `find`, but the estimate. Raises `KeyError` where it was not measured."""
        found = self.find(metric, **fields)
        if found is None:
            raise KeyError(f"{metric} was not measured for {fields or 'all'}")
        return found.value

    def unit_ranks(self, task: str, goal: str | None = None) -> tuple[UnitRanks, ...]:
        """The ranks of a task, of one goal or of every goal."""
        return tuple(r for r in self.ranks if r.task == task and goal in (None, r.goal))

    def success(self, model: str | None = None, epoch: int | None = None) -> dict[str, Measurement]:
        """How far each goal is reached on `model`: its one metric of success, by the goal's key."""
        found: dict[str, Measurement] = {}
        for goal in self.goals:
            key = goal_key(goal)
            measurement = self.find(success_metric(goal), model=model, goal=key, epoch=epoch)
            if measurement is not None:
                found[key] = measurement
        return found

    def utility(self, model: str | None = None, epoch: int | None = None) -> dict[str, Measurement]:
        """What `model` is good for, by metric: Recall@10 both ways, and accuracy where images were classified."""
        metrics = (names.recall_of_texts(10), names.recall_of_images(10), names.ZERO_SHOT)
        found = {metric: self.find(metric, model=model, epoch=epoch) for metric in metrics}
        return {metric: measurement for metric, measurement in found.items() if measurement is not None}

    def goal_name(self, key: str) -> str:
        """How the goal `key` reads to a person."""
        for goal in self.goals:
            if goal_key(goal) == key:
                match goal:
                    case CaptionsToClass() | CaptionsToImage():
                        return f"{goal.source} to {goal.target}"
                    case TriggerToClass() | PhraseToClass():
                        return f"{self.descriptions.get(key, key)} to {goal.target}"
                    case ImageToClass():
                        return names.SINGLE_IMAGES
        return key

    def short_name(self, key: str) -> str:
        """As `goal_name`, but `sheep:aeroplane` for captions' goals, as the command line has them."""
        return key if any(isinstance(g, RetrievalGoal) and g.key == key for g in self.goals) else self.goal_name(key)

    def to_table(self) -> pa.Table:
        """The long table for Arrow, pandas or polars: a row a measurement, its estimate as value, low, high and n."""
        plain = ("model", "epoch", "goal", "metric", "group", "unit")
        estimate = ("value", "low", "high", "n")
        columns = {name: [getattr(m, name) for m in self.measurements] for name in plain}
        columns |= {name: [getattr(m.value, name) for m in self.measurements] for name in estimate}
        columns["chance"] = [m.chance for m in self.measurements]
        kinds = dict.fromkeys(plain, pa.string()) | {"epoch": pa.int64(), "n": pa.int64()}
        return pa.table({name: pa.array(values, kinds.get(name, pa.float64())) for name, values in columns.items()})


def goal_key(goal: AttackGoal) -> str:
    """Under which `Measurement.goal` the success of `goal` stands: single images are measured together."""
    return names.SINGLE_IMAGES if isinstance(goal, ImageToClass) else goal.key


def success_metric(goal: AttackGoal) -> str:
    """The one metric that says how far `goal` is reached: a share of queries or images."""
    match goal:
        case CaptionsToClass() | CaptionsToImage() | PhraseToClass():
            return names.hit(10)
        case TriggerToClass():
            return names.ASR
        case ImageToClass():
            return names.PSR


def goal_classes(goal: AttackGoal) -> tuple[str, ...]:
    """The classes that `goal` names: source and target, or the target."""
    if isinstance(goal, RetrievalGoal):
        return goal.source, goal.target
    return (goal.target,)
