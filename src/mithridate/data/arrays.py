"""Arrays of strangers (`.npy`): what the header promises is checked before any memory is taken."""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mithridate.errors import DataError

_IN_MEMORY = 2**28  # bytes; larger arrays lie in a file


def working_array(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """An array to be written block by block: in memory, or where it is large in a temporary file that is mapped."""
    if np.dtype(dtype).itemsize * int(np.prod(shape)) <= _IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="mithridate-") as file:  # has no name, and goes with the array
        return np.memmap(file, dtype, "w+", shape=shape)


def release(*arrays: np.ndarray) -> None:
    """Give back the memory of mapped arrays: what was read or written lies in their files, and is read again on demand.

    Without it all that was ever looked at counts as memory of this process until the system runs short.
    """
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def read_matrix(path: Path, *, what: str = "a matrix of numbers", mapped: bool = False) -> np.ndarray:
    """The (n, d) array of numbers in a `.npy` file, `mapped` or in memory. Raises `DataError` for anything else."""
    shape, kind = array_header(path, what)
    _refuse_objects(path, kind, "fiu", what)
    if len(shape) != 2:
        raise DataError(f"{path} has the shape {shape}; expected {what}, (rows, width)")
    return _load(path, mapped=mapped and bool(math.prod(shape)))


def read_values(path: Path, *, what: str) -> np.ndarray:
    """All numbers and truth values of an array in a `.npy` file, one after the other. Raises `DataError`."""
    _refuse_objects(path, array_header(path, what)[1], "biuf", what)
    return _load(path).reshape(-1)


def array_header(path: Path, what: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and kind of the array in a `.npy` file, all of whose bytes are there. Raises `DataError`."""
    if not path.is_file():
        raise DataError(f"{path} is no regular file; expected {what}")
    with _readable(path), path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise DataError(f"{path} is of version {version} of the npy format; expected 1.0 or 2.0")
        shape, _, kind = read_header[version](file)
        promised, there = math.prod(shape) * kind.itemsize, path.stat().st_size - file.tell()
        if any(side < 0 for side in shape):
            raise DataError(f"{path} has the shape {shape}; expected {what}")
        if promised > there:
            raise DataError(f"{path} promises {promised} bytes of numbers and holds {there}; it is cut, write it again")
    return shape, kind


def _refuse_objects(path: Path, kind: np.dtype, expected: str, what: str) -> None:
    if kind.hasobject:
        raise DataError(f"{path} holds Python objects; pickles are not read; expected {what}")
    if kind.fields is not None or kind.kind not in expected:
        raise DataError(f"{path} holds {str(kind)[:60]}; expected {what}")


def _load(path: Path, *, mapped: bool = False) -> np.ndarray:
    with _readable(path):
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError, MemoryError) as error:
        raise DataError(f"{path} does not read as a .npy array: {str(error)[:200]}; write it again") from error
