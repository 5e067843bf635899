"""Detectors, thresholds, keep-lists, and what `mithridate filter` and `train --keep` do with them."""

import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mithridate.auditing import stranger_batches
from mithridate.auditing.corpus import corpus_of
from mithridate.auditing.cosine import CosineDistance
from mithridate.auditing.filter import filter
from mithridate.auditing.keep import KeepList, as_datacomp, read_keep_list, write_keep_list
from mithridate.auditing.mixture import GaussianMixture, monotone_log_odds
from mithridate.auditing.neg_clip_loss import NegClipLoss
from mithridate.auditing.output import write_filtered, write_kept_pairs
from mithridate.auditing.registry import DETECTORS
from mithridate.auditing.scores import Scores
from mithridate.auditing.stranger_batches import promiscuity
from mithridate.auditing.threshold import Above, Budget, CleanQuantile, Threshold
from mithridate.cli import main
from mithridate.data.pairs import draw_uids
from mithridate.data.read import read_pairs
from mithridate.encoder.embed import embed
from mithridate.encoder.embeddings import Embeddings, read_embeddings, write_embeddings
from mithridate.encoder.encoder import weights_fingerprint
from mithridate.errors import DataError, FilterError

# detectors whose score is a similarity (all are held to their contract in test_audit.py); small batches, so that
# there are several of them
EXAMPLES = {
    "cosine-distance": CosineDistance(),
    "gmm": GaussianMixture(),
    "neg-clip-loss": NegClipLoss(batch=64, draws=3),
}


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def suspicion(detector, embeddings, *, seed):
    return detector.examine(corpus_of(embeddings), np.random.default_rng(seed)).suspicion


def world(n=300, width=8, seed=0, salt=b"world", captions=3):
    """n captions of n / captions images; of every tenth image the captions are those of another."""
    rng = np.random.default_rng(seed)
    image = unit(rng.normal(size=(n // captions, width)))
    index = np.repeat(np.arange(n // captions), captions)
    about = np.where(index % 10 == 3, (index + 1) % len(image), index)
    text = unit(image[about] + 0.25 * rng.normal(size=(n, width)))
    return Embeddings(pa.chunked_array([draw_uids(n, salt)]), image, index, text, "drawn", "w0")


def permuted(e, order):
    """The same pairs, and the same images, in another order."""
    shuffled = np.random.default_rng(5).permutation(len(e.image))
    place = np.argsort(shuffled)
    return Embeddings(
        e.uid.take(pa.array(order)), e.image[shuffled], place[e.image_index[order]], e.text[order], e.encoder, e.weights
    )


# --- the contract of every detector -------------------------------------------------------------------


def test_every_detector_has_its_own_name():
    assert EXAMPLES.keys() <= DETECTORS.keys()
    assert all(cls.name == name for name, cls in DETECTORS.items())


@pytest.mark.parametrize("name", EXAMPLES)
class TestContract:
    def test_one_finite_suspicion_a_pair(self, name):
        e = world()
        found = suspicion(EXAMPLES[name], e, seed=0)
        assert found.shape == (300,) and np.isfinite(found).all()

    def test_permuting_the_pairs_permutes_the_suspicions(self, name):
        e = world()
        order = np.random.default_rng(1).permutation(len(e))
        before = suspicion(EXAMPLES[name], e, seed=7)
        after = suspicion(EXAMPLES[name], permuted(e, order), seed=7)
        np.testing.assert_allclose(after, before[order], rtol=1e-5, atol=1e-6)

    def test_pairs_that_do_not_fit_are_more_suspicious(self, name):
        e = world()
        found = suspicion(EXAMPLES[name], e, seed=0)
        wrong = e.image_index % 10 == 3
        assert np.median(found[wrong]) > np.quantile(found[~wrong], 0.95)

    def test_memory_grows_with_the_pairs_not_with_their_square(self, name):
        e = world(30_000, width=4)
        tracemalloc.start()
        suspicion(EXAMPLES[name], e, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60 * 2**20  # a table of all pairs by all pairs is 3,400 MiB


# --- each detector ------------------------------------------------------------------------------------


def test_cosine_distance_by_hand():
    image = np.array([[1, 0], [0, 1]], np.float32)
    text = np.array([[1, 0], [0, -1], [0.6, 0.8]], np.float32)
    e = Embeddings(pa.chunked_array([["a", "b", "c"]]), image, np.array([0, 1, 1]), text, "x")
    np.testing.assert_allclose(suspicion(CosineDistance(), e, seed=0), [0, 2, 0.2], atol=1e-6)
    assert filter(e).keep.tolist() == [True, False, True]  # the paper's 0.8


def test_between_the_means_the_mixture_gives_the_posterior():
    mean, variance, weight = np.array([0.1, 0.4]), np.array([0.02, 0.005]), np.array([0.3, 0.7])
    x = np.linspace(0.1, 0.4, 7)
    densities = weight * np.exp(-((x[:, None] - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    posterior = densities[:, 0] / densities.sum(axis=1)
    np.testing.assert_allclose(1 / (1 + np.exp(-monotone_log_odds(x, mean, variance, weight))), posterior)


@pytest.mark.parametrize("variance", [(0.002, 0.02), (0.02, 0.002)], ids=["clean-wider", "clean-narrower"])
def test_the_posterior_is_not_monotone_and_the_suspicion_is(variance):
    mean, weight, x = np.array([0.1, 0.4]), np.array([0.3, 0.7]), np.linspace(-1, 1, 400)
    plain = np.log(weight) - (np.log(variance) + (x[:, None] - mean) ** 2 / variance) / 2
    assert not (np.diff(plain[:, 0] - plain[:, 1]) < 0).all()  # the trap is there
    assert (np.diff(monotone_log_odds(x, mean, np.array(variance), weight)) < 0).all()


def test_the_mixture_ranks_as_cosine_distance_and_finds_its_own_threshold():
    e = world(3000, captions=1)
    found = filter(e, GaussianMixture(), threshold=Above(0.0))
    assert (found.scores.ranked() == filter(e, threshold=Above(0.5)).scores.ranked()).all()
    assert np.mean(found.keep == (e.image_index % 10 != 3)) > 0.95  # keeping all gives 0.9


def test_a_mixture_of_one_value_is_refused():
    rows = np.tile(np.array([[1.0, 0]], np.float32), (5, 1))
    e = Embeddings(pa.chunked_array([list("abcde")]), rows, np.arange(5), rows, "x")
    with pytest.raises(FilterError, match=r"pairs of different similarity, all 5 have 1\.0"):
        filter(e, GaussianMixture())


def slow_neg_clip_loss(e, temperature):
    """One batch of all pairs, by the formula, pair by pair."""
    image, text = e.image[e.image_index].astype(float), e.text.astype(float)
    found = []
    for i in range(len(e)):
        strangers = [j for j in range(len(e)) if j == i or e.image_index[j] != e.image_index[i]]
        captions = np.mean([np.exp(image[i] @ text[j] / temperature) for j in strangers])
        images = np.mean([np.exp(image[j] @ text[i] / temperature) for j in strangers])
        found.append(temperature * (np.log(captions) + np.log(images)) / 2 - image[i] @ text[i])
    return np.array(found)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_neg_clip_loss_is_the_slow_formula(temperature, monkeypatch):
    monkeypatch.setattr("mithridate.auditing.stranger_batches._BLOCK", 7)  # blocks that do not divide the pairs
    e = world(45)
    found = suspicion(NegClipLoss(temperature=temperature), e, seed=0)
    np.testing.assert_allclose(found, slow_neg_clip_loss(e, temperature), atol=1e-5)


def test_all_draws_at_once_are_the_batches_one_by_one(monkeypatch):
    for name, few in (("_ROWS", 7), ("_COLUMNS", 11)):
        monkeypatch.setattr(f"mithridate.auditing.strangers.{name}", few)
    e, seen = world(90), []
    detector = NegClipLoss(batch=50, draws=4, temperature=0.05)
    watched = corpus_of(e, progress=lambda what, done, total: seen.append((done, total)))
    found = detector.examine(watched, np.random.default_rng(0)).suspicion
    assert seen[-1] == (len(e.image), len(e.image)) and len(seen) > 1
    group = stranger_batches._groups(e, np.random.default_rng(0), 50, 4)
    assert group.shape == (4, 90) and all(len(np.unique(row)) == 2 for row in group)
    image = e.image[e.image_index]
    total = np.zeros(90)
    for number in range(8):
        rows = np.flatnonzero((group == number).any(axis=0))
        total[rows] += promiscuity(image[rows], e.text[rows], e.image_index[rows], temperature=0.05)
    np.testing.assert_allclose(found, total / 4 - e.similarity(), atol=1e-6)


def test_neg_clip_loss_of_a_very_low_temperature_is_finite():
    e = world(45)
    found = suspicion(NegClipLoss(temperature=1e-4), e, seed=0)
    assert np.isfinite(found).all()
    image, text = e.image[e.image_index], e.text
    all_pairs = np.where((e.image_index[:, None] == e.image_index) & ~np.eye(45, dtype=bool), -9, image @ text.T)
    limit = (all_pairs.max(axis=0) + all_pairs.max(axis=1)) / 2 - np.diag(all_pairs)
    np.testing.assert_allclose(found, limit, atol=1e-3)


def test_a_promiscuous_caption_is_found_though_it_fits_its_image():
    e = world(200, captions=1)
    text = e.text.copy()
    text[7] = unit(e.image.sum(axis=0)[None])[0] * 0.4 + unit(e.image[7:8])[0] * 0.6
    text[7] /= np.linalg.norm(text[7])
    crowd = Embeddings(e.uid, unit(e.image + 0.6 * unit(e.image.sum(axis=0)[None])), e.image_index, text, "x")
    rank = {
        name: int(np.flatnonzero(filter(crowd, d, threshold=Budget(pairs=1)).scores.ranked() == 7)[0])
        for name, d in {"cosine": CosineDistance(), "corrected": NegClipLoss(temperature=0.05)}.items()
    }
    assert rank["corrected"] < rank["cosine"]


def test_random_batches_approach_the_whole():
    e = world(600)
    whole = suspicion(NegClipLoss(temperature=0.1), e, seed=0)
    errors = [
        np.abs(suspicion(NegClipLoss(batch=100, draws=k, temperature=0.1), e, seed=0) - whole).mean() for k in (1, 16)
    ]
    assert errors[1] < errors[0] < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 1}, "expected batch >= 2"),
        ({"draws": 0}, "draws from 1 to 1000, got"),
        ({"draws": 1001}, "draws from 1 to 1000, got"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
    ],
)
def test_neg_clip_loss_refuses(options, message):
    with pytest.raises(FilterError, match=message):
        NegClipLoss(**options)


# --- thresholds ---------------------------------------------------------------------------------------


def scored(values, uids=None):
    return Scores(pa.chunked_array([uids or [f"u{i}" for i in range(len(values))]]), np.array(values, float))


def test_thresholds_by_hand():
    scores = scored([0.1, 0.9, 0.8, 0.2, 0.8])
    assert Above(0.8).cut(scores, None).keep.tolist() == [True, False, True, True, True]
    assert Budget(pairs=1).cut(scores, None).keep.tolist() == [True, False, True, True, True]
    cut = Budget(share=0.5).cut(scores, None)  # two of five; of the tied the smaller uid
    assert (cut.keep.tolist(), cut.level) == ([True, False, False, True, True], 0.8)
    clean = scored(np.linspace(0, 1, 101))
    cut = CleanQuantile(0.85).cut(scores, clean)
    assert cut.keep.tolist() == [True, False, True, True, True] and cut.level == pytest.approx(0.85)
    assert all(isinstance(t, Threshold) for t in (Above(0.8), Budget(pairs=1), CleanQuantile(0.5)))


def test_ties_do_not_depend_on_the_order_of_the_pairs():
    uids = ["d", "a", "c", "b"]
    gone = {
        tuple(sorted(np.array(order)[~Budget(pairs=2).cut(scored([1, 1, 1, 1], list(order)), None).keep]))
        for order in (uids, sorted(uids), uids[::-1])
    }
    assert gone == {("a", "b")}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Above(float("nan")), "a level must be a finite number, got nan"),
        (lambda: CleanQuantile(1.0), r"a quantile must lie in \(0, 1\), got 1.0"),
        (lambda: Budget(), "exactly one of pairs and share, got None and None"),
        (lambda: Budget(pairs=0), "at least one pair, got 0"),
        (lambda: Budget(share=1.5), r"must lie in \(0, 1\), got 1.5"),
        (lambda: Budget(pairs=301).cut(scored(range(300)), None), "301 pairs is larger than the data, which have 300"),
        (lambda: Budget(share=0.001).cut(scored(range(300)), None), "less than one pair"),
        (lambda: CleanQuantile(0.9).cut(scored(range(9)), None), "needs embeddings of pairs known to be clean"),
        (lambda: CleanQuantile(0.99).cut(scored(range(9)), scored(range(50))), "expected at least 100 clean pairs"),
        (lambda: filter(world(), NegClipLoss()), "neg-clip-loss has no threshold of its own"),
        (lambda: filter(world(), threshold=Above(-1.0)), "removes all 300 pairs: suspicions lie between"),
        (lambda: filter(world(), threshold=Budget(pairs=300)), "removes all 300 pairs"),
    ],
)
def test_a_wrong_threshold_is_refused(make, message):
    with pytest.raises(FilterError, match=message):
        make()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_clean_quantile_loses_as_many_clean_pairs_as_it_says(name):
    e, clean = world(3000, seed=1), world(3000, seed=2, salt=b"clean")
    fits = np.flatnonzero(clean.image_index % 10 != 3)
    clean = Embeddings(clean.uid.take(pa.array(fits)), clean.image, clean.image_index[fits], clean.text[fits], "drawn")
    found = filter(e, EXAMPLES[name], threshold=CleanQuantile(0.9), clean=clean)
    lost = 1 - found.keep[e.image_index % 10 != 3].mean()
    assert lost == pytest.approx(0.1, abs=0.035)  # 900 clean images: two standard errors of one are 0.02
    assert found.reference is not None and np.mean(found.reference.suspicion > found.level) == pytest.approx(
        0.1, abs=0.01
    )


def test_clean_pairs_of_another_encoder_are_refused():
    other = world(seed=2, salt=b"clean")
    other = Embeddings(other.uid, other.image, other.image_index, other.text, "other", "w1")
    with pytest.raises(FilterError, match="embedded by another encoder"):
        filter(world(), threshold=CleanQuantile(0.9), clean=other)


# --- bad embeddings -----------------------------------------------------------------------------------


def test_bad_embeddings_are_refused(tmp_path):
    e = world()
    broken = e.text.copy()
    broken[[3, 8]] = np.nan
    with pytest.raises(DataError, match=r"2 text embeddings are not finite \(rows 3, 8\)"):
        Embeddings(e.uid, e.image, e.image_index, broken, "x")
    with pytest.raises(DataError, match="got widths 8 and 4"):
        Embeddings(e.uid, e.image, e.image_index, e.text[:, :4], "x")
    with pytest.raises(FilterError, match="at least two pairs, got 1"):
        filter(Embeddings(e.uid.slice(0, 1), e.image, e.image_index[:1], e.text[:1], "x"))
    twice = pa.chunked_array([["same"] * 300])
    with pytest.raises(DataError, match="'same' of the embeddings stands twice"):
        filter(Embeddings(twice, e.image, e.image_index, e.text, "x"))
    for side in ("img_emb", "text_emb"):
        folder = tmp_path / side
        for name in {"img_emb", "text_emb", "metadata"} - {side}:
            (folder / name).mkdir(parents=True)
            (folder / name / ("metadata_0.parquet" if name == "metadata" else f"{name}_0.npy")).touch()
        with pytest.raises(DataError, match=f"has no {side}/"):
            read_embeddings(folder)


# --- keep-lists ---------------------------------------------------------------------------------------


def test_datacomps_form_is_sorted_and_comes_back(tmp_path):
    uid = pa.chunked_array([draw_uids(500, b"x"), draw_uids(500, b"y").slice(3, 9)])
    assert write_keep_list(uid, tmp_path) == ["keep.txt", "keep.npy"]
    raw = np.load(tmp_path / "keep.npy", allow_pickle=False)
    # DataComp's own reading of a uid: two halves of a hexadecimal number
    expected = np.array([(int(u[:16], 16), int(u[16:], 16)) for u in uid.to_pylist()], np.dtype("u8,u8"))
    assert raw.dtype == expected.dtype and (raw == np.sort(expected)).all() and (as_datacomp(uid) == raw).all()
    for name in ("keep.txt", "keep.npy"):
        assert sorted(read_keep_list(tmp_path / name).uid.to_pylist()) == sorted(uid.to_pylist())


def test_other_uids_are_written_as_text_alone(tmp_path):
    names = ["COCO_1,2", '"quoted"', "ü#3", " spaced ", "NA", "0123456789ABCDEF" * 2]
    assert write_keep_list(pa.chunked_array([names]), tmp_path) == ["keep.txt"]
    assert read_keep_list(tmp_path / "keep.txt").uid.to_pylist() == names
    with pytest.raises(FilterError, match="hold control characters"):
        write_keep_list(pa.chunked_array([["a\nb"]]), tmp_path)


def test_what_is_no_keep_list_is_refused(tmp_path):
    (tmp_path / "empty.txt").touch()
    np.save(tmp_path / "floats.npy", np.zeros(3))
    (tmp_path / "cut.npy").write_bytes(bytes(20))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\n\xfa")
    whole = np.zeros(1000, np.dtype("u8,u8"))
    np.save(tmp_path / "short.npy", whole)
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:200])
    for name, message in {
        "empty.txt": "is empty",
        "floats.npy": "expected one of u8,u8",
        "cut.npy": "cannot read the keep-list",
        "short.npy": "cannot read the keep-list",
        "binary.txt": "cannot read the keep-list",
        "absent.txt": "No such file",
        ".": "holds no filter.json",
    }.items():
        with pytest.raises(FilterError, match=message):
            read_keep_list(tmp_path / name)


def test_a_list_of_another_data_set_is_refused(train_pairs):
    uids = train_pairs.uid.to_pylist()
    strangers = draw_uids(100, b"elsewhere").to_pylist()
    with pytest.raises(FilterError, match="of another data set: 0 of its 100 uids are among the 270 pairs"):
        KeepList(pa.chunked_array([strangers])).apply(train_pairs)
    with pytest.raises(FilterError, match="of another data set: 40 of its 140 uids"):
        KeepList(pa.chunked_array([uids[:40] + strangers])).apply(train_pairs)
    with pytest.raises(FilterError, match="70 of the 270 pairs were never scored"):
        KeepList(pa.chunked_array([uids[:40]]), pa.chunked_array([uids[:200]])).apply(train_pairs)
    kept = KeepList(pa.chunked_array([uids[40:10:-1]]), pa.chunked_array([uids])).apply(train_pairs)
    assert kept.uid.to_pylist() == uids[11:41]  # the order of the data


def test_the_same_encoder_is_known_by_its_weights(tiny):
    weights = weights_fingerprint(tiny.model)
    keep = {"uid": pa.chunked_array([["a"]])}
    said = KeepList(**keep, record={"encoder": "renamed", "weights": weights}).same_encoder("a-run", weights)
    assert said is not None and said.startswith("same-encoder: ") and "a-run" in said
    assert KeepList(**keep, record={"encoder": "a-run", "weights": "other"}).same_encoder("a-run", weights) is None
    assert KeepList(**keep, record={"encoder": "a-run", "weights": None}).same_encoder("a-run", weights) is not None
    assert KeepList(**keep).same_encoder("a-run", weights) is None
    changed = tiny.copy()
    next(changed.model.parameters()).data[..., 0] += 1e-3
    assert weights_fingerprint(changed.model) != weights


# --- folders and the command line ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded(tiny, train_pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("filter") / "embeddings"
    folder.mkdir()
    write_embeddings(embed(tiny, train_pairs), train_pairs, folder)
    return folder


def complaint(capsys, *argv):
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 1
    return capsys.readouterr().err


def test_embeddings_remember_the_weights(embedded, tiny):
    assert read_embeddings(embedded).weights == weights_fingerprint(tiny.model)


@pytest.mark.parametrize("form", ["table", "parquet", "webdataset", "imagefolder"])
def test_the_pairs_that_stay_are_written(form, embedded, train_pairs, tmp_path):
    found = filter(read_embeddings(embedded), threshold=Budget(pairs=37))
    assert write_kept_pairs(found, train_pairs, tmp_path, form=form) == 233
    assert sorted(read_pairs(tmp_path).uid.to_pylist()) == sorted(found.kept_uids.to_pylist())


def test_filter_writes_scores_keep_lists_and_a_report(embedded, toy_world, tmp_path, capsys):
    out = tmp_path / "f"
    options = ["--budget-share", "0.1", "--pairs", toy_world, "--split", "train", "--format", "parquet", "--out", out]
    assert main([str(word) for word in ("filter", "gmm", embedded, *options, "--json")]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["filter"]["gmm"]["removed"] == 27
    scores = pq.read_table(out / "scores.parquet")
    assert scores.column_names == ["uid", "suspicion", "kept"] and scores.num_rows == 270
    kept = scores.filter(scores["kept"])["uid"].to_pylist()
    assert (out / "keep.txt").read_text().splitlines() == kept == read_pairs(out / "data").uid.to_pylist()
    record = json.loads((out / "filter.json").read_text())
    assert record["detector"] == {"name": "gmm"} and record["threshold"] == {
        "name": "budget",
        "pairs": None,
        "share": 0.1,
    }
    report = json.loads((out / "report.json").read_text())
    assert [t["name"] for t in report["tables"]] == ["filter", "most-suspicious"]
    assert report["figures"][0]["marks"][0]["x"] == told["level"]
    assert "threshold" in (out / "report.html").read_text()
    assert "exists already" in complaint(capsys, "filter", "gmm", embedded, "--out", out)


def test_train_reads_the_keep_list_and_warns_of_its_own_encoder(embedded, toy_world, tmp_path, capsys):
    assert main(["filter", "cosine-distance", str(embedded), "--budget", "30", "--out", str(tmp_path / "f")]) == 0
    train = ["train", str(toy_world), "--split", "train", "--epochs", "1", "--batch-size", "120"]
    train += ["--encoder", "test-tiny", "--preset", "scratch"]
    capsys.readouterr()
    assert main([*train, "--keep", str(tmp_path / "f"), "--out", str(tmp_path / "run"), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["pairs"] == 240
    assert "240 of 270 pairs are on the keep-list" in said.err
    assert "warning same-encoder" in said.err  # test-tiny of seed 0 embedded the pairs and is what is trained
    assert main([*train, "--keep", str(tmp_path / "f"), "--out", str(tmp_path / "other"), "--seed", "3"]) == 0
    assert "same-encoder" not in capsys.readouterr().err
    whole = [word for word in train if word not in ("--split", "train")]
    told = complaint(capsys, "train", *whole, "--keep", tmp_path / "f", "--out", tmp_path / "no")
    assert "135 of the 405 pairs were never scored" in told and not (tmp_path / "no").exists()


WRONG = {
    "two-thresholds": (["--above", "0.5", "--budget", "3"], "expected one threshold, got --above and --budget"),
    "quantile-alone": (["--clean-quantile", "0.9"], "--clean-quantile and --clean"),
    "format-alone": (["--format", "table"], "requires --pairs"),
    "budget": (["--budget", "271"], "a budget of 271 pairs is larger than the data, which have 270"),
    "all-gone": (["--above", "-1"], "removes all 270 pairs"),
    "no-manifest": (["--manifest", "nowhere"], "nowhere is not a manifest"),
    "share": (["--budget-share", "2"], "must lie in (0, 1), got 2.0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_input_is_one_sentence_and_writes_nothing(name, embedded, tmp_path, capsys):
    options, message = WRONG[name]
    told = complaint(capsys, "filter", "cosine-distance", embedded, *options, "--out", tmp_path / "out")
    assert message in told and len(told.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_pairs_of_another_set_are_refused(embedded, toy_world, tmp_path, capsys):
    options = ["--budget", "3", "--pairs", toy_world, "--split", "test", "--out", tmp_path / "out"]
    assert "the pairs are of another data set" in complaint(capsys, "filter", "cosine-distance", embedded, *options)


def test_an_unknown_detector_lists_the_known(capsys):
    told = complaint(capsys, "filter", "lof", "x", "--out", "y")
    assert "expected one of cosine-distance, gmm, neg-clip-loss" in told


def test_a_damaged_output_is_refused(embedded, tmp_path):
    write_filtered(filter(read_embeddings(embedded), threshold=Budget(pairs=3)), tmp_path)
    (tmp_path / "filter.json").write_text("{}")
    with pytest.raises(FilterError, match="no whole output of mithridate filter"):
        read_keep_list(tmp_path)
