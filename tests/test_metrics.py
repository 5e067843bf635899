"""Ranks against slow loops written from their definitions; intervals and chance against values known by hand."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# pyright: reportOptionalOperand=false, reportOperatorIssue=false
# (a cell may be anything; that these are estimates with both ends is part of what is tested)

from itertools import combinations
from math import comb

import numpy as np
import pyarrow as pa
import pytest

from mithridate.data.pairs import make_pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.evaluation.material import retrieval_rows
from mithridate.evaluation.utility import utility_rows
from mithridate.metrics import ranks
from mithridate.metrics.names import HITS
from mithridate.metrics.ranks import best_ranks, targets_in_top, top
from mithridate.metrics.retrieval import RetrievalRanks, TargetRanks, recall, retrieval_ranks, target_ranks
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import bootstrap_mean, chance_hit, chance_min_rank, rate, wilson

# --- the definitions, as loops -----------------------------------------------------------------------


def similarities(query, gallery):
    return [[sum(float(x) * float(y) for x, y in zip(q, g)) for g in gallery] for q in query]


def slow_rank(row, targets):
    """How many others are at least as similar as the best target."""
    best = max(row[t] for t in targets)
    return sum(1 for column, value in enumerate(row) if column not in targets and value >= best)


def slow_in_top(row, targets, k):
    """Targets among the first k, where every other that is as similar stands before a target."""
    order = sorted(range(len(row)), key=lambda column: (-row[column], column in targets))
    return sum(1 for column in order[:k] if column in targets)


def integers(rng, rows, width):
    """Few values and few axes: similarities are exact, and most of them are shared by several columns."""
    return rng.integers(-1, 2, (rows, width)).astype(np.float32)


SHAPES = [  # queries, gallery, width, targets
    (7, 12, 2, 3),
    (20, 30, 3, 1),
    (5, 9, 4, 8),  # all but one
    (1, 11, 2, 2),
    (6, 6, 2, 6),  # every column a target
    (3, 1, 2, 1),
    (40, 25, 8, 5),
]


@pytest.fixture(params=[None, 1, 200], ids=lambda size: f"blocks of {size}")
def blocks(request, monkeypatch):
    """Queries are worked on all at once, one by one, and a few at a time."""
    if request.param is not None:
        monkeypatch.setattr(ranks, "_BLOCK_BYTES", request.param)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_ranks_equal_the_slow_loop_to_the_last_digit(shape, seed):
    queries, size, width, count = shape
    rng = np.random.default_rng(seed)
    query, gallery = integers(rng, queries, width), integers(rng, size, width)
    targets = rng.choice(size, count, replace=False)
    rows = similarities(query, gallery)
    assert best_ranks(query, gallery, targets).tolist() == [slow_rank(row, set(targets)) for row in rows]
    ks = (1, 2, 5, 10, 50)
    assert targets_in_top(query, gallery, targets, ks).tolist() == [
        [slow_in_top(row, set(targets), k) for k in ks] for row in rows
    ]


@pytest.mark.usefixtures("blocks")
def test_each_query_may_have_targets_of_its_own():
    rng = np.random.default_rng(0)
    query, gallery = integers(rng, 30, 3), integers(rng, 20, 3)
    own = [rng.choice(20, rng.integers(1, 6), replace=False).tolist() for _ in query]
    padded = np.array([row + [-1] * (5 - len(row)) for row in own])
    expected = [slow_rank(row, set(targets)) for row, targets in zip(similarities(query, gallery), own)]
    assert best_ranks(query, gallery, padded).tolist() == expected


def test_hit_at_k_asks_the_same_as_the_best_rank():
    rng = np.random.default_rng(3)
    query, gallery, targets = integers(rng, 50, 3), integers(rng, 40, 3), np.array([3, 17, 18, 33])
    found = target_ranks(query, gallery, targets)
    for k in (1, 5, 10, 40):
        hits = targets_in_top(query, gallery, targets, (k,))[:, 0] > 0
        assert ((found.rank < k) == hits).all()
        assert found.hit(k) == hits.mean()
    assert (found.targets, found.gallery) == (4, 40)


def test_without_ties_the_rank_is_the_position_in_the_sorted_order():
    rng = np.random.default_rng(1)
    query, gallery = (rng.normal(size=(n, 16)).astype(np.float32) for n in (25, 60))
    order = np.argsort(-(query.astype(np.float64) @ gallery.T.astype(np.float64)), axis=1)
    targets = np.array([5, 6, 50])
    position = [[np.flatnonzero(row == t)[0] for t in targets] for row in order]
    assert best_ranks(query, gallery, targets).tolist() == np.min(position, axis=1).tolist()
    indices, values = top(query, gallery, 7)
    assert indices.tolist() == order[:, :7].tolist()
    assert (np.diff(values, axis=1) < 0).all()
    assert top(query, gallery[:3], 7)[0].shape == (25, 3)


@pytest.mark.parametrize("width", [8, 64, 513])
@pytest.mark.parametrize("size", [7, 27, 501])
@pytest.mark.parametrize("queries", [1, 3, 40])
def test_a_collapsed_encoder_retrieves_nothing(width, size, queries):
    """One product rounds equal columns differently; they must still tie."""
    rng = np.random.default_rng(width + size)
    point = rng.normal(size=width).astype(np.float32)
    gallery = np.tile(point / np.linalg.norm(point), (size, 1))
    query = rng.normal(size=(queries, width)).astype(np.float32)
    for targets in (np.array([0]), np.array([size - 1]), np.array([1, size // 2])):
        found = target_ranks(query, gallery, targets)
        assert found.rank.tolist() == [size - len(targets)] * queries
        assert found.in_top.tolist() == [max(0, min(10, size) - size + len(targets))] * queries
    embeddings = Embeddings(
        pa.chunked_array([[str(n) for n in range(size)]]),
        np.repeat(gallery[:1], (size + 1) // 2, axis=0),
        np.arange(size) // 2,
        gallery,
        "collapsed",
    )
    assert recall(retrieval_ranks(embeddings), 1) == {"tr": 0.0, "ir": 0.0}


def test_equal_columns_tie_among_others():
    rng = np.random.default_rng(0)
    distinct = rng.normal(size=(40, 33)).astype(np.float32)
    copies = rng.integers(0, 40, 301)
    query = rng.normal(size=(17, 33)).astype(np.float32)
    rows = similarities(query, distinct)
    for target in (0, 150, 300):
        expected = [slow_rank([row[c] for c in copies], {target}) for row in rows]
        assert best_ranks(query, distinct[copies], np.array([target])).tolist() == expected


@pytest.mark.parametrize("targets", [np.empty(0, int), np.empty((2, 0), int), np.array([[1], [-1]])])
def test_a_query_without_a_target_is_refused(targets):
    with pytest.raises(ValueError, match="a query has no target"):
        best_ranks(np.ones((2, 2), np.float32), np.ones((3, 2), np.float32), targets)


# --- utility -----------------------------------------------------------------------------------------


def captioned(rng, counts, width, *, exact):
    """Embeddings of images with so many captions each, in random order."""
    index = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    make = integers if exact else lambda rng, n, d: rng.normal(size=(n, d)).astype(np.float32)
    uid = pa.chunked_array([[str(row) for row in range(len(index))]])
    return Embeddings(uid, make(rng, len(counts), width), index, make(rng, len(index), width), "random")


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("counts", [[5] * 12, [1, 4, 2, 7, 1, 1], [1] * 9, [6], [3, 1]])
def test_utility_equals_the_slow_loop_with_ties_and_any_number_of_captions(counts):
    for seed in range(3):
        e = captioned(np.random.default_rng(seed), counts, 3, exact=True)
        found = retrieval_ranks(e)
        to_text, to_image = similarities(e.image, e.text), similarities(e.text, e.image)
        own = [{row for row, image in enumerate(e.image_index) if image == number} for number in range(len(counts))]
        assert found.image_to_text.tolist() == [slow_rank(row, own[number]) for number, row in enumerate(to_text)]
        assert found.text_to_image.tolist() == [
            slow_rank(row, {int(e.image_index[number])}) for number, row in enumerate(to_image)
        ]


def test_recall_is_that_of_clip_benchmark():
    """There: of the positive pairs of a query how many are in its top k; a query counts where that is above 0."""
    e = captioned(np.random.default_rng(0), [5, 3, 4, 5, 1, 5, 2] * 3, 6, exact=False)
    positive = np.zeros((len(e), len(e.image)), bool)
    positive[np.arange(len(e)), e.image_index] = True
    scores = e.text.astype(np.float64) @ e.image.T.astype(np.float64)
    for k in (1, 5, 10):

        def benchmark(scores, positive, k=k):
            nearest = np.argsort(-scores, axis=1)[:, :k]
            in_top = np.take_along_axis(positive, nearest, axis=1).sum(axis=1)
            return ((in_top / positive.sum(axis=1)) > 0).mean()

        found = recall(retrieval_ranks(e), k)
        assert found == {"tr": benchmark(scores.T, positive.T), "ir": benchmark(scores, positive)}
        assert 0 < found["tr"] < 1


def test_a_group_counts_its_own_queries_and_the_galleries_stay_whole():
    e = captioned(np.random.default_rng(2), [2, 3, 1, 2], 3, exact=True)
    found = retrieval_ranks(e)
    mask = np.isin(e.image_index, [1, 3])
    pairs = make_pairs([f"{image}.png" for image in e.image_index], [str(n) for n in range(len(e))])
    place = np.array([int(name.removesuffix(".png")) for name in pairs.images.to_pylist()])
    order = RetrievalRanks(found.image_to_text[place], found.text_to_image)
    rows = {m.metric: m for m in utility_rows("m", order, pairs, {"g": mask})}
    assert {(m.model, m.group, m.unit) for m in rows.values()} == {("m", "g", "image")}
    for k in (1, 5, 10):
        assert rows[f"TR@{k}"].value.value == (found.image_to_text[[1, 3]] < k).mean()
        assert rows[f"IR@{k}"].value.value == (found.text_to_image[mask] < k).mean()
        assert rows[f"IR@{k}"].chance == min(1, k / 4)
    assert {m.value.n for m in rows.values()} == {2}  # images: captions of one are no units of their own
    # an image of three captions and one of two, among eight
    assert rows["TR@1"].chance == pytest.approx((3 / 8 + 2 / 8) / 2)


# --- rows of the long table --------------------------------------------------------------------------


def rows_of(ranks, image=None):
    return {m.metric: m for m in retrieval_rows("x", ranks, goal="a:b", group="all", seed=0, image=image)}


def test_rows_of_an_attack_by_hand():
    gallery = np.array([[8], [1], [10], [9], [7], [6], [5], [4], [3], [2], [0], [-1]], np.float32)
    query = np.array([[1.0], [1.0], [-1.0], [0.0]], np.float32)  # descending, ascending, all alike
    found = target_ranks(query, gallery, np.array([0, 1]))
    assert found.rank.tolist() == [2, 2, 2, 10]
    assert found.in_top.tolist() == [2, 2, 2, 0]
    rows = rows_of(found)
    value = {metric: m.value.value for metric, m in rows.items()}
    assert [value[f"Hit@{k}"] for k in (1, 5, 10)] == [0, 0.75, 0.75]
    assert value["MinRank"] == 4
    assert (value["median rank"], value["lowest rank"], value["highest rank"]) == (2, 2, 10)
    assert value["Precision@10"] == pytest.approx(6 / 40)
    together = rows_of(found, image=np.array([0, 0, 1, 1]))
    for name in ("Hit@5", "MinRank", "Precision@10"):
        one, two = rows[name].value, together[name].value
        assert one.value == two.value and (one.n, two.n) == (4, 2)
        assert two.low <= one.low and two.high >= one.high


def test_k_beyond_the_gallery_is_left_out():
    for size, shown in ((9, [1, 5, 10]), (10, [1, 5, 10]), (49, [1, 5, 10, 20, 30]), (500, list(HITS))):
        ranks = TargetRanks(np.zeros(3, int), np.zeros(3, int), 1, size)
        assert [metric for metric in rows_of(ranks) if metric.startswith("Hit@")] == [f"Hit@{k}" for k in shown]


# --- intervals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(8, 10, 0.4901625, 0.9433178), (0, 10, 0.0, 0.2775328), (10, 10, 0.7224672, 1.0), (1, 1, 0.2065493, 1.0)],
)
def test_wilson_by_hand(successes, n, low, high):
    found = wilson(successes, n)
    assert (found.value, found.n) == (successes / n, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 125, 100_000])
def test_wilson_holds_the_shares_that_the_normal_test_does_not_reject(n):
    for successes in {0, 1, n // 3, n - 1, n}:
        found = wilson(successes, n)
        assert 0 <= found.low <= found.value <= found.high <= 1
        for end in (found.low, found.high):
            if 0 < end < 1:  # the score interval ends where |p - end| is 1.96 standard errors of `end`
                error = 1.959963984540054 * (end * (1 - end) / n) ** 0.5
                assert abs(found.value - end) == pytest.approx(error, rel=1e-6, abs=1e-12)


def test_a_rate_counts_what_is_true():
    assert rate(np.array([True, False, True, True])) == wilson(3, 4)
    with pytest.raises(ValueError, match="at least one unit"):
        wilson(0, 0)


def test_the_bootstrap_covers_the_mean_and_repeats_itself():
    values = np.random.default_rng(1).exponential(size=200)
    first, again = (bootstrap_mean(values, rng=np.random.default_rng(0)) for _ in range(2))
    assert first == again
    assert first != bootstrap_mean(values, rng=np.random.default_rng(1))
    assert first.low < first.value == values.mean() < first.high
    spread = values.std() / np.sqrt(200)
    assert (first.high - first.low) == pytest.approx(2 * 1.96 * spread, rel=0.1)


def test_the_bootstrap_holds_the_true_mean_in_about_95_of_100():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        found = bootstrap_mean(rng.normal(size=60), rng=rng, resamples=400)
        inside += found.low <= 0 <= found.high
    assert 180 <= inside <= 198


def test_the_bootstrap_of_one_value_is_that_value():
    assert bootstrap_mean(np.array([7]), rng=np.random.default_rng(0)) == Estimate(7.0, 7.0, 7.0, 1)
    with pytest.raises(ValueError, match="at least one unit"):
        bootstrap_mean(np.empty(0), rng=np.random.default_rng(0))


# --- chance ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("targets", "gallery"), [(1, 1), (1, 5), (2, 6), (3, 7), (6, 7), (7, 7)])
def test_chance_is_the_mean_over_all_orders(targets, gallery):
    # only where the targets stand matters
    first = [min(places) for places in combinations(range(gallery), targets)]
    assert len(first) == comb(gallery, targets)
    assert chance_min_rank(targets=targets, gallery=gallery) == pytest.approx(np.mean(first))
    for k in range(1, gallery + 1):
        expected = np.mean([place < k for place in first])
        assert chance_hit(k, targets=targets, gallery=gallery) == pytest.approx(expected)
    assert chance_hit(gallery + 5, targets=targets, gallery=gallery) == 1


@pytest.mark.parametrize(
    ("targets", "gallery", "hits", "min_rank"),
    [
        (25, 500, (0.050, 0.227, 0.404), 18.27),
        (50, 3900, (0.0128, 0.0625, 0.121), 75.5),
        (1, 500, (0.002, 0.010, 0.020), 249.5),
        (1, 3900, (0.0003, 0.0013, 0.0026), 1949.5),
        (11, 500, (0.022, None, 0.200), 40.8),
    ],
)
def test_chance_in_the_settings_of_mmpoison(targets, gallery, hits, min_rank):
    rows = rows_of(TargetRanks(np.zeros(2, int), np.zeros(2, int), targets, gallery))
    for k, expected in zip((1, 5, 10), hits):
        found = rows[f"Hit@{k}"].chance
        if expected is not None:
            assert found == pytest.approx(expected, abs=0.5 * 10 ** -len(f"{expected}".split(".")[1]) + 5e-5)
    assert rows["MinRank"].chance == pytest.approx(min_rank, abs=0.05)
    assert rows["Precision@10"].chance == targets / gallery


def test_a_random_ranking_meets_chance():
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(4000, 8)).astype(np.float32), rng.normal(size=(50, 8)).astype(np.float32)
    found = [target_ranks(query[i::40], gallery, rng.choice(50, 5, replace=False)) for i in range(40)]
    assert np.mean([f.hit(10) for f in found]) == pytest.approx(chance_hit(10, targets=5, gallery=50), abs=0.03)
    assert np.mean([f.rank.mean() for f in found]) == pytest.approx(chance_min_rank(targets=5, gallery=50), rel=0.08)
