"""Tar shards in the webdataset and img2dataset layout, indexed once and read in place."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from mithridate.data.columns import CAPTION_COLUMNS, refuse_duplicates
from mithridate.data.images import span_place
from mithridate.data.pairs import Pairs, concat_pairs, draw_uids, make_pairs
from mithridate.data.tables import file_salt, name_of, text_of
from mithridate.errors import DataError

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")
COMPRESSED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")

# in this order, as `captions` holds them all where `caption` holds one
_CAPTION_FIELDS = ("captions", *(name for name in CAPTION_COLUMNS if name != "captions"))
_LABEL_FIELDS = ("labels", "label", "class", "cls")


def read_shards(shards: Sequence[Path], *, caption_field: str | None = None, label_field: str | None = None) -> Pairs:
    """The pairs of tar shards; images stay where they are. Column `key` has the sample's name in its shard."""
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda shard: read_shard(shard, caption_field, label_field), shards))
    pairs = concat_pairs(parts)
    names = f"{shards[0]} ... {shards[-1]}" if len(shards) > 1 else str(shards[0])
    refuse_duplicates(pairs.uid, names, "give every shard once, and every pair a uid of its own")
    return pairs


def read_shard(shard: Path, caption_field: str | None = None, label_field: str | None = None) -> Pairs:
    """The pairs of one shard: a sample with several captions is several pairs, one without has the text ""."""
    keys, places, texts, labels, splits, uids = [], [], [], [], [], []
    seen: set[str] = set()
    path = str(shard.parent.resolve() / shard.name)
    for sample in _samples(shard):
        seen.update(sample.spans)
        ending = next((ending for ending in IMAGE_ENDINGS if ending in sample.spans), None)
        if ending is None or _download_failed(sample.record):
            continue
        captions = _captions(sample, caption_field)
        place = span_place(path, *sample.spans[ending])
        texts += captions
        keys += [sample.key] * len(captions)
        places += [place] * len(captions)
        labels += [_labels(sample, label_field)] * len(captions)
        splits += [text_of(sample.record.get("split"))] * len(captions)
        uids += _uids(sample.record, len(captions))
    if not places:
        endings = ", ".join(sorted(seen)[:8]) or "nothing"
        raise DataError(
            f"{shard} has no sample with an image: expected KEY.jpg, KEY.png or KEY.webp, got the endings "
            f"{endings}; the ending begins at the first dot of a name, so keys must have none"
        )
    drawn = draw_uids(len(uids), file_salt(shard))
    if any(uid is not None for uid in uids):
        drawn = pa.array([own or new for own, new in zip(uids, drawn.to_pylist())])
    return make_pairs(places, texts, labels=labels, split=pa.array(splits, pa.string()), uid=drawn, key=_names(keys))


def _names(keys: list[str]) -> pa.Array:
    return pa.array([text_of(key) for key in keys], pa.string())


@dataclass
class _Sample:
    key: str
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)  # ending -> (offset, size)
    record: dict[str, Any] = field(default_factory=dict)
    text: str | None = None
    label: str | None = None


def _samples(shard: Path) -> list[_Sample]:
    """The samples of a shard in order of first appearance, small members read."""
    samples: dict[str, _Sample] = {}
    with _mapped(shard) as data:
        for name, offset, size in tar_members(data, shard):
            folder, _, base = name.rpartition("/")
            stem, dot, ending = base.partition(".")
            if not dot or not stem:
                continue
            key, ending = f"{folder}/{stem}" if folder else stem, ending.lower()
            sample = samples.setdefault(key, _Sample(key))
            if ending in sample.spans:
                raise DataError(f"{shard} holds {name!r} twice; write it again with one member of each name")
            sample.spans[ending] = (offset, size)
            if ending == "json":
                sample.record = _record(data[offset : offset + size], shard, name)
            elif ending == "txt":
                sample.text = data[offset : offset + size].decode(errors="replace").rstrip("\r\n")
            elif ending == "cls":
                sample.label = data[offset : offset + size].decode(errors="replace").strip()
    return list(samples.values())


def _mapped(shard: Path) -> mmap.mmap:
    try:
        with shard.open("rb") as file:
            if file.read(2) == b"\x1f\x8b" or shard.name.lower().endswith(COMPRESSED):
                raise DataError(f"{shard} is compressed and cannot be read in place; unpack it to a plain .tar first")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise DataError(f"{shard} is empty; expected a tar shard, fetch or write it again") from error
    except OSError as error:
        raise DataError(f"cannot read {shard}: {error.strerror or error}") from error


def _record(raw: bytes, shard: Path, name: str) -> dict[str, Any]:
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name!r} in {shard} is not JSON: {error}; write the shard again") from error
    return record if isinstance(record, dict) else {}


def _download_failed(record: dict[str, Any]) -> bool:
    """Whether img2dataset, which always writes both fields, says so; others use `status` for other things."""
    return "error_message" in record and record.get("status") != "success"


def _captions(sample: _Sample, wanted: str | None) -> list[str]:
    """All captions of a sample; a list in its JSON goes before its .txt, which holds one, before JSON's string."""
    record = {name.lower(): value for name, value in sample.record.items()}
    if wanted is not None:
        value = sample.record.get(wanted)
    else:
        found = [record[name] for name in _CAPTION_FIELDS if name in record]
        lists = [value for value in found if isinstance(value, list) and value]
        value = next(iter([*lists, *([] if sample.text is None else [sample.text]), *found]), None)
    return [text_of(caption) or "" for caption in (value if isinstance(value, list) and value else [value])]


def _labels(sample: _Sample, wanted: str | None) -> list[str]:
    fields = _LABEL_FIELDS if wanted is None else (wanted,)
    value = next((sample.record[name] for name in fields if name in sample.record), sample.label)
    return [name for item in (value if isinstance(value, list) else [value]) if (name := name_of(item))]


def _uids(record: dict[str, Any], n: int) -> list[str | None]:
    """The uids that the sample itself has for its n captions."""
    listed = record.get("uids")
    if isinstance(listed, list) and len(listed) == n:
        return [name_of(uid) for uid in listed]
    return [name_of(record.get("uid"))] if n == 1 else [None] * n


_BLOCK = 512
_PAX_FIELD = re.compile(rb"(\d+) ([^=]+)=")


def tar_members(data: mmap.mmap | bytes, shard: Path) -> Iterator[tuple[str, int, int]]:
    """(name, offset of the content, size) of every regular file of a tar, long names understood.

    Touches the headers alone, which `tarfile` does several times slower. Raises `DataError` where the tar is cut short.
    """
    at, end = 0, len(data)
    long_name: str | None = None
    long_size: int | None = None
    while at + _BLOCK <= end:
        header = data[at : at + _BLOCK]
        at += _BLOCK
        if header == bytes(_BLOCK):
            return
        kind = header[156:157]
        size = _header_size(header, shard, at - _BLOCK)
        if long_size is not None and kind not in b"LKxg":
            size = long_size
        if kind not in b"123456":  # links, devices and folders have no content
            if at + size > end:
                break
            offset, at = at, at + -(-size // _BLOCK) * _BLOCK
            if kind == b"L":
                long_name = data[offset : offset + size].rstrip(b"\0").decode(errors="surrogateescape")
                continue
            if kind == b"x":
                name, long_size = _pax(data[offset : offset + size])
                long_name = name or long_name
                continue
            if kind in b"Kg":
                continue
            if kind in b"0\x007":
                yield long_name or _header_name(header), offset, size
        long_name, long_size = None, None
    raise DataError(f"{shard} ends early, at {end:,} bytes, without a tar's end mark; fetch or write it again")


def _header_size(header: bytes, shard: Path, at: int) -> int:
    try:
        stated = int(header[148:156].strip(b" \0"), 8)
        raw = header[124:136]
        size = int.from_bytes(raw[1:], "big") if raw[0] & 0x80 else int(raw.strip(b" \0") or b"0", 8)
    except ValueError:
        stated, size = -1, 0
    # the checksum counts its own field as eight blanks
    if stated != sum(header) - sum(header[148:156]) + 8 * 32:
        raise DataError(f"{shard} is no tar file, or is damaged at byte {at:,}; fetch or write it again")
    return size


def _header_name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return name.decode(errors="surrogateescape")


def _pax(raw: bytes) -> tuple[str | None, int | None]:
    """Name and size in an extended header: records "LENGTH KEY=VALUE\\n", LENGTH counting the whole record."""
    name, size, at = None, None, 0
    while match := _PAX_FIELD.match(raw, at):
        length = int(match[1])
        value = raw[match.end() : at + length - 1]
        if match[2] == b"path":
            name = value.decode(errors="surrogateescape")
        elif match[2] == b"size":
            size = int(value)
        if length <= 0:
            break
        at += length
    return name, size
