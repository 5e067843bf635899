"""What a file is, by its content; the ending of its name decides only where the content leaves it open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pyarrow as pa

from mithridate.data.csv_tables import open_stream
from mithridate.errors import DataError

Format = Literal["csv", "json-lines", "json", "parquet", "arrow"]

_HEAD = 2**16
_BY_ENDING: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".token": "csv",
    ".jsonl": "json-lines",
    ".ndjson": "json-lines",
    ".json": "json",
    ".parquet": "parquet",
    ".feather": "arrow",
    ".arrow": "arrow",
    ".ipc": "arrow",
}
# in a folder any file of these endings is taken for a table; text files only where they are named so
TABLE_ENDINGS = tuple(ending for ending in _BY_ENDING if ending not in (".txt", ".token", ".json"))
TEXT_TABLES = (
    "captions.txt",
    "results.csv",
    "results_20130124.token",
    "Flickr8k.token.txt",
    "Flickr8k.lemma.token.txt",
)


def suffix_of(path: Path) -> str:
    """'.csv' for `x.csv` and `x.csv.gz`, in lower case."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()


def table_suffix(path: Path) -> str:
    """`suffix_of` where it is that of a table, else ''."""
    suffix = suffix_of(path)
    return suffix if suffix in TABLE_ENDINGS or path.name in TEXT_TABLES else ""


def is_readable(path: Path) -> bool:
    """Whether the ending is one that a table or a JSON document may have."""
    return suffix_of(path) in _BY_ENDING


def format_of(path: Path) -> Format:
    """The format of a table or a JSON document. Raises `DataError` where the file is empty or cannot be read."""
    try:
        with open_stream(path) as stream:
            head = stream.read(_HEAD)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not head:
        raise DataError(f"{path} is empty; expected a table of image-text pairs")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"FEA1", b"\xff\xff\xff\xff")):
        return "arrow"
    by_name = _BY_ENDING.get(suffix_of(path), "csv")
    if by_name in ("parquet", "arrow"):
        return by_name
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        # a line of an array (`[1, 2]`) is no pair: what begins so is one array
        return "json" if by_name != "csv" else "csv"
    if text.startswith(b"{"):
        return _lines_or_document(text, by_name)
    return by_name


def _lines_or_document(text: bytes, by_name: Format) -> Format:
    """Whether `text`, which begins with `{`, is one object a line."""
    first, _, rest = text.partition(b"\n")
    try:
        json.loads(first.decode("latin-1"))  # of whatever encoding: signs and quotes are ASCII
    except (ValueError, RecursionError):
        # cut at the end of the head, or one object over many lines
        return "json-lines" if by_name == "json-lines" and len(first) > _HEAD // 2 else "json"
    if rest.lstrip().startswith(b"{"):
        return "json-lines"
    return "json" if by_name == "json" else "json-lines"
