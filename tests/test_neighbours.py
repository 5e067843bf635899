"""Nearest neighbours against a full sort."""

import numpy as np
import pytest

from mithridate.encoder import neighbours
from mithridate.encoder.neighbours import nearest_neighbours


def unit(rng, n, d):
    rows = rng.standard_normal((n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sorted_neighbours(query, gallery, k, own=None):
    similarity = query.astype(np.float64) @ gallery.T.astype(np.float64)
    if own is not None:
        similarity[np.arange(len(query)), own] = -np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("low_precision", [False, True])
@pytest.mark.parametrize(("q", "g", "d", "k"), [(7, 5, 3, 2), (40, 6000, 48, 16), (600, 300, 32, 16), (3, 9000, 8, 1)])
def test_as_a_full_sort(q, g, d, k, low_precision):
    rng = np.random.default_rng(q)
    query, gallery = unit(rng, q, d), unit(rng, g, d)
    ids, values = nearest_neighbours(query, gallery, k, low_precision=low_precision)
    assert (ids == sorted_neighbours(query, gallery, k)).all()
    np.testing.assert_allclose(values, np.take_along_axis(query @ gallery.T, ids, 1), atol=1e-5)


@pytest.mark.parametrize("low_precision", [False, True])
def test_a_set_among_itself_leaves_each_row_out(low_precision):
    rows = unit(np.random.default_rng(0), 5000, 24)
    own = np.arange(len(rows))
    ids, _ = nearest_neighbours(rows, rows, 8, own=own, low_precision=low_precision)
    assert (ids != own[:, None]).all()
    some = np.r_[:300, 4700:5000]  # of the first block and of the last
    assert (ids[some] == sorted_neighbours(rows[some], rows, 8, own[some])).all()
    every, _ = nearest_neighbours(rows[:9], rows[:9], 8, own=own[:9], low_precision=low_precision)
    assert (np.sort(every, axis=1) == [[j for j in range(9) if j != i] for i in range(9)]).all()


def test_crowded_rows_that_bf16_cannot_tell_apart_are_searched_again(monkeypatch):
    """All rows near one direction: rounded products tie by the hundred, and only float32 knows."""
    rng = np.random.default_rng(0)
    rows = np.ones(32, np.float32) + 1e-3 * rng.standard_normal((3000, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    calls = []
    search = neighbours._search
    monkeypatch.setattr(neighbours, "_search", lambda *a: calls.append(a[2].dtype) or search(*a))
    _, values = nearest_neighbours(rows[:50], rows, 16, low_precision=True)
    _, expected = nearest_neighbours(rows[:50], rows, 16, low_precision=False)
    assert len(calls) > 2
    np.testing.assert_allclose(values, expected, atol=3e-7)


def test_too_few_rows_are_refused():
    rows = unit(np.random.default_rng(0), 5, 4)
    with pytest.raises(ValueError, match=r"between 1 and the rows that count \(4\), got 5"):
        nearest_neighbours(rows, rows, 5, own=np.arange(5))
