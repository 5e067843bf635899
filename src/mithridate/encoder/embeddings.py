"""A data set seen by one encoder, in memory and in clip-retrieval's layout on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mithridate.data.arrays import RemoteRows, read_matrix, release, working_array
from mithridate.data.bounded import read_parquet
from mithridate.data.columns import refuse_duplicates
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.errors import DataError
from mithridate.remote.paths import location
from mithridate.remote.uploads import refuse_half
from mithridate.sealed import DamagedFile, read_object

_BLOCK = 8192  # images gathered at once
_UNIT = 1e-2  # lengths within it of 1 are those of unit vectors


@dataclass(frozen=True)
class Embeddings:
    """n pairs over m distinct images. Rows of both arrays have unit length.

    `uid` (n,), `image` (m, d) float32, `image_index` (n,) which image each pair has, `text` (n, d) float32;
    `encoder` names what made them, `weights` is its `weights_fingerprint`, None where it is not known.
    `image_length` (m,) and `text_length` (n,) are the lengths that the encoder gave the vectors before they were made
    unit vectors; None where they are not known.
    """

    uid: pa.ChunkedArray
    image: np.ndarray
    image_index: np.ndarray
    text: np.ndarray
    encoder: str
    weights: str | None = None
    image_length: np.ndarray | None = None
    text_length: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.uid)
        if len(self.text) != n or len(self.image_index) != n:
            raise DataError(
                f"embeddings need a row for each of the {n} pairs, got {len(self.text)} texts and "
                f"{len(self.image_index)} images"
            )
        if self.image.shape[1] != self.text.shape[1]:
            raise DataError(
                f"images and texts must be embedded by one encoder, got widths {self.image.shape[1]} and "
                f"{self.text.shape[1]}; embed the data again"
            )
        for name, rows in (("image", self.image), ("text", self.text)):
            wrong = _not_finite(rows)
            if len(wrong):
                raise DataError(
                    f"{len(wrong)} {name} embeddings are not finite (rows {', '.join(map(str, wrong[:5]))}); "
                    "the model diverged, or the file is damaged"
                )

    def __len__(self) -> int:
        return len(self.uid)

    def similarity(self) -> np.ndarray:
        """Cosine similarity of each pair: (n,) float32."""
        cosines = np.empty(len(self), np.float32)
        for low in range(0, len(self), _BLOCK):
            rows = slice(low, low + _BLOCK)
            cosines[rows] = np.einsum("nd,nd->n", self.image[self.image_index[rows]], self.text[rows])
            release(self.image, self.text)
        return cosines


def concat_embeddings(parts: Sequence[Embeddings]) -> Embeddings:
    """The pairs of all parts, one after the other, by one encoder; no image is in two parts."""
    start = np.cumsum([0, *(len(part.image) for part in parts)])
    lengths = {
        name: np.concatenate([getattr(part, name) for part in parts])
        if all(getattr(part, name) is not None for part in parts)
        else None
        for name in ("image_length", "text_length")
    }
    return Embeddings(
        pa.chunked_array([chunk for part in parts for chunk in part.uid.chunks], pa.string()),
        np.concatenate([part.image for part in parts]),
        np.concatenate([part.image_index + first for part, first in zip(parts, start)]),
        np.concatenate([part.text for part in parts]),
        parts[0].encoder,
        parts[0].weights,
        **lengths,
    )


def _not_finite(rows: np.ndarray) -> np.ndarray:
    bad = [np.empty(0, np.int64)]
    for low in range(0, len(rows), _BLOCK):
        bad.append(low + np.flatnonzero(~np.isfinite(rows[low : low + _BLOCK]).all(axis=1)))
        release(rows)
    return np.concatenate(bad)


def write_embeddings(embeddings: Embeddings, pairs: Pairs, folder: Path) -> None:
    """Write into `folder` (it exists): `img_emb/`, `text_emb/`, `metadata/` as clip-retrieval lays them out.

    Lengths are two more columns of the metadata.
    """
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir()
    n, width = embeddings.text.shape
    path = folder / "img_emb" / "img_emb_0.npy"
    file = np.lib.format.open_memmap(path, "w+", np.float32, (n, width)) if n else np.empty((0, width), np.float32)
    for low in range(0, n, _BLOCK):
        file[low : low + _BLOCK] = embeddings.image[embeddings.image_index[low : low + _BLOCK]]
    if not n:
        np.save(path, file)
    np.save(folder / "text_emb" / "text_emb_0.npy", embeddings.text)
    table = pairs.table.rename_columns(
        [{"image": "image_path", "text": "caption"}.get(name, name) for name in pairs.table.column_names]
    )
    lengths = {"image_length": embeddings.image_length, "text_length": embeddings.text_length}
    for name, values in lengths.items():
        if values is not None and name not in table.column_names:
            each = values[embeddings.image_index] if name == "image_length" else values
            table = table.append_column(name, pa.array(each.astype(np.float32)))
    pq.write_table(table, folder / "metadata" / "metadata_0.parquet")
    named = {"encoder": embeddings.encoder, "weights": embeddings.weights}
    (folder / "encoder.json").write_text(json.dumps(named), encoding="utf-8")


def read_embeddings(folder: str | Path) -> Embeddings:
    """Embeddings in clip-retrieval's layout, ours or another's. Files are mapped and read block by block.

    Rows of one `image_path` and one image embedding become one image: an `image_path` may be a sample's key, which
    repeats from shard to shard. Lengths are those of the metadata, or of rows that are no unit vectors. Raises
    `DataError` where a part is missing or the parts do not fit together, and where an upload of them was stopped.
    """
    folder = location(folder)
    refuse_half([folder])
    files = [_files(folder, name, "*.npy") for name in ("img_emb", "text_emb")]
    arrays = [[read_matrix(path, what="embeddings", mapped=True) for path in paths] for paths in files]
    table, counts = _metadata(folder)
    rows = [[len(part) for part in arrays[0]], [len(part) for part in arrays[1]], counts]
    if not rows[0] == rows[1] == rows[2]:
        raise DataError(
            f"{folder}: {sum(rows[0])} image and {sum(rows[1])} text embeddings for {sum(rows[2])} rows of metadata, "
            f"in files of {rows[0][:4]}, {rows[1][:4]} and {rows[2][:4]} rows; embed the data again"
        )
    if len({part.shape[1] for parts in arrays for part in parts}) != 1:
        raise DataError(f"{folder} holds embeddings of several widths; embed the data again with one encoder")
    image, text = (_Rows(parts) for parts in arrays)
    paths = _texts(table["image_path"], "image_path", folder) if "image_path" in table.column_names else None
    index = _distinct_images(image, paths)
    first = np.unique(index, return_index=True)[1]
    uid = _uid(table, folder)
    images, image_length = _unit(image, first)
    texts, text_length = _unit(text, np.arange(len(text)))
    known = [_lengths(table, name, folder) for name in ("image_length", "text_length")]
    return Embeddings(
        uid,
        images,
        index,
        texts,
        *_made_by(folder / "encoder.json"),
        image_length if known[0] is None else known[0][first],
        text_length if known[1] is None else known[1],
    )


def read_embedded_pairs(folder: str | Path) -> Pairs:
    """The pairs that the embeddings in `folder` are of, as far as their metadata tell. Raises `DataError`."""
    folder = location(folder)
    refuse_half([folder])
    table, _ = _metadata(folder)
    names = {"caption": "text", "image_path": "image"}
    columns: dict[str, Any] = {names.get(str(name), str(name)): table[name] for name in table.column_names}
    known = {name: _texts(columns.pop(name), name, folder) for name in ("image", "text") if name in columns}
    n = table.num_rows
    for name in ("uid", "labels", "split", "image_length", "text_length"):
        columns.pop(name, None)
    places = known.get("image")
    if places is None:
        places = pa.array([f"row {row}" for row in range(n)])
    texts = known.get("text", pa.nulls(n, pa.string()))
    return make_pairs(places, texts, uid=_uid(table, folder), **columns)


def _files(folder: Path, name: str, pattern: str) -> list[Path]:
    files = sorted((folder / name).glob(pattern), key=lambda path: (len(path.name), path.name))
    if not files:
        raise DataError(f"{folder} has no {name}/{pattern}; expected clip-retrieval's layout (mithridate embed)")
    return files


def _metadata(folder: Path) -> tuple[pa.Table, list[int]]:
    """The metadata, and how many rows each of its files has."""
    files = _files(folder, "metadata", "*.parquet")
    try:
        tables = [read_parquet(path) for path in files]
        return pa.concat_tables(tables, promote_options="default"), [len(part) for part in tables]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{folder}/metadata does not read as Parquet: {error}; embed the data again") from error


def _uid(table: pa.Table, folder: Path) -> pa.ChunkedArray:
    uid = table["uid"] if "uid" in table.column_names else pa.chunked_array([np.arange(table.num_rows)])
    try:
        uid = uid.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(
            f"{folder}/metadata has uids of type {uid.type}, expected texts; embed the data again"
        ) from error
    refuse_duplicates(uid, folder, "embed the data again, or drop the column")
    return uid


def _lengths(table: pa.Table, name: str, folder: Path) -> np.ndarray | None:
    if name not in table.column_names:
        return None
    try:
        lengths = table[name].cast(pa.float32()).to_numpy()
    except pa.ArrowException as error:
        raise DataError(f"column {name} of {folder}/metadata holds no numbers; embed the data again") from error
    if not (np.isfinite(lengths).all() and (lengths >= 0).all()):
        raise DataError(f"column {name} of {folder}/metadata holds numbers that are no lengths; embed the data again")
    return lengths


class _Rows:
    """The rows of several arrays as if they were of one, without a copy of them."""

    def __init__(self, parts: Sequence[np.ndarray | RemoteRows]) -> None:
        self.parts, self.width = parts, parts[0].shape[1]
        self.start = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self.start[-1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The rows at `rows` (b,) as float32: (b, d)."""
        found = np.empty((len(rows), self.width), np.float32)
        part = np.searchsorted(self.start, rows, side="right") - 1
        for number in np.unique(part):
            here = part == number
            found[here] = self.parts[number][rows[here] - self.start[number]]
        release(*self.parts)
        return found


def _texts(column: pa.ChunkedArray, name: str, folder: Path) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(
            f"column {name} of {folder}/metadata is of type {column.type}, expected text; embed the data again"
        ) from error


def _distinct_images(image: _Rows, paths: pa.ChunkedArray | None) -> np.ndarray:
    """(n,) numbers from 0 on, in order of first appearance; equal where path and embedding of two rows are."""
    if paths is None:
        return np.arange(len(image))
    codes = paths.dictionary_encode().unify_dictionaries().combine_chunks()
    index = codes.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    first = np.unique(index, return_index=True)
    head = first[1][np.searchsorted(first[0], index)]  # (n,) the first row of each row's path
    known: dict[tuple[int, bytes], int] = {}
    out = np.empty(len(index), np.int64)
    for low in range(0, len(image), _BLOCK):
        block = np.arange(low, min(low + _BLOCK, len(image)))
        values = image.take(block)
        same = (values == image.take(head[block])).all(axis=1)
        for row, is_same in zip(block.tolist(), same.tolist()):
            key = (int(index[row]), b"" if is_same else values[row - low].tobytes())
            out[row] = known.setdefault(key, len(known))
    return out


def _made_by(path: Path) -> tuple[str, str | None]:
    """Name of the encoder and fingerprint of its weights, as far as the record `path` has them."""
    if not path.is_file():
        return "unknown", None
    try:
        record = read_object(path)
        encoder, weights = record.get("encoder"), record.get("weights")
        if not isinstance(encoder, str) or not isinstance(weights, str | None):
            raise DamagedFile(f"encoder and weights should be texts, got {encoder!r:.60} and {weights!r:.60}")
    except DamagedFile as error:
        raise DataError(f"{path} is damaged: {error}; embed the data again") from error
    return encoder, weights


def _unit(rows: _Rows, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows at `chosen` (m,) at unit length, (m, d), and their lengths; None where they were unit vectors before."""
    found, length = working_array((len(chosen), rows.width)), np.empty(len(chosen), np.float32)
    for low in range(0, len(chosen), _BLOCK):
        part = slice(low, low + _BLOCK)
        values = rows.take(chosen[part])
        length[part] = np.linalg.norm(values, axis=1)
        found[part] = values / np.maximum(length[part, None], 1e-12)
        release(found)
    # half-precision files are off by 1e-3
    return found, None if np.allclose(length, 1, atol=_UNIT) else length
