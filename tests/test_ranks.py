"""One product for several questions: the same answers as each alone, whatever the tiles, copies and near-copies."""

import numpy as np
import pytest

from mithridate.metrics import ranks
from mithridate.metrics.ranks import best_ranks, ranks_and_top, ranks_both_ways, sweep, targets_in_top


@pytest.fixture(params=[None, 36, 400], ids=lambda size: f"tiles of {size}")
def tiles(request, monkeypatch):
    if request.param is not None:
        monkeypatch.setattr(ranks, "_BLOCK_BYTES", request.param)


def integers(rng, rows, width):
    return rng.integers(-1, 2, (rows, width)).astype(np.float32)


def own_of(rng, texts, images):
    """An image for each text, every image at least once, in no order."""
    return rng.permutation(np.concatenate([np.arange(images), rng.integers(0, images, texts - images)]))


def slow(query, gallery, targets, own):
    s = query.astype(np.float64) @ gallery.T.astype(np.float64)
    others = np.setdiff1d(np.arange(len(gallery)), targets)
    shared = (s[:, others] >= s[:, targets].max(axis=1, keepdims=True)).sum(axis=1)
    to_image = [(np.delete(row, i) >= row[i]).sum() for row, i in zip(s, own)]
    to_text = [(s[own != j, j] >= s[own == j, j].max()).sum() for j in range(len(gallery))]
    return shared.tolist(), to_image, to_text


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("width", [2, 3, 12])  # with two axes most rows are copies of another
@pytest.mark.parametrize("seed", range(2))
def test_all_questions_to_one_product_equal_the_slow_loop(width, seed):
    rng = np.random.default_rng(seed)
    query, gallery = integers(rng, 45, width), integers(rng, 31, width)
    own, targets = own_of(rng, 45, 31), rng.choice(31, 4, replace=False)
    shared, to_image, to_text = slow(query, gallery, targets, own)
    found = sweep(query, gallery, targets=targets, own=own)
    assert [part.tolist() for part in found] == [shared, to_image, to_text]
    assert [part.tolist() for part in ranks_both_ways(query, gallery, own)] == [to_image, to_text]
    rank, top = ranks_and_top(query, gallery, targets, (1, 3, 10))
    assert rank.tolist() == best_ranks(query, gallery, targets).tolist() == shared
    assert np.array_equal(top, targets_in_top(query, gallery, targets, (1, 3, 10)))
    assert np.array_equal(top > 0, rank[:, None] < [1, 3, 10])


def test_several_tiles_of_real_numbers_equal_one_product(monkeypatch):
    rng = np.random.default_rng(0)
    query, gallery = (rng.normal(size=(n, 64)).astype(np.float32) for n in (700, 450))
    own, targets = own_of(rng, 700, 450), rng.choice(450, 20, replace=False)
    whole = slow(query, gallery, targets, own)
    monkeypatch.setattr(ranks, "_BLOCK_BYTES", 4 * 128**2)
    assert [part.tolist() for part in sweep(query, gallery, targets=targets, own=own)] == list(whole)


@pytest.mark.parametrize("size", [200, 1500])
def test_an_encoder_that_has_all_but_collapsed_retrieves_by_chance(size):
    """Rows that differ in the last bits: a target's similarity rounded otherwise would win, or lose, every time."""
    rng = np.random.default_rng(size)
    point = rng.normal(size=64)
    point /= np.linalg.norm(point)
    query, gallery = ((point + 1e-8 * rng.normal(size=(size, 64))).astype(np.float32) for _ in range(2))
    assert len(np.unique(gallery, axis=0)) > size // 2
    to_image, to_text = ranks_both_ways(query, gallery, rng.permutation(size))
    for rank in (to_image, to_text, best_ranks(query, gallery, np.array([size // 2]))):
        assert (rank == 0).mean() < 0.05
        assert rank.mean() > 0.3 * size


def test_copies_tie_in_both_directions():
    """The library rounds equal rows differently by where they stand; copies must tie on either side."""
    rng = np.random.default_rng(1)
    texts, images = (rng.normal(size=(n, 33)).astype(np.float32) for n in (300, 200))
    twice = np.concatenate([texts, texts]), np.concatenate([images, images])
    own = np.concatenate([own_of(rng, 300, 200), own_of(rng, 300, 200) + 200])
    to_image, to_text = ranks_both_ways(*twice, own)
    assert (to_image >= 1).all()  # its image's copy, which is not its own
    assert (to_text >= 1).all()  # the copy of its best text belongs to an image of the other half


def test_a_row_of_the_gallery_without_a_query_is_refused():
    with pytest.raises(ValueError, match="a row of the gallery has no query of its own"):
        ranks_both_ways(np.ones((2, 2), np.float32), np.ones((3, 2), np.float32), np.array([0, 2]))
