"""Files of a run's own that carry a checksum: what a disk lost or flipped is noticed, and never used.

Readers raise `DamagedFile`, a `ValueError`; the caller says in its own words what to do.
"""

import json
import os
from collections.abc import Callable, Iterable
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from mithridate.folders import replacing, write_atomically
from mithridate.remote.paths import location

CHECKSUM = "checksum"
MAX_DEPTH = 16  # of a record, which a report may hold
_MARK = b"\nmithridate-seal/1 "
_DIGITS = 32
_TRAILER = len(_MARK) + _DIGITS + 1
_BLOCK = 2**22


class DamagedFile(ValueError):
    """A file is not as it was written."""


# --- JSON -----------------------------------------------------------------------------------------------


def write_sealed_json(path: Path, value: dict[str, Any], *, indent: int | None = 1) -> None:
    """Write an object with the checksum of its other fields; whole or not at all."""
    record = json.loads(json.dumps(value))  # as it will be read: tuples are lists, keys are texts
    write_atomically(path, json.dumps({**record, CHECKSUM: json_digest(record)}, indent=indent, ensure_ascii=False))


def read_sealed_json(path: Path, *, required: bool = True) -> dict[str, Any]:
    """The object that `write_sealed_json` wrote, without its checksum. Raises `DamagedFile`, and `OSError`.

    `required`: whether an object without a checksum, as earlier versions wrote it, counts as damaged.
    """
    record = read_object(path)
    checksum = record.pop(CHECKSUM, None)
    fits = checksum == json_digest(record)
    if not fits and (required or checksum is not None):
        raise DamagedFile("its checksum does not fit its content")
    return record


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, with or without a checksum. Raises `DamagedFile`, and `OSError`."""
    try:
        record = json.loads(location(path).read_text(encoding="utf-8"), parse_int=whole_number)
    except (ValueError, RecursionError) as error:  # of encoding too
        raise DamagedFile(f"it is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise DamagedFile(f"it should hold a JSON object, got {type(record).__name__}")
    if _deeper(record, MAX_DEPTH):
        raise DamagedFile(f"it is nested more than {MAX_DEPTH} levels deep")
    return record


def whole_number(digits: str) -> int:
    """For `json.loads(parse_int=...)`: a whole number that 64 bits hold, else `ValueError`."""
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"the whole number {digits[:30]} does not fit into 64 bits")
    return int(digits)


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects lie in each other more than so many levels deep."""
    level = [value]
    for _ in range(levels + 1):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [item for items in inner for item in items]
        if not level:
            return False
    return True


def json_digest(record: dict[str, Any]) -> str:
    plain = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    return blake2b(plain, digest_size=_DIGITS // 2).hexdigest()


# --- files that others wrote ------------------------------------------------------------------------------


def content_digest(path: Path) -> str:
    """A checksum of a file, or of all files below a folder and their names; of a link, of where it points."""
    path = location(path)
    digest = blake2b(digest_size=_DIGITS // 2)
    if path.is_symlink():
        digest.update(os.fsencode(os.readlink(path)))  # noqa: PTH115 (as it was written)
    elif path.is_dir():
        for entry in sorted(path.iterdir()):
            digest.update(os.fsencode(entry.name) + b"\0" + content_digest(entry).encode())
    else:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def content_digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The checksums of what is there of `names` in `folder`, by name."""
    return {name: content_digest(folder / name) for name in names if _is_there(folder / name)}


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def check_contents(folder: Path, digests: Any, names: Iterable[str]) -> None:
    """Raise `DamagedFile` where one of `names` in `folder` is not as `digests` says; others are not looked at."""
    if not isinstance(digests, dict):
        raise DamagedFile("its checksums should be an object")
    for name in names:
        if name in digests and (not _is_there(folder / name) or content_digest(folder / name) != digests[name]):
            raise DamagedFile(f"{name} is not as it was written")


# --- bytes ----------------------------------------------------------------------------------------------


class _Hashing:
    """A file to write to that hashes what passes, and remembers what stopped it.

    Libraries that write (torch) raise errors of their own in place of the system's.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, blake2b(digest_size=_DIGITS // 2)
        self.refused: BaseException | None = None

    def write(self, content: Any) -> int:
        if self.refused is not None or self._file.closed:
            return memoryview(content).nbytes  # torch writes on as it is torn down: an error there aborts the process
        try:
            written = self._file.write(content)
            self.digest.update(content)
        except BaseException as error:  # a signal to stop too: it must not become an error of the library
            self.refused = error
            raise
        return written

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()


def write_sealed(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """What `write` writes front to back into the file that it is given, then its checksum; whole or not at all.

    Raises `OSError` with the system's reason, also where a library hides it.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        hashing = _Hashing(file)
        try:
            write(cast(BinaryIO, hashing))
        except Exception as error:
            if hashing.refused is not None and error is not hashing.refused:
                raise hashing.refused from error
            raise
        file.write(_MARK + hashing.digest.hexdigest().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_sealed(path: Path) -> BytesIO:
    """What `write_sealed` wrote, checked. Raises `DamagedFile`, and `OSError`."""
    _check(path)
    with Path(path).open("rb") as file:
        return BytesIO(file.read(Path(path).stat().st_size - _TRAILER))


def write_sealed_array(path: Path, array: np.ndarray) -> None:
    """An array in numpy's form, then its checksum: any reader of `.npy` reads it."""
    array = np.ascontiguousarray(array)

    def write(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, len(flat), _BLOCK):
            file.write(flat[start : start + _BLOCK].data)

    write_sealed(path, write)


def read_sealed_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """What `write_sealed_array` wrote, checked. Raises `DamagedFile`, and `OSError`."""
    _check(path)
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, EOFError, OverflowError) as error:  # sealed, and yet no array
        raise DamagedFile(str(error)) from error


def _check(path: Path) -> None:
    digest = blake2b(digest_size=_DIGITS // 2)
    with Path(path).open("rb") as file:
        left = os.fstat(file.fileno()).st_size - _TRAILER
        if left < 0:
            raise DamagedFile("it is cut short")
        while left and (block := file.read(min(left, _BLOCK))):
            digest.update(block)
            left -= len(block)
        if file.read(_TRAILER) != _MARK + digest.hexdigest().encode() + b"\n":
            raise DamagedFile("its checksum does not fit its content")
