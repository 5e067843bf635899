"""What else a source says of its samples: fields beside captions, uids, labels and split, carried over when written.

Fields that describe an image (its checksum, its size) follow the image; all others stay with the sample. A checksum is
made from the bytes that are written: one that does not fit would tell which image was exchanged.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from mithridate.data.columns import CAPTION_COLUMNS
from mithridate.data.images import FORMATS, read_bytes
from mithridate.data.locations import span_place, split_place
from mithridate.data.pairs import SCHEMA, Pairs
from mithridate.data.shards import IMAGE_ENDINGS
from mithridate.data.tar import open_tar, tar_members
from mithridate.remote.paths import named_in_data

CHECKSUMS = ("sha256", "md5", "sha1", "sha512")
SIZES = ("width", "height", "original_width", "original_height")
OF_IMAGE = (*CHECKSUMS, *SIZES, "exif", "phash")

_LABELS = ("label", "class", "cls")
_WRITTEN = ("key", "captions", "uids", "labels", "split")


@dataclass(frozen=True)
class Origin:
    """Where each of n pairs is from: places of the image of its `own` sample, and of the one whose image is `shown`
    (before it was altered)."""

    own: pa.ChunkedArray | pa.Array
    shown: pa.ChunkedArray | pa.Array


class SampleFields:
    """The json of samples in tar shards, found by the place of their image. A shard is indexed when first asked for."""

    def __init__(self) -> None:
        self._shards: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, place: str) -> dict[str, Any]:
        """The fields of the sample whose image lies at `place`; none for a file of its own."""
        path, offset, size = split_place(place)
        if offset is None or size is None or not path.lower().endswith(".tar"):
            return {}
        if path not in self._shards:
            self._shards[path] = _index(named_in_data(path))
        images, spans = self._shards[path]
        at = int(np.searchsorted(images, offset))
        if at == len(images) or images[at] != offset or spans[at, 1] == 0:
            return {}
        try:
            found = json.loads(read_bytes(span_place(path, int(spans[at, 0]), int(spans[at, 1]))))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _index(shard: Path) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the images (s,), ascending, and offset and size of the json beside each (s, 2)."""
    images: dict[str, int] = {}
    records: dict[str, tuple[int, int]] = {}
    with open_tar(shard) as data:
        for name, offset, size in tar_members(data, shard):
            folder, _, base = name.rpartition("/")
            stem, _, ending = base.partition(".")
            if ending.lower() in IMAGE_ENDINGS:
                # as in reading: of several images the first ending of the list
                images.setdefault(f"{folder}/{stem}/{ending.lower()}", offset)
            elif ending.lower() == "json":
                records[f"{folder}/{stem}"] = (offset, size)
    found = sorted((offset, records.get(name.rpartition("/")[0], (0, 0))) for name, offset in images.items())
    return (
        np.array([offset for offset, _ in found], np.int64),
        np.array([span for _, span in found], np.int64).reshape(-1, 2),
    )


def carried_over(own: dict[str, Any], shown: dict[str, Any], raw: bytes, record: dict[str, Any]) -> dict[str, Any]:
    """`record` (what is written anyway) and then the other fields of a sample, those of its image from `shown`.

    `own`: fields of the sample that stands here; `shown`: of the sample whose image it has; `raw`: the image's bytes.
    """
    out = dict(record)
    for name, value in own.items():
        lower = name.lower()
        if lower in _WRITTEN:
            continue
        if lower in OF_IMAGE:
            out[name] = of_image(lower, value, shown.get(name), raw)
        elif lower == "uid":
            out[name] = record["uids"][0]
        elif lower in CAPTION_COLUMNS:
            out[name] = record["captions"] if isinstance(value, list) else record["captions"][0]
        elif lower in _LABELS:
            out[name] = record["labels"] if isinstance(value, list) else next(iter(record["labels"]), None)
        else:
            out[name] = value
    return out


def of_image(name: str, own: Any, shown: Any, raw: bytes) -> Any:
    """A field that describes an image: made from its bytes where they tell, else what `shown` says."""
    if name in CHECKSUMS:
        return hashlib.new(name, raw, usedforsecurity=False).hexdigest() if own is not None else None
    if shown is not None or name not in SIZES:
        return shown
    with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
        return image.width if name.endswith("width") else image.height


def own_keys(found: Sequence[Any]) -> list[str] | None:
    """The keys of the source where each sample has one of its own that can name files, else None: one sample without
    would stand out."""
    keys = [key for key in found if isinstance(key, str) and re.fullmatch(r"[\w-]{1,80}", key)]
    return keys if len(keys) == len(found) == len(set(keys)) else None


def other_columns(
    pairs: Pairs, new: Pairs, own_row: np.ndarray, origin: Origin, changed: np.ndarray
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """The columns of `pairs` beyond those that all have, for the rows of `new`: of row `own_row` (n,) of `pairs`.

    At the rows `changed` (k,) what describes an image is that of the image which is shown there. A column `key` is
    left out where pairs of one key no longer share an image.
    """
    out: dict[str, pa.Array | pa.ChunkedArray] = {}
    for name in pairs.table.column_names[len(SCHEMA) :]:
        column = pairs.table[name].take(pa.array(own_row))
        if name == "key":
            if _shared(column, new):
                out[name] = column
            continue
        if name.lower() in OF_IMAGE and len(changed):
            values = column.to_pylist()
            first = dict(zip(reversed(pairs.image.to_pylist()), range(len(pairs) - 1, -1, -1)))
            for row in changed.tolist():
                at = first.get(origin.shown[row].as_py())
                shown = None if at is None else pairs.table[name][at].as_py()
                raw = read_bytes(new.image[row].as_py())
                values[row] = of_image(name.lower(), values[row], shown, raw)
            column = pa.array(values, column.type)
        out[name] = column
    return out


def _shared(key: pa.ChunkedArray | pa.Array, pairs: Pairs) -> bool:
    """Whether the pairs of each key have one image."""
    codes = pa.chunked_array([key]) if isinstance(key, pa.Array) else key
    numbers = codes.dictionary_encode().unify_dictionaries().combine_chunks().indices.to_numpy(zero_copy_only=False)
    both = np.unique(np.stack([numbers, pairs.image_index]), axis=1)
    return both.shape[1] == len(np.unique(both[0]))
