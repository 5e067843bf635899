"""A mark on tables that point at images elsewhere: that this user wrote them, and nobody changed where they point.

An overlay names files anywhere on this machine. One that came from a stranger could name a private picture, which
`convert` would copy into its output. The mark is a keyed hash (HMAC, RFC 2104) of the locations; the key lies in the
cache folder, readable for its owner alone. Without the key (another machine, a cleared cache) such a table needs
--allow-outside.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import hashlib
import hmac
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.locations import remote_names
from mithridate.remote.caches import cache_folder

_NAME = b"mithridate.locations"
_KEY_BYTES = 32


def signed(table: pa.Table) -> pa.Table:
    """`table` with the mark; as it is where it names no file elsewhere, or no key can be kept."""
    elsewhere = pc.or_(pc.starts_with(table["image"], os.sep), remote_names(table["image"]))
    if not pc.any(elsewhere).as_py() and os.name != "nt":
        return table
    key = _key(make=True)
    return table if key is None else table.replace_schema_metadata({_NAME: _mark(table, key)})


def is_signed(table: pa.Table) -> bool:
    """Whether the table carries the mark of this user, and its locations are those that were marked."""
    found = (table.schema.metadata or {}).get(_NAME)
    key = None if found is None else _key(make=False)
    return key is not None and found is not None and hmac.compare_digest(found, _mark(table, key))


def _mark(table: pa.Table, key: bytes) -> bytes:
    # two digests: how the rows are cut into chunks is no matter
    lengths, names = hashlib.sha256(), hashlib.sha256()
    for chunk in table["image"].cast(pa.large_string()).chunks:
        compact = pa.concat_arrays([chunk])  # the buffers of a slice hold more than the slice
        if not len(compact):
            continue
        ends = np.frombuffer(compact.buffers()[1], np.int64)[compact.offset :][: len(compact) + 1]
        lengths.update(np.diff(ends).tobytes())
        names.update(memoryview(compact.buffers()[2])[ends[0] : ends[-1]])
    return hmac.new(key, lengths.digest() + names.digest(), hashlib.sha256).hexdigest().encode()


def _key(*, make: bool) -> bytes | None:
    path = cache_folder() / "overlay.key"
    with suppress(OSError):
        if make and not path.is_file():
            _make_key(path)
        key = path.read_bytes()
        if len(key) == _KEY_BYTES:
            return key
    return None


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_KEY_BYTES))
        with suppress(FileExistsError):  # another process was first
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
