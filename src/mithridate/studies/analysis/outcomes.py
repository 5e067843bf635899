"""What finished cells measured, as numbers of every unit: what tables, figures and claims are made of."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mithridate.statistics.estimate import Estimate
from mithridate.studies.inputs import read_fingerprints
from mithridate.studies.measure import FOUND, VALUES
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


def _outcome(cell: Cell, folder: Path) -> Outcome:
    record = json.loads((folder / FOUND).read_text(encoding="utf-8"))
    values: dict[tuple[str, int, str], np.ndarray] = {}
    with np.load(folder / VALUES, allow_pickle=False) as arrays:
        for name in arrays.files:
            model, epoch, measure = name.split("|", 2)
            values[model, int(epoch), measure] = arrays[name]
    return Outcome(
        cell,
        record["last"],
        values,
        record["chance"],
        {name: Estimate(**estimate) for name, estimate in record["estimates"].items()},
        record["numbers"],
        folder,
        (cell.test or cell.data).toy is None,
    )
