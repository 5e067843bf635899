"""Tables of image-text pairs: CSV, TSV, JSON, JSON Lines, Parquet and Arrow."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data import columns as col
from mithridate.data.bounded import read_arrow
from mithridate.data.csv_tables import load_csv, read_all
from mithridate.data.embedded import ROW, load_parquet
from mithridate.data.encodings import decode_text
from mithridate.data.formats import Format, format_of
from mithridate.data.json_tables import load_json_lines
from mithridate.data.json_values import parse_json, records_to_table
from mithridate.data.left_out import ReadReport, Tally
from mithridate.data.locations import as_places, fullest_folder
from mithridate.data.pairs import SCHEMA, Pairs, make_pairs
from mithridate.data.signature import is_signed
from mithridate.errors import DataError


def read_table(
    path: Path,
    *,
    image_root: Path | None = None,
    caption_field: str | None = None,
    label_field: str | None = None,
    image_field: str | None = None,
    encoding: str | None = None,
    allow_outside: bool = False,
    form: Format | None = None,
) -> Pairs:
    """The pairs of one table file; uids are drawn from its content where it has none.

    Raises `DataError` for images outside the table's folder (or `image_root`), unless `allow_outside` or this user's
    own command wrote the table.
    """
    tally = Tally()
    table = load_table(path, tally=tally, encoding=encoding, form=form)
    named = (caption_field, label_field, image_field)
    if _is_ours(table) and named == (None, None, None):
        trusted = allow_outside or is_signed(table)
        place = as_places(
            table["image"],
            image_root or path.parent,
            path,
            allow_outside=trusted,
            within=[path.parent],
            remedy="it was not written by you on this machine: give --allow-outside if you trust whoever wrote it",
        )
        col.refuse_duplicates(table["uid"], path, _UNIQUE)
        return Pairs(table.set_column(1, "image", place).replace_schema_metadata(None), tally.report())
    return pairs_from_table(
        table,
        path,
        image_root=image_root,
        caption_field=caption_field,
        label_field=label_field,
        image_field=image_field,
        allow_outside=allow_outside,
        report=tally.report(),
    )


def _is_ours(table: pa.Table) -> bool:
    ours = list(zip(table.column_names, table.schema.types))[: len(SCHEMA)] == list(SCHEMA.items())
    whole = ours and not any(table[name].null_count for name in ("uid", "image", "text", "labels"))
    return whole and not any(chunk.flatten().null_count for chunk in table["labels"].chunks)


def pairs_from_table(
    table: pa.Table,
    path: Path,
    *,
    image_root: Path | None = None,
    caption_field: str | None = None,
    label_field: str | None = None,
    image_field: str | None = None,
    allow_outside: bool = False,
    report: ReadReport | None = None,
) -> Pairs:
    """The pairs of a foreign table that came from `path`; a cell with several captions becomes several pairs.

    A uid column is kept, and must be unique. Where images have several captions it names images, not pairs:
    then it goes on as `image_uid`, and uids are drawn.
    """
    cells = dict(zip(table.column_names, table.columns))  # table[name] looks through all names every time
    names = [name for name in cells if not name.startswith(ROW)]
    image = _image_column(cells, names, path, image_field)
    caption = col.need_column(names, col.CAPTION_COLUMNS, "caption", path, caption_field)
    label = col.find_column(names, col.LABEL_COLUMNS)
    if label_field is not None:
        label = col.need_column(names, col.LABEL_COLUMNS, "label", path, label_field)
    uid, split = col.find_column(names, ("uid",)), col.find_column(names, ("split",))

    taken = {image, caption, label, uid, split}
    columns = {name: cells[name] for name in names if name not in taken}
    columns = {f"source_{name}" if name in _TAKEN else name: column for name, column in columns.items()}
    if len(columns) < len(set(names) - taken):
        raise DataError(f"{path} has columns that differ by a leading 'source_' only; rename one of them")
    spelt = col.as_strings(cells[image], path, image)
    inside = cells.get(ROW + image)
    if inside is not None:  # the image's own bytes, where a row has them
        spelt = pc.if_else(pc.is_valid(inside), pa.scalar("."), spelt)
    root = image_root or _image_folder(path.parent, spelt)
    places = as_places(spelt, root, path, allow_outside=allow_outside, within=[path.parent])
    columns["image"] = places if inside is None else pc.coalesce(inside, places)
    if label is not None:
        columns["labels"] = col.as_labels(cells[label], path, label)
    if split is not None:
        spelled = col.as_strings(cells[split], path, split)
        columns["split"] = pc.if_else(pc.equal(spelled, ""), pa.scalar(None, pa.string()), spelled)
    if uid is not None and not col.is_list(cells[uid]):
        columns["uid"] = col.as_strings(cells[uid], path, uid)

    text = col.spelt_lists(cells[caption])
    if col.is_list(text):
        text, rows = col.explode(text)
        if len(rows) > table.num_rows and "uid" in columns:
            columns["image_uid"] = columns.pop("uid")
        columns = dict(zip(columns, pa.table(columns).take(pa.array(rows)).columns))
        if uid is not None and col.is_list(cells[uid]):
            columns["uid"] = _listed_uids(cells[uid], rows, path, uid)
    if "uid" in columns:
        col.refuse_duplicates(columns["uid"], path, _UNIQUE)
    text = col.as_texts(text, path, caption)
    return make_pairs(columns.pop("image"), text, salt=file_salt(path), report=report, **columns)


def _image_column(known: Iterable[str], names: list[str], path: Path, field: str | None) -> str:
    """The column with the images: named, or of a known name, or the only one that holds images themselves."""
    known = set(known)
    holding = [name for name in names if ROW + name in known]
    if field is None and len(holding) == 1 and col.find_column(names, col.IMAGE_COLUMNS) is None:
        return holding[0]
    return col.need_column(names, col.IMAGE_COLUMNS, "image", path, field)


# where sets have their images beside a table that gives their names alone (Flickr8k and Flickr30k among them)
_IMAGE_FOLDERS = ("images", "Images", "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Flickr8k_Dataset")


def _image_folder(folder: Path, names: pa.ChunkedArray) -> Path:
    """The folder that most of the names lead from: the table's own, or one for images in it."""
    candidates = [folder, *(folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir())]
    if len(candidates) == 1:
        return folder
    step = max(1, len(names) // 4096)
    return fullest_folder(candidates, names.take(pa.array(range(0, len(names), step))).to_pylist())


def _listed_uids(lists: pa.ChunkedArray, rows: np.ndarray, path: Path, name: str) -> pa.ChunkedArray:
    uids, uid_rows = col.explode(lists)
    if not np.array_equal(rows, uid_rows):
        raise DataError(f"column {name!r} of {path} must list one uid a caption; correct it, or drop it")
    return col.as_strings(uids, path, name)


_TAKEN = {*SCHEMA, "image_uid", "salt", "report"}
_UNIQUE = "make them unique, or drop the column to have new ones drawn"


def file_salt(path: Path) -> bytes:
    """What uids are drawn from: size and first 64 KiB tell files apart, and stay when a file is moved."""
    with path.open("rb") as file:
        head = file.read(2**16)
    return hashlib.blake2b(head + path.stat().st_size.to_bytes(8, "little"), digest_size=16).digest()


def load_table(
    path: Path, *, tally: Tally | None = None, encoding: str | None = None, form: Format | None = None
) -> pa.Table:
    """The table in `path` as it stands, its format known from its content unless it is given."""
    tally = Tally() if tally is None else tally
    form = form or format_of(path)
    if encoding is not None and form in ("parquet", "arrow"):
        raise DataError(f"encoding is of no use with {path}, whose format is {form}; leave it out")
    try:
        table = LOADERS[form](path, tally, encoding)
        # Arrow believes what a file says: offsets that point elsewhere would be followed
        table.validate(full=True)
        names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError, OverflowError) as error:
        raise DataError(
            f"{path} does not read as {form.upper()}: {str(error)[:300]}; fetch or write it again"
        ) from error
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DataError(f"{path} has two columns named {twice!r}; rename one of them")
    return table


def load_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None, encoding: str | None = None) -> Any:
    """The value in a JSON file; `hook` may thin out every object as it is read."""
    try:
        raw = read_all(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}; fetch or write it again") from error
    return parse_json(decode_text(raw, str(path), encoding), str(path), hook=hook, remedy="fetch or write it again")


def _load_list(path: Path, _tally: Tally, encoding: str | None) -> pa.Table:
    document = load_json(path, encoding=encoding)
    if not isinstance(document, list):
        document = [document]
    return records_to_table(document, path, captions=col.CAPTION_COLUMNS)


LOADERS: dict[Format, Callable[[Path, Tally, str | None], pa.Table]] = {
    "csv": load_csv,
    "json-lines": lambda path, _tally, encoding: load_json_lines(path, encoding),
    "json": _load_list,
    "parquet": lambda path, _tally, _encoding: load_parquet(path),
    "arrow": lambda path, _tally, _encoding: read_arrow(path),
}
