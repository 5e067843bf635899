"""From the columns of a foreign table to those of `Pairs`: names, places, strings, labels, uids."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.errors import DataError

IMAGE_COLUMNS = ("filepath", "image", "image_path", "file_name", "filename", "img_name")
CAPTION_COLUMNS = ("title", "caption", "captions", "text", "txt", "sentences")
LABEL_COLUMNS = ("label", "labels", "class", "cls")


def find_column(names: Iterable[str], aliases: Sequence[str]) -> str | None:
    """The name among `names` that comes first in `aliases`, whatever its case."""
    known = {name.strip().lower(): name for name in names}
    return next((known[alias] for alias in aliases if alias in known), None)


def need_column(names: Sequence[str], aliases: Sequence[str], what: str, path: Path, field: str | None = None) -> str:
    """`find_column`, or the column `field` where the user names it; a `DataError` where there is none."""
    if field is not None:
        if field in names:
            return field
        raise DataError(f"{path} has no column {field!r}; its columns are {_listed(names)}")
    found = find_column(names, aliases)
    if found is not None:
        return found
    hint = f"rename its {what} column"
    if len(names) == 1:
        hint = "separate its columns by comma, tab, semicolon or '|', and put their names in the first line"
    raise DataError(
        f"{path} has no {what} column: expected one of {', '.join(aliases)}; its columns are {_listed(names)}; {hint}"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"


def as_places(image: pa.ChunkedArray, folder: Path, path: Path) -> pa.ChunkedArray:
    """`image` with relative paths taken from `folder`."""
    empty = pc.fill_null(pc.equal(image, ""), True)
    if pc.any(empty).as_py():
        count, first = pc.sum(empty).as_py(), pc.index(empty, True).as_py() + 1
        raise DataError(f"{count:,} rows of {path} name no image, the first is row {first}; remove them")
    first = image[0].as_py() if len(image) else ""
    if first.startswith(("http://", "https://")):
        raise DataError(f"{path} names web addresses such as {first}; fetch the images first (img2dataset)")
    absolute = pc.starts_with(image, "/")
    if os.name == "nt":
        absolute = pc.or_(absolute, pc.match_substring_regex(image, r"^([A-Za-z]:|\\)"))
    if pc.all(absolute).as_py():
        return image
    prefixed = pc.binary_replace_slice(image, 0, 0, f"{folder.resolve()}{os.sep}")
    return pc.if_else(absolute, image, prefixed) if pc.any(absolute).as_py() else prefixed


def as_strings(column: pa.ChunkedArray, path: Path, name: str) -> pa.ChunkedArray:
    """`column` as strings; whole numbers are spelled without a decimal point."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if kind == pa.string():
        return column
    if pa.types.is_floating(kind) and pc.all(pc.equal(pc.round(column), column)).as_py() is not False:
        column = column.cast(pa.int64())  # whole numbers with gaps, as pandas writes them
    if pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}:
        raise DataError(
            f"column {name!r} of {path} holds the images themselves; write them to files, and a "
            "metadata.jsonl with file_name and text beside them"
        )
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        raise DataError(f"column {name!r} of {path} holds {kind}, expected strings; name another column")
    return column.cast(pa.string())


def as_texts(column: pa.ChunkedArray, path: Path, name: str) -> pa.ChunkedArray:
    """Captions as strings, "" where there is none. A column of numbers is refused: it is not the captions."""
    kind = column.type
    if not (pa.types.is_dictionary(kind) or kind in (pa.string(), pa.large_string(), pa.string_view(), pa.null())):
        raise DataError(
            f"column {name!r} of {path} holds {kind}, expected strings or lists of strings; "
            "say which column holds the captions"
        )
    return pc.fill_null(as_strings(column, path, name), "")


def is_list(column: pa.ChunkedArray) -> bool:
    kind = column.type
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def explode(lists: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The elements of list cells one below the other, and the row of each; an empty cell gives one null."""
    values, rows, start = [], [np.zeros(0, np.int64)], 0
    for chunk in lists.chunks:
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)
        repeats = np.maximum(lengths, 1)
        missing = np.repeat(lengths == 0, repeats)
        position = np.cumsum(~missing) - 1
        values.append(pc.list_flatten(chunk).take(pa.array(position, mask=missing)))
        rows.append(start + np.repeat(np.arange(len(chunk)), repeats))
        start += len(chunk)
    return pa.chunked_array(values, lists.type.value_type), np.concatenate(rows)


def as_labels(column: pa.ChunkedArray, path: Path, name: str) -> pa.ChunkedArray:
    """A column of strings, numbers or lists of them as lists of class names, empty where nothing is known."""
    values, rows = explode(column) if is_list(column) else (column, np.arange(len(column)))
    values = as_strings(values, path, name)
    known = pc.fill_null(pc.not_equal(values, ""), False)
    counts = np.bincount(rows[known.to_numpy()], minlength=len(column))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    flat = pa.concat_arrays([*values.filter(known).chunks, pa.array([], pa.string())])
    return pa.chunked_array([pa.ListArray.from_arrays(pa.array(offsets), flat)])


def refuse_duplicates(uid: pa.ChunkedArray, path: Path | str, remedy: str) -> None:
    """Raise `DataError` if a uid is missing, or stands twice."""
    if uid.null_count == 0 and _surely_distinct(uid):
        return
    seen = uid.dictionary_encode().unify_dictionaries().combine_chunks().indices
    if seen.null_count:
        raise DataError(f"{seen.null_count:,} rows of {path} have no uid; {remedy}")
    index = seen.to_numpy()
    again = np.ones(len(index), dtype=bool)
    again[np.unique(index, return_index=True)[1]] = False
    if again.any():
        at = int(again.argmax())
        raise DataError(f"uid {uid[at].as_py()!r} of {path} stands twice, again in row {at + 1}; {remedy}")


def _surely_distinct(uid: pa.ChunkedArray) -> bool:
    """Whether a 64-bit mix of each uid tells them all apart; four times as fast as a hash table of strings.

    Only for uids of 32 bytes, the usual kind. False where two mixes meet: then the slow way decides.
    """
    mixes = [np.zeros(0, np.uint64)]
    for chunk in uid.chunks:
        if len(chunk) == 0:
            continue
        ends = np.frombuffer(chunk.buffers()[1], dtype=np.int32)[chunk.offset :][: len(chunk) + 1]
        if not (np.diff(ends) == 32).all():
            return False
        raw = np.frombuffer(chunk.buffers()[2], dtype=np.uint8)[ends[0] : ends[-1]]
        words = raw.copy().view(np.uint64).reshape(-1, 4)
        mixes.append(np.bitwise_xor.reduce(words * _ODD, axis=1))
    mixed = np.sort(np.concatenate(mixes))
    return not (mixed[1:] == mixed[:-1]).any()


_ODD = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93], dtype=np.uint64)
