"""Labelled image sets: one image, one class, no captions. Read from folders, zips, tables, CLIP_benchmark's shards."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import difflib
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.class_folders import read_class_folders, read_zip, some
from mithridate.data.columns import CAPTION_COLUMNS, find_column, refuse_duplicates
from mithridate.data.encodings import decode_text
from mithridate.data.formats import format_of, table_suffix
from mithridate.data.image_folder import metadata_files
from mithridate.data.json_values import records_to_table
from mithridate.data.left_out import Tally
from mithridate.data.pairs import Pairs, concat_pairs
from mithridate.data.read import read_pairs
from mithridate.data.records import read_ahead, row_codes
from mithridate.data.shards import IMAGE_ENDINGS, read_shards
from mithridate.data.sources import find_sources
from mithridate.data.splits import select_split
from mithridate.data.tables import load_json, load_table, pairs_from_table, read_table
from mithridate.data.write import add_member, image_ending
from mithridate.errors import DataError
from mithridate.folders import new_folder

CLASS_NAMES, TEMPLATES, SHARD_COUNT = "classnames.txt", "zeroshot_classification_templates.txt", "nshards.txt"


def read_labelled(
    path: str | Path | Sequence[str | Path], *, split: str | None = None, allow_outside: bool = False
) -> Pairs:
    """The labelled images at `path`, one row an image: text "", labels [class].

    Supported: folders of class folders and zips of them (both also under train/ and test/; a zip is read in place, so
    its members must be stored, not compressed), tables with a class column, CLIP_benchmark's shards, and whatever
    `read_pairs` reads that has labels. Classes that are all numbers are positions in a list of names: they are
    looked up in the set's own classnames.txt. `allow_outside` is that of `read_pairs`. Raises `DataError` where that
    list is missing or too short, where an image has no class or several, and where the split lacks a class that the
    rest of the set has.
    """
    sources = find_sources(path)
    if len(sources) > 1 and all(_is_tar(source) for source in sources):  # a class may be missing in one of them
        parts = [_one_row_an_image(_with_names(read_pairs(sources), _beside(sources[0]), sources[0]), sources[0])]
    else:
        parts = [_one_row_an_image(_read(source, allow_outside), source) for source in sources]
    whole = parts[0] if len(parts) == 1 else concat_pairs(parts)
    if len(parts) > 1:
        refuse_duplicates(whole.uid, f"{sources[0]} ... {sources[-1]}", "give every source once")
        whole = _one_row_an_image(whole, sources[0])
    if split is None:
        return whole
    chosen = select_split(whole, split)
    missing = sorted(whole.classes.keys() - chosen.classes.keys())
    if missing:
        raise DataError(
            f"split {split!r} has no image of {some(missing)}, which the rest of the set has: with fewer classes to "
            "choose from accuracy is not comparable; evaluate on a split that has all"
        )
    return chosen


def match_classes(pairs: Pairs, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """The classes of `pairs` in the order of `names`, by name where there are none.

    A list of names from elsewhere must hold the classes of the set, all of them and no other: names are matched,
    never taken by position. Raises `DataError` that names those missing and left over, and the nearest.
    """
    known = sorted(pairs.classes)
    if names is None:
        return tuple(known)
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise DataError(f"the list of classes names {some(twice)} twice; name every class once")
    missing, extra = sorted(set(known) - set(names)), sorted(set(names) - set(known))
    if not missing and not extra:
        return tuple(names)
    faults = []
    for name in extra[:5]:
        near = difflib.get_close_matches(name, missing or known, n=1, cutoff=0.4)
        faults.append(f"{name!r} is no class with images in the set" + (f" (nearest: {near[0]!r})" if near else ""))
    if len(extra) > 5:
        faults.append(f"{len(extra) - 5} more are none either")
    if missing:
        faults.append(f"the list lacks {some(missing)}")
    raise DataError(
        f"the classes given are not those of the set: {'; '.join(faults)}; give each class as it is spelled"
    )


def class_index(pairs: Pairs, names: Sequence[str]) -> np.ndarray:
    """Position in `names` of the class of each row: (n,) int64. Raises `DataError` for a class that is not there."""
    offsets = pc.list_value_length(pairs.labels).to_numpy()
    if not (offsets == 1).all():
        raise DataError("every image needs one class; read the set with read_labelled")
    index = pc.index_in(pc.list_flatten(pairs.labels), pa.array(list(names), pa.string()))
    if index.null_count:
        unknown = sorted(set(pairs.classes) - set(names))
        raise DataError(f"the set has the classes {some(unknown)}, which the list of {len(names)} names lacks")
    return index.to_numpy().astype(np.int64)


def read_class_names(path: Path) -> list[str]:
    """The class names in a `classnames.txt`, one a line, by position. A name that stands twice is one class."""
    names = _lines(path)
    if not all(names):
        raise DataError(f"line {names.index('') + 1} of {path} is empty; every line is a class, by position")
    return names


def read_templates(path: Path) -> list[str]:
    """The prompt templates in a text file, one a line; CLIP_benchmark's `{c}` becomes `{}`."""
    return [line.replace("{c}", "{}") for line in _lines(path) if line]


def _lines(path: Path) -> list[str]:
    try:
        text = decode_text(path.read_bytes(), str(path), option=False)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}; expected a text file in UTF-8, one entry a line") from error
    return [line.strip() for line in text.rstrip().split("\n")]


# --- one row an image, one class a row ---------------------------------------------------------------------


def _one_row_an_image(pairs: Pairs, source: Path) -> Pairs:
    """The first row of each image, its text emptied; refuses images of no class, of several, or of two splits."""
    index = pairs.image_index
    first = np.unique(index, return_index=True)[1]
    if not pairs.classes:
        raise DataError(f"{source} has no labels: give a table with a class column, or one folder for each class")
    counts = pc.list_value_length(pairs.labels).to_numpy(zero_copy_only=False)
    codes = row_codes(pairs)
    differs = np.unique(index[codes != codes[first][index]])
    several, none = np.flatnonzero(counts[first] > 1), np.flatnonzero(counts[first] == 0)
    if len(differs) or len(several) or len(none):
        example = pairs.images[int(next(iter([*several, *differs, *none])))].as_py()
        raise DataError(
            f"every image needs one class: of the {len(first)} images of {source} {len(none)} have none, "
            f"{len(several)} several, and {len(differs)} stand in rows that differ in class or split, as "
            f"{example}; take them out"
        )
    one = pairs.take(first)
    return one.with_columns(text=pa.repeat(pa.scalar("", pa.string()), len(one)))


def _with_names(pairs: Pairs, folders: Iterable[Path], source: Path) -> Pairs:
    """`pairs` with classes that are all numbers replaced by the names at those positions in a `classnames.txt`."""
    if not pairs.classes or not all(re.fullmatch(r"[0-9]{1,9}", name) for name in pairs.classes):
        return pairs
    file = next((folder / CLASS_NAMES for folder in folders if (folder / CLASS_NAMES).is_file()), None)
    if file is None:
        raise DataError(
            f"the classes of {source} are numbers ({some(sorted(pairs.classes))}), and nothing says what they mean: "
            f"put the set's own {CLASS_NAMES} beside it, one name a line by position from 0"
        )
    names = read_class_names(file)
    highest = max(map(int, pairs.classes))
    if highest >= len(names):
        raise DataError(
            f"{file} is too short: it has {len(names)} names, and class {highest} occurs, so expected at least "
            f"{highest + 1}; it belongs to another set, or is cut"
        )
    missing = sorted(set(names) - {names[int(number)] for number in pairs.classes})
    if missing:
        raise DataError(
            f"{file} names {some(missing)}, of which {source} has no image: with fewer classes to choose from "
            "accuracy is not comparable; read the whole set, or take the classes out of both"
        )
    flat = pc.take(pa.array(names, pa.string()), pc.list_flatten(pairs.labels).combine_chunks().cast(pa.int64()))
    lengths = pc.list_value_length(pairs.labels).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pairs.with_columns(labels=pa.ListArray.from_arrays(pa.array(offsets), flat))


# --- layouts -------------------------------------------------------------------------------------------------


def _read(path: Path, allow_outside: bool) -> Pairs:
    if path.is_dir():
        return _read_folder(path, allow_outside)
    if path.suffix.lower() == ".zip":
        return _with_names(read_zip(path), _beside(path), path)
    if table_suffix(path) or path.suffix.lower() == ".json":
        pairs = _read_bare(path, allow_outside)
    else:
        pairs = read_pairs(path)
    return _with_names(pairs, _beside(path), path)


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == ".tar" and path.is_file()


def _beside(path: Path) -> list[Path]:
    """Where a set has its lists: beside a shard, or above the folder of its split."""
    return [path.resolve().parent, path.resolve().parent.parent]


def _read_folder(folder: Path, allow_outside: bool) -> Pairs:
    shards = [path for path in sorted(folder.iterdir()) if (path / SHARD_COUNT).is_file()]
    if shards or (folder / SHARD_COUNT).is_file():
        parts = [_read_shard_folder(part) for part in shards or [folder]]
        pairs = parts[0] if len(parts) == 1 else concat_pairs(parts)
        return _with_names(pairs, [folder, folder.resolve().parent], folder)
    tally = Tally()
    tables = [] if (folder / "pairs.parquet").is_file() else metadata_files(folder, tally)
    if tables:
        parts = []
        for table, split in tables:
            pairs = _read_bare(table, allow_outside)
            if split is not None and pairs.split.null_count == len(pairs):
                pairs = pairs.with_columns(split=pa.repeat(pa.scalar(split), len(pairs)))
            parts.append(pairs)
        pairs = parts[0] if len(parts) == 1 else concat_pairs(parts)
        return _with_names(Pairs(pairs.table, pairs.report + tally.report()), [folder], folder)
    if _holds_class_folders(folder):
        return _with_names(read_class_folders(folder), [folder, folder.resolve().parent], folder)
    return _with_names(read_pairs(folder, **_outside(allow_outside)), [folder], folder)


def _outside(allow: bool) -> dict[str, Any]:
    # the option is refused where nothing has a use for it
    return {"allow_outside": True} if allow else {}


def _holds_class_folders(folder: Path) -> bool:
    """Folders, and no file that `read_pairs` would know; COCO and its like have their folders too."""
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    known = any(path.suffix.lower() in (".tar", ".json") or table_suffix(path) for path in inside if path.is_file())
    return not known and any(path.is_dir() for path in inside) and not (folder / "annotations").is_dir()


def _read_bare(path: Path, allow_outside: bool) -> Pairs:
    """A table that may have no captions at all."""
    if format_of(path) == "json":
        document = load_json(path)
        if not isinstance(document, list) or find_column(_keys(document), CAPTION_COLUMNS) is not None:
            return read_pairs(path, **_outside(allow_outside))
        table = records_to_table(document, path, captions=CAPTION_COLUMNS)
    else:
        table = load_table(path)
        if find_column(table.column_names, CAPTION_COLUMNS) is not None:
            return read_table(path, allow_outside=allow_outside)
    table = table.append_column("text", pa.repeat(pa.scalar(""), table.num_rows))
    return pairs_from_table(table, path, allow_outside=allow_outside)


def _keys(document: list) -> list[str]:
    return list(dict.fromkeys(name for record in document if isinstance(record, dict) for name in record))


def _read_shard_folder(folder: Path) -> Pairs:
    """One split in CLIP_benchmark's layout: `nshards.txt`, and as many shards, `0.tar` and on."""
    stated = _lines(folder / SHARD_COUNT)[0]
    if not re.fullmatch(r"[0-9]{1,7}", stated) or int(stated) == 0:
        raise DataError(f"{folder / SHARD_COUNT} should hold the number of shards, got {stated[:40]!r}")
    shards = [folder / f"{number}.tar" for number in range(int(stated))]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise DataError(f"{folder / SHARD_COUNT} says {stated} shards, and {some(missing)} do not exist; fetch them")
    pairs = read_shards(shards)
    wrong = [name for name in pairs.classes if not re.fullmatch(r"[0-9]{1,9}", name)]
    if wrong:
        raise DataError(f"{folder} has .cls members that are no positions in {CLASS_NAMES}: {some(sorted(wrong))}")
    return pairs.with_columns(split=pa.repeat(pa.scalar(folder.name), len(pairs)))


# --- CLIP_benchmark's layout ---------------------------------------------------------------------------------


def write_clip_benchmark(
    pairs: Pairs,
    out: str | Path,
    *,
    classnames: Sequence[str] | None = None,
    templates: Sequence[str],
    label_as: str | None = None,
    samples_per_shard: int = 10_000,
    overwrite: bool = False,
) -> Path:
    """`out`, a new folder that CLIP_benchmark (dataset `wds/NAME`) and `read_labelled` read.

    A folder for each split (`test` where none is named) with `nshards.txt` and `0.tar`, ...: KEY.jpg (or .png,
    .webp; the bytes untouched) and KEY.cls, the position in `classnames.txt`. `templates` hold `{}` for the name.
    `label_as`: a class that all images are labelled in place of their own; those that have it are left out, and
    `classnames.txt` names all classes, so that an evaluator's accuracy is the share of others taken for it.
    """
    pairs = _one_row_an_image(pairs, Path("pairs"))
    names = match_classes(pairs, classnames)
    wrong = [name for name in (*names, *templates) if name != name.strip() or name.splitlines() != [name]]
    if wrong:
        raise DataError(f"a name or template must be one line without blanks around it, got {wrong[0]!r}")
    refuse_templates(templates)
    braced = next((template for template in templates if re.search(r"[{}]", template.replace("{}", ""))), None)
    if braced is not None:
        raise DataError(f"CLIP_benchmark formats templates: {braced!r} has braces besides {{}}; take them out")
    labels = class_index(pairs, names)
    if label_as is not None:
        if label_as not in names:
            raise DataError(f"no image is of the class {label_as!r}; the classes are {some(list(names))}")
        others = labels != names.index(label_as)
        pairs, labels = pairs.where(others), np.full(int(others.sum()), names.index(label_as))
    splits = pairs.split.fill_null("test").to_numpy()
    with new_folder(Path(out), overwrite=overwrite) as folder:
        (folder / CLASS_NAMES).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        lines = "".join(f"{template.replace('{}', '{c}')}\n" for template in templates)
        (folder / TEMPLATES).write_text(lines, encoding="utf-8")
        for split in sorted(set(splits.tolist())):
            if not re.fullmatch(r"[\w.-]+", split) or split.startswith("."):
                raise DataError(f"split {split!r} cannot name a folder; rename it")
            rows = np.flatnonzero(splits == split)
            (folder / split).mkdir()
            _write_shards(pairs.take(rows), labels[rows], folder / split, samples_per_shard)
    return Path(out)


def refuse_templates(templates: Sequence[str]) -> None:
    """Raise `DataError` if there is no template, or one has no `{}`."""
    if isinstance(templates, str) or not templates:
        raise DataError("prompts need a list of templates such as 'a photo of a {}.', got " + repr(templates)[:60])
    without = next((template for template in templates if "{}" not in template), None)
    if without is not None:
        raise DataError(f"a template must hold {{}} where the class name goes, got {without[:80]!r}")


def _write_shards(pairs: Pairs, labels: np.ndarray, folder: Path, samples: int) -> None:
    images = read_ahead(pairs.image.to_pylist())
    for number, start in enumerate(starts := range(0, len(pairs), samples)):
        with tarfile.open(folder / f"{number}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in range(start, min(start + samples, len(pairs))):
                raw, place = next(images), pairs.image[row].as_py()
                ending = image_ending(raw, place)
                if ending not in IMAGE_ENDINGS:
                    raise DataError(f"tar shards take {', '.join(IMAGE_ENDINGS)}; {place} is {ending}: convert it")
                add_member(tar, f"s{row:07d}.{ending}", raw)
                add_member(tar, f"s{row:07d}.cls", str(labels[row]).encode())
    (folder / SHARD_COUNT).write_text(f"{len(starts)}\n", encoding="utf-8")
