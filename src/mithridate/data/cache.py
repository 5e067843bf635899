"""Pay once: decoded images in a memory-mapped uint8 store keyed by content, shared by every run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from PIL import Image

from mithridate.data.images import decode, read_bytes, split_place
from mithridate.errors import DataError, OutputError
from mithridate.threads import thread_count

Transform = Callable[[Image.Image], np.ndarray]  # to (h, w, 3) uint8
Shortcut = Callable[[bytes], np.ndarray | None]  # a file's bytes to the same; None where the transform is needed
ToPixels = Callable[[bytes, str], np.ndarray]  # a file's bytes and its place to the same

_KEY = np.dtype("S16")
_CHUNK = 256  # images decoded between two writes: bounds memory, keeps all cores busy


def cache_folder() -> Path:
    """Where caches lie unless a command says otherwise: `$MITHRIDATE_CACHE`, else `~/.cache/mithridate`."""
    return Path(os.environ.get("MITHRIDATE_CACHE") or Path.home() / ".cache" / "mithridate")


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


@dataclass
class CachedImages:
    """Images as rows of one or several memory-mapped arrays."""

    parts: list[np.ndarray]  # each (m_part, h, w, 3) uint8
    part: np.ndarray  # (m,) which of the parts, -1 where the image is bad
    row: np.ndarray  # (m,) row in that part
    keys: np.ndarray | None  # (m,) hash of each image's content
    bad: dict[int, str] = field(default_factory=dict)

    def gather(self, index: np.ndarray) -> np.ndarray:
        part, row = self.part[index], self.row[index]
        if len(self.parts) == 1 and (part == 0).all():
            return self.parts[0][row]
        out = np.zeros((len(index), *self.parts[0].shape[1:]), dtype=np.uint8)
        for number, pixels in enumerate(self.parts):
            chosen = np.flatnonzero(part == number)
            out[chosen] = pixels[row[chosen]]
        return out


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
    return f"images-{shape[0]}x{shape[1]}-{digest}"


@dataclass
class _Store:
    """A folder of parts; each part is `NAME.pixels.npy`, and `NAME.keys.npy` with the content's hash of each row.

    Beside them `NAME.places.npy` remembers the hash of what lies at a place (path, size, time of change), so that
    an image seen before is not even read.
    """

    folder: Path
    shape: tuple[int, int, int]

    def open(self, names: list[str], to_pixels: ToPixels, pool: ThreadPoolExecutor, progress) -> CachedImages:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            contents, rows, parts = self._load()
            keys = _place_keys(names, pool)
            unknown = [i for i, key in enumerate(keys) if contents.get(key) not in rows]
            bad: dict[int, str] = {}
            if unknown:
                bad = self._add(names, keys, unknown, contents, rows, to_pixels, pool, progress)
                contents, rows, parts = self._load()
        except OSError as error:
            raise OutputError(
                f"cannot write the image cache in {self.folder}: {error.strerror or error}; free some space, "
                "choose another --cache, or give --cache-limit 0 to do without"
            ) from error
        content = np.array([contents.get(key, b"") for key in keys], dtype=_KEY)
        where = np.array([rows.get(contents.get(key, b""), (-1, 0)) for key in keys], dtype=np.int64).reshape(-1, 2)
        return CachedImages(parts or [np.zeros((1, *self.shape), np.uint8)], where[:, 0], where[:, 1], content, bad)

    def _load(self) -> tuple[dict[bytes, bytes], dict[bytes, tuple[int, int]], list[np.ndarray]]:
        contents: dict[bytes, bytes] = {}
        for path in sorted(self.folder.glob("*.places.npy")):
            contents.update(map(tuple, load_array(path).tolist()))
        rows: dict[bytes, tuple[int, int]] = {}
        parts: list[np.ndarray] = []
        for path in sorted(self.folder.glob("*.keys.npy")):
            pixels = load_array(path.with_name(path.name.replace(".keys.", ".pixels.")), mapped=True)
            for row, key in enumerate(load_array(path).tolist()):
                rows[key] = (len(parts), row)
            parts.append(pixels)
        return contents, rows, parts

    def _add(self, names, keys, unknown, contents, rows, to_pixels, pool, progress) -> dict[int, str]:
        """Decode what is new into one more part; gives back the reasons of those that failed, by position."""
        bad: dict[int, str] = {}
        places: list[tuple[bytes, bytes]] = []
        new_keys: list[bytes] = []
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
                        places.append((keys[position], content))
                        if content not in seen and pixels is not None:
                            seen.add(content)
                            new_keys.append(content)
                            # written, not mapped: a full disk is then an error and not a dead process
                            file.write(np.ascontiguousarray(pixels).data)
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
                    save_array(self.folder / f"{stem}.keys.npy", np.array(new_keys, dtype=_KEY))
                except OSError:
                    # pixels that no key points at would stay for ever
                    (self.folder / f"{stem}.pixels.npy").unlink()
                    raise
            if places:
                save_array(
                    self.folder / f"{stem}.places.npy",
                    np.array(places, dtype=[("place", _KEY), ("content", _KEY)]),
                )
        finally:
            temporary.unlink(missing_ok=True)
        return bad


def load_array(path: Path, *, mapped: bool = False) -> np.ndarray:
    """An array that `save_array` wrote. Raises `OutputError` where the file is damaged."""
    try:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise OutputError(f"{path} is damaged ({error}); delete {path.parent} and run the command again") from error


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array so that a reader finds all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _hash(raw: bytes) -> bytes:
    # a trailing zero byte would be lost in numpy's byte strings
    return hashlib.blake2b(raw, digest_size=15).digest() + b"+"


def _place_keys(names: list[str], pool: ThreadPoolExecutor) -> list[bytes]:
    shards: dict[str, tuple[int, int]] = {}

    def key(name: str) -> bytes:
        path, offset, _ = split_place(name)
        try:
            if offset is None or path not in shards:
                status = Path(path).stat()
                stamp = (status.st_size, status.st_mtime_ns)
                if offset is not None:
                    shards[path] = stamp
            else:
                stamp = shards[path]
        except OSError:
            stamp = (-1, -1)
        return _hash(f"{Path(path).absolute()}\0{name[len(path) :]}\0{stamp}".encode(errors="surrogateescape"))

    return list(pool.map(key, names, chunksize=4096))


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
