"""Where an image is: a file or a remote object, a span of a tar or zip, or a row of a Parquet table with images.

PATH                     a file
PATH.tar#OFFSET+SIZE     SIZE bytes at OFFSET of a tar shard (or of a zip)
PATH.parquet#ROW@COLUMN  the image bytes in row ROW of COLUMN

A PATH is one of this machine, or begins with a scheme (`s3://`): see `remote/paths.py`.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mithridate.errors import DataError
from mithridate.remote.drivers import SCHEMES
from mithridate.remote.paths import RemotePath, location

INPUTS = "docs/inputs.md"  # the page that errors about layouts and columns refer to

# a file may be called `a#1+2`: only within an archive is it a span
_SPAN = re.compile(r"^(?P<path>.*\.(?:tar|zip))#(?P<offset>\d{1,18})\+(?P<size>\d{1,18})$", re.DOTALL | re.IGNORECASE)
_ROW = re.compile(r"^(?P<path>.*\.parquet)#(?P<row>\d{1,18})@(?P<column>.+)$", re.DOTALL | re.IGNORECASE)


def span_place(shard: str | os.PathLike[str], offset: int, size: int) -> str:
    """The location of `size` bytes at `offset` of a tar shard or a zip."""
    return f"{os.fspath(shard)}#{offset}+{size}"


def row_location(table: str | os.PathLike[str], row: int, column: str) -> str:
    """The location of the image in `row` of `column` of a Parquet table."""
    return f"{os.fspath(table)}#{row}@{column}"


def split_place(place: str) -> tuple[str, int | None, int | None]:
    """(path, offset, size) of a location; offset and size are None for a file, of a table's row (path, row, None)."""
    match = _SPAN.match(place)
    if match is not None:
        return match["path"], int(match["offset"]), int(match["size"])
    row = split_row(place)
    return (place, None, None) if row is None else (row[0], row[1], None)


def split_row(location: str) -> tuple[str, int, str] | None:
    """(table, row, column) of an image inside a Parquet table, None for any other location."""
    match = _ROW.match(location)
    return None if match is None else (match["path"], int(match["row"]), match["column"])


def as_places(
    image: pa.ChunkedArray,
    folder: Path,
    path: Path | str,
    *,
    allow_outside: bool = True,
    within: Sequence[Path] = (),
    remedy: str = "",
) -> pa.ChunkedArray:
    """Names of images as absolute locations, relative ones taken from `folder`.

    Raises `DataError` for rows without a name, addresses that are not supported, names with NUL and, unless
    `allow_outside`, names that lead out of `folder` and of the folders `within`, also to remote objects: a table of a
    stranger would otherwise have a private file copied into an output.
    """
    roots = [_prefix(folder), *map(_prefix, within)]
    empty = pc.fill_null(pc.equal(image, ""), True)
    _refuse(
        image,
        empty,
        lambda count, row, _: f"{count} rows of {path} name no image, the first is row {row}",
        "remove them",
    )
    _refuse(
        image,
        _unsupported(image, roots, allow_outside),
        lambda count, row, name: f"{count} rows of {path} name web addresses such as {name} (row {row})",
        "fetch the images first (img2dataset)",
    )
    _refuse(
        image,
        pc.match_substring(image, "\0"),
        lambda count, row, name: (
            f"{count} image names of {path} hold a NUL character, the first is row {row}: {name!r}"
        ),
        "correct them",
    )
    root = roots[0]
    absolute = pc.or_(pc.starts_with(image, "/"), remote_names(image))
    if os.name == "nt":
        absolute = pc.or_(absolute, pc.match_substring_regex(image, r"^([A-Za-z]:|\\)"))
    if pc.all(absolute).as_py():
        places = image
    else:
        prefixed = pc.binary_replace_slice(image, 0, 0, root)
        places = pc.if_else(absolute, image, prefixed) if pc.any(absolute).as_py() else prefixed
    if allow_outside:
        _allow_addresses(places)
    else:
        outside = outside_of(places, roots)
        _refuse(
            image,
            outside,
            lambda count, row, name: f"{count} rows of {path} name images outside {folder}, as {name!r} (row {row})",
            remedy or "give the folder they are in as --image-root, or --allow-outside if you trust whoever wrote it",
        )
    return places


def outside_of(places: pa.ChunkedArray, roots: Iterable[str]) -> pa.ChunkedArray:
    """Which absolute locations lie below none of `roots` (each with a separator at its end), `..` taken into account.

    Symbolic links are not followed: a folder of links to images is a common way to share a disk. A server may read
    `%2e` as a dot, and a query as anything.
    """
    roots = list(roots)
    spelt = pc.and_(pc.starts_with(places, "https:"), pc.match_substring_regex(places, r"(?i)%(2e|2f|5c)|[\\?]"))
    climbing = pc.match_substring_regex(places, r"(^|[/\\])\.\.([/\\]|$)")
    plain = places
    if pc.any(climbing).as_py():
        plain = pa.chunked_array(
            [pa.array([os.path.normpath(place) for place in places.to_pylist()], pa.string())], pa.string()
        )
    inside = pc.starts_with(plain, roots[0])
    for root in roots[1:]:
        inside = pc.or_(inside, pc.starts_with(plain, root))
    return pc.or_(pc.invert(inside), spelt)


def remote_names(names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which names are those of remote objects."""
    return pc.match_substring_regex(names, f"^({'|'.join(SCHEMES)})://")


def _allow_addresses(places: pa.ChunkedArray) -> None:
    """Let remote images be read where the user says that a table may name what it likes."""
    remote = places.filter(remote_names(places))
    if len(remote):
        buckets = pc.struct_field(pc.extract_regex(remote, r"^(?P<bucket>[a-z0-9]+://[^/]+)"), "bucket")
        for bucket in pc.unique(buckets).drop_null().to_pylist():
            location(bucket)


def _unsupported(image: pa.ChunkedArray, roots: Sequence[str], allow_outside: bool) -> pa.ChunkedArray:
    """Which names are addresses that are not read: all that lead elsewhere, with `allow_outside` other schemes."""
    address = pc.match_substring_regex(image, r"^[A-Za-z][A-Za-z0-9+.-]+://")
    if not pc.any(address).as_py():
        return address
    read = remote_names(image)
    if not allow_outside:
        read = pc.and_(read, pc.invert(outside_of(image, roots)))
    return pc.and_(address, pc.invert(read))


def _refuse(image: pa.ChunkedArray, mask: pa.ChunkedArray, sentence, remedy: str) -> None:
    if pc.any(mask).as_py():
        row = pc.index(mask, True).as_py()
        name = image[row].as_py()
        raise DataError(f"{sentence(pc.sum(mask).as_py(), row + 1, None if name is None else name[:120])}; {remedy}")


def _prefix(folder: Path) -> str:
    """What absolute names below a folder begin with."""
    root = str(folder.resolve())
    return root if root.endswith(os.sep) else root + os.sep


_SAMPLE, _SAMPLE_REMOTE = 4096, 64  # names that are looked for in each candidate


def fullest_folder(candidates: Iterable[Path], names: Sequence[str | Path]) -> Path:
    """The one of `candidates` that holds most of `names`, the first where several do; absolute.

    Of many names a few thousand, evenly spread, are looked for.
    """
    folders = [folder.resolve() for folder in candidates]
    there = [folder for folder in folders if folder.is_dir()]
    if len(there) < 2:
        return there[0] if there else folders[0]
    step = max(1, len(names) // (_SAMPLE_REMOTE if isinstance(there[0], RemotePath) else _SAMPLE))
    sample = [str(name) for name in names[::step] if "\0" not in str(name)]

    def held(folder: Path) -> int:
        return sum((folder / name).is_file() for name in sample)

    return max(there, key=held)  # of equals the first
