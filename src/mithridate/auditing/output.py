"""What a filter leaves on disk: scores, keep-lists, the record of what decided, and on request the pairs that stay."""

from __future__ import annotations

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mithridate.auditing.filter import Filtered
from mithridate.auditing.keep import SCORES, KeepList, write_keep_list, write_record
from mithridate.data.pairs import Pairs
from mithridate.data.write import WRITERS, Form
from mithridate.version import __version__


def write_filtered(filtered: Filtered, folder: Path) -> None:
    """Write into `folder` (it exists): `scores.parquet` (uid, suspicion, kept), keep-lists and `filter.json`."""
    scores = filtered.scores
    table = {"uid": scores.uid, "suspicion": pa.array(scores.suspicion), "kept": pa.array(filtered.keep)}
    pq.write_table(pa.table(table), folder / SCORES, compression="zstd")
    write_keep_list(filtered.kept_uids, folder)
    write_record(record(filtered), folder)


def record(filtered: Filtered) -> dict[str, Any]:
    """Detector, threshold, encoder, seed and versions, and how many pairs stay: what JSON can hold."""
    return {
        "detector": {"name": filtered.detector.name, **asdict(filtered.detector)},  # type: ignore[call-overload]
        "threshold": {"name": filtered.threshold.name, **asdict(filtered.threshold)},  # type: ignore[call-overload]
        "level": filtered.level,
        "pairs": len(filtered.scores),
        "kept": int(filtered.keep.sum()),
        "removed": filtered.removed,
        "clean reference": None if filtered.reference is None else len(filtered.reference),
        "encoder": filtered.encoder,
        "weights": filtered.weights,
        "seed": filtered.seed,
        "versions": {"mithridate": __version__, "python": platform.python_version(), "numpy": np.__version__},
    }


def write_kept_pairs(filtered: Filtered, pairs: Pairs, folder: Path, *, form: Form) -> int:
    """Write the pairs that stay into the empty `folder`, as a table, shards or an image folder; gives back how many.

    Raises `FilterError` where `pairs` are not those that were scored.
    """
    kept = KeepList(filtered.kept_uids, filtered.scores.uid, path="the filter's keep-list").apply(pairs)
    WRITERS[form](kept, folder)
    return len(kept)
