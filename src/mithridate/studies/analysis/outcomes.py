"""What finished cells measured, as numbers of every unit: what tables, figures and claims are made of."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from mithridate.errors import StudyError, reason
from mithridate.evaluation.measurement import Distribution
from mithridate.sealed import read_object
from mithridate.statistics.estimate import Estimate
from mithridate.studies.classification import VALUES
from mithridate.studies.inputs import read_fingerprints
from mithridate.studies.measure import FOUND
from mithridate.studies.plan import measured
from mithridate.studies.spec.study import Cell, Study
from mithridate.studies.store import Store


@dataclass(frozen=True)
class Outcome:
    """What a finished cell measured.

    `values`: under (model, epoch, measure) one number a unit (test image, target image): 0 or 1, the share of its
    captions that succeed, their mean rank for MinRank, distances for shift. Every model has its values under the epoch
    `last`; with `epochs` among the cell's measures the poisoned model has success and retrieval under 1, 2, ... too. A
    unit stands at the same place under every model and epoch.
    """

    cell: Cell
    last: int  # number of the last epoch
    values: Mapping[tuple[str, int, str], np.ndarray]
    chance: Mapping[str, float]  # measure -> exact chance level, where there is one
    estimates: Mapping[str, Estimate]  # of the cell: AUROC, poison removed, clean pairs lost
    numbers: Mapping[str, float]  # pairs, count, rate, class_share, seconds
    evaluation: Path  # the folder of its evaluation.json, for figures drawn there
    same_units: bool  # every seed is tested on the same pairs (not a toy world)
    inspections: Mapping[str, "Inspected"] = field(default_factory=dict)  # by model
    again: "Again | None" = None
    suspicion: tuple[Distribution, ...] = ()  # of clean and of poisoned pairs, where a filter or an audit chose


@dataclass(frozen=True)
class Inspected:
    """What was said of a model, held against the truth: see `inspection_truth.held_against_truth`."""

    verdict: str
    seconds: float
    right: bool
    flagged: tuple[str, ...]
    strengths: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Again:
    """How a model was repaired, and the verdict of the second inspection, None where nothing was flagged; `found`: what
    that one flags."""

    methods: tuple[str, ...]
    seconds: float
    left: str | None
    found: tuple[str, ...] = ()


def read_outcomes(study: Study, out: Path) -> list[Outcome]:
    """Of the cells that are done, in the study's order."""
    store, fingerprints = Store(out), read_fingerprints(Path(out))
    found = []
    for cell in study.cells:
        try:
            stage = measured(cell, fingerprints)
        except KeyError:  # the data of this cell were never looked at
            continue
        folder = store.folder(stage)
        if store.is_done(stage):
            found.append(_outcome(cell, folder))
    return found


@dataclass(frozen=True)
class _Found:
    """What stands in `found.json`."""

    last: int
    chance: dict[str, float]
    estimates: dict[str, Estimate]
    numbers: dict[str, float]
    suspicion: tuple[Distribution, ...] = ()
    inspections: dict[str, Inspected] = field(default_factory=dict)
    again: Again | None = None


def _outcome(cell: Cell, folder: Path) -> Outcome:
    values: dict[tuple[str, int, str], np.ndarray] = {}
    try:
        found = TypeAdapter(_Found).validate_json(json.dumps(read_object(folder / FOUND)))
        with np.load(folder / VALUES, allow_pickle=False) as arrays:
            for name in arrays.files:
                model, epoch, measure = name.split("|", 2)
                values[model, int(epoch), measure] = _numbers(arrays[name])
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise StudyError(f"{folder} is damaged: {reason(error)}; delete it, and run the study again") from error
    return Outcome(
        cell,
        found.last,
        values,
        found.chance,
        found.estimates,
        found.numbers,
        folder,
        (cell.test or cell.data).toy is None,
        found.inspections,
        found.again,
        found.suspicion,
    )


def _numbers(array: np.ndarray) -> np.ndarray:
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise ValueError(f"expected a row of numbers, got {array.ndim} axes of {array.dtype}")
    return array
