"""From a location (a file, a span of a shard, a row of a table) to bytes, and from bytes to an image."""

from __future__ import annotations

import io
import os
import stat
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from mithridate.data.bounded import read_cells
from mithridate.data.locations import split_place, split_row
from mithridate.errors import DataError
from mithridate.remote.paths import arrow_source, is_remote, named_in_data, opened

# Data come from strangers: a 40-kB file can claim 30 gigapixels.
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
# What decoding one image may take at most, whatever it is (measured in tests/test_images.py).
MAX_DECODING_MEMORY = 1_536 * 2**20
# OpenJPEG holds every channel in 32 bits, several times over.
_MAX_PIXELS_OF = {"JPEG2000": 16_000_000}
# A JPEG may have as many scans as it likes, each over all pixels. Encoders write ten, optimisers a few dozen.
MAX_SCANS = 100
_MAX_SCANNED = 2_000_000_000  # scans times pixels
# longer than this many times its width (or wider), an image is cut before it is resized
MAX_RATIO = 32
_MAX_ROW_GROUP = 2 * 2**30
# Pillow would try every format it knows, and hands EPS to Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000")


class _Shard:
    """An open tar file; closed when the cache below drops it."""

    def __init__(self, path: str) -> None:
        self.descriptor = _open_regular(path)[0]

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(maxsize=64)
def _open_shard(path: str, _modified: int) -> _Shard:
    return _Shard(path)


def _open_regular(path: str) -> tuple[int, int]:
    """Descriptor and size of a regular file; a pipe or a device would give bytes for ever, or none."""
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise DataError(f"{path} is no regular file; images and tables are read from files only")
    return descriptor, status.st_size


def read_bytes(place: str) -> bytes:
    """The bytes of an image. Safe to call from several threads.

    Raises `DataError` where the location does not exist, is no regular file, ends early, or is larger than 64 MiB.
    """
    try:
        row = split_row(place)
        if row is not None:
            return _read_row(*row)
        path, offset, size = split_place(place)
        if is_remote(path):
            return _read_remote(place, path, offset, size)
        if offset is None or size is None:
            descriptor, size = _open_regular(path)
            with os.fdopen(descriptor, "rb") as file:
                _refuse_large(place, size)
                return file.read(size)
        _refuse_large(place, size)
        shard = _open_shard(path, Path(path).stat().st_mtime_ns)
        raw = os.pread(shard.descriptor, size, offset)
    except OSError as error:
        raise DataError(f"cannot read {place}: {error.strerror or error}") from error
    except ValueError as error:  # a path with a NUL
        raise DataError(f"cannot read {place!r}: {error}") from error
    return _all_there(raw, path, offset, size)


def _all_there(raw: bytes, path: str, offset: int, size: int) -> bytes:
    if len(raw) < size:
        raise DataError(f"{path} ends early: expected {size} bytes at {offset}, got {len(raw)}; fetch it again")
    return raw


def _read_remote(place: str, path: str, offset: int | None, size: int | None) -> bytes:
    content = opened(path)
    offset, size = (0, len(content)) if offset is None or size is None else (offset, size)
    _refuse_large(place, size)
    return _all_there(content.span(offset, size), path, offset, size)


def _refuse_large(place: str, size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(f"{place} has {size} bytes; at most {MAX_BYTES} are read")


# --- images inside Parquet ---------------------------------------------------------------------------


def _read_row(table: str, row: int, column: str) -> bytes:
    stamp = _stamp(table)
    with _ONE_AT_A_TIME:  # several threads want neighbouring rows: one of them reads the group
        starts = _group_starts(table, stamp)
        group = int(np.searchsorted(starts, row, side="right")) - 1
        if not 0 <= row < starts[-1]:
            raise DataError(f"{table} has {starts[-1]} rows, expected an image in row {row}; it was changed")
        cells = _row_group(table, stamp, column, group)
        cell = cells[row - int(starts[group])]
    raw = cell.as_py()
    if raw is None:
        raise DataError(f"row {row} of {column!r} of {table} holds no image bytes")
    _refuse_large(f"row {row} of {table}", len(raw))
    return raw


_ONE_AT_A_TIME = threading.Lock()


def _stamp(table: str) -> tuple[int | str, ...]:
    """What changes when a table does."""
    if is_remote(table):
        return (opened(table).key,)
    status = Path(table).stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _group_starts(table: str, _stamp: tuple[int | str, ...]) -> np.ndarray:
    try:
        with pq.ParquetFile(arrow_source(named_in_data(table))) as file:
            groups = range(file.metadata.num_row_groups)
            return np.cumsum([0, *(file.metadata.row_group(group).num_rows for group in groups)])
    except pa.ArrowException as error:
        raise DataError(f"{table} does not read as Parquet: {error}; fetch it again") from error


@lru_cache(maxsize=4)
def _row_group(table: str, _stamp: tuple[int | str, ...], column: str, group: int) -> pa.ChunkedArray:
    try:
        with pq.ParquetFile(arrow_source(named_in_data(table)), memory_map=True) as file:
            size = file.metadata.row_group(group).total_byte_size
            if size > _MAX_ROW_GROUP:
                raise DataError(
                    f"row group {group} of {table} has {size} bytes, at most {_MAX_ROW_GROUP} are held in memory; "
                    "write it with smaller row groups"
                )
        cells = read_cells(named_in_data(table), group, column)
        cells.validate(full=True)
    except (pa.ArrowException, IndexError, KeyError) as error:
        raise DataError(f"{table} has no readable column {column!r}: {error}; fetch it again") from error
    kind = cells.type
    if pa.types.is_struct(kind):
        cells = pa.chunked_array([chunk.field(0) for chunk in cells.chunks], kind.field(0).type)
    return cells


# --- pixels ------------------------------------------------------------------------------------------

# AVIF's decoder raises RuntimeError; the bomb warning is raised where warnings are errors
_UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode(raw: bytes, place: str = "image") -> Image.Image:
    """The RGB image in `raw` (JPEG, PNG, WebP, ...), its pixels loaded. Transparency is dropped, as open_clip does.

    Raises `DataError` where it does not decode, has more than 64 million pixels, or more scans than an encoder writes.
    """
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            refuse_bomb(raw, image, place)
            return to_rgb(image, place)
    except UnidentifiedImageError as error:  # whose own words name a buffer in memory
        raise DataError(f"{place} does not decode: it is damaged, or of no known format") from error
    except MemoryError as error:
        raise DataError(f"{place} does not decode: it asks for more memory than there is") from error
    except _UNDECODABLE as error:
        raise DataError(f"{place} does not decode: {error}") from error


def refuse_bomb(raw: bytes, image: Image.Image, place: str) -> None:
    """Raise `DataError` for an opened, not yet loaded image whose decoding would take too much memory or time."""
    pixels = image.width * image.height
    most = _MAX_PIXELS_OF.get(image.format or "", MAX_PIXELS)
    if pixels > most:
        raise DataError(f"{place} has {image.width}x{image.height} pixels; at most {most} are decoded")
    if too_many_scans(raw, pixels):
        raise DataError(
            f"{place} is a JPEG of {jpeg_scans(raw)} scans over {image.width}x{image.height} pixels; at most "
            f"{MAX_SCANS} scans are decoded, and {_MAX_SCANNED} pixels in all of them"
        )


def jpeg_scans(raw: bytes) -> int:
    """Number of start-of-scan markers in a JPEG (those of an embedded preview included), 0 for what is none.

    Within coded data 0xFF is followed by 0x00 (ITU-T T.81, B.1.1.5), so counting needs no parser.
    """
    return raw.count(b"\xff\xda") if raw.startswith(b"\xff\xd8") else 0


def too_many_scans(raw: bytes, pixels: int) -> bool:
    """Whether decoding a JPEG of `pixels` would pass over it more often than any encoder asks for."""
    scans = jpeg_scans(raw)
    return scans > MAX_SCANS or scans * pixels > _MAX_SCANNED


def to_rgb(image: Image.Image, place: str = "image") -> Image.Image:
    """An image of any mode as 8-bit RGB.

    Pillow clips greys of 16 bits at 255, so that they come out white: here they are scaled, 65535 to 255. Numbers of
    32 bits, whole or not, have no scale: `DataError`.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        deep = np.asarray(image).astype(np.uint32)
        if int(deep.max(initial=0)) > 65_535:
            raise DataError(f"{place} holds greys above 65535; convert it to 8 or 16 bits")
        return Image.fromarray(((deep * 2 + 257) // 514).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(f"{place} holds numbers of 32 bits, which have no scale of greys; convert it to 8 or 16 bits")
    return image.convert("RGB")


def narrowed(image: Image.Image) -> Image.Image:
    """`image` without the ends that no crop of its middle shows: at most `MAX_RATIO` times as long as wide.

    To be called before the shorter side is resized: a PNG of 1 x 20,000 pixels would become one of 224 x 4,480,000.
    Images of ordinary proportions are given back as they are.
    """
    width, height = image.size
    if max(width, height) <= MAX_RATIO * min(width, height):
        return image
    if width > height:
        # an even number less: the middle stays where it was
        side = MAX_RATIO * height + (width - MAX_RATIO * height) % 2
        left = (width - side) // 2
        return image.crop((left, 0, left + side, height))
    side = MAX_RATIO * width + (height - MAX_RATIO * width) % 2
    top = (height - side) // 2
    return image.crop((0, top, width, top + side))
