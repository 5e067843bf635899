"""Arrays of strangers (`.npy`): what the header promises is checked before any memory is taken."""

from __future__ import annotations

import tempfile
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


def read_matrix(path: Path, *, what: str = "a matrix of numbers", mapped: bool = False) -> np.ndarray:
    """The (n, d) array of numbers in a `.npy` file, `mapped` or in memory. Raises `DataError` for anything else."""
    try:
        if not path.is_file():
            raise DataError(f"{path} is no regular file; expected {what}")
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in read_header:
                raise DataError(f"{path} is of version {version} of the npy format; expected 1.0 or 2.0")
            shape, _, kind = read_header[version](file)
            start = file.tell()
        if kind.hasobject or kind.fields is not None or kind.kind not in "fiu":
            raise DataError(f"{path} holds {str(kind)[:60]}; expected {what}")
        if len(shape) != 2:
            raise DataError(f"{path} has the shape {shape}; expected {what}, (rows, width)")
        promised, there = shape[0] * shape[1] * kind.itemsize, path.stat().st_size - start
        if promised > there:
            raise DataError(f"{path} promises {promised} bytes of numbers and holds {there}; it is cut, write it again")
        return np.load(path, mmap_mode="r" if mapped and promised else None, allow_pickle=False)
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError, MemoryError) as error:
        raise DataError(f"{path} does not read as a .npy array: {str(error)[:200]}; write it again") from error
