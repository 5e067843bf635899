"""More of the worst pairs share something than chance allows: a word, an image cluster, a domain, a shard."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.auditing.groups import Group
from mithridate.auditing.hardness import alike, fitted_spread, tail_strength
from mithridate.auditing.origins import registrable_domains, shards
from mithridate.auditing.words import phrases, words_of
from mithridate.errors import FilterError

_ENTRIES = 2**20  # pairs of a value and a caption that are looked at at once
_MOST_PAIRS = 64  # pairs of an image with one value: limits are made up to so many
_FEWEST = 100  # images with so many pairs that a limit needs; with fewer that of fewer pairs holds
_VALUES = 20  # a spread is fitted to at least so many values
_SPREAD = 0.5  # where there are fewer: between what photographs (0.3) and toy worlds (0.65) have
_FALSE = 0.2  # of the images that speak for a flagged value at most this share is expected without poison
_LIKELY = 0.1  # a count of at least this probability where all values are alike is no group


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """Which of n pairs have which of g values of one kind: `pair` and `value` (e,) name the entries, ordered by value
    and then by pair. `whole`: every pair of an image has its value, and few of them may be planted."""

    kind: str
    names: list[str]
    pair: Int[np.ndarray, " e"]
    value: Int[np.ndarray, " e"]
    whole: bool = True


@dataclass(frozen=True, kw_only=True)
class GroupExcess:
    """Images that share a word or a place and are among the worst of the corpus more often than chance allows.

    For every value of an attribute and every level q: of the images that have the value, how many are among the worst
    q. An image counts once: for a word by the mean negCLIPLoss of its captions that say it, held against as many
    captions of other images; for a cluster, domain or shard by its most suspicious pair. The strength is -log10 of the
    tail, at the level where it is largest; how much values differ by nature is in it (`auditing.hardness`), and what
    clean images with the value do. Images speak for their value up to that level, and for a flagged one up to the
    widest at which it is flagged still and few of them are expected. Derived here.
    """

    levels: tuple[float, ...] = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
    """Shares of the corpus that count as its worst, ascending."""
    least_images: int = 4
    """A smaller group is no group."""
    least_hits: int = 3
    """Fewer among the worst are a coincidence."""
    largest: float = 0.2
    """A group of more than this share of the images says nothing."""
    flag: float = 6.0
    """A group of at least this strength is flagged."""

    name: ClassVar[str] = "group-excess"
    measures: ClassVar[str] = "strength of the strongest group it speaks for, and mismatch within"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ("pairs",)

    def __post_init__(self) -> None:
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise FilterError(f"levels must lie in (0, 1), got {self.levels}")
        if list(self.levels) != sorted(self.levels):
            raise FilterError(f"levels must ascend, got {self.levels}")

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        shared = list(attributes(corpus, self.least_images))
        groups = [g for a in shared for g in self.groups_of(corpus, a, corpus.mismatch)]
        groups.sort(key=lambda group: (-group.strength, group.kind, group.value))
        dealt = _dealt_out(corpus, rng)
        null = max((g.strength for a in shared for g in self.groups_of(corpus, a, dealt)), default=0.0)
        strong = tuple(group for group in groups if group.strength >= self.flag / 2)
        return Evidence(*_of_pairs(corpus, groups), groups=strong, null=null)

    def groups_of(self, corpus: Corpus, attribute: Attribute, suspicion: Float[np.ndarray, " n"]) -> Iterator[Group]:
        """The groups of one attribute that are large enough, each at its strongest level."""
        level, hits, clean_hits = _counted(corpus, attribute, suspicion, np.array(self.levels))
        images, clean_images = hits[-1], clean_hits[-1]
        usable = (images >= self.least_images) & (images <= self.largest * max(1, (~corpus.clean_image).sum()))
        spread = self._spread(hits[-2], np.where(usable, images, 0))
        best = np.zeros((len(images), 4))  # strength, hits, expected, which level
        speaks = np.zeros(len(images), np.int64)  # up to which level images speak for their value
        for number, share in enumerate(self.levels):
            rows = np.flatnonzero(usable & (hits[number] >= self.least_hits))
            rows = rows[alike(hits[number, rows], images[rows], share) < _LIKELY]
            counts = hits[number, rows], images[rows], clean_hits[number, rows], clean_images[rows]
            strength, expected = tail_strength(*counts, share=share, spread=spread)
            better = strength > best[rows, 0]
            found = np.stack([strength, counts[0], expected, np.full(len(rows), number)], axis=1)
            best[rows[better]] = found[better]
            flagged = (strength >= self.flag) & (expected <= _FALSE * counts[0])
            speaks[rows[better | flagged]] = number
        # clean pairs with the value inherit its strength as others do, or no p-value would be one
        start = np.searchsorted(attribute.value, np.arange(len(images) + 1))
        for g in np.flatnonzero(best[:, 0] > 0):
            strength, count, expected, number = best[g]
            entries = slice(start[g], start[g + 1])
            rows = attribute.pair[entries].astype(np.int64)
            yield Group(
                attribute.kind,
                attribute.names[g],
                float(strength),
                int(images[g]),
                int(count),
                float(expected),
                self.levels[int(number)],
                rows,
                rows[level[entries] <= speaks[g]],
            )

    def _spread(self, hits: Int[np.ndarray, " g"], images: Int[np.ndarray, " g"]) -> float:
        """How much values differ by nature, at the widest level, of which poison is the smallest part; those that
        could be flagged have no say."""
        widest = self.levels[-1]
        known = images > 0
        known[known] = alike(hits[known], images[known], widest) > 10**-self.flag
        return fitted_spread(hits[known], images[known], widest) if known.sum() >= _VALUES else _SPREAD


def _counted(
    corpus: Corpus, attribute: Attribute, suspicion: Float[np.ndarray, " n"], levels: Float[np.ndarray, " l"]
) -> tuple[Int[np.ndarray, " e"], Int[np.ndarray, "k g"], Int[np.ndarray, "k g"]]:
    """For each entry the first level at which it speaks for its value, l where none; of each value how many images are
    among the worst at each level, and how many there are (k = l + 1), of the corpus and of the clean ones."""
    limits = _limits(corpus, suspicion, levels, worst=attribute.whole)  # (l, _MOST_PAIRS)
    count = len(attribute.names)
    start = np.searchsorted(attribute.value, np.arange(count + 1))
    level_of = np.empty(len(attribute.pair), np.int8)
    counts = np.zeros((2, len(levels) + 1, count), np.int64)
    low = 0
    while low < count:
        high = max(low + 1, int(np.searchsorted(start, start[low] + _ENTRIES, side="right")) - 1)
        part = slice(start[low], start[high])
        pair, value = attribute.pair[part].astype(np.int64), attribute.value[part].astype(np.int64)
        low = high
        if not len(pair):
            continue
        key = value * corpus.images + corpus.image_index[pair]
        order = np.argsort(key, kind="stable")
        first = np.flatnonzero(np.diff(key[order], prepend=-1))  # of each image with the value
        pairs = np.diff(np.append(first, len(order)))
        said = suspicion[pair[order]]
        if not attribute.whole:
            said = np.repeat(np.add.reduceat(said, first) / pairs, pairs)
        limit = limits[:, np.minimum(np.repeat(pairs, pairs), _MOST_PAIRS) - 1]
        level = (said <= limit).sum(axis=0).astype(np.int8)
        level_of[part.start + order] = level
        image = corpus.image_index[pair[order[first]]]
        which = corpus.clean_image[image].astype(np.int64), np.minimum.reduceat(level, first), value[order[first]]
        np.add.at(counts, which, 1)
    corpus_counts, clean_counts = counts.cumsum(axis=1)
    return level_of, corpus_counts, clean_counts


def _limits(
    corpus: Corpus, suspicion: Float[np.ndarray, " n"], levels: Float[np.ndarray, " l"], *, worst: bool
) -> Float[np.ndarray, "l c"]:
    """What c pairs of an image must exceed to be among the worst of the corpus: the worst of them, or their mean.

    The worst: at most by chance, were they independent. The mean: held against c pairs of each image that has as many,
    taken by uid.
    """
    pairs = np.arange(1, _MOST_PAIRS + 1)
    every = suspicion[~corpus.clean]
    if worst:
        return np.quantile(every, (1 - levels[:, None]) ** (1 / pairs))
    found = np.empty((len(levels), _MOST_PAIRS))
    rows = corpus.order[~corpus.clean[corpus.order]]
    rows = rows[np.argsort(corpus.image_index[rows], kind="stable")]
    first = np.flatnonzero(np.diff(corpus.image_index[rows], prepend=-1))
    held = np.diff(np.append(first, len(rows)))
    total = np.concatenate([[0.0], np.cumsum(suspicion[rows])])
    for c in pairs:
        if c > 1 and (held >= c).sum() < _FEWEST:
            found[:, c - 1] = found[:, c - 2]  # means of more pairs exceed it no more often
            continue
        means, at = [], 0
        while at == 0 or (held >= at + c).sum() >= _FEWEST:
            begin = first[held >= at + c] + at
            means.append((total[begin + c] - total[begin]) / c)
            at += c
        found[:, c - 1] = np.quantile(np.concatenate(means), 1 - levels)
    return found


def _dealt_out(corpus: Corpus, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
    """The suspicions of images dealt out anew to images: what their groups have by chance."""
    order = corpus.image_order
    other = np.empty(corpus.images, np.int64)
    other[order] = order[rng.permutation(corpus.images)]
    # each pair gets the suspicion of a pair of the image that its own was dealt
    by_image = np.argsort(corpus.image_index, kind="stable")
    counts = np.bincount(corpus.image_index, minlength=corpus.images)
    start = np.cumsum(counts) - counts
    within = np.empty(len(corpus), np.int64)
    within[by_image] = np.arange(len(corpus)) - np.repeat(start, counts)
    source = other[corpus.image_index]
    return corpus.mismatch[by_image[start[source] + within % counts[source]]]


def _of_pairs(corpus: Corpus, groups: list[Group]) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair the strongest group that it is in the tail of, and of equals the more inconsistent one."""
    n = len(corpus)
    strength, reason = np.zeros(n), np.full(n, "", object)
    for group in reversed(groups):  # the strongest last
        strength[group.tail] = group.strength
        reason[group.tail] = f"{group.kind} {group.value!r}"
    low, high = corpus.mismatch.min(), corpus.mismatch.max()
    return strength + (corpus.mismatch - low) / max(high - low, 1e-12), reason


def attributes(corpus: Corpus, least: int = 1) -> Iterator[Attribute]:
    """What pairs may share: words, image clusters, domains, shards; words of fewer than `least` captions left out."""
    yield words(corpus, least)
    yield from clusters(corpus)
    yield from provenance(corpus)


def words(corpus: Corpus, least: int = 1) -> Attribute:
    """1- and 2-grams of the captions, lower case; letters and digits of any script."""
    found = phrases(words_of(corpus.known_pairs.text), min(least, len(corpus)))
    return Attribute(kind="word", names=found.names, pair=found.caption, value=found.phrase, whole=False)


def clusters(corpus: Corpus) -> Iterator[Attribute]:
    """Image clusters of about 30 and of about 100 images (k-means)."""
    import faiss

    rows = np.ascontiguousarray(corpus.small_images[corpus.image_order])
    for size in (30, 100):
        k = len(rows) // size
        if k < 2:
            continue
        means = faiss.Kmeans(rows.shape[1], k, niter=10, seed=1, min_points_per_centroid=1)
        means.train(rows)
        label = np.empty(len(rows), np.int64)
        label[corpus.image_order] = means.assign(rows)[1]
        names = [f"{size}/{number}" for number in range(k)]
        yield _by_value("image cluster", names, np.arange(len(corpus)), label[corpus.image_index])


def provenance(corpus: Corpus) -> Iterator[Attribute]:
    """Registrable domain and shard, where the corpus says them."""
    pairs = corpus.known_pairs
    for kind, column in (("domain", registrable_domains(pairs)), ("shard", shards(pairs))):
        if column is not None and column.null_count < len(column):
            codes = column.dictionary_encode().unify_dictionaries().combine_chunks()
            index = codes.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
            there = np.flatnonzero(index >= 0)
            yield _by_value(kind, codes.dictionary.to_pylist(), there, index[there])


def _by_value(kind: str, names: list[str], pair: np.ndarray, value: np.ndarray) -> Attribute:
    order = np.argsort(value, kind="stable")
    return Attribute(kind=kind, names=names, pair=pair[order], value=value[order])
