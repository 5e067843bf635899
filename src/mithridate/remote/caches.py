"""Where caches lie, and the one that keeps what was read of remote objects: blocks of them, up to a limit.

fsspec's own file caches have no limit, and keep an object under its name alone, also when it has changed.
"""

from __future__ import annotations

import logging
import os
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from mithridate.errors import MithridateError

BLOCK = 2**16
"""Bytes of a remote object that are kept, or not, as one."""

REMOTE_CACHE = "MITHRIDATE_REMOTE_CACHE"
_DEFAULT_LIMIT = 10.0  # GiB
_LOOK_AGAIN = 64 * 2**20  # bytes written after which what others have written is counted too
_TOUCH = 60.0  # seconds within which a second use of an object is not noted

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where caches lie unless a command says otherwise: `$MITHRIDATE_CACHE`, else `~/.cache/mithridate`."""
    return Path(os.environ.get("MITHRIDATE_CACHE") or Path.home() / ".cache" / "mithridate")


def remote_cache() -> BlockCache:
    """The cache of remote objects: `remote/` in `cache_folder()`, of at most `$MITHRIDATE_REMOTE_CACHE` GiB.

    Raises `MithridateError` where that is no number.
    """
    stated = os.environ.get(REMOTE_CACHE, "")
    try:
        limit = float(stated or _DEFAULT_LIMIT) * 2**30
        if not 0 <= limit < float("inf"):
            raise ValueError
    except ValueError as error:
        raise MithridateError(
            f"{REMOTE_CACHE} must be a number of GiB, 0 to keep nothing, got {stated[:40]!r}"
        ) from error
    folder = cache_folder() / "remote"
    if (folder, limit) not in _CACHES:
        _CACHES[folder, limit] = BlockCache(folder, int(limit))
    return _CACHES[folder, limit]


class BlockCache:
    """Blocks of objects, each object under a key that changes when the object does.

    `KEY.blocks` holds the blocks at their places, `KEY.sums` a checksum of each, zero where it is not there: a block
    that a kill or a disk left damaged is fetched again. Several processes may share a folder: they write the same.
    Above `limit` bytes the objects that were not used for longest go. A disk that refuses ends the keeping, not the
    reading.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._used: int | None = None  # by all, when last counted, and by what was written since
        self._written = 0  # since then
        self._touched: dict[str, float] = {}
        self._refused = limit <= 0

    def read(self, key: str, first: int, last: int) -> dict[int, bytes]:
        """Those of the blocks `first` to `last` - 1 that are there, by number."""
        if self._refused or last <= first:
            return {}
        try:
            with self._file(key, "sums").open("rb") as sums:
                sums.seek(4 * first)
                known = np.frombuffer(_whole(sums.read(4 * (last - first))), "<u4")
            found: dict[int, bytes] = {}
            with self._file(key, "blocks").open("rb") as blocks:
                for number in (first + np.flatnonzero(known)).tolist():
                    blocks.seek(number * BLOCK)
                    block = blocks.read(BLOCK)
                    if _checksum(block) == int(known[number - first]):
                        found[number] = block
        except OSError:
            return {}
        if found and time.monotonic() - self._touched.get(key, -_TOUCH) >= _TOUCH:
            self._touched[key] = time.monotonic()
            with suppress(OSError):
                os.utime(self._file(key, "sums"))
        return found

    def write(self, key: str, first: int, content: bytes) -> None:
        """Keep `content`, which begins with block `first`; only an object's last block may be shorter than `BLOCK`."""
        if self._refused or not content:
            return
        blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
        sums = np.array([_checksum(block) for block in blocks], "<u4").tobytes()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # the sums last: without them what was written of the blocks is not there
            for path, at, raw in (
                (self._file(key, "blocks"), first * BLOCK, content),
                (self._file(key, "sums"), 4 * first, sums),
            ):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.seek(at)
                    file.write(raw)
            self._make_room(len(content))
        except OSError as error:
            self._refused = True
            _log.warning("remote objects are not kept in %s: %s", self.folder, error.strerror or error)

    def used(self) -> int:
        """Bytes on disk."""
        return sum(size for _, size, _ in self._objects())

    def _file(self, key: str, kind: str) -> Path:
        return self.folder / f"{key}.{kind}"

    def _objects(self) -> list[tuple[float, int, str]]:
        """When each object was last used, its bytes on disk, and its key."""
        found = []
        for blocks in self.folder.glob("*.blocks"):
            with suppress(OSError):
                status, sums = blocks.stat(), blocks.with_suffix(".sums")
                used = sums.stat().st_mtime if sums.exists() else status.st_mtime
                found.append((used, _on_disk(status), blocks.stem))
        return found

    def _make_room(self, added: int) -> None:
        self._written += added
        if self._used is not None and self._used + self._written <= self.limit and self._written < _LOOK_AGAIN:
            return
        objects = sorted(self._objects())
        self._used, self._written = sum(size for _, size, _ in objects), 0
        for _, size, key in objects:
            if self._used <= self.limit:
                return
            for kind in ("sums", "blocks"):
                self._file(key, kind).unlink(missing_ok=True)
            self._used -= size


_CACHES: dict[tuple[Path, float], BlockCache] = {}


def _checksum(block: bytes) -> int:
    return zlib.crc32(block) or 1  # zero says that there is none


def _whole(raw: bytes) -> bytes:
    return raw[: len(raw) // 4 * 4]


def _on_disk(status: os.stat_result) -> int:
    """What a file takes: less than its size where blocks in its middle were never written."""
    return min(status.st_size, getattr(status, "st_blocks", 2**53) * 512)
