"""Outputs at remote locations: made on this machine, then sent whole.

While the objects of a folder are sent, one named `.mithridate-upload` says that the folder is half. It is sent first
and taken away last, and each object is there whole or not at all: what a kill leaves never counts as done. Indexes and
records, by which other readers know a folder, go last.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mithridate.errors import DataError, OutputError
from mithridate.remote.caches import cache_folder
from mithridate.remote.drivers import SCHEMES, filesystem, remote_errors
from mithridate.remote.paths import RemotePath, forget

MARKER = ".mithridate-upload"


def workplace(out: Path) -> Path:
    """Where the output `out` is made: `out` itself, or for a remote one a folder in the cache."""
    if not isinstance(out, RemotePath):
        return out
    digest = hashlib.blake2b(str(out).encode(errors="surrogateescape"), digest_size=8).hexdigest()
    return cache_folder() / "uploads" / f"{digest}-{out.name}"


def refuse_half(folders: Iterable[Path]) -> None:
    """Raise `DataError` where one of the remote `folders` is the half of an upload that was stopped."""
    for folder in dict.fromkeys(folders):
        remote = isinstance(folder, RemotePath) and len(folder.parts) > 1 and SCHEMES[folder.scheme].written
        if remote and (folder / MARKER).exists():
            raise DataError(
                f"{folder} is the half of an upload that was stopped, or is still going on; run the command that "
                "writes it again, or wait for it"
            )


def refuse_remote(out: RemotePath, *, overwrite: bool) -> None:
    """Raise `OutputError` if `out` cannot be written, or holds something and may not be replaced."""
    if not SCHEMES[out.scheme].written:
        raise OutputError(f"{out.scheme}:// can only be read; choose another --out, and copy it there")
    if len(out.parts) < 3 and out.scheme != "memory":
        raise OutputError(f"{out} is a whole bucket; choose a folder in it as --out")
    forget()
    out = RemotePath(*out.parts)  # asks again
    if out.scheme != "memory" and not out.bucket.exists():
        raise OutputError(f"there is no bucket {out.bucket}; make it first, or choose another --out")
    if not overwrite and out.exists() and (out.is_file() or not _is_half(out)):
        raise OutputError(f"{out} exists already; choose another --out, or give --overwrite to replace it")


def _is_half(out: RemotePath) -> bool:
    """Whether nothing is there, or what is there is what a stopped upload left."""
    return (out / MARKER).exists() or not any(True for _ in out.iterdir())


def upload(folder: Path, out: RemotePath) -> None:
    """Make the objects below `out` those of the local `folder`. Raises `OutputError`."""
    driver = filesystem(out.scheme)
    marker = out / MARKER
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: _order(path, folder))
    try:
        with remote_errors(out, "write"):
            before = _objects(out)
            driver.pipe_file(marker.address, b"mithridate-upload/1\n")
            sent = set()
            for path in files:
                target = out / path.relative_to(folder).as_posix()
                driver.put_file(str(path), target.address)
                sent.add(target.address)
            for name in before - sent - {marker.address}:
                driver.rm_file(name)
            driver.rm_file(marker.address)
    except DataError as error:
        raise OutputError(str(error)) from error
    finally:
        forget()


def _order(path: Path, folder: Path) -> tuple[int, bool, str]:
    """Parts before what lists them: the deepest first, JSON records last."""
    inside = path.relative_to(folder)
    return -len(inside.parts), path.suffix == ".json", inside.as_posix()


def _objects(out: RemotePath) -> set[str]:
    """The addresses of all objects below `out`."""
    if not RemotePath(*out.parts).exists():
        return set()
    found = filesystem(out.scheme).find(out.address, withdirs=False, detail=True)
    return {out.named(entry).address for entry in found.values()}


@contextmanager
def sent_whole(temporary: Path, out: RemotePath) -> Iterator[Path]:
    """The folder `temporary` to write into; at the end it is sent to `out`, and in any case taken away."""
    try:
        temporary.mkdir(parents=True)
        yield temporary
        upload(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
