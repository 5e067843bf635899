"""The words of captions as numbers: a million captions take megabytes, not one Python object a word."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int

_WORD = re.compile(r"\w+")  # letters and digits of any script
_ROWS = 65_536  # captions that are Python objects at once


@dataclass(frozen=True)
class Words:
    """Of n captions t words in their order, lower case: `caption` (t,) where each stands, `word` (t,) which of `names`
    it is."""

    names: list[str]
    caption: Int[np.ndarray, " t"]
    word: Int[np.ndarray, " t"]
    count: int


@dataclass(frozen=True)
class Phrases:
    """Of n captions the e pairs of a phrase and a caption that has it, each once, by phrase and then by caption."""

    names: list[str]
    caption: Int[np.ndarray, " e"]
    phrase: Int[np.ndarray, " e"]


def words_of(captions: pa.ChunkedArray) -> Words:
    """The words of n captions; a missing caption has none."""
    known: dict[str, int] = {}
    word, counts = array("i"), array("i")
    for low in range(0, len(captions), _ROWS):
        for caption in captions.slice(low, _ROWS).to_pylist():
            found = _WORD.findall((caption or "").lower())
            word.extend([known.setdefault(name, len(known)) for name in found])
            counts.append(len(found))
    caption = np.repeat(np.arange(len(captions), dtype=np.int32), np.frombuffer(counts, np.int32))
    return Words(list(known), caption, np.frombuffer(word, np.int32), len(captions))


def phrases(words: Words, least: int) -> Phrases:
    """Words, and two words that follow each other, that at least `least` captions have."""
    size, follows = max(1, len(words.names)), words.caption[1:] == words.caption[:-1]
    first, second = words.word[:-1][follows], words.word[1:][follows]
    key = np.concatenate([words.word.astype(np.int64), (first + np.int64(1)) * size + second])
    caption = np.concatenate([words.caption, words.caption[1:][follows]])
    values, counts = _counted(np.sort(key))
    values = values[counts >= least]  # a caption may say a word twice: what is left is counted again below
    if not len(values):
        return Phrases([], np.empty(0, np.int32), np.empty(0, np.int32))
    code = np.minimum(np.searchsorted(values, key), len(values) - 1)
    there = values[code] == key
    entry = code[there] * np.int64(max(1, words.count)) + caption[there]
    del key, caption, code, there
    entry.sort()
    entry = entry[np.diff(entry, prepend=-1) > 0]
    phrase, caption = (part.astype(np.int32) for part in np.divmod(entry, max(1, words.count)))
    enough = np.bincount(phrase, minlength=len(values)) >= least
    kept = enough[phrase]
    names = [_name(words.names, int(value), size) for value in values[enough]]
    return Phrases(names, caption[kept], (np.cumsum(enough) - 1).astype(np.int32)[phrase[kept]])


def _counted(ordered: Int[np.ndarray, " k"]) -> tuple[Int[np.ndarray, " v"], Int[np.ndarray, " v"]]:
    """The distinct values of an ordered array, and how often each stands there."""
    start = np.flatnonzero(np.diff(ordered, prepend=-1))
    return ordered[start], np.diff(np.append(start, len(ordered)))


def _name(names: list[str], value: int, size: int) -> str:
    return names[value] if value < size else f"{names[value // size - 1]} {names[value % size]}"
