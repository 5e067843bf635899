"""`read_pairs`: recognises what it is given, and reads it."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data import coco, flickr_pascal, visual_genome
from mithridate.data.columns import refuse_duplicates
from mithridate.data.pairs import Pairs, concat_pairs
from mithridate.data.shards import COMPRESSED, read_shards
from mithridate.data.sources import find_sources
from mithridate.data.tables import LOADERS, load_json, pairs_from_table, read_table, records_to_table, table_suffix
from mithridate.errors import DataError

# what the field calls one and the same split
SPLIT_NAMES = ({"train", "restval"}, {"val", "validation", "valid", "dev"})


def read_pairs(
    path: str | Path | Sequence[str | Path],
    *,
    split: str | None = None,
    image_root: str | Path | None = None,
    caption_field: str | None = None,
    label_field: str | None = None,
    label_rule: str = "random-instance",
    exclude_coco: bool = False,
    seed: int = 0,
) -> Pairs:
    """The image-text pairs in a file, a folder or a list of them, whatever their layout.

    Read are tables (CSV, TSV, JSON, JSONL, Parquet, Arrow), tar shards (also as `{00000..00012}.tar`, `*.tar` or
    `A::B`), folders with a metadata file, COCO, Karpathy splits, Visual Genome, PASCAL sentences, a folder with
    Flickr30k and PASCAL, and what this package writes. Nothing is copied, and no image is opened. Captions that
    are missing, or no strings, become "". `label_rule` is one of `coco.LABEL_RULES`. An option that a layout has no
    use for is refused.
    """
    options = {
        "image_root": None if image_root is None else Path(image_root),
        "caption_field": caption_field,
        "label_field": label_field,
        "label_rule": label_rule,
        "exclude_coco": exclude_coco,
        "seed": seed,
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


def select_split(pairs: Pairs, split: str) -> Pairs:
    """The pairs of one split by any of its usual names; a `DataError` where there is none."""
    if pairs.split.null_count == len(pairs):
        raise DataError(f"these data name no splits, so {split!r} cannot be chosen; leave out --split")
    name = split.lower()
    wanted = next((names for names in SPLIT_NAMES if name in names and name != "restval"), {name})
    chosen = pairs.where(pc.is_in(pc.utf8_lower(pairs.split), pa.array(sorted(wanted))).to_numpy())
    if len(chosen) == 0:
        counts = {entry["values"].as_py(): entry["counts"].as_py() for entry in pc.value_counts(pairs.split)}
        known = ", ".join(f"{known or 'unknown'} ({n:,})" for known, n in Counter(counts).most_common(12))
        raise DataError(f"split {split!r} is empty; the splits are {known}")
    return chosen


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


_DEFAULTS = {"label_rule": "random-instance", "exclude_coco": False}


def _apply(name: str, layout: Layout, options: Mapping[str, Any], *source: Any) -> Pairs:
    """What `layout` reads from `source`; refuses an option that would have no effect."""
    for option, value in options.items():
        if option not in (*layout.uses, "seed") and value != _DEFAULTS.get(option):
            raise DataError(f"{option} is of no use with {name}; leave it out")
    return layout.read(*source, **{option: options[option] for option in layout.uses})


def _is_shard(path: Path) -> bool:
    return path.name.lower().endswith((".tar", *COMPRESSED)) and not path.is_dir()


_FIELDS = ("caption_field", "label_field")
_COLUMNS = ("image_root", *_FIELDS)
_CLASSES = ("image_root", "label_rule", "seed")

SHARDS = Layout(_is_shard, read_shards, _FIELDS)
TABLE = Layout(table_suffix, read_table, _COLUMNS)


def _read_source(path: Path, options: Mapping[str, Any]) -> Pairs:
    """The pairs of one file or folder that is no shard."""
    if path.is_dir():
        return _read_folder(path, options)
    if _is_json(path):
        return _read_document(path, options)
    if table_suffix(path):
        return _apply("a table", TABLE, options, path)
    known = ", ".join([*LOADERS, ".json", ".tar"])
    raise DataError(f"{path} is of no known kind; expected a folder, or a file that ends in {known}")


# --- JSON --------------------------------------------------------------------------------------------


def _is_json(path: Path) -> bool:
    return path.name.lower().endswith((".json", ".json.gz"))


def _first(document: Any, name: str) -> Mapping[str, Any]:
    """The first record in the list `name` of a JSON object, or of the list that it is itself."""
    records = document.get(name) if isinstance(document, dict) else document
    return records[0] if isinstance(records, list) and records and isinstance(records[0], dict) else {}


def _is_coco(document: Any) -> bool:
    return isinstance(document, dict) and "caption" in _first(document, "annotations")


def _is_karpathy(document: Any) -> bool:
    return isinstance(document, dict) and "sentences" in _first(document, "images")


def _is_regions(document: Any) -> bool:
    return isinstance(document, list) and not {"regions", "phrase"}.isdisjoint(_first(document, ""))


def _read_records(path: Path, document: list[Any], **options: Any) -> Pairs:
    return pairs_from_table(records_to_table(document, path), path, **options)


DOCUMENTS = {
    "COCO captions": Layout(_is_coco, coco.read_coco, _CLASSES),
    "a Karpathy split": Layout(_is_karpathy, coco.read_karpathy, _CLASSES),
    "Visual Genome": Layout(_is_regions, visual_genome.read_visual_genome, ("image_root", "exclude_coco")),
    "a list of records": Layout(lambda document: isinstance(document, list), _read_records, _COLUMNS),
}


def _read_document(path: Path, options: Mapping[str, Any]) -> Pairs:
    document = load_json(path, hook=visual_genome.thin_region)
    name = next((name for name, layout in DOCUMENTS.items() if layout.recognise(document)), None)
    if name is None:
        raise DataError(f"{path} holds no captions that are known; expected {', '.join(DOCUMENTS)}")
    try:
        return _apply(name, DOCUMENTS[name], options, path, document)
    except (KeyError, TypeError, AttributeError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} looks like {name} but has another form: {error!r}; compare the original") from error


# --- folders -----------------------------------------------------------------------------------------


def _tables(folder: Path) -> list[Path]:
    """Tables and JSON files; never a manifest, which holds the truth about a poisoned set."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.stem != "manifest")
    return [path for path in files if table_suffix(path) or _is_json(path)]


def _metadata(folder: Path) -> list[Path]:
    """`metadata.csv`, `.jsonl` or `.parquet` of a Hugging Face image folder, in it or in a folder for each split."""
    splits = (path for path in sorted(folder.iterdir()) if path.is_dir() and path.name.lower() in _FOLDER_SPLITS)
    for part in ([folder], splits):
        found = [path for inside in part for path in _tables(inside) if path.stem == "metadata" and table_suffix(path)]
        if found:
            return found
    return []


_FOLDER_SPLITS = {*SPLIT_NAMES[0], *SPLIT_NAMES[1], "test"}


def _read_metadata(folder: Path, **options: Any) -> Pairs:
    parts = []
    for file in _metadata(folder):
        pairs = read_table(file, **options)
        if file.parent != folder and pairs.split.null_count == len(pairs):
            pairs = pairs.with_columns(split=pa.repeat(pa.scalar(file.parent.name), len(pairs)))
        parts.append(pairs)
    return _join(parts, str(folder))


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _is_shard(path))


FOLDERS = {
    "our own layout": Layout(
        lambda folder: (folder / "pairs.parquet").is_file(),
        lambda folder, **options: read_table(folder / "pairs.parquet", **options),
        ("image_root",),
    ),
    "Flickr30k with PASCAL": Layout(
        flickr_pascal.flickr_and_pascal,
        lambda folder, seed: flickr_pascal.read_flickr_pascal(*flickr_pascal.flickr_and_pascal(folder), seed=seed),
        ("seed",),
    ),
    "tar shards": Layout(_shards, lambda folder, **options: read_shards(_shards(folder), **options), _FIELDS),
    "an image folder": Layout(_metadata, _read_metadata, _COLUMNS),
    "PASCAL sentences": Layout(
        flickr_pascal.pascal_sentence_files, flickr_pascal.read_pascal_sentences, ("image_root",)
    ),
}


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
        return _read_source((annotations or tables)[0], options)
    if tables:
        names = ", ".join(path.name for path in tables[:6])
        raise DataError(f"{folder} holds {len(tables)} tables ({names}); name the one to read")
    raise DataError(
        f"{folder} holds no image-text pairs that are known: found {_contents(folder)}; expected tar shards, a "
        "table, metadata.jsonl, pairs.parquet, or the annotations of COCO, Karpathy or Visual Genome"
    )


def _contents(folder: Path) -> str:
    kinds = Counter("folders" if path.is_dir() else f"{path.suffix or 'other'} files" for path in folder.iterdir())
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())[:6]
    listed = [f"{count:,} {kind}" for kind, count in kinds.most_common(6)]
    return ", ".join(listed) + (f" ({', '.join(folders)})" if folders else "") if listed else "nothing"
