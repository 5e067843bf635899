"""From a place (a file, or a span inside a tar shard) to bytes, and from bytes to an image."""

from __future__ import annotations

import io
import os
import re
from functools import lru_cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mithridate.errors import DataError

# Data come from strangers: a 40-kB file can claim 30 gigapixels.
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
# Pillow would try every format it knows, and hands EPS to Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000")

_SPAN = re.compile(r"^(?P<shard>.*)#(?P<offset>\d+)\+(?P<size>\d+)$", re.DOTALL)


def span_place(shard: str | os.PathLike[str], offset: int, size: int) -> str:
    """The place of `size` bytes at `offset` of a tar shard."""
    return f"{os.fspath(shard)}#{offset}+{size}"


def split_place(place: str) -> tuple[str, int | None, int | None]:
    """(path, offset, size); offset and size are None for a file of its own."""
    match = _SPAN.match(place)
    if match is None:
        return place, None, None
    return match["shard"], int(match["offset"]), int(match["size"])


class _Shard:
    """An open tar file; closed when the cache below drops it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(maxsize=64)
def _open_shard(path: str, _modified: int) -> _Shard:
    return _Shard(path)


def read_bytes(place: str) -> bytes:
    """The bytes of an image. Safe to call from several threads.

    Raises `DataError` where the place does not exist, ends early, or is larger than 64 MiB.
    """
    path, offset, size = split_place(place)
    try:
        if offset is None or size is None:
            size = Path(path).stat().st_size
            _refuse_large(place, size)
            return Path(path).read_bytes()
        _refuse_large(place, size)
        shard = _open_shard(path, Path(path).stat().st_mtime_ns)
        raw = os.pread(shard.descriptor, size, offset)
    except OSError as error:
        raise DataError(f"cannot read {place}: {error.strerror or error}") from error
    if len(raw) < size:
        raise DataError(f"{path} ends early: expected {size} bytes at {offset}, got {len(raw)}; fetch it again")
    return raw


def _refuse_large(place: str, size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(f"{place} has {size} bytes; at most {MAX_BYTES} are read")


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
    """The RGB image in `raw` (JPEG, PNG, WebP, ...), its pixels loaded.

    Raises `DataError` where it does not decode or has more than 64 million pixels.
    """
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{place} has {image.width}x{image.height} pixels; at most {MAX_PIXELS} are decoded")
            return image.convert("RGB")
    except UnidentifiedImageError as error:  # whose own words name a buffer in memory
        raise DataError(f"{place} does not decode: it is damaged, or of no known format") from error
    except _UNDECODABLE as error:
        raise DataError(f"{place} does not decode: {error}") from error
