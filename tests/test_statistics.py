"""Intervals and tests against scipy, loops over every outcome, values by hand, and simulated data of known truth."""
# pyright: reportOptionalOperand=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# (ends of an interval that are there; scipy has no types)

from itertools import product

import numpy as np
import pytest
from scipy import stats

from mithridate.statistics.differences import (
    Difference,
    _sign_flips,
    cluster_bootstrap,
    corrected,
    holm,
    inside_noise,
    mean_over,
    paired_difference,
    rate_over,
)
from mithridate.statistics.intervals import (
    bootstrap_mean,
    rate,
    score_interval,
    student_quantile,
    wilson,
)
from mithridate.statistics.seeds import bootstrap_difference, hierarchical_bootstrap, hierarchical_difference


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- Student, Wilson, McNemar, Holm ------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 31, 124, 4999])
def test_student_is_scipys(freedom):
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)
    assert student_quantile(freedom, tail=0.4) == pytest.approx(stats.t.ppf(0.8, freedom), rel=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(0, 25), (1, 25), (15, 16), (117, 125), (5000, 5000)])
def test_wilson_is_scipys(successes, n):
    theirs = stats.binomtest(successes, n).proportion_ci(method="wilson")
    found = wilson(successes, n)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_mcnemar_is_the_binomial_test_of_the_queries_that_differ(rng):
    for n in (1, 8, 40, 3000):
        first, second = rng.random(n) < 0.4, rng.random(n) < 0.3
        up, down = int((first & ~second).sum()), int((~first & second).sum())
        theirs = stats.binomtest(up, up + down).pvalue if up + down else 1.0
        found = paired_difference(first, second, rng=rng)
        assert found.p == pytest.approx(theirs, abs=1e-12)  # sign flips of true and false are McNemar's test
        assert found.exact


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"p-values lie in \[0, 1\]"):
        holm([0.5, float("nan")])


# --- sign flips --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "difference",
    [
        [1.0, 2.0, -3.0, 0.5, 0.5, 7.0],
        [0.1, 0.2, 0.3, -0.6, 0.7],  # sums that rounding would tell apart
        [0, 0, 3, -1, -1, 4, 4, 0],
        [5],
    ],
)
def test_sign_flips_count_every_flip(difference, rng):
    d = np.array(difference)
    reached = abs(d.sum()) - 1e-9
    flips = [abs(sum(s * x for s, x in zip(signs, d))) >= reached for signs in product((-1, 1), repeat=len(d))]
    assert _sign_flips(d.astype(np.float64), rng=rng, flips=9999)[0] == pytest.approx(np.mean(flips), abs=1e-12)


def test_drawn_flips_near_the_exact_ones_and_never_zero(rng):
    d = np.arange(1, 19.0) * np.where(np.arange(18) % 3, 1, -1)
    table = np.array(list(product((-1, 1), repeat=18))) @ d
    exact = (np.abs(table) >= abs(d.sum()) - 1e-9).mean()
    assert _sign_flips(d, rng=rng, flips=9999)[0] == pytest.approx(exact)  # 2^18 flips are counted
    many = np.concatenate([d, 1e-6 * np.arange(1, 41)])  # too many to count; what is added only decides ties
    beyond = (np.abs(table) > abs(d.sum()) + 1e-9).mean()
    error = 4 * np.sqrt(exact * (1 - exact) / 9999) + 1e-4
    assert beyond - error < _sign_flips(many, rng=rng, flips=9999)[0] < exact + error
    assert _sign_flips(rng.random(200) + 1, rng=rng, flips=9999)[0] == 1 / 10_000
    assert _sign_flips(np.zeros(4), rng=rng, flips=9999)[0] == 1
    with pytest.raises(ValueError, match="finite"):
        _sign_flips(np.array([1.0, np.nan]), rng=rng, flips=9999)


# --- paired differences ------------------------------------------------------------------------------


def test_a_paired_difference_by_hand(rng):
    first, second = np.array([True] * 8 + [False] * 2), np.array([True] * 3 + [False] * 7)
    found = paired_difference(first, second, rng=rng)
    assert (found.value, found.n) == (0.5, 10) and found.p == pytest.approx(2 * 0.5**5, abs=1e-12)
    # Bonett and Price: (5 + 1) / 12 and (0 + 1) / 12
    half = 1.959963984540054 * np.sqrt((7 / 12 - (5 / 12) ** 2) / 12)
    assert (found.low, found.high) == pytest.approx((5 / 12 - half, 5 / 12 + half))
    back = paired_difference(second, first, rng=rng)
    assert (back.value, back.low, back.high) == pytest.approx((-0.5, -found.high, -found.low))


def test_models_that_never_differ_may_still_do_so_elsewhere(rng):
    same = np.array([True] * 20)
    for cluster in (None, np.arange(20) // 2):
        found = paired_difference(same, same, rng=rng, cluster=cluster)
        assert found.low < 0 < found.high
        assert (found.value, found.p) == (0, 1)


def test_clusters_are_flipped_whole(rng):
    cluster = np.repeat(np.arange(6), 5)
    ranks = np.repeat([3, 1, 4, 1, 5, 9], 5)
    found = paired_difference(ranks, ranks * 0, rng=rng, cluster=cluster)
    assert found.n == 6 and found.p == pytest.approx(2 * 0.5**6, abs=1e-12)
    assert paired_difference(ranks, ranks * 0, rng=rng).p < 1e-3  # captions taken as independent
    shuffled = rng.permutation(30)
    again = paired_difference(ranks[shuffled], ranks * 0, rng=rng, cluster=cluster[shuffled])
    assert (again.value, again.p) == pytest.approx((found.value, found.p))


def test_a_difference_needs_the_same_queries(rng):
    with pytest.raises(ValueError, match="got 3 and 2"):
        paired_difference(np.arange(3), np.arange(2), rng=rng)
    with pytest.raises(ValueError, match="got 0 and 0"):
        paired_difference(np.arange(0), np.arange(0), rng=rng)


# --- bootstraps --------------------------------------------------------------------------------------


def test_clusters_of_one_are_the_plain_bootstrap():
    values = np.random.default_rng(1).exponential(size=40)
    found = cluster_bootstrap(values, np.arange(40), rng=np.random.default_rng(0))
    plain = bootstrap_mean(values, rng=np.random.default_rng(0))
    assert (found.value, found.low, found.high, found.n) == pytest.approx((plain.value, plain.low, plain.high, 40))


def test_copies_of_a_query_tell_nothing_new(rng):
    values = rng.normal(size=30)
    plain = bootstrap_mean(values, rng=np.random.default_rng(0))
    copied = cluster_bootstrap(np.repeat(values, 5), np.repeat(np.arange(30), 5), rng=np.random.default_rng(0))
    assert (copied.low, copied.high) == pytest.approx((plain.low, plain.high))
    with pytest.raises(ValueError, match="at least two, got 1"):
        cluster_bootstrap(values, np.zeros(30, dtype=int), rng=rng)


def test_a_rate_over_images_by_hand(rng):
    hit = rng.random(60) < 0.4
    alone, image = np.arange(60), np.repeat(np.arange(12), 5)
    assert rate_over(hit) == rate_over(hit, alone) == rate(hit)
    # captions that always agree are one: Wilson's interval of as many images, with Student's quantile
    copies = np.repeat(hit[:12], 5)
    value, found = float(copies.mean()), rate_over(copies, image)
    effective = 11  # 12 images, one degree of freedom less
    assert (found.value, found.n) == (value, 12)
    assert (found.low, found.high) == pytest.approx(score_interval(value, effective, quantile=student_quantile(11)))
    # nothing spreads: the images are counted, and one image tells nothing
    least, _ = score_interval(1.0, 12, quantile=student_quantile(11))
    assert rate_over(np.ones(60, bool), image).low == pytest.approx(least)
    assert rate_over(hit[:5], np.zeros(5, int)).n == 1 and rate_over(np.ones(5, bool), np.zeros(5, int)).low < 0.3
    # never more than the captions that there are
    spread = np.tile([True, False, False, False, False], 12)
    spread[1] = True
    wide = score_interval(13 / 60, 60, quantile=student_quantile(11))
    assert (rate_over(spread, image).low, rate_over(spread, image).high) == pytest.approx(wide)
    assert mean_over(hit, np.zeros(60, int), rng=rng).low is None


def test_three_seeds_are_as_wide_as_students_interval_of_three(rng):
    # units within a seed are all alike: only the seeds tell anything
    means = np.array([0.3, 0.5, 0.4])
    half = stats.t.ppf(0.975, 2) * means.std(ddof=1) / np.sqrt(3)
    for same in (True, False):
        found = hierarchical_bootstrap([np.full(20, m) for m in means * 10], rng=rng, same_units=same)
        assert found.value == pytest.approx(4)
        assert found.high - found.low == pytest.approx(20 * half, rel=1e-6)
        assert found.n == 3
    rates = hierarchical_bootstrap([np.full(20, m) for m in means], rng=rng)
    assert 0 <= rates.low < 0.4 < rates.high <= 1


def test_seeds_that_agree_leave_the_spread_of_the_queries(rng):
    queries = rng.normal(size=200)
    found = hierarchical_bootstrap([queries, queries, queries], rng=rng)
    half = stats.t.ppf(0.975, 199) * queries.std(ddof=1) / np.sqrt(200)
    assert found.high - found.low == pytest.approx(2 * half, rel=1e-6)
    # what is hard is hard for both: the difference of two models knows it
    gap = hierarchical_difference([queries + 1, queries + 1.2], [queries, queries + 0.1], rng=rng)
    assert gap.value == pytest.approx(1.05)
    assert gap.low < 1.05 < gap.high
    # two times two seeds, t with one degree of freedom, variances 0.01 and 0.0025
    assert gap.high - gap.low == pytest.approx(2 * stats.t.ppf(0.975, 1) * np.sqrt(0.01 + 0.0025), rel=1e-6)


def test_p_and_interval_of_seeds_say_the_same(rng):
    for shift in (0.05, 0.2, 0.4, 1.0):
        first = [rng.normal(shift, 1, 50) for _ in range(4)]
        second = [rng.normal(0, 1, 50) for _ in range(4)]
        found = hierarchical_difference(first, second, rng=rng, same_units=False)
        middle, half = found.value, (found.high - found.low) / 2
        assert (found.p < 0.05) == (abs(middle) > half)
        plain = bootstrap_difference(first[0], second[0], rng=rng)
        assert plain.p == pytest.approx(stats.ttest_ind(first[0], second[0], equal_var=False).pvalue, abs=0.03)


def test_seeds_are_needed_and_units_the_same(rng):
    with pytest.raises(ValueError, match="at least two of them, got 1"):
        hierarchical_bootstrap([np.arange(3)], rng=rng)
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        hierarchical_bootstrap([np.arange(3), np.arange(4)], rng=rng)
    with pytest.raises(ValueError, match="got 3 and 4"):
        hierarchical_difference([np.arange(3)] * 2, [np.arange(4)] * 2, rng=rng)
    with pytest.raises(ValueError, match="at least two units"):
        bootstrap_difference(np.arange(1), np.arange(4), rng=rng)
    assert hierarchical_bootstrap([np.arange(3), np.arange(4)], rng=rng, same_units=False).value == 1.25


def test_the_same_generator_gives_the_same_numbers():
    values, more = np.arange(40.0) ** 2, [np.arange(30.0), np.arange(30.0)[::-1] * 2]
    for call in (
        lambda r: paired_difference(values, values[::-1].copy(), rng=r),
        lambda r: cluster_bootstrap(values, np.arange(40) // 3, rng=r),
        lambda r: hierarchical_bootstrap(more, rng=r),
        lambda r: bootstrap_difference(values, values * 2, rng=r),
    ):
        assert call(np.random.default_rng(3)) == call(np.random.default_rng(3))


# --- noise -------------------------------------------------------------------------------------------


def test_a_difference_is_inside_its_noise_where_either_p_value_or_interval_doubts_it():
    nothing = Difference(0.012, -0.02, 0.04, 125, 0.48)
    assert inside_noise(nothing)
    found = Difference(-25.0, -31.0, -18.2, 125, 0.0001)
    assert not inside_noise(found)
    assert inside_noise(Difference(0.1, 0.01, 0.2, 30, 0.06))  # either doubt suffices
    assert inside_noise(Difference(0.1, -0.01, 0.2, 30, 0.04))


def test_a_difference_may_be_lost_among_many():
    one = Difference(0.1, 0.01, 0.2, 30, 0.03)
    assert not inside_noise(one)
    assert [d.corrected for d in corrected([one, Difference(0.0, -1.0, 1.0, 30, 0.9)])] == [0.06, 0.9]
    assert all(inside_noise(d) for d in corrected([one, one]))


# --- coverage: limits from the binomial distribution itself, or four standard errors of the simulation -----


def coverage(rates, n):
    ends = [wilson(k, n) for k in range(n + 1)]
    low, high = np.array([e.low for e in ends]), np.array([e.high for e in ends])
    share = stats.binom.pmf(np.arange(n + 1)[:, None], n, rates)
    return (share * ((low[:, None] <= rates) & (rates <= high[:, None]))).sum(axis=0)


@pytest.mark.parametrize("n", [25, 50, 125, 500, 1000, 5000])
def test_wilson_covers_near_every_rate_from_one_in_a_hundred(n):
    for p in np.concatenate([[0.01, 0.02, 0.05, 0.1], np.linspace(0.15, 0.85, 8), [0.9, 0.95, 0.98, 0.99]]):
        near = p + 0.5 * np.sqrt(p * (1 - p) / n) * np.linspace(-1, 1, 101 if n <= 500 else 21)
        assert 0.93 <= coverage(near, n).mean() <= 0.97
    points = coverage(np.linspace(0.01, 0.99, 197 if n <= 500 else 50), n)
    assert 0.949 <= points.mean() <= 0.955
    if n >= 1000:
        assert 0.93 <= points.min() <= points.max() <= 0.97


def test_no_interval_covers_every_single_rate_between_93_and_97():
    # an interval holds 0.01 for some numbers of successes; no set of them that holds 0 has a share in the band
    share = stats.binom.pmf(np.arange(26), 25, 0.01)
    totals = [share[0] + sum(share[list(chosen)]) for chosen in ([], [1], [2], [1, 2], [1, 2, 3], [2, 3], [3])]
    assert not any(0.93 <= total <= 0.97 for total in totals)
    assert share[0] < 0.93 < 0.97 < share[0] + share[1]
    assert share[0] + share[2:].sum() < 0.93
    assert share[1:].sum() < 0.93


def held(truth, draws, once):
    found = [once() for _ in range(draws)]
    return sum(e.low <= truth <= e.high for e in found) / draws


def noise(draws):
    return 4 * np.sqrt(0.95 * 0.05 / draws)


@pytest.mark.parametrize("n", [50, 125])
def test_means_of_ranks_are_covered(n, rng):
    for draw, truth in ((lambda: rng.integers(0, 500, n), 249.5), (lambda: rng.geometric(0.25, n) - 1, 3.0)):
        share = held(truth, 800, lambda d=draw: bootstrap_mean(d(), rng=rng, resamples=400))
        assert 0.93 - noise(800) <= share <= 0.97 + noise(800)


def test_three_seeds_are_covered(rng):
    def once():
        queries = rng.normal(size=40)
        return hierarchical_bootstrap(
            list(0.3 * rng.normal(size=(3, 1)) + queries + rng.normal(size=(3, 40))), rng=rng, resamples=400
        )

    assert 0.93 - noise(400) <= held(0, 400, once) <= 0.97 + noise(400)


def test_captions_of_one_image_are_covered_together_and_not_alone(rng):
    image = np.repeat(np.arange(50), 5)

    def draw():
        return (rng.normal(size=50)[image] + rng.normal(size=250)) > 0

    together = held(0.5, 500, lambda: cluster_bootstrap(draw(), image, rng=rng, resamples=400))
    alone = held(0.5, 500, lambda: bootstrap_mean(draw(), rng=rng, resamples=400))
    assert 0.93 - noise(500) <= together <= 0.97 + noise(500)
    assert alone < 0.93 - noise(500)


@pytest.mark.parametrize(("images", "mean", "together"), [(25, 0.5, 2), (50, 0.1, 2), (100, 0.9, 0.3), (100, 0.5, 50)])
def test_rates_over_images_are_covered_and_over_captions_are_not(images, mean, together, rng):
    """`together`: how much captions of one image agree, from 0 (all of them) to infinity (as if independent)."""
    image = np.repeat(np.arange(images), 5)

    def draw():
        return rng.random(5 * images) < rng.beta(mean * together, (1 - mean) * together, images)[image]

    assert 0.92 - noise(1000) <= held(mean, 1000, lambda: rate_over(draw(), image)) <= 0.97 + noise(1000)
    if together < 10:
        assert held(mean, 500, lambda: rate_over(draw())) < 0.9


def test_p_values_of_nothing_are_below_a_level_as_often_as_it_says(rng):
    found = np.array([paired_difference(*rng.normal(size=(2, 12)), rng=rng, resamples=9).p for _ in range(500)])
    for level in (0.05, 0.2, 0.5):
        assert abs((found <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 500)
