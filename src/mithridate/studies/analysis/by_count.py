"""Cells whose targets have several counts of captions, as one outcome a count."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mithridate.metrics import names
from mithridate.studies.analysis.outcomes import Outcome
from mithridate.studies.spec.counts import COUNTS, counts_of


def by_count(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Each outcome; of one whose targets have several counts, one for each, with the success of its targets alone."""
    found: list[Outcome] = []
    for outcome in outcomes:
        counts = np.array(counts_of(outcome.cell.attack))
        found += [_of(outcome, counts, int(count)) for count in np.unique(counts)] or [outcome]
    return found


def _of(outcome: Outcome, counts: np.ndarray, count: int) -> Outcome:
    values = {key: array[counts == count] if key[2] == names.PSR else array for key, array in outcome.values.items()}
    cell = replace(outcome.cell, axes=(*outcome.cell.axes, (COUNTS, count)))
    return replace(outcome, cell=cell, values=values)
