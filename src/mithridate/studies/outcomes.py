"""What finished cells measured, as numbers of every unit: what tables, figures and claims are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mithridate.evaluation.result import Estimate
from mithridate.studies.study import Cell, Study


@dataclass(frozen=True)
class Outcome:
    """What a finished cell measured.

    `values`: under (model, epoch, measure) one number a unit (caption, image, target): 0 or 1, ranks for MinRank,
    distances for shift. Every model has its values under the epoch `last`; with `epochs` among the cell's measures
    the poisoned model has success and retrieval under 1, 2, ... too. A unit stands at the same place under every
    model and epoch.
    """

    cell: Cell
    last: int  # number of the last epoch
    values: Mapping[tuple[str, int, str], np.ndarray]
    chance: Mapping[str, float]  # measure -> exact chance level, where there is one
    estimates: Mapping[str, Estimate]  # of the cell: AUROC, poison removed, clean pairs lost
    numbers: Mapping[str, float]  # pairs, count, rate, class_share, seconds
    report: Path  # the evaluation's report.json, for figures drawn there
    same_units: bool  # every seed is tested on the same pairs (not a toy world)


def read_outcomes(study: Study, out: Path) -> list[Outcome]:
    """Of the cells that are done, in the study's order."""
    raise NotImplementedError
