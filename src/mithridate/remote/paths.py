"""Remote objects as paths: what `s3://bucket/key` names can be read wherever a file or a folder can.

`location` makes a `Path` of what a user names: a local one, or a `RemotePath`, which answers what the readers ask of a
path (what it is, what is in it, its bytes from here to there) through fsspec. Credentials are fsspec's business and its
drivers'. Whatever goes wrong is one sentence, a `DataError`; what is not asked through this module fails, for a
`RemotePath` is no name of a local file.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import re
import stat
import time
from collections.abc import Generator, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from mithridate.errors import DataError
from mithridate.remote.caches import BLOCK
from mithridate.remote.drivers import SCHEMES, filesystem, forget_listings, kind_of, remote_error, remote_errors
from mithridate.remote.ranges import RangeStream, RemoteObject, forget_last

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
_PREFIXES = tuple(f"{scheme}://" for scheme in SCHEMES)
_ALLOWED = "MITHRIDATE_REMOTE_ALLOWED"  # buckets and hosts that the user named
_FRESH = 60  # seconds for which an object is taken to be as it was
# what a store says of an object that changes when the object does
_VALIDATORS = (
    *("ETag", "etag", "md5Hash", "generation", "VersionId", "mtime", "LastModified", "Last-Modified", "updated"),
    *("blob_id", "created"),
)


def is_remote(name: str) -> bool:
    """Whether a location is one of a remote object."""
    return name.startswith(_PREFIXES)


def location(name: str | os.PathLike[str]) -> Path:
    """The file, folder or remote object that a user names. Raises `DataError` for addresses that are not supported.

    What lies in the same bucket, or at the same host, may be read from then on: see `allow`.
    """
    path = _path_of(name)
    if isinstance(path, RemotePath):
        allow(path)
    return path


def allow(path: RemotePath) -> None:
    """Let what is in the bucket of `path`, or at its host, be read by its name, here and in processes begun from here.

    A name that stands in a file of a stranger reaches the network only where an argument of the user names the same
    bucket.
    """
    if not _is_allowed(path):
        os.environ[_ALLOWED] = f"{os.environ.get(_ALLOWED, '')} {path.bucket}".strip()


def named_in_data(name: str) -> Path:
    """The path of a location that data name. Raises `DataError` for a remote one that `allow` was not told of."""
    path = _path_of(name)
    if isinstance(path, RemotePath) and not _is_allowed(path):
        raise DataError(f"{name} is remote, and no argument of yours names {path.bucket}; it is not read")
    return path


def _is_allowed(path: RemotePath) -> bool:
    return path.scheme == "memory" or str(path.bucket) in os.environ.get(_ALLOWED, "").split()


def _path_of(name: str | os.PathLike[str]) -> Path:
    if isinstance(name, Path):
        # `Path` makes one slash of two
        written = not isinstance(name, RemotePath) and name.parts and name.parts[0].removesuffix(":") in SCHEMES
        return RemotePath(*name.parts) if written and name.parts[0].endswith(":") else name
    name = os.fspath(name)
    match = _URL.match(name)
    if match is None:
        return Path(name).expanduser()
    scheme, rest = match["scheme"].lower(), match["rest"]
    if scheme == "file":
        rest = rest.removeprefix("localhost")
        if not rest.startswith("/"):
            raise DataError(f"{name[:200]} names no file of this machine; expected file:///PATH")
        return Path(rest)
    if scheme not in SCHEMES:
        raise DataError(f"{scheme}:// is not supported; expected one of {', '.join(_PREFIXES)}, file://, or a path")
    if "@" in rest.split("/", 1)[0] and scheme == "https":
        raise DataError(
            f"an address with a name or password in it ({scheme}://...@...) would stand in every record; take it out, "
            "and give credentials in the way that fsspec documents"
        )
    if not rest.strip("/"):
        raise DataError(f"{name[:200]} names nothing; expected {scheme}://NAME/...")
    return RemotePath(f"{scheme}:", rest.lstrip("/"))


def file_size(name: str) -> int:
    """Bytes of the file or remote object at a location. Raises `OSError`, and `DataError`."""
    return named_in_data(name).stat().st_size


def arrow_source(path: Path) -> str | pa.NativeFile:
    """What pyarrow's readers take for `path`: its name, or a file that is read by ranges."""
    if isinstance(path, RemotePath):
        return pa.PythonFile(path.open("rb"), mode="r")
    return os.fspath(path)


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """`os.walk` from `root` on, as paths; the list of folders may be changed to say which are entered."""
    if not isinstance(root, RemotePath):
        for parent, below, names in os.walk(root):
            yield Path(parent), below, names
        return
    inside = list(root.iterdir())
    below = [path.name for path in inside if path.is_dir()]
    yield root, below, [path.name for path in inside if not path.is_dir()]
    for name in below:
        yield from walk(root / name)


class RemotePath(type(Path())):
    """A path whose first part is a scheme. Only reading is answered; `mithridate.remote.uploads` writes.

    What it knows of the object is asked once; a new path asks again.
    """

    _about: dict[str, Any] | None

    def __str__(self) -> str:
        first, *rest = self.parts or ("",)
        return f"{first}//{'/'.join(rest)}" if first.endswith(":") else "/".join(self.parts)

    def __fspath__(self) -> str:
        raise DataError(f"{self} is a remote object; a local file or folder is needed here: copy it first")

    def as_posix(self) -> str:
        return str(self)

    @property
    def scheme(self) -> str:
        return self.parts[0].removesuffix(":")

    @property
    def bucket(self) -> RemotePath:
        """The first part behind the scheme."""
        return RemotePath(*self.parts[:2])

    def about(self) -> dict[str, Any] | None:
        """What the store says of the object or folder; None where there is none. Raises `DataError`."""
        if "_about" not in self.__dict__:
            try:
                self._about = filesystem(self.scheme).info(self.address)
            except Exception as error:
                if kind_of(error) != "missing":
                    raise remote_error(self, error) from error
                self._about = None
        return self._about

    @property
    def address(self) -> str:
        """What fsspec's file system calls the object."""
        return str(self)

    # --- what readers ask of a path ---------------------------------------------------------------------

    def exists(self, **_: Any) -> bool:
        return self.about() is not None

    def is_file(self, **_: Any) -> bool:
        return (self.about() or {}).get("type") == "file"

    def is_dir(self, **_: Any) -> bool:
        return SCHEMES[self.scheme].lists and (self.about() or {}).get("type") == "directory"

    def is_symlink(self) -> bool:
        return False

    def is_absolute(self) -> bool:
        return True

    def resolve(self, strict: bool = False) -> RemotePath:
        return self

    def absolute(self) -> RemotePath:
        return self

    def expanduser(self) -> RemotePath:
        return self

    def stat(self, **_: Any) -> os.stat_result:
        """Size and kind; no times. Raises `DataError` where there is no such object."""
        kind = stat.S_IFDIR if self.is_dir() else stat.S_IFREG
        return os.stat_result((kind, 0, 0, 1, 0, 0, _size(self, self.needed()), 0, 0, 0))

    def iterdir(self) -> Generator[RemotePath, None, None]:
        try:
            entries = filesystem(self.scheme).ls(self.address, detail=True)
        except Exception as error:
            raise remote_error(self, error) from error
        found = [self.named(entry) for entry in entries]
        # a store may list the folder itself, as an object of no bytes
        yield from (path for path in found if path != self and path.parent == self)

    def named(self, entry: dict[str, Any]) -> RemotePath:
        """The path of an entry of a listing, what it says of the object known."""
        path = RemotePath(self.parts[0], entry["name"].removeprefix(f"{self.scheme}://").strip("/"))
        path._about = entry
        return path

    def glob(self, pattern: str, **_: Any) -> Generator[RemotePath, None, None]:
        """What is below a folder under names that match the parts of `pattern`, one by one."""
        found = [self]
        for part in pattern.split("/"):
            found = [
                path
                for folder in found
                if folder.is_dir()
                for path in folder.iterdir()
                if fnmatch.fnmatchcase(path.name, part)
            ]
        yield from found

    def matches(self) -> list[Path]:
        """What there is under names that match this one as a pattern, sorted. Raises `DataError`."""
        if not SCHEMES[self.scheme].lists:
            raise DataError(
                f"{self.scheme}:// lists no folders, so {self} cannot be looked up; name files ({{00..12}})"
            )
        with remote_errors(self, "list"):
            entries = filesystem(self.scheme).glob(self.address, detail=True)
        return sorted(self.named(entry) for entry in entries.values())

    def open(  # pyright: ignore[reportIncompatibleMethodOverride] (its overloads are of modes that write)
        self, mode: str = "r", buffering: int = -1, encoding: str | None = None, *_: Any, **__: Any
    ) -> IO[Any]:
        """The object's bytes, or text, fetched by ranges as they are read."""
        if mode not in ("r", "rb", "rt"):
            raise DataError(f"{self} is a remote object and cannot be opened for writing")
        raw = io.BufferedReader(RangeStream(self.content()), BLOCK)
        return raw if "b" in mode else io.TextIOWrapper(raw, encoding=encoding or "utf-8")

    def read_bytes(self) -> bytes:
        content = self.content()
        return content.span(0, len(content))

    def read_text(self, encoding: str | None = None, *_: Any, **__: Any) -> str:
        return self.read_bytes().decode(encoding or "utf-8")

    def content(self) -> RemoteObject:
        """The object's bytes. What is known of it is asked for again once a minute."""
        return _opened(str(self), int(time.monotonic() // _FRESH), os.getpid())

    def __reduce__(self) -> tuple[Any, ...]:
        return location, (str(self),)

    # --- what identifies it ------------------------------------------------------------------------------

    def needed(self) -> dict[str, Any]:
        """`about`, or a `DataError` where there is no such object."""
        about = self.about()
        if about is None:
            raise DataError(f"{self} does not exist; check the name, and the region or endpoint it is looked for at")
        return about

    @property
    def key(self) -> tuple[str, bool]:
        """A hash of address, size and what the store says of the content; and whether it says anything."""
        about = self.needed()
        known = {name: str(about[name]) for name in _VALIDATORS if about.get(name)}
        spelled = f"{self}\0{about.get('size')}\0{sorted(known.items())}"
        return hashlib.blake2b(spelled.encode(errors="surrogateescape"), digest_size=16).hexdigest(), bool(known)


def _size(path: RemotePath, about: dict[str, Any]) -> int:
    size = about.get("size")
    if not isinstance(size, int) or size < 0:
        raise DataError(f"the server of {path} does not tell its size, so that it cannot be read by ranges; fetch it")
    return size


def opened(name: str) -> RemoteObject:
    """The object at an address. Raises `DataError` where nobody who may has named its bucket or host."""
    path = named_in_data(name)
    if not isinstance(path, RemotePath):
        raise ValueError(f"expected a remote location, got {name}")
    return path.content()


@lru_cache(maxsize=1024)
def _opened(name: str, _minute: int, _process: int) -> RemoteObject:
    path = _path_of(name)
    if not isinstance(path, RemotePath):
        raise ValueError(f"expected a remote location, got {name}")
    if not path.is_file():
        path.needed()
        raise DataError(f"{path} is a folder; expected a file")
    key, settled = path.key
    return RemoteObject(str(path), path.stat().st_size, key, settled=settled)


def forget() -> None:
    """Forget what was listed and asked: a command sees what is there when it begins."""
    _opened.cache_clear()
    forget_last()
    forget_listings()
