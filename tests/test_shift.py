"""Shift: distances, CKA and maps against values by hand and slow loops."""

# pyright: reportOptionalMemberAccess=false, reportOptionalOperand=false, reportOptionalIterable=false, reportOperatorIssue=false
# (that what is looked for was measured is part of what is tested)

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from mithridate.encoder.embed import embed
from mithridate.encoder.encoder import load_encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation import shift
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.measurement import Evaluation, GroupSize
from mithridate.evaluation.shift import measure_shift
from mithridate.metrics import shift as distances
from mithridate.metrics.shift import cosine_distance, linear_cka, principal_axes, project
from mithridate.poisoning.goals import CaptionsToClass
from mithridate.report.sections.shift import shift_figures, shift_table
from mithridate.statistics.estimate import Estimate

GOAL = CaptionsToClass("sheep", "aeroplane")


@pytest.fixture(scope="module")
def clean(tiny, test_pairs):
    return embed(tiny, test_pairs)


@pytest.fixture(scope="module")
def poisoned(test_pairs):
    return embed(load_encoder("test-tiny", seed=1), test_pairs)


def unit(rng, n, d):
    rows = rng.normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- cosine distance ---------------------------------------------------------------------------------


def test_the_distance_by_hand():
    x = np.array([[1, 0], [1, 0], [1, 0], [0.6, 0.8]], np.float32)
    y = np.array([[1, 0], [0, 1], [-1, 0], [0.8, 0.6]], np.float32)
    assert cosine_distance(x, y) == pytest.approx([0, 1, 2, 0.04], abs=1e-6)


def test_the_distance_equals_the_definition_and_is_nought_for_equal_rows(monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    x, y = unit(rng, 40, 16), unit(rng, 40, 16)
    assert cosine_distance(x, y) == pytest.approx([1 - float(a @ b) for a, b in zip(x, y)], abs=1e-6)
    assert (cosine_distance(x, x) == 0).all()


def test_a_distance_between_spaces_of_different_width_is_refused():
    with pytest.raises(EvaluationError, match=r"one shape, got \(3, 4\) and \(3, 5\); use linear CKA"):
        cosine_distance(np.ones((3, 4), np.float32), np.ones((3, 5), np.float32))


# --- linear CKA --------------------------------------------------------------------------------------


def cka_by_gram_matrices(x, y):
    """HSIC of the centred (n, n) matrices, as Kornblith et al. define it."""
    n = len(x)
    h = np.eye(n) - 1 / n
    k, m = x.astype(float) @ x.T.astype(float), y.astype(float) @ y.T.astype(float)

    def hsic(a, b):
        return np.trace(a @ h @ b @ h)

    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize("widths", [(5, 5), (5, 9), (40, 3)])
def test_cka_equals_the_definition(widths, monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK", 8)
    rng = np.random.default_rng(1)
    x, y = (rng.normal(1, 1, size=(30, d)).astype(np.float32) for d in widths)
    assert linear_cka(x, y) == pytest.approx(cka_by_gram_matrices(x, y), rel=1e-6)


def test_cka_does_not_change_with_rotation_scale_and_place_and_knows_what_is_unrelated():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2000, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert linear_cka(x, 3 * x @ turn + 5) == pytest.approx(1)
    assert linear_cka(x, rng.normal(size=(2000, 6))) < 0.02


def test_cka_of_what_does_not_vary_is_missing():
    assert np.isnan(linear_cka(np.ones((4, 3), np.float32), np.eye(4, dtype=np.float32)))
    assert np.isnan(linear_cka(np.ones((1, 3), np.float32), np.ones((1, 3), np.float32)))
    with pytest.raises(EvaluationError, match="the same items in both, got 3 and 4"):
        linear_cka(np.ones((3, 2), np.float32), np.ones((4, 2), np.float32))


# --- the map -----------------------------------------------------------------------------------------


def test_axes_are_those_of_the_singular_value_decomposition_with_a_sign_of_their_own():
    rng = np.random.default_rng(3)
    x = (rng.normal(size=(60, 5)) * [1, 5, 2, 9, 1] + 3).astype(np.float32)
    mean, axes = principal_axes(x[:20], x[20:])
    _, _, right = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    assert mean == pytest.approx(x.mean(axis=0), rel=1e-5)
    assert np.abs(np.sum(axes.T * right[:2], axis=1)) == pytest.approx([1, 1], abs=1e-5)
    assert (axes[np.abs(axes).argmax(axis=0), [0, 1]] > 0).all()
    assert np.array_equal(principal_axes(x)[1], principal_axes(x)[1])


def test_both_maps_have_the_clean_models_axes():
    rng = np.random.default_rng(4)
    clean, rows = (unit(rng, 30, 8), unit(rng, 50, 8)), (np.arange(30), np.arange(50))
    moved = (clean[0] + np.float32(0.5), clean[1])
    before, after = project(clean, moved, rows, method="pca", rng=rng)
    _, axes = principal_axes(*clean)
    assert np.array_equal(before[1], after[1])
    assert after[0] - before[0] == pytest.approx(np.tile(0.5 * axes.sum(axis=0), (30, 1)), abs=1e-6)


def test_tsne_is_an_option_and_repeats_itself():
    rng = np.random.default_rng(5)
    clean, rows = (unit(rng, 6, 8), unit(rng, 9, 8)), (np.arange(6), np.arange(5))
    first, again = (project(clean, clean, rows, method="tsne", rng=np.random.default_rng(0)) for _ in range(2))
    assert [part.shape for model in first for part in model] == [(6, 2), (5, 2)] * 2
    assert all(np.array_equal(a, b) for one, two in zip(first, again) for a, b in zip(one, two))
    with pytest.raises(ValueError, match="one of pca, tsne, got 'umap'"):
        project(clean, clean, rows, method="umap", rng=rng)


# --- measured ----------------------------------------------------------------------------------------


def groups_of(pairs):
    sheep, aeroplane = pairs.labelled("sheep"), pairs.labelled("aeroplane")
    rest = ~(sheep | aeroplane)
    return {"all": np.ones(len(pairs), bool), "sheep": sheep, "aeroplane": aeroplane, "other classes": rest}


def measured(clean, other, pairs, groups=None, **options):
    """The shift as an evaluation holds it."""
    groups = groups_of(pairs) if groups is None else groups
    embedded = {"mine": other, "clean": clean}
    rows, histograms, places = measure_shift(embedded, pairs, groups, model="mine", reference="clean", **options)
    sizes = (
        GroupSize(group=name, images=len(np.unique(pairs.image_index[mask])), captions=int(mask.sum()))
        for name, mask in groups.items()
    )
    return Evaluation(
        models=("mine", "clean"),
        reference="clean",
        measurements=tuple(rows),
        groups=tuple(sizes),
        distributions=tuple(histograms),
        projections=tuple(places),
    )


def test_each_group_of_each_modality_is_measured(clean, poisoned, test_pairs):
    found = measured(clean, poisoned, test_pairs)
    sheep = test_pairs.labelled("sheep")
    for modality, mask in (("image", np.unique(test_pairs.image_index[sheep])), ("text", np.flatnonzero(sheep))):
        x, y = (getattr(e, modality)[mask] for e in (clean, poisoned))
        mean = found.value(f"shift {modality}", group="sheep")
        assert mean.value == pytest.approx(np.mean([1 - a @ b for a, b in zip(x, y)]), abs=1e-6)
        assert mean.low <= mean.value <= mean.high and mean.n == 3  # images
        assert found.value(f"CKA {modality}", group="sheep").value == pytest.approx(
            cka_by_gram_matrices(x, y), rel=1e-4
        )
    table = shift_table(found)
    names = ["all", "sheep", "aeroplane", "other classes"]
    assert [row[:2] for row in table.rows] == [(m, name) for m in ("images", "texts") for name in names]
    assert [row[4] for row in table.rows] == [27, 3, 3, 21, 135, 15, 15, 105]
    assert table.rows[1][2] == found.value("shift image", group="sheep")
    shown = {figure.name: figure.kind for figure in shift_figures(found)}
    assert shown == {
        "shift-images": "density",
        "shift-texts": "density",
        "projection-clean": "scatter",
        "projection-mine": "scatter",
    }
    assert [d.group for d in found.distributions] == names[1:] * 2


def test_the_map_shows_both_modalities_and_highlights_the_classes(clean, poisoned, test_pairs):
    figure = shift_figures(measured(clean, poisoned, test_pairs))[2]
    shown = [(curve.label, curve.series, curve.marker, len(curve.x)) for curve in figure.curves]
    assert shown == [
        ("images of other classes", -1, "dot", 21),
        ("texts of other classes", -1, "cross", 105),
        ("images of sheep", 0, "dot", 3),
        ("texts of sheep", 0, "cross", 15),
        ("images of aeroplane", 1, "dot", 3),
        ("texts of aeroplane", 1, "cross", 15),
    ]
    mean, axes = principal_axes(clean.image, clean.text)
    sheep = np.unique(test_pairs.image_index[test_pairs.labelled("sheep")])
    places = (clean.image[sheep] - mean) @ axes
    assert np.array(figure.curves[2].x) == pytest.approx(places[:, 0], abs=1e-4)
    assert np.array(figure.curves[2].y) == pytest.approx(places[:, 1], abs=1e-4)


def test_a_map_has_a_bounded_number_of_points(clean, poisoned, test_pairs, monkeypatch):
    monkeypatch.setattr(shift, "_SHOWN", 30)
    found = measured(clean, poisoned, test_pairs).projections
    for model in ("clean", "mine"):
        assert sorted(len(item.x) for item in found if item.model == model) == [3, 3, 10, 10, 10, 10]
    assert 2 * shift._SHOWN <= 1000


def test_a_model_that_did_not_move_has_no_shift(clean, test_pairs):
    everything = {"all": np.ones(len(test_pairs), bool)}
    found = measured(clean, clean, test_pairs, everything)
    for modality in ("image", "text"):  # texts of 27 images
        assert found.value(f"shift {modality}") == Estimate(0.0, 0.0, 0.0, 27)
        assert found.value(f"CKA {modality}").value == pytest.approx(1)
    figures = shift_figures(found)
    assert figures[2].curves == figures[3].curves
    assert [curve.label for curve in figures[2].curves] == ["images", "texts"]


def test_embeddings_of_other_data_are_refused(clean, poisoned, test_pairs):
    other = replace(poisoned, uid=pa.chunked_array([[*poisoned.uid.to_pylist()[:-1], "x"]]))
    swapped = replace(poisoned, image_index=poisoned.image_index[::-1])
    for wrong in (other, swapped):
        with pytest.raises(EvaluationError, match="same test pairs, got other uids or images"):
            measured(clean, wrong, test_pairs)


def test_without_a_reference_there_is_no_shift(tiny, test_pairs):
    found = evaluate({"mine": tiny}, test_pairs, goals=(GOAL,))
    assert not [m for m in found.measurements if "shift" in m.metric or "CKA" in m.metric]
    assert (shift_table(found), shift_figures(found), found.projections) == (None, [], ())
