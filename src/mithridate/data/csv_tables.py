"""CSV and its like: whichever separator, header of any length, every cell a string."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from mithridate.data import columns as col
from mithridate.data.encodings import decode_text
from mithridate.data.left_out import Tally
from mithridate.errors import DataError
from mithridate.remote.paths import arrow_source

SEPARATORS = (",", "\t", ";", "|")

_BLOCK = 8 * 2**20
_LARGEST_BLOCK = 2**30
_LONGEST_HEADER = 64 * 2**20
MAX_RATIO = 100  # of what a compressed file holds to its size; text has 3 to 20
_SMALL_UNPACKED = 64 * 2**20  # bytes that may be unpacked whatever the ratio
_KINDS = (col.IMAGE_COLUMNS, col.CAPTION_COLUMNS, col.LABEL_COLUMNS, col.URL_COLUMNS, ("uid",), ("split",))
# `1000268201.jpg#0<TAB>A child`: Flickr8k's and Flickr30k's own files, which have no header
_TOKEN_LINE = re.compile(r"(?P<image>[^\t\n#]+\.\w+)#\d+\t")


def load_csv(path: Path, tally: Tally, encoding: str | None = None) -> pa.Table:
    """A table of strings: a caption may be "1984", and a type guessed on the first block fails on the last.

    Rows that an open quote swallowed are counted in `tally`.
    """
    whole = None if encoding is None else decode_text(read_all(path), str(path), encoding).encode()
    head = _first_record(open_stream(path) if whole is None else pa.BufferReader(whole), path)
    if _TOKEN_LINE.match(head):
        return _load_tokens(decode_text(read_all(path) if whole is None else whole, str(path)), path)
    separator, names = sniff_separator(head)
    convert = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    parse = pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    block = max(_BLOCK, 2 * len(head.encode()))
    while True:
        stream = open_stream(path) if whole is None else pa.BufferReader(whole)
        read = pa_csv.ReadOptions(block_size=block)
        try:
            table = pa_csv.read_csv(stream, read_options=read, parse_options=parse, convert_options=convert)
            break
        except pa.ArrowInvalid as error:
            if "straddling" in str(error) and block < _LARGEST_BLOCK:
                block *= 8  # a row is longer than a block
                continue
            if "UTF8" in str(error):
                decode_text(read_all(path), str(path))  # says which encoding it looks like
            raise DataError(
                f"{path} does not read as a table separated by {separator!r}: {str(error)[:300]}; put quotes around "
                "cells that hold the separator, a quote or a line break, and double the quotes inside them"
            ) from error
    _count_swallowed(table, separator, path, tally)
    if separator == "|":  # Flickr30k's `NAME.jpg| 0| A caption .`
        columns = [pc.utf8_trim_whitespace(column) for column in table.columns]
        return pa.Table.from_arrays(columns, table.column_names)
    return table


class _Unpacked(io.RawIOBase):
    """What a compressed file holds, as far as it is in proportion to the file."""

    def __init__(self, path: Path, stream: pa.NativeFile) -> None:
        self._path, self._stream = path, stream
        self._left = max(_SMALL_UNPACKED, MAX_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(self._left + 1 if size < 0 else size)
        self._left -= len(block)
        if self._left < 0:
            raise DataError(
                f"{self._path} unpacks to more than {MAX_RATIO} times its size; unpack it by hand where you trust it"
            )
        return block


def open_stream(path: Path) -> pa.NativeFile:
    """The bytes of a file, unpacked where its name ends in .gz. Raises `DataError` for what is no regular file.

    Reading raises `DataError` where a small file unpacks to a large one.
    """
    if not path.is_file():
        raise DataError(f"{path} is no regular file; tables are read from files only")
    source = arrow_source(path)
    if isinstance(source, str):
        stream = pa.input_stream(source, compression="detect")
    else:
        stream = pa.CompressedInputStream(source, "gzip") if path.suffix.lower() == ".gz" else source
    if not isinstance(stream, pa.CompressedInputStream):
        return stream
    return pa.PythonFile(_Unpacked(path, stream), mode="r")


def read_all(path: Path) -> bytes:
    """All bytes of a file, unpacked where its name ends in .gz. Raises what reading from `open_stream` raises."""
    with open_stream(path) as stream:
        return b"".join(iter(lambda: stream.read(_BLOCK), b""))


def _first_record(stream: pa.NativeFile, path: Path) -> str:
    """The header, however long, with line breaks inside its quotes."""
    head = b""
    with stream:
        while len(head) < _LONGEST_HEADER:
            block = stream.read(2**16)
            head = (head + block).lstrip(b"\r\n")
            end = head.find(b"\n")
            while end >= 0 and head.count(b'"', 0, end) % 2:
                end = head.find(b"\n", end + 1)
            if end >= 0 or not block:
                return decode_text(head[: end + 1] if end >= 0 else head, f"the first line of {path}")
    raise DataError(f"the first line of {path} has more than {_LONGEST_HEADER} bytes; expected a header of names")


def sniff_separator(head: str) -> tuple[str, list[str]]:
    """The separator under which the first record has the most known column names, and all its names."""

    def known(mark: str) -> tuple[int, int]:
        names = {col.plain_name(name) for name in headers[mark]}
        return sum(not names.isdisjoint(aliases) for aliases in _KINDS), len(headers[mark])

    lines = head.splitlines(keepends=True)
    limit = csv.field_size_limit()
    try:
        csv.field_size_limit(max(limit, len(head) + 1))
        headers = {mark: next(filter(None, csv.reader(lines, delimiter=mark)), []) for mark in SEPARATORS}
    except csv.Error as error:
        raise DataError(f"the first line is no header of a table: {error}") from error
    finally:
        csv.field_size_limit(limit)
    best = max(SEPARATORS, key=known)
    return best, headers[best]


def _load_tokens(text: str, path: Path) -> pa.Table:
    """Flickr's `NAME.jpg#NUMBER<TAB>CAPTION`, line by line."""
    images, captions = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        match = _TOKEN_LINE.match(line)
        if match is None:
            raise DataError(f"line {number} of {path} is not NAME.jpg#NUMBER, a tab and a caption; correct it")
        images.append(match["image"])
        captions.append(line[match.end() :].rstrip("\r"))
    return pa.table({"image": pa.array(images, pa.string()), "caption": pa.array(captions, pa.string())})


_IMAGE_NAME = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?|avif)\s*$", re.IGNORECASE)


def _count_swallowed(table: pa.Table, separator: str, path: Path, tally: Tally) -> None:
    """Count the lines inside cells that would be rows of their own: as many separators, an image where one belongs."""
    names = table.column_names
    image = next((at for at, name in enumerate(names) if col.plain_name(name) in col.IMAGE_COLUMNS), None)
    if len(names) < 2 or image is None:
        return
    for column in table.columns:
        several = pc.match_substring(column, "\n")
        if not pc.any(several).as_py():
            continue
        rows = pc.indices_nonzero(several).to_pylist()
        for row, text in zip(rows, column.take(pa.array(rows)).to_pylist()):
            first, *lines = text.split("\n")
            inner = [line for line in lines if _is_row(line.split(separator), len(names), image)]
            if inner:
                tally.add("swallowed-row", f"row {row + 1} of {path}: {first[:40]!r} ... {inner[0][:60]!r}", len(inner))


def _is_row(cells: list[str], columns: int, image: int) -> bool:
    return len(cells) >= columns and _IMAGE_NAME.search(cells[image].strip().strip('"')) is not None
