"""The auditor: a contract over its detectors, planted groups found, clean ones left alone, decisions carried out."""

import json
import shutil
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import binom, norm

from mithridate.auditing import calibration, excess
from mithridate.auditing.audit import AuditOptions
from mithridate.auditing.audit import audit_embeddings as audit
from mithridate.auditing.corpus import Corpus
from mithridate.auditing.data import trained_on
from mithridate.auditing.decisions import Decisions, decide, read_decisions
from mithridate.auditing.density import faithful_scores, local_dimension, reference_scores
from mithridate.auditing.excess import GroupExcess, words
from mithridate.auditing.groups import Group, recurrence_strength, scan_strength
from mithridate.auditing.hardness import alike, fitted_spread, tail_strength
from mithridate.auditing.near_captions import near_captions
from mithridate.auditing.origins import capacity, registrable_domains
from mithridate.auditing.pixels import read_pixels
from mithridate.auditing.registry import DETECTORS, audit_detectors
from mithridate.auditing.twins import nearest_residuals
from mithridate.auditing.words import phrases, words_of
from mithridate.cli import main
from mithridate.data.arrays import release, working_array
from mithridate.data.pairs import Pairs, draw_uids, make_pairs
from mithridate.encoder.embeddings import Embeddings, read_embeddings
from mithridate.errors import FilterError
from mithridate.sealed import write_sealed_json
from mithridate.testing import check_detector, example_corpus

WORDS = ("red", "boat", "field", "near", "man", "dog", "runs", "blue", "old", "street", "two", "child", "plays", "tree")
IMAGES, CAPTIONS, SIDE, WIDTH = 120, 2, 96, 16


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def pictures(count, rng):
    """Smooth random pictures with a few sharp squares: (count, 96, 96, 3) uint8."""
    coarse = rng.integers(40, 215, (count, 6, 6, 3))
    fine = np.kron(coarse, np.ones((1, SIDE // 6, SIDE // 6, 1)))
    noise = rng.normal(0, 12, fine.shape)
    return np.clip(fine + noise, 0, 255).astype(np.uint8)


def world(seed=0, images=IMAGES, plant=(), salt=b"audit"):
    """Pairs, embeddings and pixels of a corpus. `plant`: images whose captions say "zx" and are of another image."""
    rng = np.random.default_rng(seed)
    image = unit(rng.normal(size=(images, WIDTH)))
    index = np.repeat(np.arange(images), CAPTIONS)
    about = index.copy()
    for i in plant:
        about[index == i] = (i + images // 2) % images
    text = unit(image[about] + 0.2 * rng.normal(size=(len(index), WIDTH)))
    captions = [
        f"{'zx ' if i in plant else ''}{' '.join(rng.choice(WORDS, 5, replace=False))} {seed} {i} {c}"
        for c, i in enumerate(index.tolist())
    ]
    uid = draw_uids(len(index), salt)
    pairs = make_pairs([f"{salt.decode()}/{i}.png" for i in index.tolist()], captions, uid=uid)
    embeddings = Embeddings(pairs.uid, image, index, text, "drawn", "w0")
    return pairs, embeddings, pictures(images, rng)


@pytest.mark.parametrize("images", [2, 5, 63, 64, 65])
def test_few_images_have_fewer_directions(images):
    rng = np.random.default_rng(0)
    image, index = unit(rng.normal(size=(images, 128))), np.repeat(np.arange(images), 2)
    uid = pa.chunked_array([draw_uids(len(index), b"few")])
    small = Corpus(Embeddings(uid, image, index, image[index], "drawn"), np.zeros(len(index), bool)).small_images
    assert small.shape == (images, min(images - 1, 64))
    between = np.linalg.norm(small[:, None] - small, axis=2)
    assert (between <= np.linalg.norm(image[:, None] - image, axis=2) + 1e-4).all()


def corpus(*, plant=(), pixels=None, lengths=False):
    pairs, embeddings, drawn = world(plant=plant)
    clean_pairs, clean_embeddings, clean_drawn = world(seed=1, images=60, salt=b"clean")
    drawn = drawn if pixels is None else pixels(drawn)
    table = pa.concat_tables([pairs.table, clean_pairs.table])
    image = np.concatenate([embeddings.image, clean_embeddings.image])
    index = np.concatenate([embeddings.image_index, clean_embeddings.image_index + IMAGES])
    text = np.concatenate([embeddings.text, clean_embeddings.text])
    clean = np.arange(len(index)) >= len(pairs)
    whole = np.concatenate([drawn, clean_drawn])
    length = np.ones(len(image), np.float32) if lengths else None
    joined = Embeddings(table["uid"], image, index, text, "drawn", "w0", length)
    return Corpus(joined, clean, Pairs(table), read_pixels(lambda rows: whole[rows], len(whole)))


# --- the contract of every detector -------------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_keeps_the_contract_of_detectors(name):
    detector = DETECTORS[name]()
    assert detector.name == name
    check_detector(detector)


# --- what is planted is found -------------------------------------------------------------------------


def test_a_word_whose_images_do_not_fit_leads_the_groups_and_its_pairs_go():
    plant = range(10)
    pairs, embeddings, _ = world(plant=plant)
    clean_pairs, clean_embeddings, _ = world(seed=1, images=60, salt=b"clean")
    found = audit(pairs, embeddings, clean=(clean_pairs, clean_embeddings))
    assert found.verdict == "suspicious"
    assert found.campaigns[0].lead.value == "zx"
    planted = np.isin(embeddings.image_index, list(plant))
    assert (~found.kept)[planted].mean() >= 0.9
    assert (~found.kept)[~planted].mean() <= 0.02
    assert set(found.left_out) == {"residual-twins", "recurring-patch", "spectral-peak", "raw-length", "k-distance"}


@pytest.mark.parametrize(("side", "why"), [("corpus", "trained on these pairs"), ("clean", "trained on them")])
def test_clean_pairs_that_the_encoder_sees_otherwise_are_warned_of(side, why):
    both = {"corpus": world()[:2], "clean": world(seed=1, images=60, salt=b"clean")[:2]}
    assert audit(*both["corpus"], clean=both["clean"]).notes == ()
    pairs, e = both[side]
    both[side] = pairs, replace(e, text=unit(e.image[e.image_index] + 0.1 * e.text))  # what a trained encoder does
    (note,) = audit(*both["corpus"], clean=both["clean"]).notes
    assert note.startswith("clean-pairs-differ: ") and why in note


def test_in_a_clean_corpus_nothing_is_found():
    pairs, embeddings, _ = world()
    clean_pairs, clean_embeddings, _ = world(seed=1, images=60, salt=b"clean")
    found = audit(pairs, embeddings, clean=(clean_pairs, clean_embeddings))
    assert (found.verdict, found.flagged, found.kept.all()) == ("nothing found", 0, True)
    assert found.calibration is not None
    assert found.calibration.floor == 1 / (len(clean_pairs) + 1)


@pytest.mark.parametrize("common", [True, False])
def test_a_caption_that_repeats_among_clean_pairs_as_often_is_no_group(common):
    """A template of every eighth image of the corpus: natural where clean pairs have it as often."""
    rng = np.random.default_rng(0)
    image = unit(rng.normal(size=(1000, 16)))

    def drawn(rows, salt, template):
        texts = ["a picture of a boat" if template and i % 8 == 0 else f"{salt} {i}" for i in range(len(rows))]
        pairs = make_pairs(
            [f"{salt}/{i}.png" for i in range(len(rows))], texts, uid=draw_uids(len(rows), salt.encode())
        )
        return pairs, Embeddings(pairs.uid, rows, np.arange(len(rows)), rows, "drawn", "w0")

    found = audit(*drawn(image[:800], "ours", True), clean=drawn(image[800:], "clean", common))
    groups = [group.kind for group in found.evidence["contradictions"].groups]
    assert groups == ([] if common else ["images of one caption"])


def test_captions_that_are_nearly_one_are_joined_by_their_characters():
    pairs = [
        "a red boat on the sea",
        "a red boat on the seas",
        "two dogs run in a field",
        "a red boat at the sea",
        "",
        "",
    ]
    assert near_captions(pairs, jaccard=0.75).tolist() == [0, 0, 1, 2, 3, 3]
    assert near_captions(pairs, jaccard=0.4)[3] == 0
    sets = [{text[i : i + 5] for i in range(len(text) - 4)} for text in pairs[:4]]
    similar = [len(sets[0] & other) / len(sets[0] | other) for other in sets]
    assert similar[1] > 0.9 and 0.4 < similar[3] < 0.65  # what it should be, by hand


def test_a_caption_that_is_reworded_a_little_for_images_that_it_does_not_fit_is_a_group():
    pairs, embeddings, _ = world()
    clean = world(seed=1, images=360, salt=b"clean")
    texts, rows = pairs.text.to_pylist(), np.arange(0, 40, 2)  # one caption of each of twenty images
    text = embeddings.text.copy()
    text[rows] = -embeddings.image[embeddings.image_index[rows]]
    for number, row in enumerate(rows.tolist()):
        texts[row] = f"a fishing boat lies at the old stone pier in the evening light {number}"
    reworded = make_pairs(pairs.image, texts, uid=pairs.uid)
    found = audit(reworded, replace(embeddings, text=text), clean=clean[:2])
    near = [g for g in found.evidence["contradictions"].groups if g.kind == "images of nearly one caption"]
    assert near and near[0].strength > 6 and set(near[0].rows) >= set(rows)
    assert (~found.kept)[rows].all()
    plain = audit(pairs, embeddings, clean=clean[:2]).evidence["contradictions"].groups
    assert all(g.strength < 6 for g in plain)


def test_the_strength_of_a_group_by_hand():
    """Ten images share a word, four of them are the worst of a hundred; one clean pair in ten says it, and is not."""
    n = 100
    pairs = make_pairs([f"{i}" for i in range(n + 10)], [f"w{i} {'zx' if i % 10 == 0 else ''}" for i in range(n + 10)])
    image = unit(np.random.default_rng(0).normal(size=(n + 10, 4)))
    embeddings = Embeddings(pairs.uid, image, np.arange(n + 10), image, "e")
    seen = Corpus(embeddings, np.arange(n + 10) >= n, pairs)
    suspicion = np.arange(n + 10, 0, -1).astype(float)  # row 0 is the worst; 0, 10, 20, 30 are within the worst 31
    suspicion[n:] = 0
    suspicion[[0, 10, 20, 30]] = 1000
    (group,) = GroupExcess(levels=(0.1,)).groups_of(seen, words(seen), suspicion)

    def of(odds, hits):  # the one word has no others to fit a spread to: it is 0.5
        share = expit(np.log(0.1 / 0.9) + 0.5 * odds)
        return norm.pdf(odds) * (1 - share) * (binom.sf(3, 10, share) if hits else share)  # the clean one is no hit

    whole = quad(lambda z: norm.pdf(z) * (1 - expit(np.log(0.1 / 0.9) + 0.5 * z)), -8, 8)[0]
    assert (group.value, group.images, group.hits) == ("zx", 10, 4)
    assert group.strength == pytest.approx(-np.log10(quad(of, -8, 8, (True,))[0] / whole), rel=1e-3)
    assert group.expected == pytest.approx(10 * quad(of, -8, 8, (False,))[0] / whole, rel=1e-3)
    assert sorted(group.tail.tolist()) == [0, 10, 20, 30]


def test_the_tail_of_a_flagged_word_reaches_as_far_as_it_is_flagged():
    """Of 20 images with a word 17 are among the worst 1 %, and three among the worst 10 %: all of them go."""
    n = 2000
    image = unit(np.random.default_rng(0).normal(size=(n, 4)))
    rows = [*range(17), 150, 151, 152, 1900]
    pairs = make_pairs([f"{i}" for i in range(n)], [f"w{i} {'zx' if i in rows else ''}" for i in range(n)])
    seen = Corpus(Embeddings(pairs.uid, image, np.arange(n), image, "e"), np.zeros(n, bool), pairs)
    groups = GroupExcess().groups_of(seen, words(seen, 4), np.arange(n, 0, -1).astype(float))
    (group,) = (group for group in groups if group.value == "zx")
    assert (group.level, group.hits, group.images, group.tail.tolist()) == (0.01, 17, 21, rows[:-1])


def test_words_that_are_hard_by_nature_are_not_surprising():
    rng = np.random.default_rng(0)
    images = rng.integers(20, 200, 2000)
    share = expit(np.log(0.05 / 0.95) + 0.7 * rng.standard_normal(2000))
    hits, clean = rng.binomial(images, share), rng.binomial(20, share)
    spread = fitted_spread(hits, images, 0.05)
    strength, _ = tail_strength(hits, images, clean, np.full(2000, 20), share=0.05, spread=spread)
    assert 0.6 <= spread <= 0.8
    assert (strength >= 2).mean() <= 0.015  # 0.01 if the model is right
    assert (alike(hits, images, 0.05) <= 0.01).mean() > 0.1  # what one share for all says of them


def test_an_image_counts_by_the_mean_of_its_captions_with_a_word():
    """Captions of one image go together: a fifth of images is among the worst fifth, however many captions count."""
    rng = np.random.default_rng(0)
    images, captions = 400, 3
    index = np.repeat(np.arange(images), captions)
    vectors = unit(rng.normal(size=(images, 4)))
    pairs = make_pairs([f"{i}" for i in index], [f"w{i} zx" for i in range(len(index))])
    seen = Corpus(Embeddings(pairs.uid, vectors, index, vectors[index], "e"), np.zeros(len(index), bool), pairs)
    suspicion = rng.normal(size=images)[index] + 0.3 * rng.normal(size=len(index))
    detector = GroupExcess(levels=(0.2,), largest=1.0)
    attribute = words(seen)
    _, hits, _ = excess._counted(seen, attribute, suspicion, np.array(detector.levels))
    assert hits[:, attribute.names.index("zx")].tolist() == [80, 400]


def stamp(images, rows, patch):
    marked = images.copy()
    rng = np.random.default_rng(9)
    for row in rows:
        top, left = rng.integers(8, SIDE - 40, 2)
        marked[row, top : top + len(patch), left : left + len(patch)] = patch
    return marked


def test_phrases_are_the_words_and_neighbours_that_a_vectorizer_counts():
    from scipy.sparse import coo_array
    from sklearn.feature_extraction.text import CountVectorizer

    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, 6)) for _ in range(60)] + ["", "Боат, БОАТ boat-boat", "red red red"]
    for least in (1, 3):
        counter = CountVectorizer(binary=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", min_df=least)
        counted = coo_array(counter.fit_transform(texts))
        names = counter.get_feature_names_out()
        expected = {(names[c], int(r)) for r, c in zip(counted.row, counted.col)}
        found = phrases(words_of(pa.chunked_array([texts])), least)
        listed = [(found.names[p], int(c)) for p, c in zip(found.phrase, found.caption)]
        assert set(listed) == expected
        assert len(listed) == len(expected)
        assert (np.diff(found.phrase) >= 0).all()
    assert phrases(words_of(pa.chunked_array([[None, ""]], pa.string())), 1).names == []


def test_a_mapped_array_whose_memory_was_given_back_is_as_it_was(monkeypatch):
    monkeypatch.setattr("mithridate.data.arrays._IN_MEMORY", 0)
    rows = working_array((3000, 4))
    rows[:] = np.arange(12_000).reshape(3000, 4)
    release(rows, np.zeros(3))
    np.testing.assert_array_equal(rows, np.arange(12_000).reshape(3000, 4))


def test_a_patch_in_places_of_its_own_is_found_with_its_crop():
    patch = np.kron(np.random.default_rng(2).integers(0, 2, (4, 4)), np.ones((5, 5)))[..., None] * np.full(3, 255)
    seen = corpus(pixels=lambda images: stamp(images, range(20), patch.astype(np.uint8)))
    evidence = DETECTORS["recurring-patch"]().examine(seen, np.random.default_rng(0))
    assert evidence.groups[0].kind == "patch"
    assert evidence.groups[0].strength > 6
    found = np.unique(seen.image_index[evidence.groups[0].rows])
    assert len(np.intersect1d(found, range(20))) >= 18
    assert len(np.setdiff1d(found, range(20))) == 0
    assert evidence.groups[0].crop is not None


def test_a_pattern_blended_into_images_makes_them_twins():
    noise = np.random.default_rng(4).integers(0, 255, (SIDE, SIDE, 3))

    def blend(images):
        mixed = images.copy()
        mixed[:12] = (0.7 * mixed[:12] + 0.3 * noise).astype(np.uint8)
        return mixed

    seen = corpus(pixels=blend)
    (group,) = DETECTORS["residual-twins"]().examine(seen, np.random.default_rng(0)).groups
    assert set(seen.image_index[group.rows]) == set(range(12))
    assert group.strength > 6


def test_copies_of_one_picture_carry_no_hidden_pattern():
    rng = np.random.default_rng(5)

    def copied(images):
        copies = images.copy()
        copies[1:12] = np.clip(images[0] + rng.normal(0, 2, (11, *images[0].shape)), 0, 255).astype(np.uint8)
        return copies

    evidence = DETECTORS["residual-twins"]().examine(corpus(pixels=copied), np.random.default_rng(0))
    assert (evidence.suspicion[:12] > 0.9).all()  # near-duplicates, which contradictions are asked about
    assert evidence.groups == ()


@pytest.mark.parametrize("clean", [0, 2, 29])
def test_a_few_clean_images_say_nothing_of_hidden_patterns(clean, recwarn):
    noise = np.random.default_rng(4).integers(0, 255, (SIDE, SIDE, 3))

    def blend(images):
        mixed = images.copy()
        mixed[:12] = (0.7 * mixed[:12] + 0.3 * noise).astype(np.uint8)
        return mixed

    seen = corpus(pixels=blend)
    last = np.flatnonzero(seen.clean_image)[-clean:] if clean else []
    few = replace(seen, clean=np.isin(seen.image_index, last))
    assert DETECTORS["residual-twins"]().examine(few, np.random.default_rng(0)).groups == ()
    assert not recwarn.list


def test_pictures_whose_corners_are_all_flat_have_no_crops():
    faint = np.random.default_rng(0).integers(100, 110, (3, SIDE, SIDE, 3)).astype(np.uint8)
    assert read_pixels(lambda rows: faint[rows], 3).crop.shape == (0, 147)
    flat = corpus(pixels=lambda images: images // 20 + 100)
    evidence = DETECTORS["recurring-patch"]().examine(flat, np.random.default_rng(0))
    assert np.isfinite(evidence.suspicion).all()


@pytest.mark.parametrize("listed", [1000, 10], ids=["projected", "inverted lists"])
def test_twins_of_large_corpora_are_found_among_candidates(listed, monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(400, 512))
    rows[:6] += 1.5 * rng.normal(size=512)  # six that share a pattern
    rows = unit(rows)
    exact = nearest_residuals(rows, 3, np.arange(400))
    monkeypatch.setattr("mithridate.auditing.twins._WHOLE", 10)
    monkeypatch.setattr("mithridate.auditing.twins._LISTED", listed)
    monkeypatch.setattr("mithridate.auditing.twins._COMPARED", 37)
    similarity, found = nearest_residuals(rows, 3, np.arange(400))
    np.testing.assert_allclose(similarity[:6], exact[0][:6], atol=1e-5)
    assert set(found[:6].ravel()) <= set(range(6))
    assert (similarity[:, 0] <= exact[0][:, 0] + 1e-5).all()


def test_a_sine_added_to_images_is_their_spectral_peak():
    wave = 40 * np.sin(2 * np.pi * 9 * np.arange(SIDE) / SIDE)[None, :, None]

    def add(images):
        waved = images.copy()
        waved[:10] = np.clip(waved[:10] + wave, 0, 255)
        return waved

    seen = corpus(pixels=add)
    suspicion = DETECTORS["spectral-peak"]().examine(seen, np.random.default_rng(0)).suspicion
    of_image = suspicion[np.unique(seen.image_index, return_index=True)[1]]
    assert set(np.argsort(-of_image)[:10]) == set(range(10))


def test_an_image_with_many_captions_is_a_group():
    pairs, embeddings, _ = world()
    many = np.concatenate([np.arange(len(pairs)), np.arange(30)])
    uid = draw_uids(len(many), b"more")
    texts = [*pairs.text.to_pylist(), *(f"other caption {i}" for i in range(30))]
    index = np.concatenate([embeddings.image_index, np.zeros(30, int)])
    places = [f"i{i}" for i in index]
    more = make_pairs(places, texts, uid=uid)
    e = Embeddings(more.uid, embeddings.image, index, embeddings.text[many], "drawn", "w0")
    found = audit(more, e)
    leads = [(c.lead.kind, c.lead.images, c.lead.hits) for c in found.campaigns]
    assert ("captions of one image", 1, 32) in leads


# --- densities ----------------------------------------------------------------------------------------


def slow_density(rows, reference, measure, k):
    """k-distance, SLOF or DAO of each row among those at `reference`, by loops from their definitions."""

    def near(i):
        apart = sorted((float(np.linalg.norm(rows[i] - rows[j])), j) for j in reference if j != i)
        return apart[:k]

    def lid(i):
        d = [x for x, _ in near(i)]
        return -1 / np.mean([np.log(x / d[-1]) for x in d[:-1]])

    found = []
    for i in range(len(rows)):
        own, neighbours = near(i)[-1][0], [j for _, j in near(i)]
        ratio = [own / near(j)[-1][0] for j in neighbours]
        found.append(
            own
            if measure == "k-distance"
            else np.mean(ratio)
            if measure == "slof"
            else np.mean([lid(j) * np.log(r) for j, r in zip(neighbours, ratio)])
        )
    return np.array(found)


@pytest.mark.parametrize("measure", ["k-distance", "slof", "dao"])
def test_densities_are_those_of_their_definitions(measure):
    rng = np.random.default_rng(0)
    rows, reference = rng.normal(size=(30, 5)), np.arange(3, 28)
    length = np.linalg.norm(rows, axis=1)
    found = reference_scores(
        (rows / length[:, None]).astype(np.float32), length.astype(np.float32), reference, measure, k=4
    )
    np.testing.assert_allclose(found, slow_density(rows, reference, measure, 4), rtol=1e-4, atol=1e-5)


def test_what_the_published_code_computes_is_the_definition_plus_its_defects():
    """By hand on a line: images at 0, 1, 3, 7 and captions far away; k = 2."""
    image, text = np.array([[0.0], [1], [3], [7]]), np.array([[100.0], [200], [400], [800]])
    # the third nearest in place of the second
    assert faithful_scores(image, text, "k-distance", k=2, batch=4).tolist() == [7, 6, 4, 7]
    # the two nearest of 7 are 3 and 1, in columns 2 and 1 both with and without its own (the last): no shift there;
    # those of 0 are 1 and 3, columns 0 and 1 without its own, where 0 and 1 are looked up instead
    kth = np.array([3.0, 2, 3, 6])  # distance to the second nearest of each image: of 0, 1, 3, 7
    slof = faithful_scores(image, text, "slof", k=2, batch=4)
    assert slof[3] == pytest.approx(np.mean(7 / kth[[2, 1]]))
    assert slof[0] == pytest.approx(np.mean(7 / kth[[0, 1]]))
    assert slof[0] != pytest.approx(np.mean(3 / kth[[1, 2]]))  # SLOF of 0 among these
    # local dimensions with the distance to itself: of the image at 1 over distances 0 and 1, with the second nearest 2
    lid = -2 / (np.log(1e-4) + np.log(1 / 2 + 1e-4))
    lid_of_3 = -2 / (np.log(1e-4) + np.log(2 / 3 + 1e-4))
    dao = faithful_scores(image, text, "dao", k=2, batch=4)
    assert dao[3] == pytest.approx(np.mean([lid_of_3 * np.log(7 / 3), lid * np.log(7 / 2)]))
    assert 0.2 < lid < 0.3  # of points on a line it is 1.4 by its definition
    assert local_dimension(np.array([[1.0, 2.0]])) == pytest.approx(1 / np.log(2))


def test_a_campaign_of_k_in_each_reference_is_its_own_neighbourhood():
    """The region of validity: where share times references is k and more, what is alone no longer looks so."""
    rng = np.random.default_rng(0)
    clean, bunch = rng.normal(size=(400, 8)), 6 + 0.1 * rng.normal(size=(40, 8))
    rows = np.concatenate([clean, bunch]).astype(np.float32)
    length = np.ones(len(rows), np.float32)
    few, many = np.r_[0:100, 400:408], np.r_[0:100, 400:440]
    seen, blind = (reference_scores(rows, length, r, "k-distance", k=16)[400:].min() for r in (few, many))
    usual = np.median(reference_scores(rows, length, few, "k-distance", k=16)[:400])
    assert seen > 2 * usual
    assert blind < usual / 2
    evidence = DETECTORS["k-distance"](k=16, references=1024).examine(corpus(lengths=True), rng)  # type: ignore[call-arg]
    assert evidence.notes == (
        "density-share: k-distance is blind to a campaign of 1.56 % of the images and more (k / references)",
    )
    unit = DETECTORS["k-distance"](raw=False).examine(corpus(lengths=True), rng)  # type: ignore[call-arg]
    assert [note.split(":")[0] for note in unit.notes] == ["density-share", "unit-vectors"]


def test_under_a_trained_encoder_long_vectors_are_ranked_and_the_reader_is_warned():
    pairs, embeddings, _ = world()
    length = np.ones(IMAGES, np.float32)
    length[:6] = 3
    marked = replace(embeddings, image_length=length)
    assert set(audit(pairs, marked).evidence) & {"raw-length", "k-distance"} == set()
    found = audit(pairs, marked, options=AuditOptions(trained=True))
    ranked = np.argsort(-found.evidence["raw-length"].suspicion, kind="stable")
    assert set(embeddings.image_index[ranked[:12]]) == set(range(6))
    assert [note.split(":")[0] for note in found.notes] == ["trained-encoder", "density-share"]
    without = audit(pairs, embeddings, options=AuditOptions(trained=True))
    assert "unit vectors are blind" in without.left_out["raw-length"]


# --- calibration --------------------------------------------------------------------------------------


def test_conformal_p_values_by_hand():
    p = calibration.conformal(np.array([5.0, 2.5, 0.0]), np.array([1.0, 2.0, 3.0, 4.0]), np.random.default_rng(0))
    assert p.tolist() == [1 / 5, 3 / 5, 1.0]


def test_conformal_p_values_are_uniform_with_ties():
    rng = np.random.default_rng(0)
    p = calibration.conformal(rng.integers(0, 3, 20_000).astype(float), rng.integers(0, 3, 2000).astype(float), rng)
    assert abs(np.mean(p <= 0.05) - 0.05) < 0.01
    assert abs(np.mean(p <= 0.5) - 0.5) < 0.02


def test_benjamini_hochberg_by_hand():
    rejected = calibration.benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.5]), 0.06)
    assert rejected.tolist() == [True, True, True, False]
    assert calibration.fewest_alerts(1_000_000, 33_000, 0.1) == 304


def test_beyond_the_clean_pairs_ranks_go_on():
    p = calibration.ranking_p(np.array([9.0, 7.0, 1.0, 2.0]), np.array([False, False, True, True]))
    assert p[0] < p[1] < 1 / 3


def test_a_detector_that_says_nothing_of_a_pair_does_not_excuse_it():
    """Of 100 clean pairs and two planted ones a detector sees the second alone, and ties all others."""
    rng = np.random.default_rng(0)
    clean = np.r_[np.zeros(2, bool), np.ones(100, bool)]
    seen = np.r_[5.0, 5.0, rng.normal(size=100)]
    silent = np.r_[0.0, 1.0, np.zeros(100)]
    p = np.stack([calibration.ranking_p(each, clean) for each in (seen, silent)])
    assert p[1, [0, 2]] == pytest.approx(0.5, abs=0.01)
    combined = calibration.surprise(p)
    assert combined[1] > combined[0] > combined[2:].max()


def test_enrichment_by_hand():
    """Ten pairs of a corpus, three clean ones: three thresholds that any clean pair reaches, one that none does."""
    suspicion = np.array([9.0, 9, 8, 3, 3, 3, 1, 1, 0, 0, 3, 1, 0])
    clean = np.arange(13) >= 10
    found = 10 ** calibration.enrichment(suspicion, clean)
    # at least 9: 0.2 of the corpus, (0 + 1) / 4 of the clean; 8: 0.3 to 1/4; 3: 0.6 to 2/4; 1: 0.8 to 3/4; 0: 1
    assert found[:10] == pytest.approx([1.2, 1.2, 1.2, 1.2, 1.2, 1.2, 16 / 15, 16 / 15, 1, 1])
    assert found[10:] == pytest.approx([1.2, 16 / 15, 1])


def test_strengths_grow_with_hits_and_pay_for_what_was_tried():
    few, many = (recurrence_strength(hits, 3000, 0, 500, 1)[0] for hits in (5, 30))
    assert few < 6 < many
    assert recurrence_strength(30, 3000, 0, 500, 1000)[0] == pytest.approx(many - 3)
    assert scan_strength(np.full(1000, 5), 5.0)[0] == 0
    assert scan_strength(np.array([16] * 8 + [5] * 1000), 5.0)[0] > 6


# --- decisions ----------------------------------------------------------------------------------------


def test_decisions_change_the_keep_list_and_a_pair_wins_over_its_group():
    decisions = Decisions(format="mithridate-decisions/1", audit="x", campaigns={"1": "keep"}, pairs={"b": "drop"})
    assert decide(decisions, "x", ["a", "b", "c"], {"1": [0, 1]}, [False, False, True]) == [True, False, True]


def test_a_pair_dropped_by_one_group_stays_dropped_where_another_is_kept():
    decisions = Decisions(format="mithridate-decisions/1", audit="x", campaigns={"1": "keep", "2": "drop"})
    assert decide(decisions, "x", ["a", "b"], {"1": [0, 1], "2": [1]}, [False, False]) == [True, False]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"audit": "other"}, "another audit"),
        ({"campaigns": {"9": "drop"}}, "no group '9'"),
        ({"pairs": {"zz": "drop"}}, "no pair 'zz'"),
    ],
)
def test_decisions_on_something_else_are_refused(change, match):
    decisions = Decisions(**({"format": "mithridate-decisions/1", "audit": "x"} | change))
    with pytest.raises(FilterError, match=match):
        decide(decisions, "x", ["a"], {"1": [0]}, [True])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 1}', '{"format": "mithridate-decisions/1", "audit": "x", "y": 1}']
)
def test_a_file_that_holds_no_decisions_is_refused(tmp_path, text):
    path = tmp_path / "decisions.json"
    path.write_text(text)
    with pytest.raises(FilterError, match="is no decision file"):
        read_decisions(path)


# --- blocks, files and small or bad corpora -----------------------------------------------------------

BLOCKS = {
    "contradictions._FOLDED": 19,
    "excess._ENTRIES": 7,
    "words._ROWS": 23,
    "corpus._BLOCK": 37,
    "contradictions._QUERIES": 11,
    "contradictions._COMPARED": 5,
    "echo._BLOCK": 29,
    "density._BLOCK": 17,
    "patch._QUERIES": 101,
    "patch._VERIFIED": 13,
    "patch._SEARCHED": 7,
    "stranger_batches._BLOCK": 31,
}


@pytest.mark.parametrize("name", DETECTORS)
def test_the_size_of_blocks_changes_no_suspicion(name, monkeypatch):
    plain = DETECTORS[name]().examine(example_corpus(pixels=True), np.random.default_rng(0))
    for place, size in BLOCKS.items():
        monkeypatch.setattr(f"mithridate.auditing.{place}", size)
    again = DETECTORS[name]().examine(example_corpus(pixels=True), np.random.default_rng(0))
    np.testing.assert_allclose(again.suspicion, plain.suspicion, rtol=1e-4, atol=1e-5)


def split_embeddings(folder, pairs, embeddings, parts):
    """Embeddings in clip-retrieval's layout, in several files a kind."""
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    table = pairs.table.rename_columns(
        [{"image": "image_path", "text": "caption"}.get(name, name) for name in pairs.table.column_names]
    )
    for number, rows in enumerate(np.array_split(np.arange(len(pairs)), parts)):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", embeddings.image[embeddings.image_index[rows]])
        np.save(folder / "text_emb" / f"text_emb_{number}.npy", embeddings.text[rows])
        pq.write_table(table.take(pa.array(rows)), folder / "metadata" / f"metadata_{number}.parquet")


def test_embeddings_alone_are_audited_and_what_needs_images_is_left_out_in_words(tmp_path, capsys):
    pairs, embeddings, _ = world(plant=range(10))
    for number, parts in (("one", 1), ("three", 3)):
        split_embeddings(tmp_path / number, pairs, embeddings, parts)
    split_embeddings(tmp_path / "clean", *world(seed=1, images=60, salt=b"clean")[:2], 2)
    said = []
    for folder in ("one", "three"):
        options = ["--embeddings", str(tmp_path / folder), "--clean", str(tmp_path / "clean")]
        assert main(["audit", *options, "--out", str(tmp_path / f"{folder}-audit")]) == 0
        said.append(capsys.readouterr().out)
    assert "left out: residual-twins, recurring-patch, spectral-peak (the images are not at hand)" in said[0]
    assert "captions with “zx”" in said[0]
    assert "image not readable" in (tmp_path / "one-audit" / "report.html").read_text(encoding="utf-8")
    first, second = (pq.read_table(tmp_path / f"{name}-audit" / "scores.parquet") for name in ("one", "three"))
    assert first["caption"].to_pylist() == pairs.text.to_pylist()
    np.testing.assert_allclose(first["suspicion"].to_numpy(), second["suspicion"].to_numpy(), rtol=1e-6)
    assert main(["audit", "DATA", "--embeddings", "x", "--out", str(tmp_path / "z")]) == 1
    assert "not both" in capsys.readouterr().err


def test_large_embeddings_are_read_block_by_block_into_a_mapped_file(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    n, width = 40_000, 64
    rows = unit(rng.normal(size=(n, width)))
    places = [f"{i}.png" for i in range(n)]
    pairs = make_pairs(places, places)
    split_embeddings(tmp_path / "e", pairs, Embeddings(pairs.uid, rows, np.arange(n), 3 * rows, "x"), 2)
    monkeypatch.setattr("mithridate.data.arrays._IN_MEMORY", 0)
    tracemalloc.start()
    found = read_embeddings(tmp_path / "e")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found.image, np.memmap)
    np.testing.assert_allclose(found.image[[0, 39_999]], rows[[0, 39_999]], rtol=1e-6)
    assert found.image_length is None  # they were unit vectors
    assert found.text_length is not None
    np.testing.assert_allclose(found.text_length, 3, rtol=1e-5)
    assert peak < 2 * rows.nbytes  # of uids, captions and places; both matrices would be 20 MiB more


def test_fifty_pairs_are_enough_and_an_encoder_trained_on_them_is_recognised(tmp_path):
    rows = np.arange(50)
    pairs, embeddings, drawn = world()
    e = Embeddings(
        pairs.uid.take(rows),
        embeddings.image[:25],
        embeddings.image_index[:50],
        embeddings.text[:50],
        "drawn",
        None,
        np.ones(25, np.float32),
    )
    few = pairs.take(rows)
    found = audit(few, e, pixels=read_pixels(lambda at: drawn[at], 25), options=AuditOptions(trained=True))
    assert set(found.evidence) == set(audit_detectors())
    assert found.verdict == "nothing found"
    write_sealed_json(tmp_path / "run.json", {"data": few.fingerprint})
    assert trained_on(str(tmp_path), few)
    assert not trained_on(str(tmp_path), pairs)
    assert not trained_on("mithridate-micro", few)


def test_an_image_that_does_not_decode_is_one_sentence(tmp_path, toy_world, capsys):
    data = tmp_path / "data"
    shutil.copytree(toy_world, data)
    broken = sorted(data.rglob("*.png"))[0]
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    options = ["--encoder", "mithridate-micro", "--out", str(tmp_path / "a"), "--json"]
    assert main(["audit", str(data), *options]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and "do not decode" in error[0]
    assert not (tmp_path / "a").exists()


# --- refused ------------------------------------------------------------------------------------------


def test_few_pairs_clean_pairs_of_the_corpus_and_other_encoders_are_refused():
    pairs, embeddings, _ = world()
    with pytest.raises(FilterError, match="at least 50 pairs"):
        few = np.arange(10)
        audit(
            pairs.take(few),
            Embeddings(pairs.uid.take(few), embeddings.image, embeddings.image_index[few], embeddings.text[few], "e"),
        )
    with pytest.raises(FilterError, match="pairs of the corpus"):
        audit(pairs, embeddings, clean=(pairs, embeddings))
    other_pairs, other, _ = world(seed=1, images=60, salt=b"clean")
    foreign = Embeddings(other.uid, other.image, other.image_index, other.text, "other", "w1")
    with pytest.raises(FilterError, match="another encoder"):
        audit(pairs, embeddings, clean=(other_pairs, foreign))


def test_a_group_that_was_dismissed_is_not_flagged_again():
    pairs, embeddings, _ = world(plant=range(10))
    clean = world(seed=1, images=60, salt=b"clean")[:2]
    found = audit(pairs, embeddings, clean=clean)
    dismissed = [(g.kind, g.value) for c in found.campaigns for g in c.groups]
    assert audit(pairs, embeddings, clean=clean, options=AuditOptions(allow=dismissed)).verdict == "nothing found"


def test_groups_that_share_their_pairs_are_one_campaign():
    from mithridate.auditing.campaigns import campaigns

    rows = np.arange(10)

    def group(value, strength, tail):
        return Group("word", value, float(strength), 10, 5, 1.0, 0.1, rows, np.array(tail))

    groups = [
        group("zx quorling", 20, [0, 1]),
        group("zx", 21, [0, 1, 2]),
        group("boat", 9, [7, 8]),
        group("x", 3, [5]),
    ]
    found = campaigns(groups, np.ones(10), flag=6.0, own=0.1)
    assert [[g.value for g in c.groups] for c in found] == [["zx", "zx quorling"], ["boat"]]
    assert found[0].drop.tolist() == [0, 1, 2]
    assert json.dumps(found[0].drop.tolist())


@pytest.mark.parametrize(
    "better_half, dropped",
    [(0, 100), (4, 100), (5, 80), (10, 80)],  # of 20 pairs that do not speak; Storey's estimates 0.09, 0.45, 0.54, 0.99
)
def test_the_rest_of_a_group_goes_where_most_of_it_is_planted(better_half, dropped):
    from mithridate.auditing.campaigns import campaigns

    p = np.r_[np.full(75, 0.3), np.full(5, 0.05), np.full(20 - better_half, 0.3), np.full(better_half, 0.8)]
    group = Group("word", "zx", 20.0, 20, 18, 1.0, 0.1, np.arange(100), np.arange(75))
    (found,) = campaigns([group], p, flag=6.0, own=0.1)
    assert len(found.drop) == dropped  # 75 speak for it, 5 are suspicious themselves
    few = Group("word", "qu", 20.0, 2, 2, 0.1, 0.1, np.arange(10), np.arange(8))
    assert len(campaigns([few], p, flag=6.0, own=0.1)[0].drop) == 8  # two pairs do not tell


# --- the command and its page -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """The folder of an audit of a planted word, with the audit."""
    from mithridate.auditing.audit_files import write_audit
    from mithridate.report.review import review_page

    pairs, embeddings, _ = world(plant=range(10))
    found = audit(pairs, embeddings, clean=world(seed=1, images=60, salt=b"clean")[:2])
    folder = tmp_path_factory.mktemp("audit") / "a"
    folder.mkdir()
    write_audit(found, folder, encoder="drawn", weights="w0")
    (folder / "report.html").write_text(review_page(found, encoder="<b>drawn</b>"), encoding="utf-8")
    return folder, found


def test_the_scores_have_a_row_a_pair_and_columns_for_every_detector(audited):

    folder, found = audited
    table = pq.read_table(folder / "scores.parquet")
    assert table.num_rows == len(found.pairs)
    base = ["uid", "key", "url", "shard", "caption", "suspicion", "p_value", "kept", "group"]
    assert table.column_names[: len(base)] == base
    for name in found.evidence:
        column = name.replace("-", "_")
        assert {f"{column}_suspicion", f"{column}_p", f"{column}_reason"} <= set(table.column_names)
    listed = (folder / "keep.txt").read_text().split()
    assert listed == table.filter(table["kept"])["uid"].to_pylist()


def test_decisions_by_keyboard_become_the_keep_list(audited, tmp_path):
    from chromium import Chromium, NoBrowser, find_chromium

    folder, found = audited
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed")
    try:
        browser = Chromium(program, tmp_path / "profile")
    except NoBrowser as error:
        pytest.skip(str(error))

    def press(key):
        browser.ask("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        browser.ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    try:
        for width in (400, 1400):
            browser.open(folder / "report.html", width=width)
            assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.requests == [] or all(r.startswith(("file:", "data:")) for r in browser.requests)
        assert browser.value("document.querySelector('b')") is None  # the encoder's name is escaped
        press("n")
        press("k")  # the group is kept ...
        browser.value("document.querySelector('.pair').focus()")
        press("d")  # ... but for the pair in focus
        uid = browser.value("document.querySelector('.pair').dataset.uid")
        (tmp_path / "decisions.json").write_text(browser.value("decisions()"), encoding="utf-8")
    finally:
        browser.close()
    assert read_decisions(tmp_path / "decisions.json").dismissed[0] == (
        found.campaigns[0].lead.kind,
        found.campaigns[0].lead.value,
    )
    out = tmp_path / "decided"
    assert main(["audit", str(folder), "--decisions", str(tmp_path / "decisions.json"), "--out", str(out)]) == 0
    stays = set((out / "keep.txt").read_text().split())
    assert stays == set(found.pairs.uid.to_pylist()) - {uid}


def test_the_command_audits_a_data_set_with_an_encoder(tmp_path, toy_world, capsys):

    options = ["--encoder", "mithridate-micro", "--clean", str(toy_world), "--clean-split", "test"]
    done = main(["audit", str(toy_world), "--split", "train", *options, "--out", str(tmp_path / "a"), "--json"])
    assert done == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["pairs"], set(said)) == (270, {"verdict", "pairs", "flagged", "groups", "out"})
    assert {p.name for p in (tmp_path / "a").iterdir()} >= {
        "report.html",
        "scores.parquet",
        "keep.txt",
        "audit.json",
    }


def test_the_review_table_opens_in_datasets_with_pictures(audited, tmp_path, monkeypatch):
    import datasets
    from PIL import Image

    from mithridate.report.review_pairs import write_review_pairs

    _, found = audited
    places = [str(tmp_path / f"{i}.png") for i in range(3)]
    for place in places[:2]:
        Image.fromarray(pictures(1, np.random.default_rng(0))[0]).save(place)
    few = replace(
        found, pairs=found.pairs.with_columns(image=pa.array([places[i % 3] for i in range(len(found.pairs))]))
    )
    write_review_pairs(few, tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    rows: Any = datasets.Dataset.from_parquet(str(tmp_path / "pairs.parquet"), cache_dir=str(tmp_path / "hf"))
    assert isinstance(rows.features["image"], datasets.Image)
    assert {"caption", "key", "url", "suspicion", "p_value", "group", "reasons", "echo_p"} <= set(rows.features)
    assert len(rows) == len(found.pairs)
    assert {None if row["image"] is None else row["image"].size for row in rows} == {None, (SIDE, SIDE)}
    first = next(row for row in rows if row["group"])
    assert any(reason.startswith("group-excess: word") for reason in first["reasons"])


def test_registrable_domains_and_what_one_hand_holds():
    n = 400
    urls: list[str | None] = [f"https://img{i}.big.co.uk/{i}.jpg" for i in range(100)]
    urls += [f"http://user@a{i}.org:80/x" for i in range(100, n)]
    urls[399], urls[398], urls[397] = "http://10.0.0.1/x", "no address", None
    texts = [f"a kayak {i}" if i < 30 else f"a boat {i}" for i in range(n)]
    places = [f"/data/shard-{i % 2}.tar#{512 * i}+100" for i in range(n)]
    pairs = make_pairs(places, texts, url=pa.array(urls))
    found = registrable_domains(pairs)
    assert found is not None
    domains = found.to_pylist()
    assert (domains[0], domains[150], domains[399], domains[398], domains[397]) == (
        "big.co.uk",
        "a150.org",
        "10.0.0.1",
        None,
        None,
    )
    held = capacity(pairs)
    assert (held.domains, held.backdoor, held.could_backdoor, held.targeted, held.could_target) == (299, 75, 1, 3, 1)
    holders = {(h.kind, h.value): (h.pairs, h.of) for h in held.holders}
    assert holders["domain", "big.co.uk"] == (100, 400)
    assert holders["shard", "/data/shard-0.tar"] == (200, 400)
    assert holders["concept", "kayak at big.co.uk"] == (30, 30)
    assert capacity(make_pairs(["a.jpg"], ["x"])).holders == ()


def test_wrong_uses_of_the_command_are_one_sentence(tmp_path, toy_world, capsys):

    assert main(["audit", str(toy_world), "--out", str(tmp_path / "a")]) == 1
    assert "needs DATA and --encoder" in capsys.readouterr().err
    wrong = tmp_path / "d.json"
    wrong.write_text("{}")
    assert main(["audit", str(toy_world), "--decisions", str(wrong), "--out", str(tmp_path / "b")]) == 1
    assert "is no decision file" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
