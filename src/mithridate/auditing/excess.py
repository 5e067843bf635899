"""More of the worst pairs share something than chance allows: a word, an image cluster, a domain, a shard."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.evidence import Evidence, Need
from mithridate.auditing.groups import STRONGEST, Group
from mithridate.auditing.origins import registrable_domains, shards
from mithridate.auditing.words import phrases, words_of
from mithridate.errors import FilterError

_LN10 = float(np.log(10))
_ENTRIES = 2**20  # pairs of a value and a caption that are looked at at once


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """Which of n pairs have which of g values of one kind: `pair` and `value` (e,) name the entries, ordered by value
    and then by pair."""

    kind: str
    names: list[str]
    pair: Int[np.ndarray, " e"]
    value: Int[np.ndarray, " e"]


@dataclass(frozen=True, kw_only=True)
class GroupExcess:
    """Images that share a word or a place and are among the worst of the corpus more often than chance allows.

    For every value of an attribute and every level q: of the images that have the value, how many have a pair of it
    among the worst q of the corpus, by negCLIPLoss. An image counts once, by its most suspicious pair of the group;
    with c pairs in the group it is expected there with 1 - (1 - q)^c. The share expected is at least that of clean
    pairs with the same value. The strength is -log10 of the binomial tail, at the level where it is largest. Derived
    here; an encoder's own hard words are what the clean share is for.
    """

    levels: tuple[float, ...] = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
    """Shares of the corpus that count as its worst."""
    least_images: int = 4
    """A smaller group is no group."""
    least_hits: int = 3
    """Fewer among the worst are a coincidence."""
    largest: float = 0.2
    """A group of more than this share of the images says nothing."""
    prior: float = 10.0
    """How many pairs at the corpus' own level each clean share starts from."""
    flag: float = 6.0
    """A group of at least this strength is flagged."""

    name: ClassVar[str] = "group-excess"
    measures: ClassVar[str] = "strength of the strongest group it speaks for, and mismatch within"
    own_level: ClassVar[float | None] = None
    needs: ClassVar[tuple[Need, ...]] = ("pairs",)

    def __post_init__(self) -> None:
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise FilterError(f"levels must lie in (0, 1), got {self.levels}")

    def examine(self, corpus: Corpus, rng: np.random.Generator) -> Evidence:
        shared = list(attributes(corpus, self.least_images))
        groups = [g for a in shared for g in self.groups_of(corpus, a, corpus.mismatch)]
        groups.sort(key=lambda group: (-group.strength, group.kind, group.value))
        dealt = _dealt_out(corpus, rng)
        null = max((g.strength for a in shared for g in self.groups_of(corpus, a, dealt)), default=0.0)
        strong = tuple(group for group in groups if group.strength >= self.flag / 2)
        return Evidence(*_of_pairs(corpus, groups), groups=strong, null=null)

    def groups_of(self, corpus: Corpus, attribute: Attribute, suspicion: Float[np.ndarray, " n"]) -> Iterator[Group]:
        """The groups of one attribute that are large enough, each at its strongest level; some values at a time."""
        levels = np.quantile(suspicion[~corpus.clean], 1 - np.array(self.levels)).tolist()
        limits = dict(zip(self.levels, levels))
        count = len(attribute.names)
        start = np.searchsorted(attribute.value, np.arange(count + 1))
        low = 0
        while low < count:
            high = max(low + 1, int(np.searchsorted(start, start[low] + _ENTRIES, side="right")) - 1)
            part = slice(start[low], start[high])
            some = Attribute(
                kind=attribute.kind,
                names=attribute.names[low:high],
                pair=attribute.pair[part].astype(np.int64),
                value=attribute.value[part].astype(np.int64) - low,
            )
            yield from self._groups_of(corpus, some, suspicion, limits)
            low = high

    def _groups_of(
        self, corpus: Corpus, attribute: Attribute, suspicion: Float[np.ndarray, " n"], limits: dict[float, float]
    ) -> Iterator[Group]:
        from scipy.stats import binom

        keep = ~corpus.clean[attribute.pair]
        pair, value = attribute.pair[keep], attribute.value[keep]
        count = len(attribute.names)
        # one entry for each (value, image), with its pairs and the largest suspicion of them
        key = value * corpus.images + corpus.image_index[pair]
        order = np.argsort(key, kind="stable")
        first = np.flatnonzero(np.diff(key[order], prepend=-1))
        worst = np.maximum.reduceat(suspicion[pair[order]], first) if len(first) else np.empty(0)
        pairs_each = np.diff(np.append(first, len(order)))
        of_value = value[order][first]
        images = np.bincount(of_value, minlength=count)
        usable = (images >= self.least_images) & (images <= self.largest * max(1, (~corpus.clean_image).sum()))
        clean_pair, clean_value = attribute.pair[~keep], attribute.value[~keep]
        clean_count = np.bincount(clean_value, minlength=count)
        best = np.zeros((count, 4))  # strength, hits, expected, level
        for level, limit in limits.items():
            hits = np.bincount(of_value, weights=worst > limit, minlength=count)
            clean_hits = np.bincount(clean_value, weights=suspicion[clean_pair] > limit, minlength=count)
            share = np.maximum(level, (clean_hits + self.prior * level) / (clean_count + self.prior))
            expected = np.bincount(of_value, weights=1 - (1 - share[of_value]) ** pairs_each, minlength=count)
            mean = expected / np.maximum(images, 1)
            strength = np.minimum(-binom.logsf(hits - 1, images, np.minimum(mean, 1.0)) / _LN10, STRONGEST)
            strength[~usable | (hits < self.least_hits)] = 0
            better = strength > best[:, 0]
            best[better] = np.stack([strength, hits, expected, np.full(count, level)], axis=1)[better]
        # clean pairs with the value inherit its strength as others do, or no p-value would be one
        start = np.searchsorted(attribute.value, np.arange(count + 1))
        for g in np.flatnonzero(best[:, 0] > 0):
            strength, hits, expected, level = best[g]
            rows = attribute.pair[start[g] : start[g + 1]].copy()
            tail = rows[suspicion[rows] > limits[level]]
            yield Group(
                attribute.kind,
                attribute.names[g],
                float(strength),
                int(images[g]),
                int(hits),
                float(expected),
                float(level),
                rows,
                tail,
            )


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
    return Attribute(kind="word", names=found.names, pair=found.caption, value=found.phrase)


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
