"""What is wrong with a data set, and what to do about it; and what it holds."""

# Above 350 lines: a dozen independent checks, each a function of a few lines.

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.columns import read_spelt_list
from mithridate.data.images import MAX_RATIO, decode, read_bytes
from mithridate.data.left_out import REASONS
from mithridate.data.locations import split_place
from mithridate.data.pairs import Pairs
from mithridate.engine.calls import Engine
from mithridate.engine.run import gather
from mithridate.errors import DataError
from mithridate.threads import thread_count

FEW_IMAGES = 10  # of a class: any rate over fewer has an interval as wide as the scale
_NAMED = 3
_BLOCK = 8192
_OPENED = 1000  # images that a worker is given at a time
_TINY = 8  # pixels a side
# How CLIP's tokenizer cuts before it merges: each piece is at least one token.
_PIECES = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing about a data set: what it is, with its count and some examples, and what to do about it."""

    code: str
    severity: Severity
    message: str
    remedy: str


def doctor(
    pairs: Pairs,
    *,
    context_length: int | None = 77,
    tokenize: Callable[[list[str]], Sequence[int]] | None = None,
    sample: int | None = None,
    workers: int | None = None,
    shards: int | None = None,
    engine: Engine = Engine(),  # noqa: B008 (frozen)
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[Finding, ...]:
    """Everything found, errors first. Opens every image, or `sample` of them, evenly spread.

    `tokenize` gives the number of tokens of each caption, start and end token included; without it their number is
    estimated. `workers` is how many will read the data, by default the threads there are, 8 at most;
    `shards` is counted from the locations where not given. `engine` opens the images.
    """
    workers = min(8, thread_count()) if workers is None else workers
    findings = [
        *_left_out(pairs),
        *_duplicate_uids(pairs),
        *_images(pairs, sample, workers, engine, progress),
        *_empty_captions(pairs),
        *_broken_text(pairs),
        *_lists_as_text(pairs),
        *_long_captions(pairs, context_length, tokenize),
        *_separators(pairs),
        *_shards(pairs, workers, shards),
        *_labels(pairs),
        *_splits(pairs),
        *_several_captions(pairs),
    ]
    order = ("error", "warning", "note")
    return tuple(sorted(findings, key=lambda finding: order.index(finding.severity)))


def _named(examples: Iterable[Any]) -> str:
    shown = [str(example) for example in examples]
    return ", ".join(shown[:_NAMED]) + (", ..." if len(shown) > _NAMED else "")


def _uids_at(pairs: Pairs, mask: pa.ChunkedArray | np.ndarray) -> tuple[int, str]:
    """How many pairs `mask` picks, and the first of them by name."""
    rows = np.flatnonzero(mask if isinstance(mask, np.ndarray) else mask.to_numpy())
    return len(rows), _named(pairs.uid.take(pa.array(rows[: _NAMED + 1])).to_pylist())


# --- one check each ----------------------------------------------------------------------------------


# what is left out on purpose, or is no pair at all
_HARMLESS = ("failed-download", "other-file", "no-image", "second-image")


def _left_out(pairs: Pairs) -> Iterator[Finding]:
    """What the reader did not take, by reason."""
    for reason, entry in pairs.report.left_out.items():
        what, remedy = REASONS[reason]
        code = "swallowed-rows" if reason == "swallowed-row" else f"left-out-{reason}"
        severity = "note" if reason in _HARMLESS else "warning"
        message = f"Left out, {what}: {entry.count} ({entry.example})."
        yield Finding(code, severity, message, f"{remedy[0].upper()}{remedy[1:]}.")


def _duplicate_uids(pairs: Pairs) -> Iterator[Finding]:
    counts = pc.value_counts(pairs.uid)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    if twice:
        message = f"Uids that stand more than once: {len(twice)} ({_named(twice)})."
        remedy = "Make them unique, or drop the column to have new ones drawn."
        yield Finding("duplicate-uid", "error", message, remedy)


@dataclass(frozen=True, slots=True)
class _Look:
    """What opening one image shows."""

    content: bytes | None = None  # hash of its bytes
    missing: bool = False
    fault: str | None = None
    blank: bool = False  # of one colour
    size: tuple[int, int] | None = None


def _images(
    pairs: Pairs, sample: int | None, workers: int, engine: Engine, progress: Callable[[str, int, int], None]
) -> Iterator[Finding]:
    """Images that are missing, do not decode, are blank or tiny, or are the same byte for byte."""
    places = pairs.images
    if sample is not None and sample < len(places):
        places = places.take(pa.array(np.linspace(0, len(places) - 1, max(sample, 1)).astype(np.int64)))
    missing, unreadable, blank, tiny, narrow = [], [], [], [], []
    same: dict[bytes, list[str]] = defaultdict(list)
    looks = gather(
        _Examine(max(workers, 1) if engine.alone else engine.threads),
        (places[start : start + _OPENED].to_pylist() for start in range(0, len(places), _OPENED)),
        engine=engine,
        progress=lambda done: progress("opening images", min(done * _OPENED, len(places)), len(places)),
    )
    for place, look in zip(places.to_pylist(), chain.from_iterable(looks)):
        if look.missing:
            missing.append(place)
        elif look.fault is not None:
            unreadable.append(look.fault)
        elif look.size is not None and min(look.size) < _TINY:
            tiny.append(f"{place} of {look.size[0]}x{look.size[1]}")
        elif look.blank:
            blank.append(place)
        if look.size is not None and max(look.size) > MAX_RATIO * min(look.size):
            narrow.append(f"{place} of {look.size[0]}x{look.size[1]}")
        if look.content is not None:
            same[look.content].append(place)
    of_all = f"of {len(places)} opened"
    lists: tuple[tuple[tuple[str, Severity, str, list[str]], str], ...] = (
        (
            ("missing-image", "error", "Missing images", missing),
            "Give the folder they are in as --image-root, fetch them, or take their rows out.",
        ),
        (
            ("unreadable-image", "error", "Images that cannot be read", unreadable),
            "Fetch them again, or take their rows out.",
        ),
        (
            ("tiny-image", "warning", f"Images of less than {_TINY} pixels a side", tiny),
            "Take their rows out: pages use such images to count visits.",
        ),
        (
            ("blank-image", "warning", "Images of one colour", blank),
            "Look at them: a conversion that clips leaves such images, and so do failed downloads.",
        ),
        (
            ("narrow-image", "warning", f"Images more than {MAX_RATIO} times as long as wide", narrow),
            "Take their rows out: a model sees only the middle.",
        ),
    )
    for (code, severity, what, images), remedy in lists:
        if images:
            yield Finding(code, severity, f"{what}: {len(images)} {of_all} ({_named(images)}).", remedy)
    twins = [names for names in same.values() if len(names) > 1]
    if twins:
        examples = _named(" = ".join(names[:2]) for names in twins)
        message = f"Images of the same bytes as another: {sum(map(len, twins))} {of_all} ({examples})."
        remedy = "Keep one of each; across splits they let a model see its test images."
        yield Finding("duplicate-image", "warning", message, remedy)


@dataclass(frozen=True)
class _Examine:
    """What there is at some places, looked at by `threads` side by side."""

    threads: int

    def __call__(self, places: Sequence[str]) -> list[_Look]:
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(_examine, places))


def _examine(place: str) -> _Look:
    """What there is at `place`."""
    try:
        raw = read_bytes(place)
    except DataError as error:
        return _Look(missing=isinstance(error.__cause__, FileNotFoundError), fault=str(error))
    content = hashlib.blake2b(raw, digest_size=16).digest()
    try:
        image = decode(raw, place)
    except DataError as error:
        return _Look(content, fault=str(error))
    extrema: Any = image.getextrema()  # (low, high) of each channel
    blank = all(low == high for low, high in extrema)
    return _Look(content, blank=blank, size=image.size)


def _empty_captions(pairs: Pairs) -> Iterator[Finding]:
    empty = pc.equal(pc.utf8_trim_whitespace(pairs.text), "")
    n, examples = _uids_at(pairs, empty)
    if n:
        message = f"Empty captions: {n} of {len(pairs)} (pairs {examples})."
        remedy = "Say which column holds the captions, or take these rows out."
        yield Finding("empty-caption", "error" if n == len(pairs) else "warning", message, remedy)


# what a caption never holds by intention
_BROKEN = (
    ("replacement-character", "\ufffd", "the replacement character U+FFFD", "Read the original with its --encoding."),
    ("nul-character", "\0", "a NUL character", "Correct them: other programs end a caption there."),
    ("byte-order-mark", "\ufeff", "a byte-order mark (U+FEFF)", "Correct them: a tokenizer takes it for a sign."),
)


def _broken_text(pairs: Pairs) -> Iterator[Finding]:
    """Captions with signs that a wrong encoding leaves."""
    for code, sign, name, remedy in _BROKEN:
        n, examples = _uids_at(pairs, pc.match_substring(pairs.text, sign))
        if n:
            message = f"Captions that hold {name}: {n} of {len(pairs)} (pairs {examples})."
            yield Finding(code, "warning", message, remedy)


def _lists_as_text(pairs: Pairs) -> Iterator[Finding]:
    """Captions that spell a list."""
    rows = np.flatnonzero(pc.match_substring_regex(pairs.text, r"^\s*\[(.|\n)*\]\s*$").to_numpy())
    texts = pairs.text.take(pa.array(rows)).to_pylist()
    spelt = rows[[read_spelt_list(text) is not None or "'" in text for text in texts]] if len(rows) else rows
    if len(spelt):
        n, examples = len(spelt), _named(pairs.uid.take(pa.array(spelt[: _NAMED + 1])).to_pylist())
        message = f"Captions that spell a list: {n} of {len(pairs)} (pairs {examples}), as {texts[0][:60]!r}."
        remedy = "Write lists in all cells of the column, or in none; JSON Lines and Parquet have lists."
        yield Finding("list-as-text", "warning", message, remedy)


def _long_captions(
    pairs: Pairs, context_length: int | None, tokenize: Callable[[list[str]], Sequence[int]] | None
) -> Iterator[Finding]:
    if context_length is None:
        return
    # a token has a character at least
    rows = np.flatnonzero(pc.greater(pc.utf8_length(pairs.text), context_length - 2).to_numpy())
    texts = pairs.text.take(pa.array(rows))
    if tokenize is None:
        lengths = pc.count_substring_regex(texts, _PIECES).to_numpy() + 2
        how = "by an estimate from below (words and signs)"
    else:
        blocks = [texts[start : start + _BLOCK].to_pylist() for start in range(0, len(texts), _BLOCK)]
        lengths = np.array([length for block in blocks for length in tokenize(block)], dtype=np.int64)
        how = "by the tokenizer"
    mask = np.zeros(len(pairs), dtype=bool)
    mask[rows[lengths > context_length]] = True
    n, examples = _uids_at(pairs, mask)
    if n:
        message = f"Captions of more than {context_length} tokens, {how}: {n} of {len(pairs)} (pairs {examples})."
        remedy = "What is beyond is cut off; shorten them, or use a model with a longer context."
        yield Finding("long-caption", "warning", message, remedy)


def _separators(pairs: Pairs) -> Iterator[Finding]:
    """Captions that all hold equally many of a sign which separates columns."""
    for mark, name in (("\t", "tab"), (";", "semicolon"), ("|", "vertical bar")):
        span = pc.min_max(pc.count_substring(pairs.text, mark))
        low, high = span["min"].as_py(), span["max"].as_py()
        if len(pairs) > 1 and low == high and low:
            message = f"All {len(pairs)} captions hold {low} times a {name}, as {pairs.text[0].as_py()[:60]!r}."
            remedy = f"If the {name} separates columns, save the table with one separator throughout."
            yield Finding("wrong-separator", "warning", message, remedy)


def _shards(pairs: Pairs, workers: int, shards: int | None) -> Iterator[Finding]:
    if shards is None:
        shards = len({path for path, offset, _ in map(split_place, pairs.images.to_pylist()) if offset is not None})
    if 0 < shards < workers:
        message = f"Shards: {shards} for {workers} workers; one that hands out whole shards leaves some idle."
        remedy = f"Use {shards} workers at most, or write smaller shards."
        yield Finding("few-shards", "warning", message, remedy)


def _labels(pairs: Pairs) -> Iterator[Finding]:
    known = pc.greater(pc.list_value_length(pairs.labels), 0).to_numpy()
    if not known.any():
        remedy = "Give a table with a label column, name it, or choose a label rule, if a method needs classes."
        yield Finding("no-labels", "note", f"Labels: none of {len(pairs)} pairs has one.", remedy)
        return
    if not known.all():
        n, examples = _uids_at(pairs, ~known)
        message = f"Pairs without a label: {n} of {len(pairs)} ({examples})."
        yield Finding("some-labels", "note", message, "Fine for training; methods by class leave them alone.")
    rare = {name: n for name, n in pairs.classes.items() if n < FEW_IMAGES}
    if rare:
        examples = _named(f"{name}: {n}" for name, n in sorted(rare.items(), key=lambda item: item[1]))
        message = f"Classes of fewer than {FEW_IMAGES} images: {len(rare)} of {len(pairs.classes)} ({examples})."
        yield Finding("small-class", "warning", message, "Choose other classes as source, target or test.")


def _splits(pairs: Pairs) -> Iterator[Finding]:
    """Images that are in two splits."""
    if pairs.split.null_count == len(pairs):
        return
    split = pairs.split.dictionary_encode().unify_dictionaries().combine_chunks()
    code, kinds = split.indices.fill_null(-1).to_numpy().astype(np.int64) + 1, len(split.dictionary) + 1
    image = np.unique(pairs.image_index * kinds + code) // kinds  # once for each split it is in
    shared = np.unique(image[1:][image[1:] == image[:-1]])
    if len(shared):
        examples = _named(pairs.images.take(pa.array(shared[: _NAMED + 1])).to_pylist())
        message = f"Images in more than one split: {len(shared)} of {len(pairs.images)} ({examples})."
        yield Finding("shared-image", "warning", message, "Keep each in one split, or the test is no test.")


def _several_captions(pairs: Pairs) -> Iterator[Finding]:
    counts = np.bincount(pairs.image_index)
    several = int((counts > 1).sum())
    if several:
        message = f"Images with several captions: {several} of {len(counts)}, {counts.max()} captions at most."
        remedy = (
            "Nothing to do here, where recall counts any caption of an image as right; "
            "a program that takes one caption an image sees these images as duplicates."
        )
        yield Finding("several-captions", "note", message, remedy)


# --- what a data set holds ---------------------------------------------------------------------------


def describe(pairs: Pairs) -> dict[str, Any]:
    """Counts of pairs, images, captions, splits and classes, caption lengths in words, where images lie, and
    what the reader left out."""
    per_image = np.bincount(pairs.image_index) if len(pairs) else np.zeros(1, int)
    words = pc.count_substring_regex(pairs.text, r"\S+").to_numpy() if len(pairs) else np.zeros(1, int)
    # what is left before the last slash: a folder, a shard or a table
    places = pc.replace_substring_regex(pairs.images, r"#(\d+\+\d+|\d+@[^/]*)$", "/")
    folders = pc.replace_substring_regex(places, r"[/\\][^/\\]*$", "")
    return {
        "pairs": len(pairs),
        "images": len(pairs.images),
        "captions_per_image": {
            "min": int(per_image.min()),
            "median": float(np.median(per_image)),
            "max": int(per_image.max()),
        },
        "splits": _counts(pairs.split),
        "classes": pairs.classes,
        "unlabelled_pairs": int(pc.sum(pc.equal(pc.list_value_length(pairs.labels), 0)).as_py() or 0),
        "caption_words": {
            "median": float(np.median(words)),
            "95%": float(np.percentile(words, 95)),
            "max": int(words.max()),
        },
        "sources": _counts(folders, most=20),
        "source_count": len(folders.unique()),
        "left_out": {
            reason: {"count": entry.count, "what": REASONS[reason][0], "example": entry.example}
            for reason, entry in pairs.report.left_out.items()
        },
    }


def _counts(column: pa.Array | pa.ChunkedArray, most: int | None = None) -> dict[str, int]:
    """How often each value stands in `column`, most frequent first."""
    counted = [(entry["values"].as_py() or "", entry["counts"].as_py()) for entry in pc.value_counts(column)]
    return dict(sorted(counted, key=lambda item: (-item[1], item[0]))[:most])
