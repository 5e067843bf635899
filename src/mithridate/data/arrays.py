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
from mithridate.remote.paths import RemotePath

_IN_MEMORY = 2**28  # bytes; larger arrays lie in a file
_APART = 2**18  # bytes between two rows of a remote array from which on they are fetched one by one


def working_array(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """An array to be written block by block: in memory, or where it is large in a temporary file that is mapped."""
    if np.dtype(dtype).itemsize * int(np.prod(shape)) <= _IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="mithridate-") as file:  # has no name, and goes with the array
        return np.memmap(file, dtype, "w+", shape=shape)


class RemoteRows:
    """A (n, d) array in a remote `.npy` file, of which rows are fetched as they are asked for."""

    def __init__(self, path: RemotePath, start: int, shape: tuple[int, int], dtype: np.dtype) -> None:
        self._content, self._start = path.content(), start
        self.shape, self.dtype = shape, dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The rows at `rows` (b,): (b, d)."""
        width = self.shape[1] * self.dtype.itemsize
        wanted, back = np.unique(rows, return_inverse=True)
        # runs of rows that lie near each other are one range
        cuts = np.flatnonzero(np.diff(wanted) * width > _APART) + 1
        found = [np.empty((0, self.shape[1]), self.dtype)]
        for run in np.split(wanted, cuts) if len(wanted) else []:
            raw = self._content.span(self._start + int(run[0]) * width, int(run[-1] - run[0] + 1) * width)
            found.append(np.frombuffer(raw, self.dtype).reshape(-1, self.shape[1])[run - run[0]])
        return np.concatenate(found)[back]


def release(*arrays: np.ndarray | RemoteRows) -> None:
    """Give back the memory of mapped arrays: what was read or written lies in their files, and is read again on demand.

    Without it all that was ever looked at counts as memory of this process until the system runs short.
    """
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)


def read_matrix(path: Path, *, what: str = "a matrix of numbers", mapped: bool = False) -> np.ndarray | RemoteRows:
    """The (n, d) array of numbers in a `.npy` file, `mapped` or in memory; of a remote file `mapped` gives its rows
    as they are asked for. Raises `DataError` for anything else."""
    shape, kind, start, fortran = _header(path, what)
    _refuse_objects(path, kind, "fiu", what)
    if len(shape) != 2:
        raise DataError(f"{path} has the shape {shape}; expected {what}, (rows, width)")
    if mapped and isinstance(path, RemotePath) and not fortran and math.prod(shape):
        return RemoteRows(path, start, (shape[0], shape[1]), kind)
    return _load(path, mapped=mapped and bool(math.prod(shape)))


def read_values(path: Path, *, what: str) -> np.ndarray:
    """All numbers and truth values of an array in a `.npy` file, one after the other. Raises `DataError`."""
    _refuse_objects(path, array_header(path, what)[1], "biuf", what)
    return _load(path).reshape(-1)


def array_header(path: Path, what: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and kind of the array in a `.npy` file, all of whose bytes are there. Raises `DataError`."""
    return _header(path, what)[:2]


def _header(path: Path, what: str) -> tuple[tuple[int, ...], np.dtype, int, bool]:
    """Shape, kind, where the numbers begin, and whether columns come first."""
    if not path.is_file():
        raise DataError(f"{path} is no regular file; expected {what}")
    with _readable(path), path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise DataError(f"{path} is of version {version} of the npy format; expected 1.0 or 2.0")
        shape, fortran, kind = read_header[version](file)
        start = file.tell()
        promised, there = math.prod(shape) * kind.itemsize, path.stat().st_size - start
        if any(side < 0 for side in shape):
            raise DataError(f"{path} has the shape {shape}; expected {what}")
        if promised > there:
            raise DataError(f"{path} promises {promised} bytes of numbers and holds {there}; it is cut, write it again")
    return shape, kind, start, fortran


def _refuse_objects(path: Path, kind: np.dtype, expected: str, what: str) -> None:
    if kind.hasobject:
        raise DataError(f"{path} holds Python objects; pickles are not read; expected {what}")
    if kind.fields is not None or kind.kind not in expected:
        raise DataError(f"{path} holds {str(kind)[:60]}; expected {what}")


def _load(path: Path, *, mapped: bool = False) -> np.ndarray:
    with _readable(path):
        if isinstance(path, RemotePath):
            with path.open("rb") as file:
                return np.load(file, allow_pickle=False)
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError, MemoryError) as error:
        raise DataError(f"{path} does not read as a .npy array: {str(error)[:200]}; write it again") from error
