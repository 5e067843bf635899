"""Tables of image-text pairs: CSV, TSV, JSON, JSONL, Parquet and Arrow."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from mithridate.data import columns as col
from mithridate.data.pairs import SCHEMA, Pairs, make_pairs
from mithridate.errors import DataError

SEPARATORS = (",", "\t", ";", "|")

_BLOCK = 8 * 2**20


def read_table(
    path: Path,
    *,
    image_root: Path | None = None,
    caption_field: str | None = None,
    label_field: str | None = None,
) -> Pairs:
    """The pairs of one table file; uids are drawn from its content where it has none."""
    table = load_table(path)
    if _is_ours(table) and caption_field is None and label_field is None:
        place = col.as_places(table["image"], image_root or path.parent, path)
        col.refuse_duplicates(table["uid"], path, _UNIQUE)
        return Pairs(table.set_column(1, "image", place))
    return pairs_from_table(table, path, image_root=image_root, caption_field=caption_field, label_field=label_field)


def _is_ours(table: pa.Table) -> bool:
    ours = list(zip(table.column_names, table.schema.types))[: len(SCHEMA)] == list(SCHEMA.items())
    return ours and not table["text"].null_count and not table["labels"].null_count


def pairs_from_table(
    table: pa.Table,
    path: Path,
    *,
    image_root: Path | None = None,
    caption_field: str | None = None,
    label_field: str | None = None,
) -> Pairs:
    """The pairs of a foreign table that came from `path`; a cell with several captions becomes several pairs.

    A uid column is kept, and must be unique. Where images have several captions it names images, not pairs:
    then it goes on as `image_uid`, and uids are drawn.
    """
    names = table.column_names
    image = col.need_column(names, col.IMAGE_COLUMNS, "image", path)
    caption = col.need_column(names, col.CAPTION_COLUMNS, "caption", path, caption_field)
    label = col.find_column(names, col.LABEL_COLUMNS)
    if label_field is not None:
        label = col.need_column(names, col.LABEL_COLUMNS, "label", path, label_field)
    uid, split = col.find_column(names, ("uid",)), col.find_column(names, ("split",))

    columns = {name: table[name] for name in names if name not in (image, caption, label, uid, split)}
    columns = {f"source_{name}" if name in _TAKEN else name: column for name, column in columns.items()}
    places = col.as_strings(table[image], path, image)
    columns["image"] = col.as_places(places, image_root or path.parent, path)
    if label is not None:
        columns["labels"] = col.as_labels(table[label], path, label)
    if split is not None:
        spelled = col.as_strings(table[split], path, split)
        columns["split"] = pc.if_else(pc.equal(spelled, ""), pa.scalar(None, pa.string()), spelled)
    if uid is not None and not col.is_list(table[uid]):
        columns["uid"] = col.as_strings(table[uid], path, uid)

    text = table[caption]
    if col.is_list(text):
        text, rows = col.explode(text)
        if len(rows) > table.num_rows and "uid" in columns:
            columns["image_uid"] = columns.pop("uid")
        columns = dict(zip(columns, pa.table(columns).take(pa.array(rows)).columns))
        if uid is not None and col.is_list(table[uid]):
            columns["uid"] = _listed_uids(table[uid], rows, path, uid)
    if "uid" in columns:
        col.refuse_duplicates(columns["uid"], path, _UNIQUE)
    text = col.as_texts(text, path, caption)
    return make_pairs(columns.pop("image"), text, salt=file_salt(path), **columns)


def _listed_uids(lists: pa.ChunkedArray, rows: np.ndarray, path: Path, name: str) -> pa.ChunkedArray:
    uids, uid_rows = col.explode(lists)
    if not np.array_equal(rows, uid_rows):
        raise DataError(f"column {name!r} of {path} must list one uid a caption; correct it, or drop it")
    return col.as_strings(uids, path, name)


_TAKEN = {*SCHEMA, "image_uid", "salt"}
_UNIQUE = "make them unique, or drop the column to have new ones drawn"


def file_salt(path: Path) -> bytes:
    """What uids are drawn from: size and first 64 KiB tell files apart, and stay when a file is moved."""
    with path.open("rb") as file:
        head = file.read(2**16)
    return hashlib.blake2b(head + path.stat().st_size.to_bytes(8, "little"), digest_size=16).digest()


def load_table(path: Path) -> pa.Table:
    """The table in `path` as it stands, its format known from the ending of its name."""
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; expected a table of image-text pairs")
    try:
        table = LOADERS[table_suffix(path)](path)
        # Arrow believes what a file says: offsets that point elsewhere would be followed
        table.validate(full=True)
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} does not read as {table_suffix(path)[1:].upper()}: {error}") from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has two columns named {twice!r}; rename one of them")
    return table


def table_suffix(path: Path) -> str:
    """'.csv' for `x.csv` and `x.csv.gz`; '' where `path` is no table by its name."""
    suffix = (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()
    return suffix if suffix in LOADERS else ""


def _load_csv(path: Path) -> pa.Table:
    separator, names = sniff_separator(_open(path).read(2**16).decode("utf-8-sig", errors="replace"))
    # everything is text: a caption may be "1984", and a type guessed on the first block fails on the last
    convert = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    parse = pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    read = pa_csv.ReadOptions(block_size=_BLOCK)
    try:
        return pa_csv.read_csv(_open(path), read_options=read, parse_options=parse, convert_options=convert)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{path} does not read as a table separated by {separator!r}: {error}; save it as UTF-8 and put "
            "quotes around cells that hold the separator, a quote or a line break"
        ) from error


def sniff_separator(head: str) -> tuple[str, list[str]]:
    """The separator under which the first line has the most known column names, and all its names."""

    def known(mark: str) -> tuple[int, int]:
        names = headers[mark]
        return sum(col.find_column(names, aliases) is not None for aliases in _KINDS), len(names)

    lines = head.splitlines(keepends=True)
    headers = {mark: next(filter(None, csv.reader(lines, delimiter=mark)), []) for mark in SEPARATORS}
    best = max(SEPARATORS, key=known)
    return best, headers[best]


_KINDS = (col.IMAGE_COLUMNS, col.CAPTION_COLUMNS, col.LABEL_COLUMNS, ("uid",), ("split",))


def _load_json_lines(path: Path) -> pa.Table:
    try:
        table = pa_json.read_json(_open(path), read_options=pa_json.ReadOptions(block_size=_BLOCK))
        table.validate(full=True)  # against text that is not UTF-8
        # Arrow takes texts that look like dates for dates
        if not any(pa.types.is_timestamp(kind) for kind in table.schema.types):
            return table
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        pass  # a column with strings in one row and lists in another, which Python reads below
    records = []
    lines = _open(path).read().decode("utf-8-sig", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise DataError(f"line {number} of {path} is not JSON: {error}; correct it") from error
    return records_to_table(records, path)


def load_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The value in a JSON file; `hook` may thin out every object as it is read."""
    try:
        with _open(path) as stream:
            return json.loads(stream.read().decode("utf-8-sig"), object_hook=hook)
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path} is not JSON in UTF-8: {error}; fetch or write it again") from error


def records_to_table(records: Sequence[Any], path: Path) -> pa.Table:
    """Rows given as JSON objects; a column of strings in some rows and lists in others becomes all lists."""
    bad = next((at for at, record in enumerate(records) if not isinstance(record, dict)), None)
    if bad is not None:
        raise DataError(f"record {bad + 1} of {path} is {type(records[bad]).__name__}, expected an object")
    names = list(dict.fromkeys(name for record in records for name in record))
    spell = {name: text_of if name.lower() in col.CAPTION_COLUMNS else name_of for name in names}
    cells = {name: [record.get(name) for record in records] for name in names}
    return pa.table({name: _json_column(cells[name], spell[name]) for name in names})


def _json_column(cells: list[Any], spell: Callable[[Any], str | None]) -> pa.Array:
    try:
        return pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError):
        if any(isinstance(cell, list) for cell in cells):
            lists = [cell if isinstance(cell, list) or cell is None else [cell] for cell in cells]
            spelled = [cell and [spell(item) for item in cell] for cell in lists]
            return pa.array(spelled, pa.list_(pa.string()))
        return pa.array([spell(cell) for cell in cells], pa.string())


def text_of(value: Any) -> str | None:
    """`value` if it is a string, else None; half characters, which JSON can spell, become question marks."""
    return value.encode("utf-8", errors="replace").decode() if isinstance(value, str) else None


def name_of(value: Any) -> str | None:
    """`text_of`, and whole numbers as strings: how class names and uids come."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text_of(value)


def _load_parquet(path: Path) -> pa.Table:
    # not pq.read_table: that takes a folder named `split=train` on the way for a column
    with pq.ParquetFile(path, memory_map=True) as file:
        return file.read()


def _load_arrow(path: Path) -> pa.Table:
    source = pa.memory_map(os.fspath(path))
    try:
        return pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source).read_all()


def _open(path: Path) -> pa.NativeFile:
    return pa.input_stream(os.fspath(path), compression="detect")


LOADERS: dict[str, Callable[[Path], pa.Table]] = {
    ".csv": _load_csv,
    ".tsv": _load_csv,
    ".jsonl": _load_json_lines,
    ".ndjson": _load_json_lines,
    ".parquet": _load_parquet,
    ".feather": _load_arrow,
    ".arrow": _load_arrow,
    ".ipc": _load_arrow,
}
