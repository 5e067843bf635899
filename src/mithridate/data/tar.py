"""The members of a tar, found by their headers alone, whoever wrote it."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mithridate.data.left_out import Tally
from mithridate.errors import DataError
from mithridate.remote.paths import RemotePath
from mithridate.remote.ranges import RemoteObject

COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")

_BLOCK = 512
_MAX_HEADER = 2**20  # of a long name or an extended header
_PAX_FIELD = re.compile(rb"(\d{1,12}) ([^=\n]+)=")
_OCTAL = re.compile(rb"[0-7]*")
# what `tarfile` calls a link, a device, a folder or a pipe: they have no content
_WITHOUT_CONTENT = b"123456"


class Member(NamedTuple):
    """A regular file of a tar: where its content lies."""

    name: str
    offset: int
    size: int


def open_tar(shard: Path) -> mmap.mmap | RemoteObject:
    """The bytes of a plain tar, memory-mapped; of a remote one fetched as they are asked for."""
    try:
        if isinstance(shard, RemotePath):
            data = shard.content()
            _refuse_packed(shard, data[:2])
            if not len(data):
                raise ValueError
            return data
        if not shard.is_file():
            raise DataError(f"{shard} is no regular file; expected a tar shard")
        with shard.open("rb") as file:
            _refuse_packed(shard, file.read(2))
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise DataError(f"{shard} is empty; expected a tar shard, fetch or write it again") from error
    except OSError as error:
        raise DataError(f"cannot read {shard}: {error.strerror or error}") from error


def _refuse_packed(shard: Path, head: bytes) -> None:
    if head == b"\x1f\x8b" or shard.name.lower().endswith(COMPRESSED):
        raise DataError(f"{shard} is compressed and cannot be read in place; unpack it to a plain .tar first")


def tar_members(data: mmap.mmap | bytes | RemoteObject, shard: Path, tally: Tally | None = None) -> Iterator[Member]:
    """Every regular file of a tar, long names understood; what has no content of its own is counted in `tally`.

    Touches the headers alone, which `tarfile` does several times slower. Every step leads forward. Raises `DataError`
    where the tar is cut short or damaged.
    """
    tally = Tally() if tally is None else tally
    at, end = 0, len(data)
    long = _Extended()
    while at + _BLOCK <= end:
        header = data[at : at + _BLOCK]
        start, at = at, at + _BLOCK
        if header == bytes(_BLOCK):
            _count_rest(data, at, shard, tally)
            return
        kind = header[156:157]
        size = _header_size(header, shard, start)
        if long.size is not None and kind not in b"LKxg":
            size = long.size
        sparse = kind == b"S" or long.sparse
        if kind == b"S":
            at = _after_sparse_map(data, header, at)
        name = long.name or _header_name(header)
        if kind in _WITHOUT_CONTENT:
            if kind in b"12":
                tally.add("link", f"{name} in {shard}")
            elif kind != b"5":
                tally.add("special-member", f"{name} in {shard}")
            long = _Extended()
            continue
        if at + size > end:
            break
        offset, at = at, at + -(-size // _BLOCK) * _BLOCK
        if kind in b"LKxg":
            if size > _MAX_HEADER:
                raise DataError(f"{shard} has a header of {size} bytes at byte {start}; it is damaged, fetch it again")
            long = long.with_header(kind, data[offset : offset + size], shard, start)
            continue
        if sparse:
            tally.add("sparse-member", f"{name} in {shard}")
        elif kind in b"0\x007":
            yield Member(name, offset, size)
        else:
            tally.add("special-member", f"{name} in {shard}")
        long = _Extended()
    raise DataError(f"{shard} ends early, at {end} bytes, without a tar's end mark; fetch or write it again")


@dataclass(frozen=True)
class _Extended:
    """What headers before a member say of it."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False

    def with_header(self, kind: bytes, raw: bytes, shard: Path, at: int) -> _Extended:
        if kind == b"L":
            return _Extended(raw.rstrip(b"\0").decode(errors="surrogateescape"), self.size, self.sparse)
        if kind != b"x":
            return self
        name, size, sparse = _pax(raw, shard, at)
        return _Extended(name or self.name, self.size if size is None else size, self.sparse or sparse)


def _count_rest(data: mmap.mmap | bytes | RemoteObject, at: int, shard: Path, tally: Tally) -> None:
    """Count what lies behind the end mark, where a reader stops; tars are padded there with zeros."""
    step = 2**20
    for start in range(at, len(data), step):
        block = data[start : start + step]
        if block.count(0) < len(block):
            first = start + len(block) - len(block.lstrip(b"\0"))
            tally.add("behind-end-mark", f"{shard} from byte {first} on", len(data) - first)
            return


def _after_sparse_map(data: mmap.mmap | bytes | RemoteObject, header: bytes, at: int) -> int:
    """Where the content begins of an old GNU sparse member, whose map may go on in blocks of its own."""
    more = header[482:483]
    while more not in (b"", b"\0"):
        more = data[at + 504 : at + 505]
        at += _BLOCK
    return at


def _header_size(header: bytes, shard: Path, at: int) -> int:
    stated, raw = _octal(header[148:156]), header[124:136]
    # the high bit says that the number is binary, the next but one that it is negative
    size = int.from_bytes(raw[1:], "big") if raw[0] == 0x80 else _octal(raw)
    # the checksum counts its own field as eight blanks
    if size is None or stated != sum(header) - sum(header[148:156]) + 8 * 32:
        raise DataError(f"{shard} is no tar file, or is damaged at byte {at}; fetch or write it again")
    return size


def _octal(raw: bytes) -> int | None:
    digits = raw.split(b"\0", 1)[0].strip()  # int() would take signs and underscores as well
    return int(digits or b"0", 8) if _OCTAL.fullmatch(digits) else None


def _header_name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return name.decode(errors="surrogateescape")


def _pax(raw: bytes, shard: Path, at: int) -> tuple[str | None, int | None, bool]:
    """Name, size and sparseness in an extended header: records "LENGTH KEY=VALUE\\n", LENGTH of the whole record."""
    name, size, sparse, start = None, None, False, 0
    while match := _PAX_FIELD.match(raw, start):
        length = int(match[1])
        value = raw[match.end() : start + length - 1]
        if length <= match.end() - start:
            raise DataError(f"{shard} is damaged in the extended header at byte {at}; fetch or write it again")
        if match[2] == b"path":
            name = value.decode(errors="surrogateescape")
        elif match[2] == b"size":
            if not re.fullmatch(rb"\d{1,18}", value):
                raise DataError(f"{shard} states the size {value[:40]!r} at byte {at}; fetch or write it again")
            size = int(value)
        elif match[2].startswith(b"GNU.sparse."):
            sparse = True
        start += length
    return name, size, sparse
