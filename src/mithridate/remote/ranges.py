"""The bytes of a remote object, fetched by ranges and kept for the next reader."""

from __future__ import annotations

import io
import threading
from typing import Any

from mithridate.errors import DataError
from mithridate.remote.caches import BLOCK, remote_cache
from mithridate.remote.drivers import SCHEMES, filesystem, remote_error

_MOST_AHEAD = 4 * 2**20  # bytes that are fetched beyond what was asked for, where a reader goes forward


class RemoteObject:
    """The bytes of an object, by ranges; safe to use from several threads. `len` is its size, slices are bytes.

    `name` is its address, `key` changes when it does, `settled` says that the store tells when. What was fetched is
    kept in `remote_cache()` then.
    """

    def __init__(self, name: str, size: int, key: str, *, settled: bool) -> None:
        self.name, self.key, self.settled, self._size = name, key, settled, size
        self._next, self._ahead = 0, 0  # where the last fetch ended, and how much of it nobody had asked for

    def __len__(self) -> int:
        return self._size

    def __enter__(self) -> RemoteObject:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        return self.span(start, stop - start)

    def span(self, start: int, size: int) -> bytes:
        """At most `size` bytes from `start` on, fewer at the end. Raises `DataError`."""
        stop = min(start + size, self._size)
        if stop <= start:
            return b""
        first, last = start // BLOCK, -(-stop // BLOCK)
        blocks = self._recent(first, last)
        cache = remote_cache() if self.settled else None
        if len(blocks) < last - first and cache is not None:
            blocks |= cache.read(self.key, first, last)
        low = first
        while low < last:
            if low in blocks:
                low += 1
                continue
            high = low
            while high < last and high not in blocks:
                high += 1
            fetched = self._fetch(low, high)
            if cache is not None:
                cache.write(self.key, low, fetched)
            _LAST.run = (self.key, low, fetched)
            blocks |= _split(low, fetched)
            low = high
        raw = b"".join(blocks[number] for number in range(first, last))
        return raw[start - first * BLOCK : stop - first * BLOCK]

    def _recent(self, first: int, last: int) -> dict[int, bytes]:
        """What this thread fetched last, where it is of these blocks: headers lie beside each other."""
        key, low, fetched = getattr(_LAST, "run", ("", 0, b""))
        if key != self.key:
            return {}
        first, last = max(first, low), min(last, low - (-len(fetched) // BLOCK))
        return _split(first, fetched[(first - low) * BLOCK : (last - low) * BLOCK]) if first < last else {}

    def _fetch(self, low: int, high: int) -> bytes:
        """The blocks from `low` to `high`, and more behind them where the last fetch ended at `low`."""
        self._ahead = min(max(2 * self._ahead, BLOCK), _MOST_AHEAD) if low and low == self._next else 0
        start, stop = low * BLOCK, min(high * BLOCK + self._ahead, self._size)
        self._next = -(-stop // BLOCK)
        try:
            raw = _fetch(self.name, start, stop, self._size)
        except Exception as error:
            raise remote_error(self.name, error) from error
        if len(raw) != stop - start:
            raise DataError(
                f"{self.name} gave {len(raw)} bytes for the {stop - start} from {start} on; it was changed, or its "
                "server does not know ranges: fetch it first"
            )
        return raw


_LAST = threading.local()


def _split(first: int, raw: bytes) -> dict[int, bytes]:
    return {first + at // BLOCK: raw[at : at + BLOCK] for at in range(0, len(raw), BLOCK)}


def _fetch(name: str, start: int, stop: int, size: int) -> bytes:
    scheme = name.partition(":")[0]
    driver = filesystem(scheme)
    if SCHEMES[scheme].ranges:
        return driver.cat_file(name, start=start, end=stop)
    # `cat_file` would read ahead, or take into memory whatever a server sends in place of the range
    with driver.open(name, cache_type="none", size=size) as file:
        file.seek(start)
        try:
            return file.read(stop - start)
        except ValueError as error:  # fsspec's, who says it in four sentences
            raise DataError(f"the server of {name} does not know ranges; fetch it first") from error


class RangeStream(io.RawIOBase):
    """A position in an object."""

    def __init__(self, content: RemoteObject) -> None:
        self._content, self._at = content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, len(self._content))[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        raw = self._content.span(self._at, len(buffer))
        buffer[: len(raw)] = raw
        self._at += len(raw)
        return len(raw)


def forget_last() -> None:
    """Forget what this thread fetched last."""
    _LAST.__dict__.clear()
