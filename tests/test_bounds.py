"""Parquet and Arrow tables of a few kB that stand for gigabytes are refused before they are written out."""

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mithridate.data.bounded import read_arrow, read_cells, read_parquet, written_out
from mithridate.data.images import read_bytes
from mithridate.data.read import read_pairs
from mithridate.errors import DataError

N = 100_000
LONG = "x" * 10_000  # a million kB in all


def names(n=N):
    return pa.array([f"{row}.png" for row in range(n)])


def repeated(n=N):
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([LONG]))


def write_arrow(table, path, *, stream=False, compression: str | None = "zstd"):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    writer = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, writer(file, table.schema, options=options) as out:
        out.write_table(table)


def dictionary_parquet(path):
    pq.write_table(pa.table({"filepath": names(), "title": repeated()}), path)


def dictionary_of_lists(path):
    lists = pa.ListArray.from_arrays(pa.array(np.arange(N + 1, dtype=np.int32)), repeated())
    pq.write_table(pa.table({"filepath": names(), "title": lists}), path)


def behind_a_row_group_of_short_ones(path):
    table = pa.table({"filepath": names(), "title": repeated()})
    short = table.slice(0, 1000).set_column(1, "title", pa.array(["short"] * 1000).dictionary_encode())
    with pq.ParquetWriter(path, short.schema) as out:
        out.write_table(short)
        out.write_table(table)


def shared_beginnings(path):
    table = pa.table({"filepath": names(20_000), "title": [f"{LONG}{row}" for row in range(20_000)]})
    pq.write_table(
        table, path, use_dictionary=False, column_encoding={"title": "DELTA_BYTE_ARRAY", "filepath": "PLAIN"}
    )


def compressed_pages(path):
    table = pa.table({"filepath": names(100), "title": ["x" * 1_000_000] * 100})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)


def rows_of_nothing(path):
    pq.write_table(pa.table({"filepath": pa.nulls(2**23), "title": pa.nulls(2**23)}), path, compression="zstd")


def dictionary_arrow(path):
    write_arrow(pa.table({"filepath": names(), "title": repeated()}), path)


def dictionary_stream(path):
    write_arrow(pa.table({"filepath": names(), "title": repeated()}), path, stream=True, compression=None)


def compressed_buffers(path):
    write_arrow(pa.table({"filepath": names(100), "title": ["x" * 1_000_000] * 100}), path)


def compressed_dictionary(path):
    values = pa.array(["x" * 100_000_000])
    table = pa.table({"filepath": names(1), "title": pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), values)})
    write_arrow(table, path)


def runs(path):
    title = pa.RunEndEncodedArray.from_arrays(pa.array([N], pa.int32()), pa.array([LONG]))
    write_arrow(pa.table({"filepath": names(), "title": title}), path)


def views(path):
    kind = [("size", "<i4"), ("head", "S4"), ("buffer", "<i4"), ("at", "<i4")]
    view = np.array([(len(LONG), LONG[:4].encode(), 0, 0)], kind)
    buffers = [None, pa.py_buffer(np.repeat(view, N)), pa.py_buffer(LONG.encode())]
    title = pa.Array.from_buffers(pa.string_view(), N, buffers)
    write_arrow(pa.table({"filepath": names(), "title": title}), path)


PARQUET = (
    *(dictionary_parquet, dictionary_of_lists, behind_a_row_group_of_short_ones, shared_beginnings, compressed_pages),
    rows_of_nothing,
)
ARROW = (dictionary_arrow, dictionary_stream, compressed_buffers, compressed_dictionary, runs, views)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of processes are Linux's")
def test_tables_that_stand_for_gigabytes_are_refused_in_little_memory(tmp_path):
    """In a process that may take 600 MiB more than the libraries."""
    paths = []
    for make in (*PARQUET, *ARROW):
        path = tmp_path / f"{make.__name__}{'.parquet' if make in PARQUET else '.arrow'}"
        make(path)
        paths.append(str(path))
    reads = """
import json, resource, sys
from mithridate.data.read import read_pairs
from mithridate.errors import DataError
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 600 * 2**20,) * 2)
said = []
for path in sys.argv[1:]:
    try:
        said.append(f"read {len(read_pairs(path))}")
    except DataError as error:
        said.append(str(error))
print(json.dumps(said))
"""
    done = subprocess.run(
        [sys.executable, "-c", reads, *paths],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2"},
    )
    for path, said in zip(paths, json.loads(done.stdout)):
        assert any(word in said for word in ("stands for more than", "is not read", "rows;")), (path, said)


def test_an_image_that_stands_in_every_row_is_held_once(tmp_path):
    path = tmp_path / "x.parquet"
    raw = b"x" * 1_000_000
    cells = pa.DictionaryArray.from_arrays(pa.array(np.zeros(2000, np.int32)), pa.array([raw], pa.binary()))
    table = pa.table({"image": pa.StructArray.from_arrays([cells, pa.nulls(2000, pa.string())], ["bytes", "path"])})
    pq.write_table(table.append_column("text", pa.array(["a caption"] * 2000)), path, write_statistics=False)
    before = pa.total_allocated_bytes()
    found = read_cells(path, 0, "image")
    assert pa.total_allocated_bytes() - before < 10 * len(raw)
    assert found.chunk(0).field(0)[1999].as_py() == raw
    pairs = read_pairs(path)
    assert len(pairs) == 2000 and read_bytes(pairs.image[1999].as_py()) == raw


@pytest.mark.parametrize("make", [compressed_pages, rows_of_nothing, compressed_buffers, compressed_dictionary])
def test_what_a_file_states_is_held_against_its_size(make, tmp_path):
    path = tmp_path / "x"
    make(path)
    with pytest.raises(DataError, match=r"stands for more|rows;"):
        (read_parquet if make in PARQUET else read_arrow)(path)


def test_ordinary_tables_are_read_as_they_are(tmp_path):
    n = 5000
    title = pa.array([f"a photo of a {row % 40}" for row in range(n)])
    table = pa.table(
        {
            "filepath": names(n),
            "title": title.dictionary_encode(),
            "list": pa.array([[text, None] for text in title.to_pylist()]),
            "struct": pa.array([{"a": text, "b": row} for row, text in enumerate(title.to_pylist())]),
            "flag": pa.array([row % 2 == 0 for row in range(n)]),
            "none": pa.nulls(n),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=700)
    assert read_parquet(tmp_path / "x.parquet").column("list").to_pylist() == table.column("list").to_pylist()
    assert read_parquet(tmp_path / "x.parquet", columns=["title"]).column("title").to_pylist() == title.to_pylist()
    with pytest.raises(KeyError, match="nothing"):
        read_parquet(tmp_path / "x.parquet", columns=["nothing"])
    for stream in (False, True):
        for compression in (None, "lz4", "zstd"):
            write_arrow(table, tmp_path / "x.arrow", stream=stream, compression=compression)
            assert read_arrow(tmp_path / "x.arrow").equals(table)


def test_what_a_table_takes_written_out_by_hand(tmp_path):
    path = tmp_path / "x"
    values = pa.array(["abc", "d"])
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 0, 1, None], pa.int8()), values)
    assert written_out([coded], path) == 4 * 4 + 3 + 3 + 1
    assert written_out([pa.array(["abc", None])], path) == 2 * 4 + 3
    assert written_out([pa.array([["abc"], ["d", "e"]])], path) == 3 * 4 + 5
    with pytest.raises(DataError, match="not read"):
        written_out([pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["a"]))], path)
