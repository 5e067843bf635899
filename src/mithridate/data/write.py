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
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mithridate.data.fields import Origin, SampleFields, carried_over, own_keys
from mithridate.data.images import read_bytes
from mithridate.data.locations import as_places
from mithridate.data.pairs import Pairs
from mithridate.data.shards import IMAGE_ENDINGS
from mithridate.data.signature import signed
from mithridate.errors import DataError
from mithridate.folders import new_folder
from mithridate.remote import is_remote, location
from mithridate.threads import thread_count

Form = Literal["table", "parquet", "webdataset", "imagefolder"]

_BLOCK = 1000
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


def convert(pairs: Pairs, out: str | Path, *, to: Form, overwrite: bool = False) -> Path:
    """`out`, a new folder with `pairs` in another layout; "parquet" leaves the images where they are."""
    if to not in WRITERS:
        raise DataError(f"the layout must be one of {', '.join(WRITERS)}, got {to!r}")
    out = location(out)
    with new_folder(out, overwrite=overwrite) as folder:
        WRITERS[to](pairs, folder)
    return out


def write_table(pairs: Pairs, out: Path, *, copy_images: bool, records: np.ndarray | None = None) -> None:
    """`pairs.parquet` in the empty folder `out`, and with `copy_images` every image in `images/`.

    `records` (n,) says which pairs are one image record (default: those of one image). Each record gets a copy of
    its image, its bytes untouched, under a name that means nothing; `open_clip.csv` beside it is for open_clip's own
    reader, which is run from inside `out`: columns filepath and title, separated by tabs. Without `copy_images` the
    table has the places where the images lie, relative for those in `out`.
    """
    if copy_images:
        members = _members(pairs, records)
        names = np.empty(len(pairs), dtype=object)
        for rows, name in zip(members, _copy_images(pairs, members, out)):
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
        for start in range(0, len(names), _BLOCK):
            texts = map(_for_pandas, text[start : start + _BLOCK].to_pylist())
            table.writerows(zip(names[start : start + _BLOCK], texts))


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


def write_imagefolder(pairs: Pairs, out: Path, *, copy_images: bool = True, records: np.ndarray | None = None) -> None:
    """`metadata.jsonl` in `out`: a line for an image record, its captions in a list, as Hugging Face reads it.

    Images are copied as by `write_table`; without `copy_images` they must lie in `out` already. Columns beyond
    those that all `Pairs` have are left out.
    """
    members = _members(pairs, records, whole=True)
    if copy_images:
        names = _copy_images(pairs, members, out)
    else:
        names = _relative(pa.chunked_array([_places(pairs, members)], pa.string()), out).to_pylist()
        outside = next((name for name in names if Path(name).is_absolute() or is_remote(name) or "#" in name), None)
        if outside is not None:
            raise DataError(f"{outside} is no file in {out}; an image folder holds its images: copy them")
    with (out / "metadata.jsonl").open("w", encoding="utf-8") as file:
        for name, record in zip(names, _describe(pairs, members)):
            record = {"file_name": name, "text": record.pop("captions"), "uid": record.pop("uids"), **record}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def write_webdataset(
    pairs: Pairs,
    out: Path,
    *,
    records: np.ndarray | None = None,
    origin: Origin | None = None,
    samples_per_shard: int = 1000,
) -> None:
    """Tar shards `00000.tar`, ... and `sizes.json` in the empty folder `out`; a sample is an image record.

    A sample is KEY.jpg (or .png, .webp; its bytes untouched), KEY.txt with the first caption, and KEY.json with
    all captions and uids, labels, split and key. KEY is the source's where every sample has one of its own, else the
    position. The same pairs give the same bytes. Other json fields of samples that come from shards stay (`origin`
    says which they are where images were exchanged); columns beyond those that all `Pairs` have are left out.
    """
    members = _members(pairs, records, whole=True)
    described = _describe(pairs, members)
    images = _read_ahead(_places(pairs, members))
    origin = Origin(pairs.image, pairs.image) if origin is None else origin
    first = pa.array([rows[0] for rows in members], pa.int64())
    own, shown = origin.own.take(first), origin.shown.take(first)
    fields = SampleFields()
    keys = own_keys([fields.of(place.as_py()).get("key") for place in own])
    sizes: dict[str, int] = {}
    for start in range(0, len(members), samples_per_shard):
        shard = f"{len(sizes):05d}.tar"
        sizes[shard] = min(samples_per_shard, len(members) - start)
        with tarfile.open(out / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for position in range(start, start + sizes[shard]):
                key = f"{position:09d}" if keys is None else keys[position]
                raw, record = next(images), next(described)
                ending = image_ending(raw, f"the image of {record['uids'][0]}")
                if ending not in IMAGE_ENDINGS:
                    raise DataError(
                        f"tar shards take {', '.join(IMAGE_ENDINGS)}; the image of pair {record['uids'][0]} is "
                        f"{ending}: convert it, or write a table"
                    )
                its, image = (fields.of(place[position].as_py()) for place in (own, shown))
                record = carried_over(its, image, raw, {"key": key, **record})
                _add(tar, f"{key}.{ending}", raw)
                _add(tar, f"{key}.txt", record["captions"][0].encode())
                _add(tar, f"{key}.json", json.dumps(record).encode())
    (out / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")


WRITERS: dict[str, Callable[[Pairs, Path], None]] = {
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


def _members(pairs: Pairs, records: np.ndarray | None, *, whole: bool = False) -> list[np.ndarray]:
    """The rows of each image record, records in order of first appearance.

    With `whole`, pairs of one record that differ in labels or split are records of their own: the layouts that
    keep one entry a record have room for one of each.
    """
    image = pairs.image_index.astype(np.int64)
    ids = image if records is None else np.unique(records, return_inverse=True)[1].reshape(-1)
    if len(ids) != len(pairs):
        raise ValueError(f"records must name one record a pair, expected {len(pairs)} of them, got {len(ids)}")
    if whole:
        codes = np.unique(row_codes(pairs), return_inverse=True)[1]
        ids = ids * (int(codes.max(initial=0)) + 1) + codes
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]][: len(ids)])
    mixed = np.r_[False, (ids[1:] == ids[:-1]) & (image[order][1:] != image[order][:-1])][: len(ids)]
    if mixed.any():
        raise ValueError(f"pairs of one record must share one image, row {order[mixed][0]} has another")
    members = np.split(order, starts[1:]) if len(ids) else []
    return sorted(members, key=lambda rows: rows[0])


def row_codes(pairs: Pairs) -> np.ndarray:
    """(n,) numbers, equal where labels and split of two rows are; no sign inside a name makes two of them one."""
    flat = pc.list_flatten(pairs.labels).dictionary_encode().unify_dictionaries().combine_chunks()
    lengths = pc.list_value_length(pairs.labels).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    numbers = pa.ListArray.from_arrays(pa.array(offsets), flat.indices.cast(pa.string()))
    joined = pc.binary_join(numbers, " ").dictionary_encode().indices.to_numpy().astype(np.int64)
    split = pairs.split.dictionary_encode().unify_dictionaries().combine_chunks()
    parts = split.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return joined * (len(split.dictionary) + 1) + parts + 1


def _places(pairs: Pairs, members: Sequence[np.ndarray]) -> pa.Array:
    """The place of each record's image."""
    return pairs.images.take(pa.array([pairs.image_index[rows[0]] for rows in members], pa.int32()))


def _relative(image: pa.ChunkedArray, out: Path) -> pa.ChunkedArray:
    """Absolute places, but relative ones for what lies in `out`, which may be moved."""
    image = as_places(image, Path.cwd(), Path("the pairs"))
    prefix = f"{out.resolve()}{os.sep}"
    inside = pc.starts_with(image, prefix)
    if not pc.any(inside).as_py():
        return image
    return pc.if_else(inside, pc.utf8_slice_codeunits(image, len(prefix)), image)


def _read_ahead(places: pa.Array) -> Iterator[bytes]:
    """The bytes at each place, in order, read by several threads and one block ahead."""
    with ThreadPoolExecutor(thread_count()) as pool:
        for start in range(0, len(places), _BLOCK):
            yield from pool.map(read_bytes, places[start : start + _BLOCK].to_pylist())


def _copy_images(pairs: Pairs, members: Sequence[np.ndarray], out: Path) -> list[str]:
    """A copy of each record's image in `images/`; its name, drawn from the uid of the record's first pair."""
    uids = pairs.uid.take(pa.array([rows[0] for rows in members], pa.int64())).to_pylist()
    names = []
    for uid, raw in zip(uids, _read_ahead(_places(pairs, members))):
        stem = hashlib.blake2b(uid.encode(), digest_size=16).hexdigest()
        path = out / "images" / stem[:2] / f"{stem}.{image_ending(raw, f'the image of pair {uid}')}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        os.utime(path, (0, 0))  # the time of writing tells what was written together
        names.append(path.relative_to(out).as_posix())
    return names


def _describe(pairs: Pairs, members: Sequence[np.ndarray]) -> Iterator[dict[str, Any]]:
    """Captions, uids, labels and split of each record."""
    table = pairs.table.select(["text", "uid", "labels", "split"])
    for start in range(0, len(members), _BLOCK):
        part = members[start : start + _BLOCK]
        found = table.take(pa.array(np.concatenate(part))).to_pydict()
        at = 0
        for rows in part:
            here = slice(at, at + len(rows))
            yield {
                "captions": found["text"][here],
                "uids": found["uid"][here],
                "labels": found["labels"][at],
                "split": found["split"][at],
            }
            at += len(rows)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # a fresh TarInfo has time 0, no owner and one mode: the header tells the name and the size alone
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
