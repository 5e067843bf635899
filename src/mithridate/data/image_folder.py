"""Hugging Face's image folder: `metadata.csv`, `.jsonl` or `.parquet` beside the images, or in a folder a split."""

from __future__ import annotations

from pathlib import Path

from mithridate.data.formats import table_suffix
from mithridate.data.left_out import Tally
from mithridate.data.locations import INPUTS
from mithridate.data.splits import split_of_folder
from mithridate.errors import DataError


def metadata_files(folder: Path, tally: Tally | None = None) -> list[tuple[Path, str | None]]:
    """The metadata files of an image folder, each with the split that its folder names; nothing where it is none.

    All that there are, or `DataError`: two in one folder, or one above those of the splits, may tell twice of an
    image. Those in folders that are no splits are counted in `tally`.
    """
    above = _of(folder)
    below: list[tuple[Path, str | None]] = []
    unread: list[Path] = []
    for inside in sorted(path for path in folder.iterdir() if path.is_dir()):
        split = split_of_folder(inside.name)
        files = _of(inside)
        if split is None:
            unread += files
        else:
            below += [(file, split) for file in files]
    if above and below:
        names = ", ".join(str(file.relative_to(folder)) for file in [*above, *(file for file, _ in below)][:6])
        raise DataError(f"{folder} holds metadata above and in its splits ({names}); keep one kind, or name one file")
    if tally is not None and (above or below):
        for file in unread:
            tally.add("unread-file", str(file))
    return [(file, None) for file in above] or below


def _of(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.glob("metadata.*") if path.is_file() and table_suffix(path))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise DataError(f"{folder} holds {names}: they may tell twice of an image; remove all but one ({INPUTS})")
    return files
