"""How well removing pairs found the poison, as filters and audits write it down."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mithridate.auditing.scores import Scores
from mithridate.evaluation.distances import distributions
from mithridate.evaluation.filter_outcome import poisoned_rows
from mithridate.metrics.detection import detection, losses
from mithridate.metrics.names import RECALL_AT
from mithridate.poisoning.manifest import Manifest
from mithridate.statistics.intervals import rate

CLEAN_PAIRS, POISONED_PAIRS = "clean pairs", "poisoned pairs"


def write_removal(
    folder: Path,
    scores: Scores,
    keep: np.ndarray,
    image_index: np.ndarray,
    manifest: Manifest | None,
    measures: str,
) -> None:
    """Write `filter.json` into `folder`: how many of n pairs stay, the estimates of a study's measures, and the
    densities of suspicion, which is what `measures` says."""
    estimates = {"clean pairs lost": rate(~keep)}
    shown = {"all pairs": scores.suspicion}
    if manifest is not None:
        bad = poisoned_rows(scores, manifest)
        lost = losses(keep, bad, image_index)
        found = detection(scores.suspicion, bad, image_index, budgets=tuple(RECALL_AT.values()))
        shown = {CLEAN_PAIRS: scores.suspicion[~bad], POISONED_PAIRS: scores.suspicion[bad]}
        estimates = {
            "AUROC": found.auroc,
            "poison removed": lost.poison_removed,
            "clean pairs lost": lost.clean_lost,
            **{name: found.recall[budget] for name, budget in RECALL_AT.items()},
        }
    record = {
        "pairs": int(keep.sum()),
        "estimates": {name: asdict(estimate) for name, estimate in estimates.items()},
        "suspicion": [asdict(one) for one in distributions(shown, model="filter", metric=measures)],
    }
    (folder / "filter.json").write_text(json.dumps(record), encoding="utf-8")
