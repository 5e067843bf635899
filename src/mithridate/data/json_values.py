"""JSON of strangers: parsed by Python, bounded in depth before a native library sees it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mithridate.data.columns import plain_name
from mithridate.errors import DataError

# of lists in lists and objects in objects; Arrow's own parsers and builders recurse without a limit and crash
MAX_DEPTH = 64
_MAX_CELLS = 200_000_000  # records times fields: what a table of them would hold


def parse_json(
    text: str, where: str, *, hook: Callable[[dict[str, Any]], Any] | None = None, remedy: str = "correct it"
) -> Any:
    """The value in `text`, `DataError` where it is not JSON; `hook` may thin out every object as it is read."""
    try:
        return json.loads(text, object_hook=hook)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise DataError(f"{where} is not JSON: {reason}; {remedy}") from error


def depth_of(value: Any) -> int:
    """How deep lists and objects lie in each other; stops counting above `MAX_DEPTH`."""
    level, depth = [value], 0
    while depth <= MAX_DEPTH:
        level = [item for item in level if isinstance(item, list | dict)]
        if not level:
            return depth
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def records_to_table(records: Sequence[Any], path: Path, *, captions: Sequence[str]) -> pa.Table:
    """Rows given as JSON objects; a column of strings in some rows and lists in others becomes all lists.

    In columns named as in `captions` what is no string is no caption; elsewhere whole numbers become strings.
    """
    bad = next((at for at, record in enumerate(records) if not isinstance(record, dict)), None)
    if bad is not None:
        raise DataError(f"record {bad + 1} of {path} is {type(records[bad]).__name__}, expected an object")
    names = list(dict.fromkeys(name for record in records for name in record))
    if len(names) * len(records) > _MAX_CELLS:
        raise DataError(
            f"the {len(records)} records of {path} have {len(names)} different fields; expected records of one form"
        )
    columns = {}
    for name in names:
        cells = [record.get(name) for record in records]
        deep = next((at for at, cell in enumerate(cells) if depth_of(cell) >= MAX_DEPTH), None)
        if deep is not None:
            raise DataError(f"record {deep + 1} of {path} is nested more than {MAX_DEPTH} deep in {name[:60]!r}")
        columns[text_of(name)] = _json_column(cells, text_of if plain_name(name) in captions else name_of)
    if len(columns) < len(names):
        raise DataError(f"{path} has two fields of one name that only differ in broken characters; rename one")
    return pa.table(columns)


def _json_column(cells: list[Any], spell: Callable[[Any], str | None]) -> pa.Array:
    try:
        return pa.array(cells)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError):
        if any(isinstance(cell, list) for cell in cells):
            lists = [cell if isinstance(cell, list) or cell is None else [cell] for cell in cells]
            spelled = [cell and [spell(item) for item in cell] for cell in lists]
            return pa.array(spelled, pa.list_(pa.string()))
        return pa.array([spell(cell) for cell in cells], pa.string())


def text_of(value: Any) -> str | None:
    """`value` if it is a string, else None. Half characters, which JSON can spell, become U+FFFD: `doctor` counts."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
        return value
    except UnicodeEncodeError:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def name_of(value: Any) -> str | None:
    """`text_of`, and whole numbers as strings: how class names and uids come."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text_of(value)


def ids_column(ids: Sequence[Any], path: Path) -> pa.Array:
    """Identifiers of any kind as a column: whole numbers of 64 bits where all are, else strings."""
    wrong = [value for value in ids if not isinstance(value, int | str) or isinstance(value, bool)]
    if wrong:
        raise DataError(f"{path} has the id {str(wrong[0])[:60]!r}; expected whole numbers or strings")
    if all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in ids):
        return pa.array(ids, pa.int64())
    return pa.array([name_of(value) for value in ids], pa.string())
