"""Pairs as the records that a writer makes of them: an image with its captions, labels and split."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.images import read_bytes
from mithridate.data.pairs import Pairs
from mithridate.threads import thread_count

BLOCK = 1000
"""Records that are handled at a time."""


def record_rows(pairs: Pairs, records: np.ndarray | None, *, whole: bool = False) -> list[np.ndarray]:
    """The rows of each image record, records in order of first appearance.

    With `whole`, pairs of one record that differ in labels or split are records of their own: the layouts that
    keep one entry a record have room for one of each.
    """
    image = pairs.image_index.astype(np.int64)
    ids = image if records is None else np.unique(records, return_inverse=True)[1].reshape(-1)
    if len(ids) != len(pairs):
        raise ValueError(f"records must name one record a pair, expected {len(pairs)} of them, got {len(ids)}")
    if whole:
        codes = np.unique(row_codes(pairs), return_inverse=True)[1]
        ids = ids * (int(codes.max(initial=0)) + 1) + codes
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]][: len(ids)])
    mixed = np.r_[False, (ids[1:] == ids[:-1]) & (image[order][1:] != image[order][:-1])][: len(ids)]
    if mixed.any():
        raise ValueError(f"pairs of one record must share one image, row {order[mixed][0]} has another")
    members = np.split(order, starts[1:]) if len(ids) else []
    return sorted(members, key=lambda rows: rows[0])


def row_codes(pairs: Pairs) -> np.ndarray:
    """(n,) numbers, equal where labels and split of two rows are; no sign inside a name makes two of them one."""
    flat = pc.list_flatten(pairs.labels).dictionary_encode().unify_dictionaries().combine_chunks()
    lengths = pc.list_value_length(pairs.labels).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    numbers = pa.ListArray.from_arrays(pa.array(offsets), flat.indices.cast(pa.string()))
    joined = pc.binary_join(numbers, " ").dictionary_encode().indices.to_numpy().astype(np.int64)
    split = pairs.split.dictionary_encode().unify_dictionaries().combine_chunks()
    parts = split.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return joined * (len(split.dictionary) + 1) + parts + 1


def record_places(pairs: Pairs, members: Sequence[np.ndarray]) -> pa.Array:
    """The place of each record's image."""
    return pairs.images.take(pa.array([pairs.image_index[rows[0]] for rows in members], pa.int32()))


def describe_records(pairs: Pairs, members: Sequence[np.ndarray]) -> Iterator[dict[str, Any]]:
    """Captions, uids, labels and split of each record."""
    table = pairs.table.select(["text", "uid", "labels", "split"])
    for start in range(0, len(members), BLOCK):
        part = members[start : start + BLOCK]
        found = table.take(pa.array(np.concatenate(part))).to_pydict()
        at = 0
        for rows in part:
            here = slice(at, at + len(rows))
            yield {
                "captions": found["text"][here],
                "uids": found["uid"][here],
                "labels": found["labels"][at],
                "split": found["split"][at],
            }
            at += len(rows)


def read_ahead(places: Sequence[str]) -> Iterator[bytes]:
    """The bytes at each place, in order, read by several threads and one block ahead."""
    with ThreadPoolExecutor(thread_count()) as pool:
        for start in range(0, len(places), BLOCK):
            yield from pool.map(read_bytes, places[start : start + BLOCK])
