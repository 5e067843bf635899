"""Images with a text file of the same name beside each: img2dataset's `files`, and what diffusion is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from mithridate.data.encodings import decode_text
from mithridate.data.images import read_bytes
from mithridate.data.left_out import Tally
from mithridate.data.pairs import Pairs, make_pairs
from mithridate.data.shards import IMAGE_ENDINGS, OTHER_IMAGES
from mithridate.data.splits import split_of_folder
from mithridate.errors import DataError
from mithridate.remote.paths import walk

CAPTION_ENDINGS = ("txt", "caption")
_LOOKED_AT = 100  # folders: one of class folders may hold millions of images and no caption
_MAX_TEXT = 2**20


def has_caption_files(root: Path) -> bool:
    """Whether an image in the first folders below `root` has a caption file beside it."""
    return any(captions for _, images, captions in islice(_folders(root), _LOOKED_AT) if images.keys() & captions)


def read_caption_files(root: Path, *, encoding: str | None = None) -> Pairs:
    """A pair for each image below `root` that has `NAME.txt` or `NAME.caption` beside it.

    The whole file is one caption. Folders named after splits are splits. Images without a caption, captions without
    an image and images of other endings are counted. Raises `DataError` for texts in another encoding or
    of more than a MiB.
    """
    tally = Tally()
    places: list[str] = []
    texts: list[str] = []
    splits: list[str | None] = []
    known_by: list[str] = []
    for folder, images, captions in _folders(root, tally):
        parts = folder.relative_to(root).parts
        split = next(filter(None, map(split_of_folder, parts)), None)
        where = folder.resolve()
        for stem, name in images.items():
            if stem not in captions:
                tally.add("no-caption", str(folder / name))
                continue
            source = where / captions.pop(stem)
            if source.stat().st_size > _MAX_TEXT:
                raise DataError(
                    f"{source} has {source.stat().st_size} bytes; at most {_MAX_TEXT} of a caption are read"
                )
            places.append(str(where / name))
            texts.append(decode_text(read_bytes(str(source)), str(source), encoding).rstrip("\r\n"))
            splits.append(split)
            known_by.append("/".join((*parts, name)))
        for name in captions.values():
            tally.add("no-image", str(folder / name))
    return make_pairs(
        places,
        texts,
        split=pa.array(splits, pa.string()),
        salt="\n".join(f"{name}\t{text}" for name, text in zip(known_by, texts)).encode(),
        report=tally.report(),
    )


def _folders(root: Path, tally: Tally | None = None) -> Iterator[tuple[Path, dict[str, str], dict[str, str]]]:
    """Each folder from `root` on, in order, with the names of its images and of its caption files by their stems."""
    for parent, below, names in walk(root):
        below[:] = sorted(name for name in below if not name.startswith((".", "__MACOSX")))
        images: dict[str, str] = {}
        captions: dict[str, str] = {}
        for name in sorted(names):
            stem, _, ending = name.rpartition(".")
            ending = ending.lower()
            if name.startswith(".") or not stem:
                continue
            if ending in IMAGE_ENDINGS:
                if stem in images and tally is not None:
                    tally.add("second-image", str(parent / name))
                images.setdefault(stem, name)
            elif ending in CAPTION_ENDINGS:
                captions.setdefault(stem, name)
            elif ending in OTHER_IMAGES and tally is not None:
                tally.add("unread-ending", str(parent / name))
        yield parent, images, captions
