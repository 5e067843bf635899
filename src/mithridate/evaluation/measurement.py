"""What an evaluation gives back: a long table of measurements, and what comparisons and pages need besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mithridate.poisoning.goals import AttackGoal
from mithridate.statistics.estimate import Estimate


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number: a row of the long table.

    `model` as the caller named it. `metric` from `metrics/names.py`. `goal`: the key of an `AttackGoal`, "" where the
    number belongs to no attack (utility). `group`: which queries it is over ("all", a class, "other classes"), or the
    control ("random captions", "untouched"). `unit`: what the interval is over (image, caption, target).
    `epoch`: of a run whose epochs were kept, else None. `chance`: the exact level of a random ranking.
    """

    model: str
    metric: str
    value: Estimate
    goal: str = ""
    group: str = "all"
    unit: str = "image"
    epoch: int | None = None
    chance: float | None = None


@dataclass(frozen=True, kw_only=True)
class UnitRanks:
    """0-based rank of the best target for every query, by model: what a paired comparison needs.

    `task` from `metrics/names.py` says what was ranked. `uid` (q,) of the queries, `ranks` (q,) for each model, `image`
    (q,) a number for the image that each query belongs to: captions of one image succeed together.
    """

    task: str
    goal: str = ""
    uid: tuple[str, ...]
    image: tuple[int, ...]
    ranks: dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Warning:
    """A premise that does not hold: `code` is the heading in docs/warnings.md, `values` what its sentence says."""

    code: str
    values: dict[str, str | int | float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Measurements of one or more models on the same test pairs, with provenance."""

    models: tuple[str, ...]
    goals: tuple[AttackGoal, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    ranks: tuple[UnitRanks, ...] = ()
    warnings: tuple[Warning, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def select(self, **fields: Any) -> Iterator[Measurement]:
        """The measurements whose fields have these values: `select(metric="Hit@10", model="repaired")`."""
        for measurement in self.measurements:
            if all(getattr(measurement, name) == value for name, value in fields.items()):
                yield measurement
