"""Images in folders named after their classes, on disk or inside a zip, also below train/ and test/."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from mithridate.data.images import span_place, split_place
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.data.read import SPLIT_NAMES
from mithridate.errors import DataError

FOLDER_SPLITS = {*SPLIT_NAMES[0], *SPLIT_NAMES[1], "test"}

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")


def read_class_folders(root: Path) -> Pairs:
    """The images below `root`, where each lies."""
    files: list[tuple[tuple[str, ...], str]] = []
    folders: list[tuple[str, ...]] = []
    for parent, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not _hidden(name))
        parts = Path(parent).relative_to(root).parts
        folders += [(*parts, name) for name in below]
        where = Path(parent).resolve()
        files += [(parts, str(where / name)) for name in sorted(names) if _is_image(name) and not _hidden(name)]
    return _from_tree(files, folders, root)


def read_zip(path: Path) -> Pairs:
    """Images of a zip, each a span of it; nothing is unpacked, so where its names point does not matter."""
    files: list[tuple[tuple[str, ...], str]] = []
    folders: list[tuple[str, ...]] = []
    where = str(path.parent.resolve() / path.name)
    try:
        with path.open("rb") as raw, zipfile.ZipFile(raw) as archive:
            for member in sorted(archive.infolist(), key=lambda member: member.filename):
                *above, name = [part for part in member.filename.split("/") if part not in ("", ".", "..")] or [""]
                if any(map(_hidden, [*above, name])):
                    continue
                if member.is_dir():
                    folders.append((*above, name))
                elif _is_image(name):
                    files.append((tuple(above), span_place(where, _content(raw, member, path), member.file_size)))
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise DataError(f"{path} does not read as a zip: {error}; fetch it again, or unpack it") from error
    if not files:
        raise DataError(f"{path} holds no image ({', '.join(_IMAGES)}); expected CLASS/NAME.jpg")
    return _from_tree(files, folders, path)


def _content(raw: BinaryIO, member: zipfile.ZipInfo, path: Path) -> int:
    """Where the bytes of a stored member begin."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        how = "encrypted" if member.flag_bits & 1 else "compressed"
        raise DataError(
            f"{member.filename!r} in {path} is {how} and cannot be read in place: unpack the zip into a folder, "
            "and give the folder (or write the zip again with zip -0)"
        )
    raw.seek(member.header_offset)
    header = raw.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise DataError(f"{path} is damaged at {member.filename!r}; fetch it again")
    # name and extra field may differ in length from those in the central directory
    offset = (
        member.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    )
    if offset + member.file_size > path.stat().st_size:
        raise DataError(f"{path} ends early, within {member.filename!r}; fetch it again")
    return offset


def some(names: Sequence[str]) -> str:
    """The first few names, quoted."""
    shown = ", ".join(repr(name[:60]) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _is_image(name: str) -> bool:
    return name.lower().endswith(_IMAGES)


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _from_tree(files: list[tuple[tuple[str, ...], str]], folders: list[tuple[str, ...]], root: Path) -> Pairs:
    """Images by the folders above each: CLASS/..., SPLIT/CLASS/..., or either below one folder that holds all."""
    if not files:
        raise DataError(f"{root} holds no image ({', '.join(_IMAGES)}) in class folders; expected CLASS/NAME.jpg")
    depth = 0
    while True:
        loose = [place for parts, place in files if len(parts) <= depth]
        if loose:
            raise DataError(
                f"{len(loose):,} images of {root} lie in no class folder, as {loose[0]}; sort them into one"
            )
        tops = {parts[depth] for parts, _ in files}
        flat = {parts[depth] for parts, _ in files if len(parts) == depth + 1}  # images lie in it: a class
        # a folder of trains is a class, one of folders is a split
        splits = {top for top in tops - flat if top.lower() in FOLDER_SPLITS}
        if splits and splits != tops:
            raise DataError(
                f"{root} holds both splits ({some(sorted(splits))}) and other folders "
                f"({some(sorted(tops - splits))}); move the others away, or name the split's folder alone"
            )
        if splits or flat or len(tops) > 1:
            break
        depth += 1
    at = depth + 1 if splits else depth
    classes = [parts[at] for parts, _ in files]
    empty = {parts[: at + 1] for parts in folders if len(parts) == at + 1} - {parts[: at + 1] for parts, _ in files}
    if empty:
        raise DataError(f"the class folder {'/'.join(min(empty))!r} of {root} holds no image; fill it or remove it")
    split = pa.array([parts[depth] for parts, _ in files], pa.string()) if splits else None
    for name in {*classes, *(place for _, place in files)}:
        if any("\ud800" <= sign <= "\udfff" for sign in name):
            raise DataError(f"{name!r} of {root} is not UTF-8; rename it")
    return make_pairs(
        [place for _, place in files],
        [""] * len(files),
        labels=[[name] for name in classes],
        split=split,
        salt="\n".join(map(_known_by, files)).encode(),
    )


def _known_by(file: tuple[tuple[str, ...], str]) -> str:
    """What tells an image from others and stays when its set is moved: folders, name or position, size."""
    parts, place = file
    path, offset, size = split_place(place)
    return "/".join(parts) + (f"#{offset}+{size}" if size else f"/{Path(path).name}+{Path(path).stat().st_size}")
