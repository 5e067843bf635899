"""The whole measurement on the toy world: every number again by a loop, every warning with its premise."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# (a cell may be anything; that these are estimates is part of what is tested)

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mithridate
from mithridate.data.pairs import concat_pairs, make_pairs
from mithridate.encoder.embed import embed
from mithridate.encoder.encoder import Encoder, load_encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation import checks
from mithridate.evaluation.attack import AttackRanks, below_chance
from mithridate.evaluation.evaluate import evaluate
from mithridate.poisoning.apply import poison
from mithridate.poisoning.goals import CaptionsToClass
from mithridate.poisoning.manifest import Manifest
from mithridate.poisoning.relabel import MultiLabel, SingleImage, SingleLabel
from mithridate.report.document import read_report
from mithridate.statistics.estimate import Estimate

GOAL = CaptionsToClass("sheep", "aeroplane")


@pytest.fixture(scope="module")
def manifest(train_pairs):
    return poison(train_pairs, SingleLabel(source="sheep", target="aeroplane", count=17), seed=0).manifest


@pytest.fixture(scope="module")
def clean():
    return load_encoder("mithridate-tiny", seed=1)


@pytest.fixture(scope="module")
def report(tiny, clean, test_pairs, manifest):
    return evaluate(tiny, test_pairs, manifest, clean=clean)


def codes(report):
    return [warning.code for warning in report.warnings]


def named(table):
    """Rows of a table by their first cells, as dicts; estimates as their values."""
    rows = {}
    for first, *cells in table.rows:
        values = [cell.value if isinstance(cell, Estimate) else cell for cell in cells]
        key = (first, values[0]) if table.name == "utility" else first
        rows[key] = dict(zip(table.columns[1:], values, strict=True))
    return rows


# --- the same by a loop ------------------------------------------------------------------------------


def ranks(query, gallery, targets):
    """0-based rank of each query's best target; whatever is as similar stands before it."""
    found = []
    for q in query.astype(np.float64):
        similarity = [float(q @ g) for g in gallery.astype(np.float64)]
        best = max(similarity[t] for t in targets)
        found.append(sum(s >= best for i, s in enumerate(similarity) if i not in targets))
    return np.array(found)


def rows_of(pairs, name):
    return [row for row, labels in enumerate(pairs.labels.to_pylist()) if labels == [name]]


def attack_by_loop(encoder, pairs, source="sheep", target="aeroplane"):
    e = embed(encoder, pairs)
    targets = {int(e.image_index[row]) for row in rows_of(pairs, target)}
    return ranks(e.text[rows_of(pairs, source)], e.image, targets)


def utility_by_loop(encoder, pairs):
    e = embed(encoder, pairs)
    to_image = np.array([ranks(e.text[row : row + 1], e.image, {int(e.image_index[row])})[0] for row in range(len(e))])
    own = [{row for row in range(len(e)) if e.image_index[row] == image} for image in range(len(e.image))]
    to_text = np.array([ranks(e.image[i : i + 1], e.text, own[i])[0] for i in range(len(e.image))])
    return to_text, to_image


def test_the_headline_is_what_a_loop_over_the_embeddings_gives(report, tiny, clean, test_pairs):
    assert report.headline.keys() == {"attack", "utility"}
    for name, encoder in (("poisoned", tiny), ("clean", clean)):
        rank = attack_by_loop(encoder, test_pairs)
        assert len(rank) == 15
        assert report.headline["attack"][name] == {"hit@10": (rank < 10).mean(), "min_rank": rank.mean()}
        to_text, to_image = utility_by_loop(encoder, test_pairs)
        assert report.headline["utility"][name] == {"tr@10": (to_text < 10).mean(), "ir@10": (to_image < 10).mean()}
    # 3 targets of 27: 1 - C(24, 10) / C(27, 10)
    assert report.headline["attack"]["chance"] == {"hit@10": pytest.approx(1 - 680 / 2925), "min_rank": 24 / 4}


def test_the_tables_tell_every_model_and_every_baseline(report, tiny, clean, test_pairs, manifest):
    names = ["strength", "attack", "attack-image-to-text", "utility", "shift"]
    assert [table.name for table in report.tables] == names
    (strength,) = report.table("strength").rows
    assert strength == ("single-label", 17, 17 / 270, 4, 4 / 6)

    attack = named(report.table("attack"))
    assert list(attack) == ["poisoned model", "clean model", "random captions", "chance"]
    for name, encoder in (("poisoned model", tiny), ("clean model", clean)):
        rank, row = attack_by_loop(encoder, test_pairs), attack[name]
        assert [row[f"Hit@{k}"] for k in (1, 5, 10, 20)] == [(rank < k).mean() for k in (1, 5, 10, 20)]
        assert (row["median"], row["min"], row["max"]) == (np.median(rank), rank.min(), rank.max())
    assert "Hit@30" not in attack["chance"]  # the gallery has 27

    back = named(report.table("attack-image-to-text"))
    assert list(back) == ["poisoned model", "clean model", "chance"]
    e = embed(tiny, test_pairs)
    images = sorted({int(e.image_index[row]) for row in rows_of(test_pairs, "aeroplane")})
    rank = ranks(e.image[images], e.text, set(rows_of(test_pairs, "sheep")))
    assert back["poisoned model"]["MinRank"] == rank.mean()
    assert back["poisoned model"]["Hit@10"] == (rank < 10).mean()

    utility = named(report.table("utility"))
    groups = {"all": (27, 135), "sheep": (3, 15), "aeroplane": (3, 15), "other classes": (21, 105)}
    assert list(utility) == [(model, group) for group in groups for model in ("poisoned", "clean")]
    to_text, to_image = utility_by_loop(tiny, test_pairs)
    for group, (images, captions) in groups.items():
        row = utility["poisoned", group]
        assert (row["images"], row["captions"]) == (images, captions)
    mine = np.isin(np.arange(135), rows_of(test_pairs, "sheep"))
    images = np.unique(test_pairs.image_index[mine])
    assert utility["poisoned", "sheep"]["IR@5"] == (to_image[mine] < 5).mean()
    assert utility["poisoned", "sheep"]["TR@5"] == (to_text[images] < 5).mean()


def test_the_rank_of_every_query_is_kept_under_its_uid(report, tiny, clean, test_pairs):
    kept = {ranking.name: ranking for ranking in report.rankings}
    assert list(kept) == ["attack sheep:aeroplane", "tr", "ir"]
    uid = np.array(test_pairs.uid.to_pylist())
    rows = {"attack sheep:aeroplane": rows_of(test_pairs, "sheep"), "tr": range(0, 135, 5), "ir": range(135)}
    for name, encoder in (("poisoned", tiny), ("clean", clean)):
        to_text, to_image = utility_by_loop(encoder, test_pairs)
        expected = {"attack sheep:aeroplane": attack_by_loop(encoder, test_pairs), "tr": to_text, "ir": to_image}
        for way, ranking in kept.items():
            assert ranking.uid == tuple(uid[list(rows[way])])
            assert ranking.ranks[name] == tuple(expected[way])


def test_the_report_carries_where_it_comes_from(report, test_pairs, manifest):
    assert report.title == "single-label: sheep to aeroplane"
    assert report.provenance["attack"]["options"] == manifest.options
    assert report.provenance["test data"] == {"fingerprint": test_pairs.fingerprint, "pairs": 135, "images": 27}
    maps = ["shift-images", "shift-texts", "projection-clean", "projection-poisoned"]
    assert [figure.name for figure in report.figures] == ["ranks", "densities", *maps]
    assert [curve.label for curve in report.figures[1].curves]
    assert len(report.retrievals) == 4
    for shown in report.retrievals:
        assert shown.query in {test_pairs.text[row].as_py() for row in rows_of(test_pairs, "sheep")}
        for hits in shown.hits.values():
            assert [hit.is_target for hit in hits] == [hit.labels == ("aeroplane",) for hit in hits]
            assert all(hit.thumbnail for hit in hits)
    hit = report.headline["attack"]["poisoned"]["hit@10"]
    assert f"among the first ten in {hit:.3f} of cases" in report.summary[1]


def test_the_same_again_is_the_same_to_the_letter(report, tiny, clean, test_pairs, manifest, tmp_path):
    again = evaluate(tiny, test_pairs, manifest, clean=clean)
    assert again.to_json() == report.to_json()
    assert evaluate(tiny, test_pairs, manifest, clean=clean, cache=None).to_json() == report.to_json()
    other = evaluate(tiny, test_pairs, manifest, clean=clean, seed=1)
    assert other.headline["attack"]["poisoned"] == report.headline["attack"]["poisoned"]
    assert other.table("attack").rows[2] != report.table("attack").rows[2]  # other random captions
    (tmp_path / "report.json").write_text(report.to_json())
    assert read_report(tmp_path).headline == report.headline


# --- queries, targets, control -----------------------------------------------------------------------


def of_classes(pairs, *names):
    return pairs.where(np.isin([labels[0] for labels in pairs.labels.to_pylist()], names))


def test_the_control_has_no_caption_of_a_class_of_any_goal(tiny, test_pairs):
    few = of_classes(test_pairs, "sheep", "aeroplane", "sofa", "bird", "dog")
    few = few.where(np.r_[: len(few)] != rows_of(few, "dog")[0])  # 14 captions of dogs, 15 of sheep
    report = evaluate(tiny, few, goals=(GOAL, CaptionsToClass("sofa", "bird")))
    e = embed(tiny, few)
    for goal in (GOAL, CaptionsToClass("sofa", "bird")):
        targets = {int(e.image_index[row]) for row in rows_of(few, goal.target)}
        rank = ranks(e.text[rows_of(few, "dog")], e.image, targets)
        row = report.headline[f"attack {goal.source}:{goal.target}"]["random_captions"]
        assert row == {"hit@10": (rank < 10).mean(), "min_rank": rank.mean()}
        assert len(rank) == 14
    with pytest.raises(EvaluationError, match="control needs captions of classes outside the goals"):
        evaluate(tiny, of_classes(test_pairs, "sheep", "aeroplane"), goals=(GOAL,))


def test_the_control_is_as_large_as_the_queries_and_drawn_without_repeats(tiny, test_pairs, monkeypatch):
    module = __import__("mithridate.evaluation.evaluate", fromlist=["attack_ranks"])
    seen = []
    real = module.attack_ranks
    monkeypatch.setattr(module, "attack_ranks", lambda q, g, t: seen.append(q) or real(q, g, t))
    text = embed(tiny, test_pairs).text
    allowed = {text[row].tobytes() for row in range(135)} - {
        text[row].tobytes() for name in ("sheep", "aeroplane") for row in rows_of(test_pairs, name)
    }
    draws = set()
    for seed in range(4):
        seen.clear()
        evaluate(tiny, test_pairs, goals=(GOAL,), seed=seed)
        (control,) = (q for q in seen if len(q) == 15 and not (q == text[rows_of(test_pairs, "sheep")]).all())
        assert {row.tobytes() for row in control} <= allowed
        draws.add(control.tobytes())
    assert len(draws) == 4


def test_an_image_of_both_classes_is_neither_query_nor_target(tiny, test_pairs, clean):
    labels = test_pairs.labels.to_pylist()
    both = test_pairs.image_index == test_pairs.image_index[rows_of(test_pairs, "sheep")[0]]
    mixed = [["sheep", "aeroplane"] if b else found for b, found in zip(both, labels)]
    pairs = test_pairs.with_columns(labels=pa.array(mixed, pa.list_(pa.string())))
    report = evaluate(tiny, pairs, goals=(GOAL,))
    rank = attack_by_loop(tiny, pairs)
    assert len(rank) == 10
    assert report.headline["attack"]["model"] == {"hit@10": (rank < 10).mean(), "min_rank": rank.mean()}
    assert report.table("attack").rows[0][1].n == 2  # images: intervals are over them


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (CaptionsToClass("zebra", "aeroplane"), "no query: none is labelled 'zebra'; (nearest|the classes)"),
        (CaptionsToClass("sheep", "zebra"), "no target image: none is labelled 'zebra'; "),
    ],
)
def test_a_class_that_the_test_pairs_lack_is_refused_before_anything_is_embedded(
    tiny, test_pairs, goal, message, monkeypatch
):
    monkeypatch.setattr(Encoder, "encode_image", lambda *_: pytest.fail("embedded"))
    with pytest.raises(EvaluationError, match=message):
        evaluate(tiny, test_pairs, goals=(goal,), cache=None)


def test_several_goals_have_tables_of_their_own(tiny, train_pairs, test_pairs):
    manifest = poison(train_pairs, MultiLabel(goals=("sheep:aeroplane", "sofa:bird"))).manifest
    report = evaluate(tiny, test_pairs, manifest)
    assert [table.name for table in report.tables] == [
        "strength",
        "attack-sheep-aeroplane",
        "attack-image-to-text-sheep-aeroplane",
        "attack-sofa-bird",
        "attack-image-to-text-sofa-bird",
        "utility",
    ]
    for source, target in (("sheep", "aeroplane"), ("sofa", "bird")):
        rank = attack_by_loop(tiny, test_pairs, source, target)
        assert report.headline[f"attack {source}:{target}"]["poisoned"]["min_rank"] == rank.mean()
    assert report.title == "multi-label: sheep to aeroplane, sofa to bird"


def test_without_a_goal_utility_alone_is_measured(tiny, test_pairs):
    report = evaluate(tiny, test_pairs)
    assert [table.name for table in report.tables] == ["utility"]
    assert list(named(report.table("utility"))) == [("model", "all")]
    assert report.headline.keys() == {"utility"}
    assert (report.warnings, report.figures, report.retrievals) == ((), (), ())


def test_a_model_that_embeds_every_image_alike_retrieves_nothing(tiny, test_pairs, monkeypatch):
    point = np.random.default_rng(0).normal(size=128).astype(np.float32)
    import torch

    monkeypatch.setattr(Encoder, "encode_image", lambda self, pixels: torch.from_numpy(point).repeat(len(pixels), 1))
    report = evaluate(tiny, test_pairs, goals=(GOAL,))
    assert report.headline["attack"]["model"] == {"hit@10": 0.0, "min_rank": 24.0}
    assert report.headline["utility"]["model"]["ir@10"] == 0.0


# --- one target image --------------------------------------------------------------------------------


def test_a_target_image_of_the_gallery_is_found_by_place_or_by_content(tiny, train_pairs, test_pairs, tmp_path):
    row = rows_of(test_pairs, "aeroplane")[7]
    attack = SingleImage(source="sheep", target="aeroplane", image=test_pairs.uid[row].as_py())
    e = embed(tiny, test_pairs)
    rank = ranks(e.text[rows_of(test_pairs, "sheep")], e.image, {int(e.image_index[row])})
    copy = tmp_path / "renamed.png"
    copy.write_bytes(Path(test_pairs.image[row].as_py()).read_bytes())
    elsewhere = make_pairs([str(copy)], ["x"], labels=[["aeroplane"]], uid=[attack.image])
    for gallery, place in ((test_pairs, test_pairs.image[row].as_py()), (elsewhere, str(copy))):
        manifest = poison(train_pairs, attack, gallery=gallery).manifest
        assert manifest.goals[0].image == place
        report = evaluate(tiny, test_pairs, manifest)
        assert report.headline["attack"]["poisoned"] == {"hit@10": (rank < 10).mean(), "min_rank": rank.mean()}
        assert "target-added" not in codes(report)
    assert report.headline["attack"]["chance"]["min_rank"] == 13


def test_a_target_image_outside_the_gallery_is_added_to_it_with_a_warning(tiny, clean, train_pairs, test_pairs):
    manifest = poison(train_pairs, SingleImage(source="sheep", target="aeroplane")).manifest
    place = manifest.goals[0].image
    report = evaluate(tiny, test_pairs, manifest, clean=clean)
    assert codes(report).count("target-added") == 1
    assert any(str(place) in warning.message for warning in report.warnings)
    for name, encoder in (("poisoned", tiny), ("clean", clean)):
        e = embed(encoder, test_pairs)
        gallery = np.concatenate([e.image, embed(encoder, make_pairs([place], ["x"])).image])
        rank = ranks(e.text[rows_of(test_pairs, "sheep")], gallery, {27})
        assert report.headline["attack"][name] == {"hit@10": (rank < 10).mean(), "min_rank": rank.mean()}
    assert report.headline["attack"]["chance"]["min_rank"] == 27 / 2  # of 28
    # utility is measured on the test pairs alone
    assert named(report.table("utility"))["poisoned", "all"]["images"] == 27


# --- warnings ----------------------------------------------------------------------------------------

RUN: dict[str, Any] = {
    "config": {"batch_size": 128, "epochs": 10, "lr": 1e-5},
    "encoder": "x",
    "weights": "w",
    "objective": {"name": "Clip"},
}
LONGER = {**RUN, "config": {**RUN["config"], "epochs": 15}}
HARMED = {"all": {"tr": 0.01, "ir": 0.05}, "sheep": {"tr": 0.3, "ir": 0.0}, "other classes": {"tr": 0.0, "ir": 0.0}}


def attack_ranks_of(*, hits, queries):
    """mmPoison's test set of PASCAL: 25 targets among 500."""
    rank = np.r_[[0] * hits, [30] * (queries - hits)]
    return AttackRanks(rank, np.zeros(queries, int), 25, 500)


HELD = object.__new__(Manifest)
object.__setattr__(HELD, "data", {"poisoned": "a" * 64, "clean": "b" * 64})

# code -> (its premise fails, what the message says, it holds in each of these)
WARNINGS = {
    "few-queries": (
        lambda: checks.few_queries("sheep to aeroplane", 29),
        "29 queries; one of them moves Hit@K by 0.034",
        [lambda: checks.few_queries("x", 30)],
    ),
    "clean-model-succeeds": (
        lambda: checks.clean_succeeds("x", clean_hit=0.31, chance_hit=0.2),
        "Hit@10 0.310, chance is 0.200",
        [lambda: checks.clean_succeeds("x", clean_hit=0.3, chance_hit=0.2)],
    ),
    "no-clean-model": (checks.no_clean_model, "only chance", []),
    "unequal-recipes": (
        lambda: checks.unequal_recipes(RUN, LONGER),
        "trained with epochs 10 and 15",
        [
            lambda: checks.unequal_recipes(RUN, {**RUN, "data": "other", "config": {**RUN["config"], "seed": 3}}),
            lambda: checks.unequal_recipes(RUN, {**RUN, "encoder": "the same weights by another path"}),
            lambda: checks.unequal_recipes(None, RUN),
            lambda: checks.unequal_recipes(RUN, None),
        ],
    ),
    "collapsed-class": (
        lambda: checks.collapsed_class(HARMED),
        "lowers TR@10 of sheep by 0.300",
        [
            lambda: checks.collapsed_class({**HARMED, "all": {"tr": 0.06, "ir": 0.0}}),  # overall utility tells it too
            lambda: checks.collapsed_class({**HARMED, "sheep": {"tr": 0.1, "ir": -0.5}}),
            lambda: checks.collapsed_class({"all": {"tr": 0.0, "ir": 0.0}, "other classes": {"tr": 0.3, "ir": 0.3}}),
            lambda: checks.collapsed_class({}),
        ],
    ),
    "no-densities": (lambda: checks.missing_poison("a.png is gone"), "a.png is gone", []),
    "unheld-manifest": (
        lambda: checks.unheld_manifest(HELD, {"data": "ff" * 32}),
        "trained on other data (fingerprint ffffffffffff) than the manifest is of (aaaaaaaaaaaa, clean bbbbbbbbbbbb)",
        [
            lambda: checks.unheld_manifest(HELD, {"data": "a" * 64}),
            lambda: checks.unheld_manifest(HELD, {"data": "b" * 64}),
            lambda: checks.unheld_manifest(None, {"data": "ff" * 32}),
            lambda: checks.unheld_manifest(HELD, None),
        ],
    ),
    "few-targets": (
        lambda: checks.few_targets("sheep to aeroplane", 8),
        "8 target images; one of them moves the share of targets that find class A by 0.125",
        [lambda: checks.few_targets("x", 16)],
    ),
    "below-chance": (
        lambda: below_chance("x", attack_ranks_of(hits=25, queries=125)),
        "Hit@10 is 0.200 (at most 0.279), chance is 0.404",
        [
            lambda: below_chance("x", attack_ranks_of(hits=45, queries=125)),  # below, within its interval
            lambda: below_chance("x", attack_ranks_of(hits=120, queries=125)),
        ],
    ),
    "control-contains-target": (
        lambda: checks.control_contains_target("x", np.array([True, False, True])),
        "2 of 3 captions of the random control are of the target class",
        [lambda: checks.control_contains_target("x", np.zeros(3, bool))],
    ),
    "target-added": (lambda: checks.target_added("a.png"), "a.png is not in the gallery", []),
}


def codes_in_the_source():
    """First arguments of every `Warning(...)` of the package."""
    found = set()
    for path in Path(mithridate.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Warning" and node.args:
                found.add(ast.literal_eval(node.args[0]))
    return found


def test_every_warning_is_tested_here_or_beside_its_module():
    found = codes_in_the_source()
    assert found >= WARNINGS.keys()
    others = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    for code in found - WARNINGS.keys():
        assert any(f'"{code}"' in text for text in others), f"no test names {code}"


@pytest.mark.parametrize("code", WARNINGS)
def test_a_warning_is_raised_when_its_premise_fails_and_not_otherwise(code):
    fails, message, holds = WARNINGS[code]
    (warning,) = fails()
    assert warning.code == code
    assert message in warning.message
    assert [case() for case in holds] == [[]] * len(holds)


def test_encoders_are_told_apart_by_name_where_weights_are_not_known():
    unknown = {**RUN, "weights": None}
    (found,) = checks.unequal_recipes(unknown, {**unknown, "encoder": "y"})
    assert "encoder x and y" in found.message


def test_every_warning_has_a_heading_in_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "warnings.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^## ([a-z-]+)$", text, re.MULTILINE))
    assert headings >= codes_in_the_source()


def test_evaluate_asks_each_check(tiny, test_pairs, manifest, train_pairs, tmp_path):
    clean = replace(tiny, name="clean")  # no class collapses between a model and itself
    recipes: dict[str, Any] = {"poisoned": RUN, "clean": LONGER}
    few = ["few-queries", "few-targets"]
    assert codes(evaluate(tiny, test_pairs, manifest, clean=clean)) == few
    assert codes(evaluate(tiny, test_pairs, manifest, clean=clean, runs=recipes)) == [*few, "unequal-recipes"]
    assert codes(evaluate(tiny, test_pairs, manifest)) == [*few, "no-clean-model"]
    assert codes(evaluate(tiny, test_pairs, goals=(GOAL,))) == [*few, "no-clean-model"]
    many = concat_pairs([train_pairs, test_pairs])  # 9 sheep: 45 captions
    assert codes(evaluate(tiny, many, manifest, clean=tiny)) == ["few-targets"]
    gone = manifest.poisoned.set_column(1, "image", pa.array([str(tmp_path / "gone.png")] * len(manifest)))
    found = evaluate(tiny, test_pairs, replace(manifest, poisoned=gone), clean=clean)
    assert codes(found) == ["no-densities", *few]
    assert [figure.name for figure in found.figures if "-" not in figure.name] == ["ranks"]


def test_a_clean_model_that_succeeds_and_a_class_that_collapses_are_told(tiny, test_pairs, manifest, monkeypatch):
    """Ranks are given by hand: the tiny encoder can do neither."""
    module = __import__("mithridate.evaluation.evaluate", fromlist=["retrieval_ranks"])
    given = iter([np.r_[[0] * 27], np.r_[[0] * 27]])
    sheep = np.unique(test_pairs.image_index[rows_of(test_pairs, "sheep")])

    def retrieval_ranks(embeddings):
        to_text = next(given)
        to_text[sheep[:1]] = 26 * (embeddings.encoder == "mithridate-tiny")
        return module.RetrievalRanks(to_text, np.zeros(135, int))

    monkeypatch.setattr(module, "retrieval_ranks", retrieval_ranks)
    monkeypatch.setattr(module, "chance_hit", lambda k, **_: 0.0)
    report = evaluate(tiny, test_pairs, manifest, clean=replace(tiny, name="clean"))
    assert codes(report) == ["few-queries", "few-targets", "clean-model-succeeds", "collapsed-class"]


def test_the_report_is_json_that_any_reader_takes(report):
    assert json.loads(report.to_json())["headline"] == report.headline
