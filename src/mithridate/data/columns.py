"""From the columns of a foreign table to those of `Pairs`: names, strings, lists, labels, uids."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.locations import INPUTS
from mithridate.errors import DataError

IMAGE_COLUMNS = ("filepath", "image", "image_path", "file_name", "filename", "img_name", "image_name")
CAPTION_COLUMNS = ("title", "caption", "captions", "text", "txt", "sentences", "comment")
LABEL_COLUMNS = ("label", "labels", "class", "cls")


# tables of addresses, whose images must be fetched first (LAION's and DataComp's Parquet)
URL_COLUMNS = ("url", "image_url", "img_url", "urls")


def plain_name(name: str) -> str:
    """A name as it is compared: in lower case, without blanks around it, `Image Path` as `image_path`."""
    return re.sub(r"[\s-]+", "_", name.strip()).lower()


def find_column(names: Iterable[str], aliases: Sequence[str]) -> str | None:
    """The name among `names` that comes first in `aliases`, as `plain_name` compares them.

    Raises `DataError` where two names differ in nothing else: either may be meant.
    """
    known: dict[str, list[str]] = {}
    for name in names:
        known.setdefault(plain_name(name), []).append(name)
    alias = next((alias for alias in aliases if alias in known), None)
    if alias is None:
        return None
    if len(known[alias]) > 1:
        raise DataError(f"columns {listed(known[alias])} differ in case, blanks or hyphens only; rename one of them")
    return known[alias][0]


def match_name(wanted: str, names: Iterable[str]) -> str | None:
    """The one of `names` that a user means by `wanted`: the same, else the same without blanks around it, else its
    `plain_name`."""
    names = list(dict.fromkeys(names))
    if wanted in names:
        return wanted
    for form in (str.strip, plain_name):
        same = [name for name in names if form(name) == form(wanted)]
        if len(same) == 1:
            return same[0]
    return None


def need_column(names: Sequence[str], aliases: Sequence[str], what: str, path: Path, field: str | None = None) -> str:
    """`find_column`, or the column `field` where the user names it; a `DataError` where there is none."""
    if field is not None:
        named = match_name(field, names)
        if named is not None:
            return named
        raise DataError(f"{path} has no column {field!r}; its columns are {listed(names)}")
    found = find_column(names, aliases)
    if found is not None:
        return found
    url = find_column(names, URL_COLUMNS)
    if what == "image" and url is not None:
        text = find_column(names, CAPTION_COLUMNS) or "TEXT"
        raise DataError(
            f"{path} has web addresses (column {url!r}) and no images: fetch them first with img2dataset --url_col "
            f"{url} --caption_col {text} --output_format webdataset, and give its output folder"
        )
    hint = f"rename its {what} column, or name it as --{what}-field"
    if len(names) == 1:
        hint = "separate its columns by comma, tab, semicolon or '|', and put their names in the first line"
    raise DataError(
        f"{path} has no {what} column: expected one of {', '.join(aliases)}; its columns are {listed(names)}; {hint} "
        f"({INPUTS})"
    )


def listed(names: Sequence[str]) -> str:
    """The first dozen of some names, quoted."""
    shown = ", ".join(repr(name[:60]) for name in names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"


def as_strings(column: pa.ChunkedArray, path: Path, name: str) -> pa.ChunkedArray:
    """`column` as strings; whole numbers are spelled without a decimal point."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if kind == pa.string():
        return column
    if pa.types.is_floating(kind) and pc.all(pc.equal(pc.round(column), column)).as_py() is not False:
        column = column.cast(pa.int64())  # whole numbers with gaps, as pandas writes them
    if is_image_struct(kind):
        raise DataError(
            f"column {name!r} of {path} holds the images themselves, which are read from Parquet only: write it as "
            "Parquet, or write the images to files, and a metadata.jsonl with file_name and text beside them"
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


def is_image_struct(kind: pa.DataType) -> bool:
    """Whether a column of this type holds images as Hugging Face's `Image` feature writes them."""
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


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


_SPELT_LIST = r"^\s*\[(.|\n)*\]\s*$"
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PYTHON_LIST = re.compile(rf"\s*\[\s*(?:{_STRING}\s*(?:,\s*{_STRING}\s*)*,?\s*)?\]\s*", re.DOTALL)
_MAX_SPELT = 100_000


def spelt_lists(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of texts that all spell a list of strings, in JSON or as Python prints one, as those lists.

    pandas writes lists into CSV that way. A column in which one cell does not is left as it is: `doctor` has a finding.
    """
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or len(column) == 0:
        return column
    spelt = pc.match_substring_regex(column, _SPELT_LIST)
    if not pc.all(pc.or_kleene(pc.fill_null(spelt, True), pc.fill_null(pc.equal(column, ""), True))).as_py():
        return column
    if not pc.any(spelt).as_py():
        return column
    lists = [read_spelt_list(cell) if cell else [] for cell in column.to_pylist()]
    if any(cell is None for cell in lists):
        return column
    return pa.chunked_array([pa.array(lists, pa.list_(pa.string()))])


def read_spelt_list(text: str) -> list[str] | None:
    """The strings of a list spelt in JSON or Python, None where `text` is anything else."""
    if len(text) > _MAX_SPELT or not text.strip().startswith("["):
        return None
    try:
        found = ast.literal_eval(text.strip()) if _PYTHON_LIST.fullmatch(text) else json.loads(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    strings = isinstance(found, list) and all(isinstance(item, str) for item in found)
    return found if strings and not any("\ud800" <= sign <= "\udfff" for item in found for sign in item) else None


def as_labels(column: pa.ChunkedArray, path: Path, name: str) -> pa.ChunkedArray:
    """A column of strings, numbers or lists of them as lists of class names, empty where nothing is known."""
    column = spelt_lists(column)
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
        raise DataError(f"{seen.null_count} rows of {path} have no uid; {remedy}")
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
