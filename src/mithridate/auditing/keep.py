"""Keep-lists: the uids that a trainer may read, as text, in DataComp's form, or in a filter's folder.

A list of one's own is a file with one uid a line, and carries no checksum. The record beside a filter's lists carries
theirs: one that a disk damaged, or that somebody edited in place, is refused.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from mithridate.data.arrays import array_header
from mithridate.data.bounded import read_parquet
from mithridate.data.pairs import Pairs, hexadecimal
from mithridate.errors import DataError, FilterError
from mithridate.remote.paths import RemotePath, arrow_source, location
from mithridate.remote.uploads import refuse_half
from mithridate.sealed import (
    DamagedFile,
    check_contents,
    content_digests,
    read_object,
    read_sealed_json,
    write_sealed_json,
)

RECORD, SCORES, TEXT, DATACOMP = "filter.json", "scores.parquet", "keep.txt", "keep.npy"
CHECKSUMS = "checksums"
FORMAT = "mithridate-filter/2"
_UNSEALED = "mithridate-filter/1"  # of version 0.1, without checksums

# A list comes from strangers: 2**32 bytes are 130 million uids of 32 digits.
MAX_BYTES = 2**32
# Fewer of a list's uids than this among the data: the list is of another set.
LEAST_MATCH = 0.5


@dataclass(frozen=True)
class KeepList:
    """`uid` (k,) of the pairs that stay; `scored` (n,) all that were looked at, None where only the list is known.

    `record` is what the filter wrote beside it: detector, threshold, encoder and its weights.
    """

    uid: pa.ChunkedArray
    scored: pa.ChunkedArray | None = None
    record: dict[str, Any] = field(default_factory=dict)
    path: str = "the keep-list"

    def apply(self, pairs: Pairs) -> Pairs:
        """The pairs that are on the list. Raises `FilterError` where the list is of another data set."""
        keep = pc.is_in(pairs.uid, value_set=self.uid.cast(pairs.uid.type)).to_numpy()
        found, listed = int(keep.sum()), len(pc.unique(self.uid))
        if not found or found < LEAST_MATCH * listed:
            raise FilterError(
                f"{self.path} is of another data set: {found} of its {listed} uids are among the {len(pairs)} "
                "pairs; give the data that were filtered, read in the same way, or filter these"
            )
        if self.scored is not None:
            unseen = int((~pc.is_in(pairs.uid, value_set=self.scored.cast(pairs.uid.type)).to_numpy()).sum())
            if unseen:
                raise FilterError(
                    f"{unseen} of the {len(pairs)} pairs were never scored by the filter in {self.path}, so it "
                    "says nothing of them; embed and filter all pairs that are trained on"
                )
        return pairs.where(keep)

    def same_encoder(self, name: str, weights: str) -> str | None:
        """What to say where the filter looked through the encoder that training starts from; None where it did not.

        Weights decide; where the filter's are not known, names do. A near copy of the encoder is not recognised.
        """
        theirs = self.record.get("weights")
        if not self.record or (theirs != weights if theirs else self.record.get("encoder") != name):
            return None
        return (
            f"same-encoder: the pairs were filtered with the encoder that training starts from ({name}); poison that "
            "agrees under it, or that it was trained on, has passed; filter with another one (docs/warnings.md)"
        )


def read_keep_list(path: str | Path) -> KeepList:
    """The keep-list at `path`: a filter's folder, a text file with one uid a line, or DataComp's npy (`u8,u8`).

    A file that lies beside a filter's record is read with it. Raises `FilterError` where it is none of these.
    """
    path = location(path)
    refuse_half([path, path.parent])
    if path.is_dir():
        if not (path / RECORD).is_file():
            raise FilterError(f"{path} holds no {RECORD}; expected a folder that mithridate filter wrote")
        return _read_folder(path, path / TEXT if (path / TEXT).is_file() else path / DATACOMP)
    if (path.parent / RECORD).is_file():
        return _read_folder(path.parent, path)
    return KeepList(_read_uids(path), path=str(path))


def _read_folder(folder: Path, file: Path) -> KeepList:
    record = read_record(folder, (SCORES, file.name))
    try:
        scored = read_parquet(folder / SCORES, columns=["uid"])["uid"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FilterError(f"{folder} holds no whole output of mithridate filter: {error}; filter again") from error
    return KeepList(_read_uids(file), scored, record, str(file))


def write_record(record: dict[str, Any], folder: Path) -> None:
    """Write `filter.json`: `record`, and the checksums of the scores and lists that are in `folder` already."""
    sums = content_digests(folder, (SCORES, TEXT, DATACOMP))
    write_sealed_json(folder / RECORD, {"format": FORMAT, **record, CHECKSUMS: sums})


def read_record(folder: Path, used: Iterable[str]) -> dict[str, Any]:
    """The record in a filter's folder. Raises `FilterError` where it is damaged, or one of the files `used` beside it.

    Folders of version 0.1 have no checksums, and are read without.
    """
    try:
        record = read_object(folder / RECORD)
        if record.get("format") == _UNSEALED:
            return record
        record = read_sealed_json(folder / RECORD)
        if record.get("format") != FORMAT:
            raise DamagedFile(f"format is {str(record.get('format'))[:40]!r}, expected {FORMAT!r}")
        check_contents(folder, record.pop(CHECKSUMS, None), used)
    except (OSError, ValueError) as error:
        raise FilterError(
            f"{folder} holds no whole output of mithridate filter: {error}; filter again, or give a list that you "
            "edited a folder of its own"
        ) from error
    return record


def _read_uids(path: Path) -> pa.ChunkedArray:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise FilterError(f"{path} has {size} bytes; keep-lists of at most {MAX_BYTES} are read")
        uid = _read_datacomp(path) if path.suffix == ".npy" else _read_text(path)
    except (OSError, ValueError, EOFError, DataError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FilterError(f"cannot read the keep-list {path}: {reason}; expected one uid a line") from error
    if not len(uid):
        raise FilterError(f"the keep-list {path} is empty; nothing would be left to train on")
    return uid


def _read_text(path: Path) -> pa.ChunkedArray:
    if path.stat().st_size == 0:
        return pa.chunked_array([], pa.string())
    # the unit separator is in no uid that `write_keep_list` lets pass: a line is one cell
    table = pcsv.read_csv(
        arrow_source(path),
        read_options=pcsv.ReadOptions(column_names=["uid"]),
        parse_options=pcsv.ParseOptions(delimiter="\x1f", quote_char=False),
        convert_options=pcsv.ConvertOptions(column_types={"uid": pa.string()}, strings_can_be_null=False),
    )
    return table["uid"]


def _read_datacomp(path: Path) -> pa.ChunkedArray:
    shape, kind = array_header(path, "an array of u8,u8")
    if kind != np.dtype("u8,u8") or len(shape) != 1:
        raise FilterError(f"{path} holds {len(shape)} axes of {kind}, expected one of u8,u8 (DataComp's subsets)")
    if isinstance(path, RemotePath):
        with path.open("rb") as file:
            raw = np.load(file, allow_pickle=False)
    else:
        raw = np.load(path, mmap_mode="r", allow_pickle=False)
    words = np.stack([raw["f0"], raw["f1"]], axis=1).astype(">u8")
    return pa.chunked_array([hexadecimal(words.view(np.uint8).reshape(-1, 16))], pa.string())


def write_keep_list(uid: pa.ChunkedArray, folder: Path) -> list[str]:
    """Write `keep.txt`, and `keep.npy` where all uids are 128-bit hexadecimal; gives back the names written."""
    # a line break or another control character would make two uids of one
    if pc.any(pc.match_substring_regex(uid, r"[\x00-\x1f]|^$")).as_py():
        raise FilterError("some uids are empty or hold control characters, so one a line cannot name them; rename them")
    with (folder / TEXT).open("w", encoding="utf-8", newline="\n") as file:
        for chunk in uid.chunks:
            file.writelines(f"{name}\n" for name in chunk.to_pylist())
    if not pc.all(pc.match_substring_regex(uid, "^[0-9a-f]{32}$")).as_py():
        return [TEXT]
    np.save(folder / DATACOMP, as_datacomp(uid))
    return [TEXT, DATACOMP]


def as_datacomp(uid: pa.ChunkedArray) -> np.ndarray:
    """Uids of 32 hexadecimal digits as DataComp's subsets have them: (k,) of `u8,u8`, sorted."""
    digits = np.concatenate([np.zeros(0, np.uint8), *(_digits(chunk) for chunk in uid.chunks)]).reshape(-1, 16, 2)
    words = (digits[..., 0] << 4 | digits[..., 1]).reshape(-1, 16).view(">u8").astype("<u8")
    order = np.lexsort((words[:, 1], words[:, 0]))
    found = np.empty(len(words), np.dtype("u8,u8"))
    found["f0"], found["f1"] = words[order].T
    return found


def _digits(chunk: pa.Array) -> np.ndarray:
    """The values of all digits of a chunk, one after the other."""
    raw = np.frombuffer("".join(chunk.to_pylist()).encode("ascii"), np.uint8)
    return np.where(raw < ord("a"), raw - ord("0"), raw - ord("a") + 10).astype(np.uint8)
