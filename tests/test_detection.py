"""Detection measured against the truth: equal to scikit-learn's, intervals over images, the report with a manifest."""

import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mithridate.auditing.filter import filter
from mithridate.auditing.scores import Scores
from mithridate.auditing.threshold import Above, Budget, CleanQuantile
from mithridate.cli import main
from mithridate.encoder.embeddings import Embeddings, write_embeddings
from mithridate.errors import EvaluationError
from mithridate.evaluation.filter_outcome import filter_outcome, poisoned_rows
from mithridate.metrics.detection import average_precision, detection, estimate, losses, roc_area
from mithridate.poisoning.apply import poison
from mithridate.poisoning.relabel import SingleLabel
from mithridate.report.sections.filtering import filter_report
from mithridate.statistics.estimate import Estimate


def drawn(rng, *, poisoned=8, clean=60, captions=5, shift=1.5):
    """Suspicions that agree within an image; the first images are poisoned."""
    image = np.repeat(np.arange(poisoned + clean), captions)
    truth = image < poisoned
    suspicion = rng.normal(size=poisoned + clean)[image] * 0.8 + rng.normal(size=len(image)) * 0.6 + shift * truth
    return suspicion, truth, image


@pytest.mark.parametrize("ties", [False, True])
def test_areas_are_scikit_learns(ties):
    for seed in range(5):
        suspicion, truth, _ = drawn(np.random.default_rng(seed))
        suspicion = np.round(suspicion) if ties else suspicion
        assert roc_area(suspicion, truth)[0] == pytest.approx(roc_auc_score(truth, suspicion), abs=1e-12)
        expected = average_precision_score(truth, suspicion)
        assert average_precision(suspicion, truth)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("measure", [roc_area, average_precision])
def test_the_influence_is_what_one_more_copy_of_a_pair_moves(measure):
    suspicion, truth, _ = drawn(np.random.default_rng(0), poisoned=20, clean=200)
    value, influence = measure(suspicion, truth)
    assert influence.sum() == pytest.approx(0, abs=1e-9)
    for row in (0, 7, 50, 300, 1000):
        more = np.append(np.arange(len(truth)), row)
        moved = measure(suspicion[more], truth[more])[0] - value
        # one copy among m of its kind moves a mean by 1 / (m + 1) where the influence says 1 / m
        assert moved == pytest.approx(influence[row], rel=0.05, abs=2e-6)


@pytest.mark.parametrize("measure", [roc_area, average_precision])
def test_the_variance_is_that_of_a_bootstrap_over_images(measure):
    rng = np.random.default_rng(3)
    suspicion, truth, image = drawn(rng, poisoned=40, clean=200, captions=3)
    _, influence = measure(suspicion, truth)
    found = np.sqrt(np.square(np.bincount(image, weights=influence)).sum())
    draws = []
    for _ in range(400):  # poisoned and clean images each resampled among themselves
        chosen = np.concatenate([rng.integers(40, size=40), 40 + rng.integers(200, size=200)])
        rows = (chosen[:, None] * 3 + np.arange(3)).ravel()
        draws.append(measure(suspicion[rows], truth[rows])[0])
    # influences are a first order; for average precision they are a tenth too wide
    assert found == pytest.approx(np.std(draws), rel=0.2)


def test_intervals_cover_the_truth_and_need_the_images():
    whole = drawn(np.random.default_rng(99), poisoned=6000, clean=60_000, shift=1.2)
    truth = roc_auc_score(whole[1], whole[0])
    covered = {"images": 0, "pairs": 0}
    rng = np.random.default_rng(0)
    for _ in range(200):
        suspicion, poisoned, image = drawn(rng, poisoned=30, clean=100, shift=1.2)
        for unit, cluster in (("images", image), ("pairs", None)):
            found = detection(suspicion, poisoned, cluster, budgets=(), recalls=()).auroc
            assert found.low is not None and found.high is not None
            covered[unit] += bool(found.low <= truth <= found.high)
    assert covered["images"] >= 180  # 95 % of 200, less three standard errors
    assert covered["pairs"] < 165


def test_recall_and_cost_by_hand():
    suspicion = np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    truth = np.array([1, 0, 1, 0, 0, 0, 1, 0, 0, 0], bool)
    found = detection(suspicion, truth, budgets=(0.1, 0.35, 0.7), recalls=(0.5, 1.0))
    assert [r.value for r in found.recall.values()] == pytest.approx([1 / 3, 2 / 3, 1])
    assert found.recall[0.1].high == pytest.approx(1 / 3)  # one alert finds one of three at most
    assert {r: (level, lost.value) for r, (level, lost) in found.cost.items()} == {0.5: (7, 1 / 7), 1.0: (3, 4 / 7)}
    keep = np.array([0, 0, 1, 1, 1, 1, 1, 1, 1, 1], bool)
    lost = losses(keep, truth)
    assert (lost.poison_removed.value, lost.clean_lost.value, lost.poison_left) == (1 / 3, 1 / 7, 2)
    assert lost.precision is not None and lost.precision.value == 0.5
    assert losses(np.ones(10, bool), truth).precision is None


def test_pairs_tied_at_the_cut_count_by_their_share():
    truth = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], bool)
    found = detection(np.array([1.0] * 4 + [0.0] * 6), truth, budgets=(0.2,))
    assert found.recall[0.2].value == pytest.approx(0.5)  # two alerts among four equals
    assert detection(np.zeros(10), truth).auroc.value == 0.5


def test_where_nothing_varies_the_interval_has_a_width():
    truth = np.arange(100) < 10
    found = detection(truth.astype(float), truth)
    assert found.auroc.value == found.average_precision.value == 1
    assert found.auroc.low is not None and 0.5 < found.auroc.low < 0.8 and found.auroc.high == 1
    alone = estimate(1.0, np.zeros(4), np.zeros(4, int), of=np.ones(4, bool))
    assert alone.n == 1 and alone.low is not None and alone.low < 0.05


@pytest.mark.parametrize(("poisoned", "which"), [(0, "none"), (10, "all")])
def test_one_kind_of_pairs_is_refused(poisoned, which):
    with pytest.raises(EvaluationError, match=f"got {which} of them poisoned"):
        detection(np.arange(10.0), np.arange(10) < poisoned)


# --- with a manifest ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seen(train_pairs):
    """A poisoned set, its truth, and what an encoder that tells the classes apart would make of it."""
    poisoned = poison(train_pairs, SingleLabel(source="sheep", target="aeroplane"), seed=0)
    rng = np.random.default_rng(0)
    pairs = poisoned.pairs
    classes = sorted(train_pairs.classes)
    places = dict(zip(train_pairs.image.to_pylist(), train_pairs.labels.to_pylist()))
    shows = [classes.index(places[place][0]) for place in pairs.images.to_pylist()]
    says = [classes.index(labels[0]) for labels in pairs.labels.to_pylist()]  # labels stay with the captions
    image, text = (
        np.eye(len(classes))[rows] + 0.2 * rng.normal(size=(len(rows), len(classes))) for rows in (shows, says)
    )
    image, text = ((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32) for rows in (image, text))
    return poisoned, Embeddings(pairs.uid, image, pairs.image_index, text, "oracle")


def test_poisoned_rows_are_those_of_the_manifest(seen):
    poisoned, embeddings = seen
    found = filter(embeddings, threshold=Above(0.8))
    truth = poisoned_rows(found.scores, poisoned.manifest)
    named = set(poisoned.manifest.poisoned["uid"].to_pylist())
    assert truth.tolist() == [uid in named for uid in embeddings.uid.to_pylist()] and truth.sum() == 30
    other = Scores(pa.chunked_array([["a", "b"]]), np.zeros(2))
    with pytest.raises(EvaluationError, match="of another data set: the scored pairs lack 30 of its 30"):
        poisoned_rows(other, poisoned.manifest)


def test_the_outcome_is_what_was_found_and_what_it_cost(seen):
    poisoned, embeddings = seen
    blind = filter_report(filter_outcome(filter(embeddings, threshold=Above(0.8))))
    assert [t.name for t in blind.tables] == ["filter"] and [f.name for f in blind.figures] == ["suspicion"]
    assert "poisoned" not in blind.to_json()
    found = filter(embeddings, threshold=Above(0.8))
    outcome = filter_outcome(found, manifest=poisoned.manifest, pairs=poisoned.pairs)
    report = filter_report(outcome)
    assert [t.name for t in report.tables] == ["filter", "detection", "cost", "most-suspicious"]
    rows = {row[0]: row[1].value for row in report.table("detection").rows if isinstance(row[1], Estimate)}
    distance, truth = 1 - embeddings.similarity(), poisoned_rows(filter(embeddings).scores, poisoned.manifest)
    assert rows["AUROC"] == pytest.approx(roc_auc_score(truth, distance)) and rows["AUROC"] > 0.95
    assert rows["poisoned pairs removed"] == pytest.approx(np.mean(distance[truth] > 0.8))
    assert rows["clean pairs lost"] == pytest.approx(np.mean(distance[~truth] > 0.8))
    assert rows["recall at an alert budget of 10 %"] <= 27 / 30
    density = report.figures[0]
    assert [c.label for c in density.curves] == ["clean pairs", "poisoned pairs"] and density.marks[0].x == 0.8
    assert outcome.detection is not None and outcome.detection.auroc.value == rows["AUROC"]
    headlines = {(h.group, h.measure): h.values["cosine-distance"] for h in report.headlines}
    assert headlines["detection", "AUROC"] == outcome.detection.auroc
    assert headlines["filter", "removed"] == found.removed
    assert len(outcome.suspicious) == len(report.table("most-suspicious").rows) == 20
    assert [pair.suspicion for pair in outcome.suspicious] == pytest.approx(sorted(distance, reverse=True)[:20])


def test_a_threshold_off_the_scale_is_warned_of(seen):
    _, embeddings = seen
    codes = [
        [w.code for w in filter_outcome(filter(embeddings, threshold=t)).warnings]
        for t in (Above(5.0), Budget(share=0.6), Budget(share=0.1))
    ]
    assert codes == [["nothing-removed"], ["much-removed"], []]


def test_the_reference_is_shown_beside(seen):
    _, embeddings = seen
    report = filter_report(filter_outcome(filter(embeddings, threshold=CleanQuantile(0.9), clean=embeddings)))
    assert [c.label for c in report.figures[0].curves] == ["all pairs", "clean reference"]
    assert report.table("filter").rows[-1][:2] == ("clean reference, above the threshold", 27)


def test_the_command_with_a_manifest(seen, tmp_path, capsys):
    from mithridate.poisoning.manifest import write_manifest

    poisoned, embeddings = seen
    (tmp_path / "e").mkdir()
    write_embeddings(embeddings, poisoned.pairs, tmp_path / "e")
    write_manifest(poisoned.manifest, tmp_path / "manifest.json")
    command = ["filter", "cosine-distance", str(tmp_path / "e"), "--manifest", str(tmp_path / "manifest.json")]
    assert main([*command, "--out", str(tmp_path / "f"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["detection"]["cosine-distance"]["AUROC"]["value"] > 0.95
    # what a trainer reads holds nothing of the truth
    blind = tmp_path / "blind"
    assert main([*command[:3], "--out", str(blind)]) == 0
    assert {
        name: (blind / name).read_bytes() for name in ("keep.txt", "keep.npy", "scores.parquet", "filter.json")
    } == {
        name: (tmp_path / "f" / name).read_bytes() for name in ("keep.txt", "keep.npy", "scores.parquet", "filter.json")
    }
