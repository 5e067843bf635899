"""Parquet tables that hold the images themselves, as Hugging Face writes them: read in place, row by row.

A column of type `{bytes, path}`, or of plain bytes with the name of an image column, is not loaded with its table.
Beside it stands a column `ROW` + its name with the location of each row's bytes, null where the row has a path alone.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mithridate.data.bounded import check_parquet, read_cells
from mithridate.data.columns import IMAGE_COLUMNS, is_image_struct, plain_name
from mithridate.data.locations import row_location
from mithridate.remote.paths import arrow_source

ROW = "\0row of "  # no column of a file is taken for one of these


def load_parquet(path: Path) -> pa.Table:
    """The table in `path`, images inside it by their locations."""
    # not pq.read_table: that takes a folder named `split=train` on the way for a column
    with pq.ParquetFile(arrow_source(path), memory_map=True) as file:
        schema = file.schema_arrow
        holding = [field.name for field in schema if is_image_struct(field.type) or _is_image_bytes(field)]
        if not holding:
            check_parquet(file, path)
            return file.read()
        # a leaf of a struct is named COLUMN.FIELD
        leaves = [f"{name}.path" for name in holding if is_image_struct(schema.field(name).type)]
        plain = [field.name for field in schema if field.name not in holding]
        if not [*plain, *leaves]:
            return pa.table({})
        check_parquet(file, path, [*plain, *leaves])
        table = file.read(columns=[*plain, *leaves])
        loaded = dict(zip(table.column_names, table.columns))
        columns: dict[str, pa.ChunkedArray] = {}
        for field in schema:
            if field.name not in holding:
                columns[field.name] = loaded[field.name]
            elif is_image_struct(field.type):
                columns[field.name] = pc.struct_field(loaded[field.name], "path").cast(pa.string())
                columns[ROW + field.name] = _locations(file, path, field.name)
            else:
                columns[field.name] = pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
                columns[ROW + field.name] = _locations(file, path, field.name)
        return pa.table(columns)


def _is_image_bytes(field: pa.Field) -> bool:
    known = plain_name(field.name) in (*IMAGE_COLUMNS, "jpg", "jpeg", "png", "webp")
    return known and (pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))


def _locations(file: pq.ParquetFile, path: Path, name: str) -> pa.ChunkedArray:
    """The location of each row's bytes, null where it has none."""
    where = str(path.parent.resolve() / path.name)
    rows = np.arange(file.metadata.num_rows)
    prefix = row_location(where, 0, name)[: -len(f"0@{name}")]
    spelled = pc.binary_join_element_wise(prefix, pa.array(rows).cast(pa.string()), f"@{name}", "")
    present = np.concatenate(
        [[], *(_present(file, path, group, name) for group in range(file.metadata.num_row_groups))]
    )
    return pa.chunked_array([pc.if_else(pa.array(present.astype(bool)), spelled, pa.scalar(None, pa.string()))])


def _present(file: pq.ParquetFile, path: Path, group: int, name: str) -> np.ndarray:
    """Which rows of a group have bytes; by its statistics where they tell, else by looking."""
    about = file.metadata.row_group(group)
    for number in range(about.num_columns):
        column = about.column(number)
        if column.path_in_schema in (name, f"{name}.bytes"):
            known = column.statistics
            if known is not None and known.has_null_count and known.null_count in (0, about.num_rows):
                return np.full(about.num_rows, known.null_count == 0)
    cells = read_cells(path, group, name)
    if pa.types.is_struct(cells.type):
        cells = pc.struct_field(cells, "bytes")
    return pc.is_valid(cells).to_numpy(zero_copy_only=False)
