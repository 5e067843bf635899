"""Tar shards in the webdataset and img2dataset layout, indexed once and read in place."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from mithridate.data.columns import CAPTION_COLUMNS, LABEL_COLUMNS, listed, match_name, plain_name, refuse_duplicates
from mithridate.data.encodings import decode_text
from mithridate.data.json_values import name_of, parse_json, text_of
from mithridate.data.left_out import ReadReport, Tally
from mithridate.data.locations import INPUTS, span_place
from mithridate.data.pairs import Pairs, concat_pairs, draw_uids, make_pairs
from mithridate.data.tables import file_salt
from mithridate.data.tar import open_tar, tar_members
from mithridate.engine.calls import Engine
from mithridate.engine.run import gather
from mithridate.errors import DataError
from mithridate.threads import thread_count

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")
# images as well, that open_clip's and most other readers of shards pass over
OTHER_IMAGES = ("gif", "tif", "tiff", "bmp", "avif", "heic", "heif", "jp2", "jxl", "ppm", "pgm", "svg", "jfif")

_MAX_TEXT = 16 * 2**20
# in this order, as `captions` holds them all where `caption` holds one
_CAPTION_FIELDS = ("captions", *(name for name in CAPTION_COLUMNS if name != "captions"))
_LABEL_FIELDS = ("labels", *(name for name in LABEL_COLUMNS if name != "labels"))


@dataclass(frozen=True)
class ShardFields:
    """What of a sample is what, where the user says it; names of json fields or endings of members."""

    caption: str | None = None
    label: str | None = None
    image: str | None = None
    encoding: str | None = None


def read_shards(
    shards: Sequence[Path],
    *,
    caption_field: str | None = None,
    label_field: str | None = None,
    image_field: str | None = None,
    encoding: str | None = None,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
) -> Pairs:
    """The pairs of tar shards; images stay where they are. Column `key` has the sample's name in its shard.

    A field that is named must occur in some sample, else `DataError` with those that do; samples without it are
    counted in the report, as is whatever else is left out. `engine` indexes the shards, as many at a time as a worker
    has threads.
    """
    wanted = ShardFields(caption_field, label_field, image_field, encoding)
    at_once = len(shards) if engine.alone else engine.threads
    bunches = [shards[low : low + at_once] for low in range(0, len(shards), at_once)]
    parts = [part for bunch in gather(_ReadShards(wanted), bunches, engine=engine) for part in bunch]
    names = f"{shards[0]} ... {shards[-1]}" if len(shards) > 1 else str(shards[0])
    _need_fields(wanted, parts, names)
    full = [part.pairs for part in parts if part.pairs is not None]
    if not full:
        endings = sorted({ending for part in parts for ending in part.endings})
        raise DataError(
            f"{names} has no sample with an image: expected KEY.jpg, KEY.png or KEY.webp, got the endings "
            f"{', '.join(endings[:8]) or 'nothing'}; the ending begins at the first dot of a name, so keys must have "
            f"none ({INPUTS})"
        )
    pairs = concat_pairs(full)
    refuse_duplicates(pairs.uid, names, "give every shard once, and every pair a uid of its own")
    report = ReadReport()
    for part in parts:
        report = report + part.report
    return Pairs(pairs.table, report)


def _need_fields(wanted: ShardFields, parts: Sequence[_Part], names: str) -> None:
    known = list(dict.fromkeys(name for part in parts for name in (*part.endings, *part.fields)))
    endings = [name for part in parts for name in part.endings]
    for option, name, among in (
        ("caption_field", wanted.caption, known),
        ("label_field", wanted.label, known),
        ("image_field", wanted.image, endings),
    ):
        if name is not None and match_name(name, among) is None:
            raise DataError(
                f"no sample of {names} has the {option} {name!r}; its fields are {listed(list(dict.fromkeys(among)))}"
            )


@dataclass(frozen=True)
class _Part:
    """What one shard holds: its pairs, None where it has no image, and all endings and json fields that occur."""

    pairs: Pairs | None
    endings: tuple[str, ...]
    fields: tuple[str, ...]
    report: ReadReport


@dataclass(frozen=True)
class _ReadShards:
    """What each of some shards holds, read side by side."""

    wanted: ShardFields

    def __call__(self, shards: Sequence[Path]) -> list[_Part]:
        with ThreadPoolExecutor(thread_count()) as pool:
            return list(pool.map(lambda shard: _read_shard(shard, self.wanted), shards))


def _read_shard(shard: Path, wanted: ShardFields) -> _Part:
    """A sample with several captions is several pairs, one without has the text ""."""
    tally = Tally()
    keys, places, texts, labels, splits, uids = [], [], [], [], [], []
    endings: dict[str, None] = {}
    fields: dict[str, None] = {}
    path = str(shard.parent.resolve() / shard.name)
    for sample in _samples(shard, wanted, tally):
        endings.update(dict.fromkeys(sample.spans))
        fields.update(dict.fromkeys(sample.record))
        ending = _image_of(sample, wanted.image, shard, tally)
        if ending is None:
            continue
        if _download_failed(sample.record):
            tally.add("failed-download", f"{sample.key} in {shard}")
            continue
        captions = _captions(sample, wanted.caption, shard, tally)
        places += [span_place(path, *sample.spans[ending])] * len(captions)
        texts += captions
        keys += [sample.key] * len(captions)
        labels += [_labels(sample, wanted.label)] * len(captions)
        splits += [text_of(sample.record.get("split"))] * len(captions)
        uids += _uids(sample.record, len(captions))
    report = tally.report()
    if not places:
        return _Part(None, tuple(endings), tuple(fields), report)
    drawn = draw_uids(len(uids), file_salt(shard))
    if any(uid is not None for uid in uids):
        drawn = pa.array([own or new for own, new in zip(uids, drawn.to_pylist())])
    split = pa.array(splits, pa.string())
    pairs = make_pairs(places, texts, labels=labels, split=split, uid=drawn, key=_names(keys))
    return _Part(pairs, tuple(endings), tuple(fields), report)


def _names(keys: list[str]) -> pa.Array:
    """Names of a tar are bytes: those that are no UTF-8 are spelled out, so that two of them stay two."""
    return pa.array([key.encode(errors="surrogateescape").decode(errors="backslashreplace") for key in keys])


@dataclass
class _Sample:
    key: str
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)  # ending -> (offset, size)
    record: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # ending -> content

    @property
    def lower(self) -> dict[str, Any]:
        return {plain_name(name): value for name, value in self.record.items()}


def _samples(shard: Path, wanted: ShardFields, tally: Tally) -> list[_Sample]:
    """The samples of a shard in order of first appearance, small members read."""
    samples: dict[str, _Sample] = {}
    named = [name.strip().lower() for name in (wanted.caption, wanted.label) if name is not None]
    with open_tar(shard) as data:
        for name, offset, size in tar_members(data, shard, tally):
            folder, _, base = name.rpartition("/")
            stem, dot, ending = base.partition(".")
            if not dot or not stem:
                tally.add("no-ending", f"{name} in {shard}")
                continue
            key, ending = f"{folder}/{stem}" if folder else stem, ending.lower()
            sample = samples.setdefault(key, _Sample(key))
            if ending in sample.spans:
                raise DataError(f"{shard} holds {name!r} twice; write it again with one member of each name")
            sample.spans[ending] = (offset, size)
            if ending not in ("json", "txt", "cls") and (ending not in named or ending in IMAGE_ENDINGS):
                continue
            if size > _MAX_TEXT:
                raise DataError(f"{name!r} in {shard} has {size} bytes; at most {_MAX_TEXT} of text are read")
            where = f"{name!r} in {shard}"
            text = decode_text(data[offset : offset + size], where, wanted.encoding)
            if ending == "json":
                record = parse_json(text, where, remedy="write the shard again")
                if isinstance(record, dict):
                    sample.record = record
                else:
                    tally.add("no-record", where)
            else:
                sample.texts[ending] = text
    return list(samples.values())


def _image_of(sample: _Sample, wanted: str | None, shard: Path, tally: Tally) -> str | None:
    """The ending of a sample's image; without one, None, and the reason is counted."""
    where = f"{sample.key} in {shard}"
    if wanted is not None:
        ending = match_name(wanted, sample.spans)
        if ending is None:
            tally.add("no-such-field", where)
        return ending
    known = [ending for ending in IMAGE_ENDINGS if ending in sample.spans]
    lasts = {ending: ending.rpartition(".")[2] for ending in sample.spans}
    dotted = [ending for ending, last in lasts.items() if "." in ending and last in (*IMAGE_ENDINGS, *OTHER_IMAGES)]
    others = [ending for ending in sample.spans if ending in OTHER_IMAGES]
    if len(known) > 1:
        tally.add("second-image", f"{sample.key}.{known[1]} in {shard}", len(known) - 1)
    if dotted:
        tally.add("dotted-key", f"{sample.key}.{dotted[0]} in {shard}", len(dotted))
    if others:
        tally.add("unread-ending", f"{sample.key}.{others[0]} in {shard}", len(others))
    if not known and not dotted and not others:
        tally.add("no-image", where)
    return known[0] if known else None


def _download_failed(record: dict[str, Any]) -> bool:
    """Whether img2dataset, which always writes both fields, says so; others use `status` for other things."""
    return "error_message" in record and record.get("status") != "success"


def _captions(sample: _Sample, wanted: str | None, shard: Path, tally: Tally) -> list[str]:
    """All captions of a sample; a list in its JSON goes before its .txt, which holds one, before JSON's string."""
    text = sample.texts.get("txt")
    text = None if text is None else text.rstrip("\r\n")
    if wanted is not None:
        value = _named(sample, wanted)
        if value is None:
            tally.add("no-such-field", f"{sample.key} in {shard}")
    else:
        record = sample.lower
        found = [record[name] for name in _CAPTION_FIELDS if name in record]
        lists = [value for value in found if isinstance(value, list) and value]
        value = next(iter([*lists, *([] if text is None else [text]), *found]), None)
    return [text_of(caption) or "" for caption in (value if isinstance(value, list) and value else [value])]


def _named(sample: _Sample, wanted: str) -> Any:
    """The json field, or the text of the member, that the user named."""
    name = match_name(wanted, sample.record)
    if name is not None:
        return sample.record[name]
    ending = match_name(wanted, sample.texts)
    return None if ending is None else sample.texts[ending].rstrip("\r\n")


def _labels(sample: _Sample, wanted: str | None) -> list[str]:
    if wanted is not None:
        value = _named(sample, wanted)
    else:
        record = sample.lower
        value = next((record[name] for name in _LABEL_FIELDS if name in record), sample.texts.get("cls"))
    value = value.strip() if isinstance(value, str) and value.strip() != value and wanted is None else value
    return [name for item in (value if isinstance(value, list) else [value]) if (name := name_of(item))]


def _uids(record: dict[str, Any], n: int) -> list[str | None]:
    """The uids that the sample itself has for its n captions."""
    found = record.get("uids")
    if isinstance(found, list) and len(found) == n:
        return [name_of(uid) for uid in found]
    return [name_of(record.get("uid"))] if n == 1 else [None] * n
