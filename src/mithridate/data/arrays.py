"""Arrays of strangers (`.npy`): what the header promises is checked before any memory is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mithridate.errors import DataError


def read_matrix(path: Path, *, what: str = "a matrix of numbers") -> np.ndarray:
    """The (n, d) array of numbers in a `.npy` file. Raises `DataError` for anything else."""
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
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError, MemoryError) as error:
        raise DataError(f"{path} does not read as a .npy array: {str(error)[:200]}; write it again") from error
