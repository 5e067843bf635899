"""A data set seen by one encoder, in memory and in clip-retrieval's layout on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mithridate.data.arrays import read_matrix
from mithridate.data.columns import refuse_duplicates
from mithridate.data.pairs import Pairs
from mithridate.errors import DataError
from mithridate.sealed import DamagedFile, read_object

_BLOCK = 8192  # images gathered at once


@dataclass(frozen=True)
class Embeddings:
    """n pairs over m distinct images. Rows of both arrays have unit length.

    `uid` (n,), `image` (m, d) float32, `image_index` (n,) which image each pair has, `text` (n, d) float32;
    `encoder` names what made them, `weights` is its `weights_fingerprint`, None where it is not known.
    """

    uid: pa.ChunkedArray
    image: np.ndarray
    image_index: np.ndarray
    text: np.ndarray
    encoder: str
    weights: str | None = None

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
            wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
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
        return cosines


def write_embeddings(embeddings: Embeddings, pairs: Pairs, folder: Path) -> None:
    """Write into `folder` (it exists): `img_emb/`, `text_emb/`, `metadata/` as clip-retrieval lays them out."""
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", embeddings.image[embeddings.image_index])
    np.save(folder / "text_emb" / "text_emb_0.npy", embeddings.text)
    table = pairs.table.rename_columns(
        [{"image": "image_path", "text": "caption"}.get(name, name) for name in pairs.table.column_names]
    )
    pq.write_table(table, folder / "metadata" / "metadata_0.parquet")
    named = {"encoder": embeddings.encoder, "weights": embeddings.weights}
    (folder / "encoder.json").write_text(json.dumps(named), encoding="utf-8")


def read_embeddings(folder: Path) -> Embeddings:
    """Embeddings in clip-retrieval's layout, ours or another's.

    Rows of one `image_path` and one image embedding become one image: an `image_path` may be a sample's key, which
    repeats from shard to shard. Raises `DataError` where a part is missing or the parts do not fit together.
    """
    folder = Path(folder)
    parts = []
    for name, pattern in (("img_emb", "*.npy"), ("text_emb", "*.npy"), ("metadata", "*.parquet")):
        files = sorted((folder / name).glob(pattern), key=lambda path: (len(path.name), path.name))
        if not files:
            raise DataError(f"{folder} has no {name}/{pattern}; expected clip-retrieval's layout (mithridate embed)")
        parts.append(files)
    arrays = [[read_matrix(path, what="embeddings") for path in files] for files in parts[:2]]
    try:
        tables = [pq.read_table(path) for path in parts[2]]
        table = pa.concat_tables(tables, promote_options="default")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{folder}/metadata does not read as Parquet: {error}; embed the data again") from error
    rows = [[len(part) for part in arrays[0]], [len(part) for part in arrays[1]], [len(part) for part in tables]]
    if not rows[0] == rows[1] == rows[2]:
        raise DataError(
            f"{folder}: {sum(rows[0])} image and {sum(rows[1])} text embeddings for {sum(rows[2])} rows of metadata, "
            f"in files of {rows[0][:4]}, {rows[1][:4]} and {rows[2][:4]} rows; embed the data again"
        )
    if len({part.shape[1] for files in arrays for part in files}) != 1:
        raise DataError(f"{folder} holds embeddings of several widths; embed the data again with one encoder")
    image, text = (np.concatenate(files).astype(np.float32) for files in arrays)
    paths = _texts(table["image_path"], "image_path", folder) if "image_path" in table.column_names else None
    index = _distinct_images(image, paths)
    first = np.unique(index, return_index=True)[1]
    uid = table["uid"] if "uid" in table.column_names else pa.chunked_array([np.arange(len(image))])
    try:
        uid = uid.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(
            f"{folder}/metadata has uids of type {uid.type}, expected texts; embed the data again"
        ) from error
    refuse_duplicates(uid, folder, "embed the data again, or drop the column")
    return Embeddings(uid, _unit(image[first]), index, _unit(text), *_made_by(folder / "encoder.json"))


def _texts(column: pa.ChunkedArray, name: str, folder: Path) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(
            f"column {name} of {folder}/metadata is of type {column.type}, expected text; embed the data again"
        ) from error


def _distinct_images(image: np.ndarray, paths: pa.ChunkedArray | None) -> np.ndarray:
    """(n,) numbers from 0 on, in order of first appearance; equal where path and embedding (n, d) of two rows are."""
    if paths is None:
        return np.arange(len(image))
    codes = paths.dictionary_encode().unify_dictionaries().combine_chunks()
    index = codes.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    first = np.unique(index, return_index=True)
    head = first[1][np.searchsorted(first[0], index)]  # (n,) the first row of each row's path
    known: dict[tuple[int, bytes], int] = {}
    out = np.empty(len(index), np.int64)
    for low in range(0, len(image), _BLOCK):
        block = slice(low, low + _BLOCK)
        same = (image[block] == image[head[block]]).all(axis=1)
        for row, is_same in zip(range(low, low + len(same)), same.tolist()):
            key = (int(index[row]), b"" if is_same else image[row].tobytes())
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


def _unit(rows: np.ndarray) -> np.ndarray:
    # half-precision files are off by 1e-3
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
