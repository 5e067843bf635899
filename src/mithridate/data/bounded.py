"""Parquet and Arrow tables whose size, written out, is known to be within bounds before it is.

Both formats may hold a long value once and name it in every row, and both may be compressed: a table of a few kB can
stand for a terabyte. A table may unpack to `MAX_RATIO` times its file, as compressed text may.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mithridate.errors import DataError
from mithridate.remote.paths import arrow_source

MAX_RATIO = 100  # of what a table holds, written out, to its file
SMALL = 64 * 2**20  # bytes that a table may hold whatever the ratio
_ROWS = 2**22  # that it may have whatever the ratio
_AT_ONCE = 2**28  # bytes, of values that may share what they begin with
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}


def refuse_beyond(held: int, path: Path, size: int) -> None:
    """Raise `DataError` where a table in a file of `size` bytes would take `held` bytes, more than it may."""
    if held > max(SMALL, MAX_RATIO * size):
        raise DataError(
            f"{path} has {size} bytes and stands for more than {MAX_RATIO} times as many; write it as text or without "
            "dictionaries where you trust it"
        )


def _refuse_rows(rows: int, path: Path, size: int) -> None:
    if rows > max(_ROWS, MAX_RATIO * size):
        raise DataError(f"{path} has {size} bytes and states {rows} rows; it is damaged, fetch or write it again")


# --- Parquet --------------------------------------------------------------------------------------------


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The table in a Parquet file, or some of its columns. Raises `DataError` beyond the bounds, `KeyError` where a
    column is missing, and pyarrow's errors."""
    with pq.ParquetFile(arrow_source(path), memory_map=True) as file:
        missing = [name for name in columns or () if name not in file.schema_arrow.names]
        if missing:
            raise KeyError(f"it has no column {missing[0]!r}")
        check_parquet(file, path, columns)
        return file.read(columns=None if columns is None else list(columns))


def check_parquet(file: pq.ParquetFile, path: Path, columns: Sequence[str] | None = None) -> None:
    """Raise `DataError` where the columns of `file` (all, by default) would be more than the bounds when read.

    Sizes that the file states come first; of texts the dictionaries are looked at, and rows are counted where these
    leave it open.
    """
    size = path.stat().st_size
    _refuse_rows(file.metadata.num_rows, path, size)
    leaves = _leaves(file, columns)
    groups = range(file.metadata.num_row_groups)
    stated = {(group, leaf): file.metadata.row_group(group).column(leaf) for group in groups for leaf in leaves}
    refuse_beyond(sum(max(0, chunk.total_uncompressed_size) for chunk in stated.values()), path, size)
    texts = [leaf for leaf in leaves if file.schema.column(leaf).physical_type == "BYTE_ARRAY"]
    held = 0
    for (_, leaf), chunk in stated.items():
        about = file.schema.column(leaf)
        width = _WIDTHS.get(about.physical_type, max(about.length, 0) + 4)
        held += chunk.total_uncompressed_size if leaf in texts else width * chunk.num_values
    refuse_beyond(held, path, size)
    if not texts:
        return
    names = [file.schema.column(leaf).path for leaf in texts]
    with pq.ParquetFile(
        arrow_source(path), memory_map=True, metadata=file.metadata, read_dictionary=names
    ) as dictionaries:
        for group in groups:
            for leaf, name in zip(texts, names):
                chunk = stated[group, leaf]
                longest = None if "DELTA_BYTE_ARRAY" in chunk.encodings else _longest_of(dictionaries, group, name)
                most = None if longest is None else longest * chunk.num_values
                if most is None or held + most > max(SMALL, MAX_RATIO * size):
                    source, at_once = (
                        (file, _AT_ONCE // max(chunk.total_uncompressed_size, 1))
                        if most is None
                        else (
                            dictionaries,
                            2**16,
                        )
                    )
                    held = _counted(source, group, name, min(max(at_once, 1), 2**16), held, path, size)
                else:
                    held += most


def _counted(file: pq.ParquetFile, group: int, name: str, at_once: int, held: int, path: Path, size: int) -> int:
    """`held` and what the values of a column of a row group take, read so many rows at a time."""
    for batch in file.iter_batches(at_once, row_groups=[group], columns=[name], use_threads=False):
        held += written_out(batch.columns, path)
        refuse_beyond(held, path, size)
    return held


def _longest_of(file: pq.ParquetFile, group: int, name: str) -> int | None:
    """The longest value in the dictionary of a column of a row group; None where the encoding has none to look at."""
    try:
        batch = next(file.iter_batches(1, row_groups=[group], columns=[name], use_threads=False), None)
    except (NotImplementedError, OSError):
        return None
    return 0 if batch is None else max((_longest(column) for column in batch.columns), default=0)


def _longest(array: pa.Array) -> int:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return pc.max(pc.binary_length(array.dictionary)).as_py() or 0
    return max((_longest(child) for child in _children(array)), default=0)


def _leaves(file: pq.ParquetFile, columns: Sequence[str] | None) -> list[int]:
    """The numbers of the leaves of `columns`; a column of a struct is named COLUMN.FIELD."""
    paths = [file.schema.column(leaf).path for leaf in range(len(file.schema))]
    if columns is None:
        return list(range(len(paths)))
    return [leaf for leaf, path in enumerate(paths) if any(f"{path}.".startswith(f"{name}.") for name in columns)]


def read_cells(path: Path, group: int, column: str) -> pa.ChunkedArray:
    """A column of a row group, texts and images in it as dictionaries: one that stands in every row is held once."""
    with pq.ParquetFile(arrow_source(path), memory_map=True) as file:
        metadata = file.metadata
        leaves = [file.schema.column(leaf) for leaf in _leaves(file, [column])]
    once = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    with pq.ParquetFile(arrow_source(path), memory_map=True, metadata=metadata, read_dictionary=once) as file:
        return file.read_row_group(group, columns=[column]).column(0)


# --- Arrow ----------------------------------------------------------------------------------------------


def read_arrow(path: Path) -> pa.Table:
    """The table in an Arrow file or stream. Raises `DataError` beyond the bounds, and pyarrow's errors."""
    size = path.stat().st_size
    source = arrow_source(path)
    with pa.memory_map(source) if isinstance(source, str) else source as file:
        start = 8 if file.read(6) == b"ARROW1" else 0  # a file is a stream between its magic and its footer
        rows, held = 0, 0
        file.seek(start)
        for length, unpacked in _messages(file):
            rows, held = rows + length, held + unpacked
            _refuse_rows(rows, path, size)
            refuse_beyond(held, path, size)
        file.seek(start)
        table = pa.ipc.open_stream(file).read_all()
    refuse_beyond(written_out((chunk for column in table.columns for chunk in column.chunks), path), path, size)
    return table


def _messages(file: pa.NativeFile) -> Iterable[tuple[int, int]]:
    """Rows and bytes, decompressed, of each record batch of a stream."""
    reader = pa.ipc.MessageReader.open_stream(file)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message.type in ("record batch", "dictionary"):
            yield _record_batch(memoryview(message.metadata), memoryview(message.body))


def _record_batch(metadata: memoryview, body: memoryview) -> tuple[int, int]:
    """Rows of a record batch or of the batch of a dictionary, and the bytes of its buffers when decompressed.

    Read from the flatbuffer (format/Message.fbs of Arrow): `Message.header` is field 2; of a `DictionaryBatch` the
    `data` is field 1; of a `RecordBatch` the length is field 0, the buffers are field 2, and field 3 says that they are
    compressed: each then begins with its size in 8 bytes, -1 where it is not.
    """
    try:
        root = _number(metadata, 0, "<I")
        kind, batch = metadata[_field(metadata, root, 1)], _table(metadata, _field(metadata, root, 2))
        if kind == 2:  # a dictionary
            batch = _table(metadata, _field(metadata, batch, 1))
        at = _field(metadata, batch, 0)
        rows = _number(metadata, at, "<q") if at else 0
        at = _field(metadata, batch, 2)
        if not at:
            return rows, 0
        vector = _table(metadata, at)
        packed = _field(metadata, batch, 3) != 0
        held = 0
        for number in range(_number(metadata, vector, "<I")):
            offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * number)
            if packed and length >= 8:
                stated = _number(body, offset, "<q")
                length = stated if stated >= 0 else length
            held += max(length, 0)
        return max(rows, 0), held
    except (struct.error, IndexError) as error:
        raise pa.ArrowInvalid("its messages are damaged") from error


def _number(raw: memoryview, at: int, form: str) -> int:
    if at < 0:
        raise IndexError(at)
    return struct.unpack_from(form, raw, at)[0]


def _table(raw: memoryview, at: int) -> int:
    """Where what the offset at `at` points to begins."""
    return at + _number(raw, at, "<I")


def _field(raw: memoryview, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies, 0 where it has none."""
    vtable = table - _number(raw, table, "<i")
    if 4 + 2 * number >= _number(raw, vtable, "<H"):
        return 0
    offset = _number(raw, vtable + 4 + 2 * number, "<H")
    return table + offset if offset else 0


# --- in memory ------------------------------------------------------------------------------------------


def written_out(arrays: Iterable[pa.Array], path: Path) -> int:
    """Bytes of `arrays` once each row has its own value. Raises `DataError` for kinds that are not read."""
    return sum(_written_out(array, path) for array in arrays)


def _written_out(array: pa.Array, path: Path) -> int:
    kind = array.type
    types = pa.types
    if types.is_run_end_encoded(kind) or types.is_list_view(kind) or types.is_large_list_view(kind):
        raise DataError(f"{path} has a column of {kind}, which is not read; write it as plain strings or lists")
    if types.is_dictionary(kind):
        values = kind.value_type
        if not (_is_text(values) or types.is_primitive(values) or types.is_fixed_size_binary(values)):
            raise DataError(f"{path} has a dictionary of {values}, which is not read; write it without dictionaries")
        if not _is_text(values):
            return 16 * len(array)
        return 4 * len(array) + (pc.sum(_lengths(array.dictionary).take(array.indices)).as_py() or 0)
    if _is_text(kind):
        return 4 * len(array) + (pc.sum(_lengths(array)).as_py() or 0)
    children = _children(array)
    return sum(_written_out(child, path) for child in children) if children else 8 * len(array) + array.nbytes


def _lengths(array: pa.Array) -> pa.Array:
    """Bytes of each value of an array of texts, as int64: a sum of four bytes each would wrap."""
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        # a view is 16 bytes, the length first; pyarrow has no kernel for it
        views = np.frombuffer(array.buffers()[1] or b"", "<i4")[4 * array.offset :: 4][: len(array)]
        return pa.array(views.astype(np.int64), mask=array.is_null().to_numpy(zero_copy_only=False))
    return pc.binary_length(array).cast(pa.int64())


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    plain = types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind)
    return plain or types.is_large_binary(kind) or types.is_string_view(kind) or types.is_binary_view(kind)


def _children(array: pa.Array) -> list[pa.Array]:
    """The arrays that an array of lists, of structs or of an extension is made of; none for others."""
    kind = array.type
    types = pa.types
    if isinstance(array, pa.ExtensionArray):
        return [array.storage]
    if types.is_map(kind):
        return [array.keys, array.items]
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [array.flatten()]
    if types.is_struct(kind) or types.is_union(kind):
        return [array.field(number) for number in range(kind.num_fields)]
    return []
