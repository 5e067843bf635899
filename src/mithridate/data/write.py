"""Pairs written as a table, as tar shards or as an image folder, so that nothing tells one pair from another."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mithridate.data.fields import Origin, SampleFields, carried_over, own_keys
from mithridate.data.locations import as_places
from mithridate.data.pairs import Pairs
from mithridate.data.records import BLOCK, describe_records, read_ahead, record_places, record_rows
from mithridate.data.shards import IMAGE_ENDINGS
from mithridate.data.signature import signed
from mithridate.engine.calls import Engine
from mithridate.engine.run import gather
from mithridate.errors import DataError
from mithridate.folders import new_folder, replacing
from mithridate.leftovers import beside, sweep
from mithridate.remote.paths import is_remote, location

Form = Literal["table", "parquet", "webdataset", "imagefolder"]

# ending -> its magic bytes and where they stand
_MAGIC = {
    "jpg": ((0, b"\xff\xd8\xff"),),
    "png": ((0, b"\x89PNG\r\n\x1a\n"),),
    "webp": ((0, b"RIFF"), (8, b"WEBP")),
    "gif": ((0, b"GIF8"),),
    "bmp": ((0, b"BM"),),
    "tif": ((0, b"II*\0"),),
    "tiff": ((0, b"MM\0*"),),
}


def convert(
    pairs: Pairs,
    out: str | Path,
    *,
    to: Form,
    overwrite: bool = False,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
) -> Path:
    """`out`, a new folder with `pairs` in another layout; "parquet" leaves the images where they are.

    `engine` copies the images; the bytes are the same wherever it does."""
    if to not in WRITERS:
        raise DataError(f"the layout must be one of {', '.join(WRITERS)}, got {to!r}")
    out = location(out)
    with new_folder(out, overwrite=overwrite) as folder:
        WRITERS[to](pairs, folder, engine=engine)
    return out


def write_table(
    pairs: Pairs,
    out: Path,
    *,
    copy_images: bool,
    records: np.ndarray | None = None,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
) -> None:
    """`pairs.parquet` in the empty folder `out`, and with `copy_images` every image in `images/`.

    `records` (n,) says which pairs are one image record (default: those of one image). Each record gets a copy of
    its image, its bytes untouched, under a name that means nothing; `open_clip.csv` beside it is for open_clip's own
    reader, which is run from inside `out`: columns filepath and title, separated by tabs. Without `copy_images` the
    table has the places where the images lie, relative for those in `out`.
    """
    if copy_images:
        members = record_rows(pairs, records)
        names = np.empty(len(pairs), dtype=object)
        for rows, name in zip(members, _copy_images(pairs, members, out, engine)):
            names[rows] = name
        places = pa.array(names, pa.string())
        _write_csv(names.tolist(), pairs.text, out / "open_clip.csv")
    else:
        places = _relative(pairs.image, out)
    table = pairs.with_columns(image=places).table
    if not copy_images:
        table = signed(table)
    pq.write_table(table, out / "pairs.parquet", compression="zstd")


def _write_csv(names: list[str], text: pa.ChunkedArray, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        # all quoted: a lone carriage return would end a row, and no cell is changed, as programs read this table
        table = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_ALL)
        table.writerow(("filepath", "title"))
        for start in range(0, len(names), BLOCK):
            texts = map(_for_pandas, text[start : start + BLOCK].to_pylist())
            table.writerows(zip(names[start : start + BLOCK], texts))


# what pandas takes for a missing value, quoted or not (pandas.read_csv, na_values)
_MISSING = frozenset(
    [
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    ]
)


def _for_pandas(text: str) -> str:
    """A caption that pandas gives back as a string: open_clip would train on "nan" for those it takes for missing.

    They get a blank in front, which tokenizers drop. NUL, at which pandas ends a cell, becomes a blank.
    """
    text = text.replace("\0", " ")
    return f" {text}" if text in _MISSING else text


def write_imagefolder(
    pairs: Pairs,
    out: Path,
    *,
    copy_images: bool = True,
    records: np.ndarray | None = None,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
) -> None:
    """`metadata.jsonl` in `out`: a line for an image record, its captions in a list, as Hugging Face reads it.

    Images are copied as by `write_table`; without `copy_images` they must lie in `out` already. Columns beyond
    those that all `Pairs` have are left out.
    """
    members = record_rows(pairs, records, whole=True)
    if copy_images:
        names = _copy_images(pairs, members, out, engine)
    else:
        names = _relative(pa.chunked_array([record_places(pairs, members)], pa.string()), out).to_pylist()
        outside = next((name for name in names if Path(name).is_absolute() or is_remote(name) or "#" in name), None)
        if outside is not None:
            raise DataError(f"{outside} is no file in {out}; an image folder holds its images: copy them")
    with (out / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for name, record in zip(names, describe_records(pairs, members)):
            record = {"file_name": name, "text": record.pop("captions"), "uid": record.pop("uids"), **record}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_webdataset(
    pairs: Pairs,
    out: Path,
    *,
    records: np.ndarray | None = None,
    origin: Origin | None = None,
    samples_per_shard: int = 1000,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
) -> None:
    """Tar shards `00000.tar`, ... and `sizes.json` in the empty folder `out`; a sample is an image record.

    A sample is KEY.jpg (or .png, .webp; its bytes untouched), KEY.txt with the first caption, and KEY.json with
    all captions and uids, labels, split and key. KEY is the source's where every sample has one of its own, else the
    position. The same pairs give the same bytes. Other json fields of samples that come from shards stay (`origin`
    says which they are where images were exchanged); columns beyond those that all `Pairs` have are left out. `engine`
    writes the shards.
    """
    members = record_rows(pairs, records, whole=True)
    origin = Origin(pairs.image, pairs.image) if origin is None else origin
    first = pa.array([rows[0] for rows in members], pa.int64())
    own, shown = origin.own.take(first), origin.shown.take(first)
    places, starts = record_places(pairs, members), range(0, len(members), samples_per_shard)
    keys = None
    if pc.any(pc.match_substring_regex(own, r"#\d+\+\d+$")).as_py():  # others lie in no shard, and have no fields
        found = gather(_ReadKeys(), (own[at : at + samples_per_shard].to_pylist() for at in starts), engine=engine)
        keys = own_keys([key for part in found for key in part])
    described = describe_records(pairs, members)

    def shards() -> Iterator[_Shard]:
        for number, at in enumerate(starts):
            part = slice(at, at + samples_per_shard)
            images = places[part].to_pylist()
            yield _Shard(
                name=f"{number:05d}.tar",
                keys=[f"{at + i:09d}" for i in range(len(images))] if keys is None else keys[part],
                records=list(islice(described, len(images))),
                images=images,
                own=own[part].to_pylist(),
                shown=shown[part].to_pylist(),
            )

    sizes = dict(gather(_WriteShard(out), shards(), engine=engine))
    sweep(out, ended=False)  # of a worker that was killed
    (out / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")


@dataclass(frozen=True)
class _Shard:
    """Samples on their way to whoever writes their shard: a key, a record and an image each, and where the image of
    its own sample lies, and of that whose image it has."""

    name: str
    keys: list[str]
    records: list[dict[str, Any]]
    images: list[str]
    own: list[str]
    shown: list[str]


@dataclass(frozen=True)
class _WriteShard:
    """Writes shards into the folder `out`, each whole or not at all; gives a shard's name and its number of samples."""

    out: Path

    def begin(self) -> Callable[[_Shard], tuple[str, int]]:
        fields = SampleFields()
        return lambda shard: self.write(shard, fields)

    def write(self, shard: _Shard, fields: SampleFields) -> tuple[str, int]:
        with replacing(self.out / shard.name) as path, tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            each = zip(shard.keys, shard.records, read_ahead(shard.images), shard.own, shard.shown)
            for key, record, raw, own, shown in each:
                ending = image_ending(raw, f"the image of {record['uids'][0]}")
                if ending not in IMAGE_ENDINGS:
                    raise DataError(
                        f"tar shards take {', '.join(IMAGE_ENDINGS)}; the image of pair {record['uids'][0]} is "
                        f"{ending}: convert it, or write a table"
                    )
                its = fields.of(own)
                image = its if shown == own else fields.of(shown)
                record = carried_over(its, image, raw, {"key": key, **record})
                add_member(tar, f"{key}.{ending}", raw)
                add_member(tar, f"{key}.txt", record["captions"][0].encode())
                add_member(tar, f"{key}.json", json.dumps(record).encode())
        return shard.name, len(shard.keys)


@dataclass(frozen=True)
class _ReadKeys:
    """The keys that samples have in their source, found by the places of their images."""

    def begin(self) -> Callable[[list[str]], list[Any]]:
        fields = SampleFields()
        return lambda places: [fields.of(place).get("key") for place in places]


WRITERS: dict[str, Callable[..., None]] = {
    "table": partial(write_table, copy_images=True),
    "parquet": partial(write_table, copy_images=False),
    "webdataset": write_webdataset,
    "imagefolder": write_imagefolder,
}


def image_ending(raw: bytes, place: str) -> str:
    """The ending that fits what `raw` is, whatever its file was called."""
    for ending, marks in _MAGIC.items():
        if all(raw[at : at + len(mark)] == mark for at, mark in marks):
            return ending
    raise DataError(f"{place} is none of {', '.join(_MAGIC)}; convert it, or take its rows out")


def _relative(image: pa.ChunkedArray, out: Path) -> pa.ChunkedArray:
    """Absolute places, but relative ones for what lies in `out`, which may be moved."""
    image = as_places(image, Path.cwd(), Path("the pairs"))
    prefix = f"{out.resolve()}{os.sep}"
    inside = pc.starts_with(image, prefix)
    if not pc.any(inside).as_py():
        return image
    return pc.if_else(inside, pc.utf8_slice_codeunits(image, len(prefix)), image)


def _copy_images(pairs: Pairs, members: Sequence[np.ndarray], out: Path, engine: Engine) -> list[str]:
    """A copy of each record's image in `images/`; its name, drawn from the uid of the record's first pair."""
    uids = pairs.uid.take(pa.array([rows[0] for rows in members], pa.int64()))
    places = record_places(pairs, members)
    blocks = (slice(at, at + BLOCK) for at in range(0, len(members), BLOCK))
    both = ((uids[block].to_pylist(), places[block].to_pylist()) for block in blocks)
    copied = gather(_CopyImages(out), both, engine=engine)
    sweep(out / "images", ended=False)  # of a worker that was killed
    return [name for names in copied for name in names]


@dataclass(frozen=True)
class _CopyImages:
    """Copies images at some places into `out`, each whole or not at all; gives their names there."""

    out: Path

    def __call__(self, block: tuple[list[str], list[str]]) -> list[str]:
        names = []
        temporary = beside(self.out / "images" / "copy")
        for uid, raw in zip(block[0], read_ahead(block[1])):
            stem = hashlib.blake2b(uid.encode(), digest_size=16).hexdigest()
            name = f"images/{stem[:2]}/{stem}.{image_ending(raw, f'the image of pair {uid}')}"
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(raw)
            os.utime(temporary, (0, 0))  # the time of writing tells what was written together
            temporary.replace(self.out / name)
            names.append(name)
        return names


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # a fresh TarInfo has time 0, no owner and one mode: the header tells the name and the size alone
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
