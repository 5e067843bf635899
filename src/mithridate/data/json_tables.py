"""JSON Lines and lists of JSON objects as tables."""

from __future__ import annotations

import json
import mmap
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json as pa_json

from mithridate.data.columns import CAPTION_COLUMNS
from mithridate.data.csv_tables import read_all
from mithridate.data.encodings import decode_text
from mithridate.data.json_values import MAX_DEPTH, records_to_table
from mithridate.errors import DataError
from mithridate.remote.paths import RemotePath

_BLOCK = 8 * 2**20
# a line that begins with anything but an object: `null` and deep lists crash Arrow's reader
_OTHER_LINE = re.compile(rb"\n[ \t\r]*[^{ \t\r\n]")
_OBJECT = re.compile(rb"[ \t\r\n]*\{")


def load_json_lines(path: Path, encoding: str | None = None) -> pa.Table:
    """A table of one JSON object a line.

    Arrow reads it where every line is an object that cannot be deep; whatever else there is Python reads, and says
    which line is wrong.
    """
    if encoding is None:
        table = _load_with_arrow(path)
        if table is not None:
            return table
    records = []
    for number, line in enumerate(decode_text(read_all(path), str(path), encoding).split("\n"), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                reason = "it is nested too deep" if isinstance(error, RecursionError) else error
                raise DataError(f"line {number} of {path} is not JSON: {reason}; correct it") from error
    return records_to_table(records, path, captions=CAPTION_COLUMNS)


def _load_with_arrow(path: Path) -> pa.Table | None:
    """The table, None where Arrow's reader cannot read it, or must not."""
    with path.open("rb") as file:
        whole = path.suffix.lower() == ".gz" or isinstance(path, RemotePath)
        raw = read_all(path) if whole else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = 3 if raw[:3] == b"\xef\xbb\xbf" else 0
        if not _OBJECT.match(raw, start) or _OTHER_LINE.search(raw, start) or _may_be_deep(raw):
            return None
        try:
            reader = pa.BufferReader(pa.py_buffer(raw).slice(start))
            table = pa_json.read_json(reader, read_options=pa_json.ReadOptions(block_size=_BLOCK))
            table.validate(full=True)  # against text that is not UTF-8
        except (pa.ArrowException, UnicodeDecodeError):
            return None  # a column with strings in one row and lists in another, or a line that is damaged
    # Arrow takes texts that look like dates for dates
    return None if any(pa.types.is_timestamp(kind) for kind in table.schema.types) else table


def _may_be_deep(raw: bytes | mmap.mmap) -> bool:
    """Whether some line opens as many brackets as would be too deep, were they in each other."""
    data = np.frombuffer(raw, np.uint8)
    open_now = 0  # brackets since the last line break
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        brackets = np.cumsum((block | 0x20) == 0x7B, dtype=np.int64)  # `[` and `{` differ in one bit
        ends = np.flatnonzero(block == 0x0A)
        counts = np.diff(brackets[ends], prepend=0)
        if len(ends):
            counts[0] += open_now
        last = int(brackets[-1] - brackets[ends[-1]]) if len(ends) else open_now + int(brackets[-1])
        if (len(ends) and counts.max() >= MAX_DEPTH) or last >= MAX_DEPTH:
            return True
        open_now = last
    return False
