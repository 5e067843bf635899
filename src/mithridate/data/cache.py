"""Pay once: decoded images in a memory-mapped uint8 store keyed by content, shared by every run."""

# Above 350 lines: writing, reading, checking and repairing share one layout on disk.

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from PIL import Image

from mithridate.data.images import decode, read_bytes
from mithridate.data.locations import split_place
from mithridate.errors import DataError, OutputError
from mithridate.remote.paths import is_remote, opened
from mithridate.sealed import DamagedFile, read_sealed_array, write_sealed_array
from mithridate.threads import thread_count

Transform = Callable[[Image.Image], np.ndarray]  # to (h, w, 3) uint8
Shortcut = Callable[[bytes], np.ndarray | None]  # a file's bytes to the same; None where the transform is needed
ToPixels = Callable[[bytes, str], np.ndarray]  # a file's bytes and its place to the same

_KEY = np.dtype("S16")
_ROW = np.dtype([("content", _KEY), ("checksum", "<u4")])
_PLACE = np.dtype([("place", _KEY), ("content", _KEY)])
_SETTLED_NS = 2_000_000_000  # a file may be written again within one tick of its file system's clock
_CHUNK = 256  # images decoded between two writes: bounds memory, keeps all cores busy


@runtime_checkable
class ImageSource(Protocol):
    """m images of one size by position. `bad` names those that do not decode: their pixels are zero.

    `keys` (m,) are hashes of the images' content, where they are known.
    """

    bad: dict[int, str]
    keys: np.ndarray | None

    def gather(self, index: np.ndarray) -> np.ndarray:
        """The images at `index` (b,): (b, h, w, 3) uint8."""
        ...


@dataclass(frozen=True)
class Part:
    """One memory-mapped array of the cache with the checksum of each of its rows."""

    pixels: np.ndarray  # (m_part, h, w, 3) uint8
    checksums: np.ndarray  # (m_part,) uint32
    files: tuple[Path, ...] = ()  # deleted where a row is found damaged: the next run makes them again
    checked: set[int] = field(default_factory=set)


@dataclass
class CachedImages:
    """Images as rows of one or several memory-mapped arrays. A row is held against its checksum when first read;
    one that a disk has damaged is decoded again."""

    parts: list[Part]
    part: np.ndarray  # (m,) which of the parts, -1 where the image is bad
    row: np.ndarray  # (m,) row in that part
    keys: np.ndarray | None  # (m,) hash of each image's content
    bad: dict[int, str] = field(default_factory=dict)
    decode_again: Callable[[int], np.ndarray] | None = None  # an image by its position
    _mended: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def gather(self, index: np.ndarray) -> np.ndarray:
        part, row = self.part[index], self.row[index]
        self._check(index, part, row)
        if len(self.parts) == 1 and (part == 0).all():
            out = self.parts[0].pixels[row]
        else:
            out = np.zeros((len(index), *self.parts[0].pixels.shape[1:]), dtype=np.uint8)
            for number, piece in enumerate(self.parts):
                chosen = np.flatnonzero(part == number)
                out[chosen] = piece.pixels[row[chosen]]
        if self._mended:
            for at, of in enumerate(zip(part.tolist(), row.tolist())):
                if of in self._mended:
                    out[at] = self._mended[of]
        return out

    def _check(self, index: np.ndarray, part: np.ndarray, row: np.ndarray) -> None:
        for position, number, at in zip(index.tolist(), part.tolist(), row.tolist()):
            if number < 0 or at in self.parts[number].checked:
                continue
            piece = self.parts[number]
            if zlib.crc32(np.ascontiguousarray(piece.pixels[at]).data) != int(piece.checksums[at]):
                for path in piece.files:
                    path.unlink(missing_ok=True)
                if self.decode_again is None:
                    raise OutputError(f"the image cache is damaged in {piece.files}; run the command again")
                self._mended[number, at] = self.decode_again(position)
            piece.checked.add(at)


@dataclass
class DecodedImages:
    """Images decoded each time they are asked for: where a cache would not fit."""

    places: list[str]
    to_pixels: ToPixels
    shape: tuple[int, int, int]
    workers: ThreadPoolExecutor
    bad: dict[int, str] = field(default_factory=dict)
    keys: np.ndarray | None = None

    def gather(self, index: np.ndarray) -> np.ndarray:
        def one(position: int) -> np.ndarray:
            if position in self.bad:
                return np.zeros(self.shape, dtype=np.uint8)
            place = self.places[position]
            return self.to_pixels(read_bytes(place), place)

        return np.stack(list(self.workers.map(one, index.tolist())))


def open_images(
    places: pa.Array,
    transform: Transform,
    *,
    shape: tuple[int, int, int],
    recipe: str,
    folder: Path | None,
    limit: int | None = None,
    workers: int | None = None,
    shortcut: Shortcut | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImageSource:
    """The images at `places` (m,) after `transform`, each `shape` (h, w, 3) uint8.

    What `folder` does not hold yet under `recipe` (a name of the transform: same recipe, same pixels) is
    decoded with all cores and added. With `folder` None, or more than `limit` bytes needed, nothing is kept and
    every `gather` decodes; the pixels are the same. Images that do not decode are listed in `bad`. A `shortcut` is
    asked for the pixels first; its name belongs in `recipe`.
    """
    names: list[str] = places.to_pylist()

    def to_pixels(raw: bytes, place: str) -> np.ndarray:
        found = None if shortcut is None else shortcut(raw)
        return transform(decode(raw, place)) if found is None else found

    pool = ThreadPoolExecutor(workers or thread_count())
    if folder is None or (limit is not None and len(names) * int(np.prod(shape)) > limit):
        source = DecodedImages(names, to_pixels, shape, pool)
        # what fails must be known before the first batch, or the batches would depend on it
        for start, batch in _decode_all(names, to_pixels, pool, lambda _: True):
            source.bad.update({start + i: error for i, (_, error) in enumerate(batch) if error is not None})
            progress(min(start + _CHUNK, len(names)), len(names))
        return source
    with pool:
        return _Store(folder / _store_name(recipe, shape), shape).open(names, to_pixels, pool, progress)


def _store_name(recipe: str, shape: tuple[int, int, int]) -> str:
    digest = hashlib.blake2b(recipe.encode(), digest_size=6).hexdigest()
    return f"images2-{shape[0]}x{shape[1]}-{digest}"  # without the 2: of a version that kept no checksums


@dataclass
class _Store:
    """A folder of parts; each part is `NAME.pixels.npy`, and `NAME.keys.npy` with content's hash and checksum by row.

    Beside them `NAME.places.npy` remembers the hash of what lies at a location (see `_place_keys`), so that an image
    seen before is not even read. Files that are damaged are deleted, and what they held is made again.
    """

    folder: Path
    shape: tuple[int, int, int]

    def open(self, names: list[str], to_pixels: ToPixels, pool: ThreadPoolExecutor, progress) -> CachedImages:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            contents, rows, parts = self._load()
            keys, settled = _place_keys(names, pool)
            unknown = [i for i, key in enumerate(keys) if contents.get(key) not in rows]
            bad: dict[int, str] = {}
            if unknown:
                bad, fresh = self._add(names, keys, settled, unknown, rows, to_pixels, pool, progress)
                contents, rows, parts = self._load()
                contents.update(fresh)
        except OSError as error:
            raise OutputError(
                f"cannot write the image cache in {self.folder}: {error.strerror or error}; free some space, "
                "choose another --cache, or give --cache-limit 0 to do without"
            ) from error
        content = np.array([contents.get(key, b"") for key in keys], dtype=_KEY)
        where = np.array([rows.get(contents.get(key, b""), (-1, 0)) for key in keys], dtype=np.int64).reshape(-1, 2)
        empty = Part(np.zeros((1, *self.shape), np.uint8), np.zeros(1, np.uint32))

        def decode_again(position: int) -> np.ndarray:
            return to_pixels(read_bytes(names[position]), names[position])

        return CachedImages(parts or [empty], where[:, 0], where[:, 1], content, bad, decode_again)

    def _load(self) -> tuple[dict[bytes, bytes], dict[bytes, tuple[int, int]], list[Part]]:
        contents: dict[bytes, bytes] = {}
        for path in sorted(self.folder.glob("*.places.npy")):
            known = kept_array(path)
            if known is not None and known.dtype == _PLACE:
                contents.update(map(tuple, known.tolist()))
        rows: dict[bytes, tuple[int, int]] = {}
        parts: list[Part] = []
        for path in sorted(self.folder.glob("*.keys.npy")):
            files = (path, path.with_name(path.name.replace(".keys.", ".pixels.")))
            known, pixels = kept_array(path), _mapped_pixels(files[1], self.shape)
            if known is None or known.dtype != _ROW or pixels is None or len(pixels) != len(known):
                for file in files:
                    file.unlink(missing_ok=True)
                continue
            for row, key in enumerate(known["content"].tolist()):
                rows[key] = (len(parts), row)
            parts.append(Part(pixels, known["checksum"], files))
        return contents, rows, parts

    def _add(
        self, names, keys, settled, unknown, rows, to_pixels, pool, progress
    ) -> tuple[dict[int, str], dict[bytes, bytes]]:
        """Decode what is new into one more part; gives back the reasons of those that failed, by position, and the
        content of the others by their keys."""
        bad: dict[int, str] = {}
        fresh: dict[bytes, bytes] = {}
        places: list[tuple[bytes, bytes]] = []
        new_keys: list[tuple[bytes, int]] = []
        seen = set(rows)
        stem = hashlib.blake2b(b"".join(keys[i] for i in unknown), digest_size=8).hexdigest() + f"-{os.getpid()}"
        temporary = self.folder / f".{stem}"
        try:
            with temporary.open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": (len(unknown), *self.shape)}
                np.lib.format.write_array_header_1_0(file, header)
                body = file.tell()
                wanted = [names[i] for i in unknown]
                for start, batch in _decode_all(wanted, to_pixels, pool, lambda content: content not in seen):
                    for offset, ((content, pixels), error) in enumerate(batch):
                        position = unknown[start + offset]
                        if error is not None:
                            bad[position] = error
                            continue
                        fresh[keys[position]] = content
                        if settled[position]:
                            places.append((keys[position], content))
                        if content not in seen and pixels is not None:
                            seen.add(content)
                            row = np.ascontiguousarray(pixels).data
                            new_keys.append((content, zlib.crc32(row)))
                            # written, not mapped: a full disk is then an error and not a dead process
                            file.write(row)
                    progress(min(start + _CHUNK, len(wanted)), len(wanted))
                if file.tell() != body + len(new_keys) * int(np.prod(self.shape)):
                    raise DataError(f"the transform gave images of another shape than {self.shape}")
                file.seek(0)
                header["shape"] = (len(new_keys), *self.shape)
                np.lib.format.write_array_header_1_0(file, header)
                if file.tell() != body:  # numpy pads headers to 64 bytes and leaves room for growing lengths
                    raise DataError("the header of the image cache changed its length")
            if new_keys:
                temporary.rename(self.folder / f"{stem}.pixels.npy")
                try:
                    save_array(self.folder / f"{stem}.keys.npy", np.array(new_keys, dtype=_ROW))
                except OSError:
                    # pixels that no key points at would stay for ever
                    (self.folder / f"{stem}.pixels.npy").unlink()
                    raise
            if places:
                save_array(self.folder / f"{stem}.places.npy", np.array(places, dtype=_PLACE))
        finally:
            temporary.unlink(missing_ok=True)
        return bad, fresh


def _mapped_pixels(path: Path, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The pixels of a part, None where the file is no such array; its rows have checksums of their own."""
    try:
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError):
        return None
    return pixels if pixels.dtype == np.uint8 and pixels.shape[1:] == shape else None


def kept_array(path: Path, *, mapped: bool = False) -> np.ndarray | None:
    """An array that `save_array` wrote, None where there is none. A damaged file is deleted: it is made again."""
    try:
        return read_sealed_array(path, mapped=mapped)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedFile:
        path.unlink(missing_ok=True)
        return None


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array with its checksum, so that a reader finds all of it or nothing."""
    write_sealed_array(path, array)


def _hash(raw: bytes) -> bytes:
    # a trailing zero byte would be lost in numpy's byte strings
    return hashlib.blake2b(raw, digest_size=15).digest() + b"+"


def _place_keys(names: list[str], pool: ThreadPoolExecutor) -> tuple[list[bytes], list[bool]]:
    """What identifies the content at each location without reading it, and whether it surely does.

    Path, device, inode, size and times of change. The time of modification can be set (what this package writes has
    0), that of the inode's change cannot; only within a tick of the clock may a file change and keep it. Of a remote
    object what its store says of it.
    """
    shards: dict[str, tuple[tuple[int, ...], bool]] = {}
    now = time.time_ns()

    def identity(path: str) -> tuple[tuple[int, ...], bool]:
        try:
            if is_remote(path):
                content = opened(path)
                return (int(content.key, 16),), content.settled
            status = Path(path).stat()
        except (OSError, ValueError, DataError):
            return (-1,), False
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        return stamp, now - status.st_ctime_ns > _SETTLED_NS

    def key(name: str) -> tuple[bytes, bool]:
        path, offset, _ = split_place(name)
        if offset is None:
            stamp, settled = identity(path)
        else:
            if path not in shards:
                shards[path] = identity(path)
            stamp, settled = shards[path]
        where = path if is_remote(path) else Path(path).absolute()
        spelled = f"{where}\0{name[len(path) :]}\0{stamp}"
        return _hash(spelled.encode(errors="surrogateescape")), settled

    found = list(pool.map(key, names, chunksize=4096))
    return [known for known, _ in found], [settled for _, settled in found]


Decoded = tuple[tuple[bytes, np.ndarray | None], str | None]


def _decode_all(
    names: list[str], to_pixels: ToPixels, pool: ThreadPoolExecutor, wanted: Callable[[bytes], bool]
) -> Iterator[tuple[int, list[Decoded]]]:
    """Chunks of (content hash, pixels or None where not `wanted`), error or None; in order, one chunk ahead."""

    def one(name: str) -> Decoded:
        try:
            raw = read_bytes(name)
            content = _hash(raw)
            return (content, to_pixels(raw, name) if wanted(content) else None), None
        except DataError as error:
            return (b"", None), str(error)

    def submit(start: int):
        return [pool.submit(one, name) for name in names[start : start + _CHUNK]]

    ahead = submit(0)
    for start in range(0, len(names), _CHUNK):
        futures, ahead = ahead, submit(start + _CHUNK)
        yield start, [future.result() for future in futures]
