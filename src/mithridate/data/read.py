"""`read_pairs`: recognises what it is given, and reads it."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from mithridate.data import coco, flickr_pascal, visual_genome
from mithridate.data.caption_files import has_caption_files, read_caption_files
from mithridate.data.columns import CAPTION_COLUMNS, refuse_duplicates
from mithridate.data.encodings import check_encoding
from mithridate.data.formats import format_of, is_readable, suffix_of, table_suffix
from mithridate.data.image_folder import metadata_files
from mithridate.data.json_values import records_to_table
from mithridate.data.left_out import Tally
from mithridate.data.locations import INPUTS
from mithridate.data.pairs import Pairs, concat_pairs
from mithridate.data.shards import read_shards
from mithridate.data.sources import find_sources
from mithridate.data.splits import select_split, split_of_folder
from mithridate.data.tables import load_json, pairs_from_table, read_table
from mithridate.data.tar import COMPRESSED
from mithridate.engine.calls import Engine
from mithridate.errors import DataError
from mithridate.remote.paths import location


def read_pairs(
    path: str | Path | Sequence[str | Path],
    *,
    split: str | None = None,
    image_root: str | Path | None = None,
    caption_field: str | None = None,
    label_field: str | None = None,
    image_field: str | None = None,
    encoding: str | None = None,
    allow_outside: bool = False,
    label_rule: str = "random-instance",
    exclude_coco: bool = False,
    seed: int = 0,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
) -> Pairs:
    """The image-text pairs in a file, a folder or a list of them, whatever their layout (docs/inputs.md).

    Supported: tables (CSV, TSV, JSON, JSON Lines, Parquet, Arrow), tar shards (also as `{00000..00012}.tar`, `*.tar`
    or `A::B`), folders with a metadata file or with caption files, COCO, Karpathy splits, Visual Genome, PASCAL
    sentences, a folder with Flickr30k and PASCAL, and what this package writes. Nothing is copied, and no image is
    opened. Captions that are missing, or no strings, become "". What is left out is counted in the pairs' `report`.

    `caption_field`, `label_field`, `image_field`: columns or fields, which must exist. `encoding`: of texts that are
    not UTF-8. `allow_outside`: read images that a table names outside its folder and `image_root`. `label_rule` is
    one of `coco.LABEL_RULES`. An option that a layout has no use for is refused. `engine` shares out tar shards.
    """
    check_encoding(encoding)
    options = {
        "image_root": None if image_root is None else location(image_root),
        "caption_field": caption_field,
        "label_field": label_field,
        "image_field": image_field,
        "encoding": encoding,
        "allow_outside": allow_outside,
        "label_rule": label_rule,
        "exclude_coco": exclude_coco,
        "seed": seed,
        "engine": engine,
    }
    sources = find_sources(path)
    parts: list[Pairs] = []
    for are_shards, run in groupby(sources, key=_is_shard):
        if are_shards:
            parts.append(_apply("tar shards", SHARDS, options, list(run)))
        else:
            parts += [_read_source(source, options) for source in run]
    pairs = _join(parts, _named(sources))
    return pairs if split is None else select_split(pairs, split)


def separate_files(path: str | Path | Sequence[str | Path], *, tables: bool = True) -> list[Path]:
    """The files of a data set whose pairs can be read file by file; empty where it is read as a whole.

    Tar shards, in a folder or listed, and listed `tables`. Raises `DataError` for what does not exist.
    """
    sources = find_sources(path)
    if len(sources) == 1 and sources[0].is_dir():
        folder = sources[0]
        layout = next((name for name, layout in FOLDERS.items() if layout.recognise(folder)), None)
        sources = _shards(folder) if layout == "tar shards" else []
    alone = all(_is_shard(it) or (tables and it.is_file() and format_of(it) != "json") for it in sources)
    return sources if alone and len(sources) > 1 else []


def _join(parts: Sequence[Pairs], name: str) -> Pairs:
    try:
        pairs = parts[0] if len(parts) == 1 else concat_pairs(parts)
    except pa.ArrowException as error:
        raise DataError(f"the sources {name} do not fit together: {error}; convert their columns") from error
    if len(pairs) == 0:
        raise DataError(f"{name} holds no pairs")
    if len(parts) > 1:
        refuse_duplicates(pairs.uid, name, "give every source once, and every pair a uid of its own")
    return pairs


def _named(sources: Sequence[Path]) -> str:
    return str(sources[0]) if len(sources) == 1 else f"{sources[0]} ... {sources[-1]}"


# --- layouts -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How a layout is recognised and read, and the options of `read_pairs` that it has a use for."""

    recognise: Callable[[Any], Any]
    read: Callable[..., Pairs]
    uses: tuple[str, ...] = ()


_DEFAULTS = {"label_rule": "random-instance", "exclude_coco": False, "allow_outside": False}


def _apply(name: str, layout: Layout, options: Mapping[str, Any], *source: Any) -> Pairs:
    """What `layout` reads from `source`; refuses an option that would have no effect."""
    for option, value in options.items():
        if option not in (*layout.uses, "seed", "engine") and value != _DEFAULTS.get(option):
            raise DataError(f"{option} is of no use with {name}; leave it out ({INPUTS})")
    return layout.read(*source, **{option: options[option] for option in layout.uses})


def _is_shard(path: Path) -> bool:
    return path.name.lower().endswith((".tar", *COMPRESSED)) and not path.is_dir()


_FIELDS = ("caption_field", "label_field", "image_field", "encoding")
_COLUMNS = ("image_root", "allow_outside", *_FIELDS)
_CLASSES = ("image_root", "allow_outside", "label_rule", "seed", "encoding")

SHARDS = Layout(_is_shard, read_shards, (*_FIELDS, "engine"))
TABLE = Layout(is_readable, read_table, _COLUMNS)
CAPTION_FILES = Layout(has_caption_files, read_caption_files, ("encoding",))
LINES = Layout(is_readable, lambda path, **options: read_table(path, form="json-lines", **options), _COLUMNS)


def _read_source(path: Path, options: Mapping[str, Any]) -> Pairs:
    """The pairs of one file or folder that is no shard."""
    if path.is_dir():
        return _read_folder(path, options)
    if not path.is_file():
        raise DataError(f"{path} is no regular file; expected a table, a tar shard or a folder")
    if not is_readable(path):
        raise DataError(
            f"{path} is of no known kind; expected a folder, or a file that ends in .csv, .tsv, .txt, .jsonl, .json, "
            f".parquet, .arrow or .tar ({INPUTS})"
        )
    if format_of(path) == "json":
        return _read_document(path, options)
    return _apply("a table", TABLE, options, path)


# --- JSON --------------------------------------------------------------------------------------------


def _some(document: Any, name: str, field: str) -> bool:
    """Whether any record in the list `name` of a JSON object, or in the list that it is itself, has `field`."""
    records = document.get(name) if isinstance(document, dict) else document
    return isinstance(records, list) and any(isinstance(record, dict) and field in record for record in records)


def _is_coco(document: Any) -> bool:
    return isinstance(document, dict) and _some(document, "annotations", "caption")


def _is_karpathy(document: Any) -> bool:
    return isinstance(document, dict) and _some(document, "images", "sentences")


def _is_regions(document: Any) -> bool:
    return isinstance(document, list) and (_some(document, "", "regions") or _some(document, "", "phrase"))


def _read_records(path: Path, document: list[Any], *, encoding: str | None = None, **options: Any) -> Pairs:
    return pairs_from_table(records_to_table(document, path, captions=CAPTION_COLUMNS), path, **options)


DOCUMENTS = {
    "COCO captions": Layout(_is_coco, coco.read_coco, _CLASSES),
    "a Karpathy split": Layout(_is_karpathy, coco.read_karpathy, _CLASSES),
    "Visual Genome": Layout(
        _is_regions, visual_genome.read_visual_genome, ("image_root", "allow_outside", "exclude_coco", "encoding")
    ),
    "a list of records": Layout(lambda document: isinstance(document, list), _read_records, _COLUMNS),
}


def _read_document(path: Path, options: Mapping[str, Any]) -> Pairs:
    try:
        document = load_json(path, hook=visual_genome.thin_region, encoding=options["encoding"])
    except DataError as error:
        if isinstance(error.__cause__, json.JSONDecodeError) and error.__cause__.msg == "Extra data":
            # one object a line, the first too long to tell
            return _apply("lines of JSON", LINES, options, path)
        raise
    name = next((name for name, layout in DOCUMENTS.items() if layout.recognise(document)), None)
    if name is None:
        raise DataError(f"{path} holds no captions that are known; expected {', '.join(DOCUMENTS)} ({INPUTS})")
    try:
        return _apply(name, DOCUMENTS[name], options, path, document)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise DataError(
            f"{path} looks like {name} but has another form: {repr(error)[:200]}; compare the original ({INPUTS})"
        ) from error


# --- folders -----------------------------------------------------------------------------------------


def _tables(folder: Path) -> list[Path]:
    """Tables and JSON files; never a manifest, which holds the truth about a poisoned set."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.stem != "manifest")
    return [path for path in files if table_suffix(path) or suffix_of(path) == ".json"]


def _read_metadata(folder: Path, **options: Any) -> Pairs:
    tally = Tally()
    parts = []
    for file, split in metadata_files(folder, tally):
        pairs = read_table(file, **options)
        if split is not None and pairs.split.null_count == len(pairs):
            pairs = pairs.with_columns(split=pa.repeat(pa.scalar(split), len(pairs)))
        parts.append(pairs)
    pairs = _join(parts, str(folder))
    return Pairs(pairs.table, pairs.report + tally.report())


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_shard(path))


def _read_shard_folder(folder: Path, **options: Any) -> Pairs:
    pairs = read_shards(_shards(folder), **options)
    tally = Tally()
    for path in _tables(folder):
        if path.name != "sizes.json" and not path.name.endswith("_stats.json"):
            tally.add("unread-file", str(path))
    return Pairs(pairs.table, pairs.report + tally.report())


# `train-00000-of-00003.parquet`, as Hugging Face's hub has them
_HUB_FILE = re.compile(r"(?P<split>\w+)-\d{5}-of-\d{5}(-[0-9a-f]+)?\.parquet")


def _hub_files(folder: Path) -> list[tuple[Path, str]]:
    """The Parquet files of a data set of Hugging Face's hub, each with its split."""
    for inside in (folder, folder / "data"):
        found = [(path, _HUB_FILE.fullmatch(path.name)) for path in (_tables(inside) if inside.is_dir() else [])]
        files = [(path, match["split"]) for path, match in found if match is not None]
        if files and len(files) == len(found):
            return files
    return []


def _read_hub_files(folder: Path, **options: Any) -> Pairs:
    parts = []
    for path, split in _hub_files(folder):
        pairs = read_table(path, **options)
        if pairs.split.null_count == len(pairs):
            name = split_of_folder(split) or split
            pairs = pairs.with_columns(split=pa.repeat(pa.scalar(name), len(pairs)))
        parts.append(pairs)
    return _join(parts, str(folder))


def read_flickr_pascal(flickr: Path, pascal: Path, *, seed: int = 0, **options: Any) -> Pairs:
    """`join_flickr_pascal` of what `read_pairs` reads in the two folders."""
    return flickr_pascal.join_flickr_pascal(read_pairs(flickr, **options), read_pairs(pascal, **options), seed=seed)


FOLDERS = {
    "our own layout": Layout(
        lambda folder: (folder / "pairs.parquet").is_file(),
        lambda folder, **options: read_table(folder / "pairs.parquet", **options),
        ("image_root", "allow_outside"),
    ),
    "Flickr30k with PASCAL": Layout(
        flickr_pascal.flickr_and_pascal,
        lambda folder, **options: read_flickr_pascal(*flickr_pascal.flickr_and_pascal(folder), **options),
        ("seed",),
    ),
    "tar shards": Layout(_shards, _read_shard_folder, (*_FIELDS, "engine")),
    "an image folder": Layout(metadata_files, _read_metadata, _COLUMNS),
    "Parquet files of the hub": Layout(_hub_files, _read_hub_files, _COLUMNS),
    "PASCAL sentences": Layout(
        flickr_pascal.pascal_sentence_files, flickr_pascal.read_pascal_sentences, ("image_root", "encoding")
    ),
}


_OF_DOWNLOAD = re.compile(r"\d+(\.parquet|_stats\.json)")  # img2dataset's, beside its folders of files


def _read_folder(folder: Path, options: Mapping[str, Any]) -> Pairs:
    ours = (folder / "pairs.parquet").is_file()
    if not ours and (folder / "manifest.json").is_file() and (folder / "data").is_dir():
        folder = folder / "data"  # an output of `poison`, whose manifest is none of a reader's business
    for name, layout in FOLDERS.items():
        if layout.recognise(folder):
            return _apply(name, layout, options, folder)
    captions = coco.caption_files(folder)
    if captions:
        return _join([_read_document(file, options) for file in captions], str(folder))
    tables = _tables(folder)
    annotations = [path for path in tables if path.name == "region_descriptions.json" or path.match("dataset_*.json")]
    if len(annotations or tables) == 1:
        chosen = (annotations or tables)[0]
        pairs = _read_source(chosen, options)
        tally = Tally()
        for path in tables:
            if path != chosen and path.name != "image_data.json" and not path.name.startswith("instances_"):
                tally.add("unread-file", str(path))
        return Pairs(pairs.table, pairs.report + tally.report())
    if all(map(_OF_DOWNLOAD.fullmatch, (path.name for path in tables))) and has_caption_files(folder):
        return _apply("images with caption files", CAPTION_FILES, options, folder)
    if tables:
        names = ", ".join(path.name for path in tables[:6])
        raise DataError(f"{folder} holds {len(tables)} tables ({names}); name the one to read")
    raise DataError(
        f"{folder} holds no image-text pairs that are known: found {_contents(folder)}; expected tar shards, a table, "
        "metadata.jsonl, pairs.parquet, images with caption files, or the annotations of COCO, Karpathy or Visual "
        f"Genome ({INPUTS})"
    )


def _contents(folder: Path) -> str:
    kinds = Counter("folders" if path.is_dir() else f"{path.suffix or 'other'} files" for path in folder.iterdir())
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())[:6]
    counts = [f"{count} {kind}" for kind, count in kinds.most_common(6)]
    return ", ".join(counts) + (f" ({', '.join(folders)})" if folders else "") if counts else "nothing"
