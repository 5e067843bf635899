"""Groups of images that carry one pattern, by matched filters made of the residuals of look-alikes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mithridate.auditing.corpus import Corpus
from mithridate.auditing.groups import Group, filter_strength

_FILTERS = 500  # made of that many images of the corpus, and as many of clean ones
_DUPLICATE = 0.9  # re-coded and halved copies of photographs correlate with 0.94 and more
_LEAST_HITS = 4
_LEAST_CLEAN = 30  # images: fewer say nothing of a spread
_ROUNDS = 3  # a group's own mean is a better filter than its first four images
_BLOCK = 8192


def shared_patterns(
    corpus: Corpus, rows: np.ndarray, similarity: np.ndarray, found: np.ndarray, *, fellows: int
) -> tuple[Group, ...]:
    """Groups of images that answer to one filter as no clean image does to any; none with fewer than 30 clean images.

    A filter is the mean residual of an image and of its `fellows` most similar others, copies left out: what each
    picture has of its own averages out, what they share stays. It is made for the most suspicious images, and answers
    count in standard deviations of the clean images' answers to it, so that the outline of a common object, to which
    clean images answer too, is no pattern. `rows` are residuals (m, d) of unit length; `similarity` and `found` (m, k)
    an image's most similar others. Derived here.
    """
    clean = corpus.clean_image
    if clean.sum() < _LEAST_CLEAN or clean.all():
        return ()
    of_corpus, of_clean = (_suspicious(which, similarity, corpus.image_order, fellows) for which in (~clean, clean))
    own, null = (_Filters.of(images, rows, similarity, found, clean, fellows) for images in (of_corpus, of_clean))
    level = max(own.highest, null.highest)
    ours = np.flatnonzero(~clean)
    # how often an image of the corpus answers above the level to a filter of clean images, where nothing is planted
    rate = (sum(len(hits) for hits in null.hits(rows, ours, level)) + 1) / (len(of_clean) * len(ours))
    groups, taken = [], np.zeros(len(rows), bool)
    answers = own.hits(rows, ours, level)
    for at in sorted(range(len(answers)), key=lambda at: -len(answers[at])):
        hits = answers[at][~taken[answers[at]]]
        if len(hits) < _LEAST_HITS:
            continue
        made_of = own.members[at]
        hits = hits[(rows[hits] @ rows[made_of].T).max(axis=1) < _DUPLICATE]
        count = _pictures(rows[hits])
        if count < _LEAST_HITS:
            continue
        members = _grown(np.union1d(hits, made_of[~clean[made_of]]), rows, clean, level)
        members = members[~taken[members]]
        if len(members) < _LEAST_HITS:
            continue
        taken[members] = True
        strength = filter_strength(count, len(ours), rate=rate)
        pairs = np.flatnonzero(np.isin(corpus.image_index, members))
        value = f"{round(level, 1)} standard deviations above clean images"
        expected = rate * len(ours)
        groups.append(Group("residual", value, strength, len(members), len(members), expected, level, pairs, pairs))
    return tuple(sorted(groups, key=lambda group: -group.strength))


def _suspicious(which: np.ndarray, similarity: np.ndarray, order: np.ndarray, fellows: int) -> np.ndarray:
    """The images of `which` (m,) bool with the most similar fellows, most suspicious first."""
    images = order[which[order]]
    return images[np.argsort(-similarity[images, fellows - 1], kind="stable")][:_FILTERS]


@dataclass(frozen=True)
class _Filters:
    """f filters `rows` (f, d), the images that each was made of, and of its answers at clean images mean and spread
    (f, 1). `highest`: the highest answer of any at a clean image, in spreads."""

    rows: np.ndarray
    members: list[np.ndarray]
    mean: np.ndarray
    spread: np.ndarray
    highest: float

    @classmethod
    def of(
        cls,
        images: np.ndarray,
        rows: np.ndarray,
        similarity: np.ndarray,
        found: np.ndarray,
        clean: np.ndarray,
        fellows: int,
    ) -> "_Filters":
        members = []
        for image in images:
            others = found[image][similarity[image] < _DUPLICATE][:fellows]
            members.append(np.concatenate([[image], others]))
        filters = np.stack([_unit(rows[each].mean(axis=0)) for each in members])
        at = np.flatnonzero(clean)
        answers = np.concatenate([_without(filters @ rows[part].T, members, part) for part in _parts(at)], axis=1)
        mean = np.nanmean(answers, axis=1, keepdims=True)
        spread = np.maximum(np.nanstd(answers, axis=1, keepdims=True), 1e-9)
        return cls(filters, members, mean, spread, float(np.nanmax((answers - mean) / spread)))

    def answers(self, rows: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Of each filter at each of `images` (f, b), NaN at those that it was made of."""
        return _without((self.rows @ rows[images].T - self.mean) / self.spread, self.members, images)

    def hits(self, rows: np.ndarray, images: np.ndarray, level: float) -> list[np.ndarray]:
        """For each filter which of `images` answer above `level`."""
        found: list[list[np.ndarray]] = [[] for _ in self.members]
        for part in _parts(images):
            for at, above in enumerate(self.answers(rows, part) > level):
                if above.any():
                    found[at].append(part[above])
        return [np.concatenate([np.empty(0, np.int64), *each]) for each in found]


def _grown(members: np.ndarray, rows: np.ndarray, clean: np.ndarray, level: float) -> np.ndarray:
    """The images of the corpus that answer to the mean of `members`, each of them to the mean of the others."""
    for _ in range(_ROUNDS):
        total = rows[members].sum(axis=0)
        answer = rows @ _unit(total)
        at_clean = answer[clean]
        others = total - rows[members]
        answer[members] = np.einsum("md,md->m", rows[members], others / np.linalg.norm(others, axis=1, keepdims=True))
        above = np.flatnonzero((answer - at_clean.mean() > level * at_clean.std()) & ~clean)
        if len(above) < 2 or np.array_equal(above, members):
            break
        members = above
    return members


def _pictures(rows: np.ndarray) -> int:
    """How many pictures (h, d) residuals are of, copies of one counted once."""
    from scipy.sparse.csgraph import connected_components

    return int(connected_components(rows @ rows.T >= _DUPLICATE, directed=False)[0]) if len(rows) else 0


def _without(answers: np.ndarray, members: list[np.ndarray], images: np.ndarray) -> np.ndarray:
    for at, each in enumerate(members):
        answers[at, np.isin(images, each)] = np.nan
    return answers


def _unit(row: np.ndarray) -> np.ndarray:
    return row / max(float(np.linalg.norm(row)), 1e-12)


def _parts(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[low : low + _BLOCK] for low in range(0, len(images), _BLOCK))
