"""Nearest neighbours against a full sort."""

import numpy as np
import pytest

from mithridate.encoder import neighbours
from mithridate.encoder.neighbours import nearest_neighbours, neighbours_within


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
@pytest.mark.parametrize(("n", "d", "k"), [(1500, 24, 8), (257, 16, 5), (300, 8, 299), (9, 3, 1), (2, 3, 1)])
def test_a_set_within_itself_leaves_each_row_out(n, d, k, low_precision, monkeypatch):
    monkeypatch.setattr(neighbours, "_TILE", 256)
    rows = unit(np.random.default_rng(n), n, d)
    ids, values = neighbours_within(rows, k, low_precision=low_precision)
    assert (ids == sorted_neighbours(rows, rows, k, np.arange(n))).all()
    np.testing.assert_allclose(values, np.take_along_axis(rows @ rows.T, ids, 1), atol=1e-5)


@pytest.mark.parametrize("low_precision", [False, True])
def test_the_nearest_may_all_come_last(low_precision, monkeypatch):
    """In every tile more rows are nearer than all before: what the first tiles kept is replaced as a whole."""
    monkeypatch.setattr(neighbours, "_TILE", 256)
    rng = np.random.default_rng(0)
    angle = np.linspace(np.pi / 2, 0, 1500) ** 2 / 2 + 1e-6 * rng.standard_normal(1500)
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    ids, values = neighbours_within(rows, 16, low_precision=low_precision)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    assert (ids != np.arange(1500)[:, None]).all() and all(len(set(some)) == 16 for some in ids.tolist())
    np.testing.assert_allclose(values, -np.sort(-similarity, axis=1)[:, :16], atol=3e-7)


def test_crowded_rows_that_bf16_cannot_tell_apart_are_searched_again(monkeypatch):
    """All rows near one direction: rounded products tie by the hundred, and only float32 knows."""
    rng = np.random.default_rng(0)
    rows = np.ones(32, np.float32) + 1e-3 * rng.standard_normal((3000, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    calls = []
    search = neighbours._Exact._in_float32
    monkeypatch.setattr(neighbours._Exact, "_in_float32", lambda *a: calls.append(len(a[1])) or search(*a))
    _, values = nearest_neighbours(rows[:50], rows, 16, low_precision=True)
    _, expected = nearest_neighbours(rows[:50], rows, 16, low_precision=False)
    assert sum(calls) > 25
    np.testing.assert_allclose(values, expected, atol=3e-7)
    calls.clear()
    ids, values = neighbours_within(rows, 16, low_precision=True)
    assert sum(calls) > 1500
    assert (ids != np.arange(3000)[:, None]).all()
    np.testing.assert_allclose(values, neighbours_within(rows, 16, low_precision=False)[1], atol=3e-7)


def test_too_few_rows_are_refused():
    rows = unit(np.random.default_rng(0), 5, 4)
    with pytest.raises(ValueError, match="between 1 and the 5 rows of the gallery, got 6"):
        nearest_neighbours(rows, rows, 6)
    with pytest.raises(ValueError, match="between 1 and the 4 other rows, got 5"):
        neighbours_within(rows, 5)
