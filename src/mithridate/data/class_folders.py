"""Images in folders named after their classes, on disk or inside a zip, also below train/ and test/."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from mithridate.data.left_out import Tally
from mithridate.data.locations import INPUTS, span_place, split_place
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.data.shards import IMAGE_ENDINGS, OTHER_IMAGES
from mithridate.data.splits import split_of_folder
from mithridate.errors import DataError
from mithridate.remote.paths import file_size, walk

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2", ".jfif")
# of a set's folder, not of its images
_USUAL = ("readme", "license", "licence", "classnames.txt", "zeroshot_classification_templates.txt")


def read_class_folders(root: Path) -> Pairs:
    """The images below `root`, where each lies."""
    files: list[tuple[tuple[str, ...], str]] = []
    folders: list[tuple[str, ...]] = []
    tally = Tally()
    for parent, below, names in walk(root):
        below[:] = sorted(name for name in below if not _hidden(name))
        parts = parent.relative_to(root).parts
        folders += [(*parts, name) for name in below]
        where = parent.resolve()
        for name in sorted(names):
            if _is_image(name) and not _hidden(name):
                files.append((parts, str(where / name)))
            else:
                _count(name, str(where / name), tally)
    return _from_tree(files, folders, root, tally)


def read_zip(path: Path) -> Pairs:
    """Images of a zip, each a span of it; nothing is unpacked, so where its names point does not matter."""
    files: list[tuple[tuple[str, ...], str]] = []
    folders: list[tuple[str, ...]] = []
    tally = Tally()
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
                else:
                    _count(name, f"{member.filename} in {path}", tally)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise DataError(f"{path} does not read as a zip: {error}; fetch it again, or unpack it") from error
    if not files:
        raise DataError(f"{path} holds no image ({', '.join(_IMAGES)}); expected CLASS/NAME.jpg")
    return _from_tree(files, folders, path, tally)


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


def _count(name: str, where: str, tally: Tally) -> None:
    """Count a file that is not read; what every set has beside its images, and what is hidden, is not counted."""
    ending = name.lower().rpartition(".")[2]
    if ending in (*IMAGE_ENDINGS, *OTHER_IMAGES):
        tally.add("unread-ending", where)
    elif not _hidden(name) and not name.lower().startswith(_USUAL):
        tally.add("other-file", where)


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _from_tree(
    files: list[tuple[tuple[str, ...], str]], folders: list[tuple[str, ...]], root: Path, tally: Tally
) -> Pairs:
    """Images by the folders above each: CLASS/..., SPLIT/CLASS/..., CLASS/SPLIT/..., or any below one folder."""
    if not files:
        raise DataError(f"{root} holds no image ({', '.join(_IMAGES)}) in class folders; expected CLASS/NAME.jpg")
    depth, splits = _depth_of_classes(files, root)
    at = depth + 1 if splits else depth
    classes = [parts[at] for parts, _ in files]
    empty = {parts[: at + 1] for parts in folders if len(parts) == at + 1} - {parts[: at + 1] for parts, _ in files}
    if empty:
        raise DataError(f"the class folder {'/'.join(min(empty))!r} of {root} holds no image; fill it or remove it")
    for name in {*classes, *(place for _, place in files)}:
        if any("\ud800" <= sign <= "\udfff" for sign in name):
            raise DataError(f"{name!r} of {root} is not UTF-8; rename it")
    if splits:
        split = [split_of_folder(parts[depth]) for parts, _ in files]
    else:  # CLASS/train/..., as anomaly detection has it
        below = [parts[at + 1] if len(parts) > at + 1 else "" for parts, _ in files]
        split = [split_of_folder(name) for name in below]
        split = split if None not in split else [None] * len(files)
    return make_pairs(
        [place for _, place in files],
        [""] * len(files),
        labels=[[name] for name in classes],
        split=pa.array(split, pa.string()),
        salt="\n".join(map(_known_by, files)).encode(),
        report=tally.report(),
    )


def _depth_of_classes(files: list[tuple[tuple[str, ...], str]], root: Path) -> tuple[int, bool]:
    """How deep the folders lie that tell images apart, and whether these are splits (with classes in them)."""
    depth = 0
    while True:
        loose = [place for parts, place in files if len(parts) <= depth]
        if loose:
            raise DataError(
                f"{len(loose)} images of {root} lie in no class folder, as {loose[0]}; sort them into one ({INPUTS})"
            )
        tops = {parts[depth] for parts, _ in files}
        flat = {parts[depth] for parts, _ in files if len(parts) == depth + 1}  # images lie in it: a class
        named = {top for top in tops if split_of_folder(top) is not None}
        if named == tops and flat:
            raise DataError(
                f"{root} has images in the split folders {some(sorted(flat))} themselves; expected a folder for each "
                f"class in them ({INPUTS})"
            )
        # among classes a folder of trains is a class, one of folders is a split
        splits = named - flat
        if splits and splits != tops:
            raise DataError(
                f"{root} holds both splits ({some(sorted(splits))}) and other folders "
                f"({some(sorted(tops - splits))}); move the others away, or name the split's folder alone"
            )
        if splits or flat or len(tops) > 1:
            return depth, bool(splits)
        depth += 1


def _known_by(file: tuple[tuple[str, ...], str]) -> str:
    """What tells an image from others and stays when its set is moved: folders, name or position, size."""
    parts, place = file
    path, offset, size = split_place(place)
    return "/".join(parts) + (f"#{offset}+{size}" if size else f"/{Path(path).name}+{file_size(path)}")
