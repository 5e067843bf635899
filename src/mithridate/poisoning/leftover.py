"""Poison that is still in a set of pairs."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from mithridate.data.images import read_bytes
from mithridate.data.pairs import Pairs
from mithridate.poisoning.manifest import Manifest


def poisoned_rows(pairs: Pairs, manifest: Manifest) -> np.ndarray:
    """Rows of `pairs` whose uid, caption and image are those of a poisoned pair of `manifest`: (k,).

    A clean copy of a poisoned pair has its uid; what it says or shows is other. Only images of such pairs are read.
    """
    table = manifest.poisoned
    place = {uid: i for i, uid in enumerate(table["uid"].to_pylist())}
    texts, hashes = table["text"].to_pylist(), table["sha256"].to_pylist()
    known = pa.array(list(place), pa.string())
    rows = np.flatnonzero(_is_in(pairs.uid, known))
    found = []
    chosen = pairs.table.select(["uid", "image", "text"]).take(pa.array(rows)).to_pylist()
    for row, pair in zip(rows, chosen):
        i = place[pair["uid"]]
        same = pair["text"] == texts[i] and hashlib.sha256(read_bytes(pair["image"])).hexdigest() == hashes[i]
        if same:
            found.append(row)
    return np.array(found, np.int64)


def _is_in(column: pa.ChunkedArray, known: pa.Array) -> np.ndarray:
    import pyarrow.compute as pc

    return pc.is_in(column, value_set=known).to_numpy()  # type: ignore[attr-defined]
