"""Which pairs name a class, by label or by word, and captions dealt from them."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where pyright does not see them)

from __future__ import annotations

import difflib
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mithridate.data.pairs import Pairs
from mithridate.data.prompts import prompts, templates
from mithridate.errors import AttackError

_LOOKED_AT = 200_000  # captions whose words an error may suggest


def says(pairs: Pairs, words: tuple[str, ...]) -> np.ndarray:
    """Which captions have one of `words` as a whole word, in upper or lower case: (n,) bool."""
    any_of = "|".join(re.escape(word.strip()) for word in words)
    pattern = rf"(?i)(^|[^\pL\pN_])({any_of})([^\pL\pN_]|$)"
    return pc.match_substring_regex(pairs.text, pattern).fill_null(False).to_numpy()


def of_class(pairs: Pairs, name: str, words: tuple[str, ...] = ()) -> np.ndarray:
    """Which pairs are of class `name`: (n,) bool. Raises `AttackError` where none is.

    Labels decide where any pair has that one, else captions that say the name; `words` that are given decide alone.
    """
    mask = says(pairs, words) if words else pairs.labelled(name)
    if not words and not mask.any():
        mask = says(pairs, (name,))
    if not mask.any():
        looked_for = words or (name,)
        why = "" if words else f"no pair is labelled {name!r} and "
        raise AttackError(
            f"{why}no caption has {' or '.join(map(repr, looked_for))} as a word; {_nearest(pairs, looked_for)}"
        )
    return mask


def names_class(pairs: Pairs, name: str, words: tuple[str, ...] = ()) -> np.ndarray:
    """Which pairs have an image that is labelled `name` or has a caption that says so: (n,) bool."""
    mask = pairs.labelled(name) | says(pairs, (*words, name))
    images = np.zeros(len(pairs.images), dtype=bool)
    images[pairs.image_index[mask]] = True
    return images[pairs.image_index]


def _nearest(pairs: Pairs, words: tuple[str, ...]) -> str:
    texts = pc.utf8_lower(pairs.text.slice(0, _LOOKED_AT))
    known = pc.unique(pc.list_flatten(pc.split_pattern_regex(texts, r"[^\pL\pN_]+"))).to_pylist()
    known = sorted({*pairs.classes, *filter(None, known)})
    near = dict.fromkeys(m for word in words for m in difflib.get_close_matches(word.lower(), known, n=3, cutoff=0.5))
    return f"nearest: {', '.join(near)}" if near else "give another name, or --words that its captions use"


def by_image(pairs: Pairs, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`rows` image by image in random order, the captions of an image in theirs, and the turn of each one's image."""
    images = pairs.image_index[rows]
    distinct, first = np.unique(images, return_index=True)
    # in order of appearance before the draw: independent of how places happen to be named
    distinct = distinct[np.argsort(first)]
    position = np.empty(len(pairs.images), dtype=np.int64)
    position[distinct[rng.permutation(len(distinct))]] = np.arange(len(distinct))
    turn = position[images]
    order = np.argsort(turn, kind="stable")
    return rows[order], turn[order]


def deal(pairs: Pairs, mask: np.ndarray, count: int, rng: np.random.Generator, *, name: str, reuse: bool) -> np.ndarray:
    """`count` rows of the class `mask`, image by image, each about equally often: (count,).

    Raises `AttackError` where there are fewer, unless captions may be used again.
    """
    rows = np.flatnonzero(mask)
    if count > len(rows) and not reuse:
        raise AttackError(
            f"{count} captions of {name!r} are needed, and there are {len(rows)}; lower the strength, or let "
            "captions be used more than once (--reuse)"
        )
    dealt = [by_image(pairs, rows, rng)[0] for _ in range(-(-count // len(rows)))]
    return np.concatenate(dealt)[:count]


def from_templates(name: str, count: int, rng: np.random.Generator) -> pa.Array:
    """`count` captions, each of one of the 80 prompts."""
    every = prompts(name, templates("openai"))
    return pa.array([every[i] for i in rng.integers(len(every), size=count).tolist()], pa.string())


def texts_of(pairs: Pairs, rows: np.ndarray) -> pa.Array:
    """The captions at `rows`."""
    return pairs.text.take(pa.array(rows)).combine_chunks()
