"""Easy data augmentation of captions (Wei & Zou, EMNLP 2019), without downloads and for any string."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from mithridate.randomness import stream

# words of everyday captions; each line stands for one thing
_GROUPS = """
photo picture photograph image snapshot
man guy gentleman
woman lady
boy lad
girl lass
child kid
children kids
people persons folks
person human individual
big large huge
small little tiny
old elderly aged
young youthful
beautiful pretty lovely
happy cheerful glad
sad unhappy
fast quick rapid
bright shiny
dark dim
dirty grubby
tall high
wide broad
empty vacant
several various many
near beside by
behind after
above over
below under beneath
looking watching gazing
sitting seated
standing upright
walking strolling
running racing jogging
jumping leaping
riding driving
eating munching
holding carrying gripping
smiling grinning
playing frolicking
sleeping dozing resting
street road lane
house home building
town city
forest woods woodland
field meadow pasture
grass lawn
hill slope
mountain peak
sea ocean
beach shore seaside
river stream
lake pond
sky heavens
garden yard
room chamber
floor ground
car automobile
bicycle bike cycle
motorbike motorcycle
aeroplane airplane plane aircraft
boat vessel
bus coach
train railway
dog hound
puppy pup
cat kitty feline
horse steed
cow cattle
bird fowl
sofa couch settee
chair seat
table desk
television tv telly
bottle flask
cup mug
coat jacket
hat cap
shoe boot
bag sack
phone telephone
computer pc
toy plaything
drawing sketch
cartoon comic
"""


@dataclass(frozen=True)
class Synonyms:
    """`name` is recorded with a run: another source of words makes other captions."""

    name: str
    of: Callable[[str], Sequence[str]]  # a lower-case word -> its synonyms, perhaps none


@lru_cache(maxsize=1)
def find_synonyms() -> Synonyms:
    """WordNet where nltk and its data are installed, else a small built-in list. Nothing is downloaded."""
    try:
        wordnet: Any = importlib.import_module("nltk.corpus").wordnet
        wordnet.ensure_loaded()
    except (ImportError, LookupError):  # LookupError: nltk without its data
        return BUILT_IN

    @lru_cache(maxsize=100_000)
    def of(word: str) -> Sequence[str]:
        names = {name.replace("_", " ") for sense in wordnet.synsets(word) for name in sense.lemma_names()}
        return tuple(sorted(name for name in names if name.lower() != word))

    return Synonyms("wordnet", of)


def _built_in() -> Synonyms:
    known: dict[str, tuple[str, ...]] = {}
    for line in _GROUPS.strip().splitlines():
        words = line.split()
        for word in words:
            known[word] = tuple(other for other in words if other != word)
    return Synonyms("built-in", lambda word: known.get(word, ()))


BUILT_IN = _built_in()


def augment_text(text: str, rng: np.random.Generator, *, synonyms: Synonyms, share: float = 0.1) -> str:
    """`text` with one of four changes, each as likely: synonyms put in place of words, synonyms inserted, words
    swapped, words deleted; `share` of the words, at least one.

    Words are what stands between blanks, punctuation and case as they were (the published code strips both and fails
    on captions without letters). A caption that the change does not apply to stays as it is; none becomes empty.
    """
    words = text.split()
    if not words:
        return text
    change = (_replace, _insert, _swap, _delete)[int(rng.integers(4))]
    return " ".join(change(words, rng, max(1, int(share * len(words))), share, synonyms)) or text


def _known(words: list[str], synonyms: Synonyms) -> list[tuple[int, Sequence[str]]]:
    """The places of words that have synonyms, with them."""
    found = ((i, synonyms.of(word.strip(".,;:!?\"'()").lower())) for i, word in enumerate(words))
    return [(i, others) for i, others in found if others]


def _replace(words: list[str], rng: np.random.Generator, count: int, share: float, synonyms: Synonyms) -> list[str]:
    known = _known(words, synonyms)
    out = list(words)
    for at in rng.permutation(len(known))[:count]:
        i, others = known[at]
        out[i] = others[int(rng.integers(len(others)))]
    return out


def _insert(words: list[str], rng: np.random.Generator, count: int, share: float, synonyms: Synonyms) -> list[str]:
    known = _known(words, synonyms)
    out = list(words)
    for _ in range(count if known else 0):
        others = known[int(rng.integers(len(known)))][1]
        out.insert(int(rng.integers(len(out) + 1)), others[int(rng.integers(len(others)))])
    return out


def _swap(words: list[str], rng: np.random.Generator, count: int, share: float, synonyms: Synonyms) -> list[str]:
    out = list(words)
    for _ in range(count if len(words) > 1 else 0):
        i, j = rng.choice(len(out), 2, replace=False)
        out[i], out[j] = out[j], out[i]
    return out


def _delete(words: list[str], rng: np.random.Generator, count: int, share: float, synonyms: Synonyms) -> list[str]:
    kept = [word for word, draw in zip(words, rng.random(len(words))) if draw >= share]
    return kept or [words[int(rng.integers(len(words)))]]


def augment_texts(
    texts: Sequence[str], rows: Sequence[int], *, seed: int, epoch: int, view: int, synonyms: Synonyms
) -> list[str]:
    """Each caption changed by a draw from (seed, epoch, row, view), whoever else is in its batch."""
    return [
        augment_text(text, stream(seed, "augmented caption", epoch, row, view), synonyms=synonyms)
        for text, row in zip(texts, rows)
    ]
