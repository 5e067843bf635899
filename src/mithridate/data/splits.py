"""What the field calls one and the same split, in one table for every reader."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.pairs import Pairs
from mithridate.errors import DataError

# name -> its spellings; a folder of such a name is a split, never a class
SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "eval": ("eval", "evaluation"),
}
# Karpathy's remainder of COCO's validation images, which everyone trains on
_ALSO = {"train": ("restval",)}


def split_of_folder(name: str) -> str | None:
    """The split that a folder of this name holds (`training` holds `train`), None where it is no split's name."""
    lower = name.strip().lower()
    return next((split for split, spellings in SPELLINGS.items() if lower in spellings), None)


def spellings(split: str) -> tuple[str, ...]:
    """All spellings of a split, its own among them, in lower case."""
    lower = split.strip().lower()
    known = split_of_folder(lower)
    return (lower,) if known is None else (*SPELLINGS[known], *_ALSO.get(known, ()))


def select_split(pairs: Pairs, split: str) -> Pairs:
    """The pairs of one split by any of its usual names; a `DataError` where there is none."""
    chosen = pairs_of_split(pairs, split)
    if len(chosen) == 0:
        counts = {entry["values"].as_py(): entry["counts"].as_py() for entry in pc.value_counts(pairs.split)}
        known = ", ".join(f"{known or 'unknown'} ({n})" for known, n in Counter(counts).most_common(12))
        raise DataError(f"split {split!r} is empty; the splits are {known}")
    return chosen


def pairs_of_split(pairs: Pairs, split: str) -> Pairs:
    """As `select_split`; no pairs where the splits are others. Raises `DataError` where the data name none."""
    if pairs.split.null_count == len(pairs):
        raise DataError(f"these data name no splits, so {split!r} cannot be chosen; leave out --split")
    wanted = pa.array(sorted(spellings(split)))
    return pairs.where(pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(pairs.split)), wanted).to_numpy())
