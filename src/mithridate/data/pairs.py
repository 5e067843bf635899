"""The table of image-text pairs that everything else takes."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.left_out import ReadReport, join_reports
from mithridate.errors import DataError

SCHEMA = {
    "uid": pa.string(),
    "image": pa.string(),
    "text": pa.string(),
    "labels": pa.list_(pa.string()),
    "split": pa.string(),
}


@dataclass(frozen=True)
class Pairs:
    """Columnar table of n image-text pairs; several captions of one image are several rows with one `image`.

    Columns of `table`, in this order: `uid` (unique, meaningless), `image` (a location: a file's path, or one of the
    forms in `locations.py`), `text`, `labels` (list of class names, empty where unknown), `split` (null where
    unknown); then whatever else the source had. Rows cost no Python objects. `report` counts what the reader left out
    of the source; subsets keep it.
    """

    table: pa.Table
    report: ReadReport = field(default_factory=ReadReport, compare=False)

    def __post_init__(self) -> None:
        names = self.table.column_names[: len(SCHEMA)]
        if names != list(SCHEMA):
            raise DataError(f"pairs need the columns {', '.join(SCHEMA)} in this order, got {', '.join(names)}")

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def uid(self) -> pa.ChunkedArray:
        return self.table["uid"]

    @property
    def image(self) -> pa.ChunkedArray:
        return self.table["image"]

    @property
    def text(self) -> pa.ChunkedArray:
        return self.table["text"]

    @property
    def labels(self) -> pa.ChunkedArray:
        return self.table["labels"]

    @property
    def split(self) -> pa.ChunkedArray:
        return self.table["split"]

    @cached_property
    def _distinct(self) -> pa.DictionaryArray:
        # `unify` is needed where chunks came from several files: each has a dictionary of its own
        return self.image.dictionary_encode().unify_dictionaries().combine_chunks()

    @property
    def images(self) -> pa.Array:
        """The distinct locations, (m,), in order of first appearance."""
        return self._distinct.dictionary

    @property
    def image_index(self) -> np.ndarray:
        """For each pair the position of its image in `images`: (n,) int32."""
        return self._distinct.indices.to_numpy(zero_copy_only=False)

    def labelled(self, name: str) -> np.ndarray:
        """Which pairs carry the class `name`: (n,) bool."""
        mask = np.zeros(len(self), dtype=bool)
        start = 0
        for chunk in self.labels.chunks:
            hit = pc.equal(pc.list_flatten(chunk), name)
            rows = pc.filter(pc.list_parent_indices(chunk), hit).to_numpy(zero_copy_only=False)
            mask[start + rows] = True
            start += len(chunk)
        return mask

    @cached_property
    def classes(self) -> dict[str, int]:
        """Class names with the number of distinct images that carry each, most frequent first."""
        first = np.unique(self.image_index, return_index=True)[1]
        flat = pc.list_flatten(self.labels.take(pa.array(first)))
        counts = sorted(
            ((c["values"].as_py(), c["counts"].as_py()) for c in pc.value_counts(flat)),
            key=lambda pair: (-pair[1], pair[0]),
        )
        return dict(counts)

    def need_class(self, name: str) -> np.ndarray:
        """`labelled(name)`, or a `DataError` that names the nearest classes where no pair carries it."""
        mask = self.labelled(name)
        if not mask.any():
            raise DataError(f"no pair is labelled {name!r}; {nearest_names(name, self.classes)}")
        return mask

    def take(self, rows: np.ndarray | Sequence[int]) -> Pairs:
        """The pairs at `rows`, in that order."""
        return Pairs(self.table.take(pa.array(np.asarray(rows, dtype=np.int64))), self.report)

    def where(self, mask: np.ndarray) -> Pairs:
        """The pairs at which `mask` (n,) is true."""
        return Pairs(self.table.filter(pa.array(mask)), self.report)

    def with_columns(self, **columns: pa.Array | pa.ChunkedArray) -> Pairs:
        """The same pairs with some columns replaced or added."""
        table = self.table
        for name, column in columns.items():
            at = table.column_names.index(name) if name in table.column_names else None
            table = table.append_column(name, column) if at is None else table.set_column(at, name, column)
        return Pairs(table, self.report)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of uids, names of images and texts in order: tells two data sets apart, wherever they lie.

        Only the last component of a location counts, so that a data set keeps its fingerprint when it is moved.
        """
        digest = hashlib.blake2b(digest_size=16)
        names = pc.replace_substring_regex(self.image, pattern=r"^.*[/\\]", replacement="")
        for column in (self.uid, names, self.text):
            for chunk in column.chunks:
                # buffers of a slice hold more than the slice; concatenation compacts them
                compact = pa.concat_arrays([chunk])
                digest.update(np.asarray(pc.binary_length(compact).fill_null(-1)).tobytes())
                data = compact.buffers()[2]
                if data is not None:
                    offsets = np.frombuffer(compact.buffers()[1], dtype=np.int32)
                    low, high = offsets[compact.offset], offsets[compact.offset + len(compact)]
                    digest.update(memoryview(data)[low:high])
        return digest.hexdigest()


def make_pairs(
    image: pa.Array | pa.ChunkedArray | Iterable[str],
    text: pa.Array | pa.ChunkedArray | Iterable[str],
    *,
    labels: pa.Array | pa.ChunkedArray | Iterable[Iterable[str]] | None = None,
    split: pa.Array | pa.ChunkedArray | str | None = None,
    uid: pa.Array | pa.ChunkedArray | Iterable[str] | None = None,
    salt: bytes = b"",
    report: ReadReport | None = None,
    **extra: pa.Array | pa.ChunkedArray,
) -> Pairs:
    """`Pairs` from columns; uids are drawn from `salt` and the row number where the source has none."""
    places, texts = _column(image, pa.string()), _column(text, pa.string())
    n = len(places)
    if labels is None:
        labels = pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, np.int32)), pa.array([], pa.string()))
    if split is None or isinstance(split, str):
        split = pa.repeat(pa.scalar(split, pa.string()), n)
    columns = {
        "uid": draw_uids(n, salt) if uid is None else _column(uid, pa.string()),
        "image": places,
        "text": texts,
        "labels": _column(labels, SCHEMA["labels"]),
        "split": _column(split, pa.string()),
    }
    return Pairs(pa.table({**columns, **extra}), report or ReadReport())


def concat_pairs(parts: Sequence[Pairs]) -> Pairs:
    """All pairs of `parts` one after the other; columns that not all of them have are filled with null."""
    table = pa.concat_tables([part.table for part in parts], promote_options="default")
    return Pairs(table, join_reports(part.report for part in parts))


def draw_uids(n: int, salt: bytes) -> pa.Array:
    """n distinct strings of 32 hexadecimal digits (128 bits, DataComp's form) that tell nothing but n and `salt`.

    Two rounds of splitmix64 over the row number: a bijection, so no two rows share one.
    """
    seed = np.frombuffer(hashlib.blake2b(salt, digest_size=16).digest(), dtype="<u8")
    row = np.arange(n, dtype=np.uint64)
    words = np.empty((n, 2), dtype=">u8")
    words[:, 0] = _splitmix64(row + seed[0])
    words[:, 1] = _splitmix64(words[:, 0].astype(np.uint64) ^ seed[1])
    return hexadecimal(words.view(np.uint8).reshape(n, 16))


def hexadecimal(raw: np.ndarray) -> pa.Array:
    """(n, b) uint8 as n strings of 2b hexadecimal digits."""
    n, width = raw.shape
    # one look-up a byte, both digits at once
    text = _BYTE_AS_TEXT[raw]
    offsets = pa.py_buffer(np.arange(n + 1, dtype=np.int64) * (2 * width))
    wide = pa.LargeStringArray.from_buffers(n, offsets, pa.py_buffer(text))
    return wide.cast(pa.string()) if text.nbytes < 2**31 else wide


_BYTE_AS_TEXT = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)


def _splitmix64(x: np.ndarray) -> np.ndarray:
    x = (x + np.uint64(0x9E3779B97F4A7C15)).astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _column(values: Any, kind: pa.DataType) -> Any:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values if values.type == kind else values.cast(kind)
    return pa.array(list(values), kind)


def nearest_names(name: str, known: Iterable[str]) -> str:
    """The end of an error about a class that does not occur: the names most like it, or all there are."""
    known = list(known)
    if not known:
        return "the data carry no labels at all: give a table with a label column, or labels from annotations"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"nearest: {', '.join(near)}" if near else f"the classes are {', '.join(known[:30])}"
