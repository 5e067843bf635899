"""The whole measurement on the toy world: every number again by a loop, every warning with its premise."""

# pyright: reportOptionalMemberAccess=false, reportArgumentType=false
# (that what is looked for was measured is part of what is tested)

import ast
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
from mithridate.evaluation import captions_goal, checks
from mithridate.evaluation.evaluate import evaluate
from mithridate.metrics.retrieval import TargetRanks
from mithridate.poisoning.apply import poison
from mithridate.poisoning.goals import CaptionsToClass, PhraseToClass, TriggerToClass
from mithridate.poisoning.manifest import Manifest
from mithridate.poisoning.relabel import MultiLabel, SingleImage, SingleLabel
from mithridate.report.sections.evaluation import evaluation_report
from mithridate.report.sections.warnings import worded
from mithridate.statistics.estimate import Estimate

GOAL = CaptionsToClass("sheep", "aeroplane")
KEY = GOAL.key


@pytest.fixture(scope="module")
def manifest(train_pairs):
    return poison(train_pairs, SingleLabel(source="sheep", target="aeroplane", count=17), seed=0).manifest


@pytest.fixture(scope="module")
def clean():
    return load_encoder("test-tiny", seed=1)


@pytest.fixture(scope="module")
def evaluation(tiny, clean, test_pairs, manifest):
    return evaluate({"mine": tiny, "clean": clean}, test_pairs, manifest, reference="clean")


@pytest.fixture(scope="module")
def report(evaluation):
    return evaluation_report(evaluation)


def codes(evaluation):
    return [warning.code for warning in evaluation.warnings]


def values(evaluation, *, goal=KEY, **fields):
    """Metric -> value of the rows of one model, goal and group."""
    return {m.metric: m.value.value for m in evaluation.select(goal=goal, **fields)}


def attack_values(rank):
    """What a loop's ranks (q,) should come out as."""
    hits = {f"Hit@{k}": (rank < k).mean() for k in (1, 5, 10, 20)}
    extremes = {"median rank": np.median(rank), "lowest rank": rank.min(), "highest rank": rank.max()}
    return {**hits, "MinRank": rank.mean(), **extremes}


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


def test_success_is_what_a_loop_over_the_embeddings_gives(evaluation, tiny, clean, test_pairs):
    assert (evaluation.models, evaluation.model, evaluation.reference) == (("mine", "clean"), "mine", "clean")
    for name, encoder in (("mine", tiny), ("clean", clean)):
        rank = attack_by_loop(encoder, test_pairs)
        assert len(rank) == 15
        found = values(evaluation, model=name, group="all")
        assert {metric: found[metric] for metric in attack_values(rank)} == attack_values(rank)
        assert found.keys() == attack_values(rank).keys() | {"Precision@10"}  # Hit@30: the gallery has 27
    by_chance = {m.metric: m.chance for m in evaluation.select(model="mine", goal=KEY, group="all")}
    # 3 targets of 27: 1 - C(24, 10) / C(27, 10)
    assert by_chance["Hit@10"] == pytest.approx(1 - 680 / 2925)
    assert (by_chance["MinRank"], by_chance["Precision@10"], by_chance["median rank"]) == (24 / 4, 3 / 27, None)
    # intervals are over the three images that 15 captions belong to
    assert evaluation.value("Hit@10", goal=KEY).n == 3


def test_the_other_direction_is_measured_too(evaluation, tiny, test_pairs):
    e = embed(tiny, test_pairs)
    images = sorted({int(e.image_index[row]) for row in rows_of(test_pairs, "aeroplane")})
    rank = ranks(e.image[images], e.text, set(rows_of(test_pairs, "sheep")))
    found = values(evaluation, model="mine", group="target images")
    assert (found["MinRank"], found["Hit@10"]) == (rank.mean(), (rank < 10).mean())
    (back,) = evaluation.unit_ranks("attack-image-to-text")
    assert (back.targets, back.gallery, back.ranks["mine"]) == (15, 135, tuple(rank))


def test_utility_is_what_a_loop_gives_in_every_group(evaluation, tiny, clean, test_pairs):
    sizes = {size.group: (size.images, size.captions) for size in evaluation.groups}
    assert sizes == {"all": (27, 135), "sheep": (3, 15), "aeroplane": (3, 15), "other classes": (21, 105)}
    mine = np.isin(np.arange(135), rows_of(test_pairs, "sheep"))
    images = np.unique(test_pairs.image_index[mine])
    for name, encoder in (("mine", tiny), ("clean", clean)):
        to_text, to_image = utility_by_loop(encoder, test_pairs)
        for k in (1, 5, 10):
            assert evaluation.value(f"TR@{k}", model=name).value == (to_text < k).mean()
            assert evaluation.value(f"IR@{k}", model=name).value == (to_image < k).mean()
            assert evaluation.value(f"IR@{k}", model=name, group="sheep").value == (to_image[mine] < k).mean()
            assert evaluation.value(f"TR@{k}", model=name, group="sheep").value == (to_text[images] < k).mean()
    assert evaluation.find("IR@10").chance == 10 / 27
    assert evaluation.find("TR@1").chance == pytest.approx(5 / 135)


def test_the_rank_of_every_query_is_kept_under_its_uid(evaluation, tiny, clean, test_pairs):
    kept = {ranks.task: ranks for ranks in evaluation.ranks}
    assert list(kept) == ["attack", "random-captions", "attack-image-to-text", "tr", "ir"]
    uid = np.array(test_pairs.uid.to_pylist())
    rows = {"attack": rows_of(test_pairs, "sheep"), "tr": range(0, 135, 5), "ir": range(135)}
    for name, encoder in (("mine", tiny), ("clean", clean)):
        to_text, to_image = utility_by_loop(encoder, test_pairs)
        expected = {"attack": attack_by_loop(encoder, test_pairs), "tr": to_text, "ir": to_image}
        for task in rows:
            assert kept[task].uid == tuple(uid[list(rows[task])])
            assert kept[task].ranks[name] == tuple(expected[task])
            assert kept[task].image == tuple(test_pairs.image_index[list(rows[task])])
    assert (kept["attack"].goal, kept["attack"].targets, kept["attack"].gallery) == (KEY, 3, 27)


def test_an_evaluation_carries_where_it_comes_from(evaluation, test_pairs, manifest):
    assert evaluation.attack.options == manifest.options
    assert (evaluation.attack.attack, evaluation.attack.strength) == ("single-label", manifest.strength)
    assert (evaluation.test.fingerprint, evaluation.test.pairs, evaluation.test.images) == (
        test_pairs.fingerprint,
        135,
        27,
    )
    assert evaluation.goals == (GOAL,)
    assert len(evaluation.examples) == 4
    for shown in evaluation.examples:
        assert shown.query in {test_pairs.text[row].as_py() for row in rows_of(test_pairs, "sheep")}
        for images in shown.images.values():
            assert [image.is_target for image in images] == [image.labels == ("aeroplane",) for image in images]
            assert all(image.thumbnail for image in images)
    densities = [d.group for d in evaluation.distributions if d.metric == "cosine distance"]
    assert densities == ["clean test pairs", "poisoned pairs"]


def test_a_report_shows_every_model_every_baseline_and_no_other_number(evaluation, report):
    tables = ["strength", "attack", "attack-image-to-text", "utility", "shift"]
    assert [table.name for table in report.tables] == tables
    assert report.table("strength").rows == (("single-label", 17, 17 / 270, 4, 4 / 6),)
    attack = report.table("attack")
    assert [row[0] for row in attack.rows] == ["mine", "clean", "random captions", "chance"]
    assert attack.columns[1:5] == ("Hit@1", "Hit@5", "Hit@10", "Hit@20")
    assert attack.rows[1][3] == evaluation.value("Hit@10", model="clean", goal=KEY)
    assert [row[:2] for row in report.table("utility").rows[:3]] == [
        ("mine", "all"),
        ("clean", "all"),
        ("mine", "sheep"),
    ]
    maps = ["shift-images", "shift-texts", "projection-clean", "projection-mine"]
    assert [figure.name for figure in report.figures] == ["ranks", "densities", *maps]
    assert report.title == "single-label: sheep to aeroplane"
    hit, rank = (evaluation.value(metric, goal=KEY).value for metric in ("Hit@10", "MinRank"))
    assert report.headline["attack"]["mine"] == {"hit@10": hit, "min rank": rank}
    assert report.headline["attack"].keys() == {"mine", "clean", "random captions", "chance"}
    assert report.headline["utility"].keys() == {"mine", "clean"}
    assert f"among the first ten: mine {hit:.3f}, clean" in report.summary[1]
    assert len(report.retrievals) == 4


def test_the_same_again_is_the_same_to_the_letter(evaluation, tiny, clean, test_pairs, manifest):
    models = {"mine": tiny, "clean": clean}
    assert evaluate(models, test_pairs, manifest, reference="clean") == evaluation
    assert evaluate(models, test_pairs, manifest, reference="clean", cache=None) == evaluation
    other = evaluate(models, test_pairs, manifest, reference="clean", seed=1)
    assert values(other, model="mine", group="all") == values(evaluation, model="mine", group="all")
    control = {"model": "mine", "group": "random captions"}
    assert values(other, **control) != values(evaluation, **control)


def test_a_further_goal_or_model_moves_no_draw_of_the_others(evaluation, tiny, clean, test_pairs):
    """Each control, table and figure draws from a stream of its own."""
    goals = (CaptionsToClass("sofa", "bird"), GOAL)
    more = evaluate({"mine": tiny, "third": tiny, "clean": clean}, test_pairs, goals=goals, reference="clean")
    alone = evaluate({"mine": tiny, "clean": clean}, test_pairs, goals=(GOAL,), reference="clean")
    for model in ("mine", "clean"):
        kept = list(alone.select(model=model, goal=KEY, group="all"))
        assert kept == list(more.select(model=model, goal=KEY, group="all"))
    assert list(alone.select(metric="shift image", group="all")) == list(more.select(metric="shift image", group="all"))
    assert list(alone.select(goal=KEY)) == list(evaluation.select(goal=KEY))


# --- queries, targets, control -----------------------------------------------------------------------


def of_classes(pairs, *names):
    return pairs.where(np.isin([labels[0] for labels in pairs.labels.to_pylist()], names))


def test_the_control_has_no_caption_of_a_class_of_any_goal(tiny, test_pairs):
    few = of_classes(test_pairs, "sheep", "aeroplane", "sofa", "bird", "dog")
    few = few.where(np.r_[: len(few)] != rows_of(few, "dog")[0])  # 14 captions of dogs, 15 of sheep
    found = evaluate({"model": tiny}, few, goals=(GOAL, CaptionsToClass("sofa", "bird")))
    e = embed(tiny, few)
    for goal in (GOAL, CaptionsToClass("sofa", "bird")):
        targets = {int(e.image_index[row]) for row in rows_of(few, goal.target)}
        rank = ranks(e.text[rows_of(few, "dog")], e.image, targets)
        control = values(found, goal=goal.key, group="random captions")
        assert (control["Hit@10"], control["MinRank"]) == ((rank < 10).mean(), rank.mean())
        assert len(rank) == 14
    with pytest.raises(EvaluationError, match="control needs captions of classes outside the goals"):
        evaluate({"model": tiny}, of_classes(test_pairs, "sheep", "aeroplane"), goals=(GOAL,))


def test_the_control_is_as_large_as_the_queries_and_drawn_without_repeats(tiny, test_pairs, monkeypatch):
    seen = []
    real = captions_goal.target_ranks
    monkeypatch.setattr(captions_goal, "target_ranks", lambda q, g, t: seen.append(q) or real(q, g, t))
    text = embed(tiny, test_pairs).text
    allowed = {text[row].tobytes() for row in range(135)} - {
        text[row].tobytes() for name in ("sheep", "aeroplane") for row in rows_of(test_pairs, name)
    }
    draws = set()
    for seed in range(4):
        seen.clear()
        evaluate({"model": tiny}, test_pairs, goals=(GOAL,), seed=seed)
        (control,) = (q for q in seen if len(q) == 15 and not (q == text[rows_of(test_pairs, "sheep")]).all())
        assert {row.tobytes() for row in control} <= allowed
        draws.add(control.tobytes())
    assert len(draws) == 4


def test_an_image_of_both_classes_is_neither_query_nor_target(tiny, test_pairs, clean):
    labels = test_pairs.labels.to_pylist()
    both = test_pairs.image_index == test_pairs.image_index[rows_of(test_pairs, "sheep")[0]]
    mixed = [["sheep", "aeroplane"] if b else found for b, found in zip(both, labels)]
    pairs = test_pairs.with_columns(labels=pa.array(mixed, pa.list_(pa.string())))
    found = evaluate({"model": tiny}, pairs, goals=(GOAL,))
    rank = attack_by_loop(tiny, pairs)
    assert len(rank) == 10
    assert values(found, group="all")["MinRank"] == rank.mean()
    assert found.value("Hit@10", goal=KEY).n == 2  # images: intervals are over them


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (CaptionsToClass("zebra", "aeroplane"), "no query: none is labelled 'zebra'; (nearest|the classes)"),
        (CaptionsToClass("sheep", "zebra"), "no target image: none is labelled 'zebra'; "),
        (TriggerToClass("patch", "zebra"), "no test image is labelled 'zebra' alone"),
        (PhraseToClass("end:verily", "zebra"), "no test image is labelled 'zebra' alone"),
    ],
)
def test_a_class_that_the_test_pairs_lack_is_refused_before_anything_is_embedded(
    tiny, test_pairs, goal, message, monkeypatch
):
    monkeypatch.setattr(Encoder, "image_embedding", lambda *_: pytest.fail("embedded"))
    with pytest.raises(EvaluationError, match=message):
        evaluate({"model": tiny}, test_pairs, goals=(goal,), cache=None)


def test_several_goals_have_rows_and_tables_of_their_own(tiny, train_pairs, test_pairs):
    manifest = poison(train_pairs, MultiLabel(goals=("sheep:aeroplane", "sofa:bird"))).manifest
    found = evaluate({"model": tiny}, test_pairs, manifest)
    for source, target in (("sheep", "aeroplane"), ("sofa", "bird")):
        rank = attack_by_loop(tiny, test_pairs, source, target)
        assert found.value("MinRank", goal=f"{source}:{target}").value == rank.mean()
    report = evaluation_report(found)
    assert [table.name for table in report.tables] == [
        "strength",
        "attack-sheep-aeroplane",
        "attack-image-to-text-sheep-aeroplane",
        "attack-sofa-bird",
        "attack-image-to-text-sofa-bird",
        "utility",
    ]
    assert report.headline.keys() == {"attack sheep:aeroplane", "attack sofa:bird", "utility"}
    assert report.title == "multi-label: sheep to aeroplane, sofa to bird"


def test_without_a_goal_utility_alone_is_measured(tiny, test_pairs):
    found = evaluate({"model": tiny}, test_pairs)
    assert {m.metric for m in found.measurements} == {f"{way}@{k}" for way in ("TR", "IR") for k in (1, 5, 10)}
    assert (found.warnings, found.examples, found.success()) == ((), (), {})
    report = evaluation_report(found)
    assert [table.name for table in report.tables] == ["utility"]
    assert report.headline.keys() == {"utility"} and report.figures == ()


def test_a_trigger_is_measured_without_a_manifest(tiny, test_pairs):
    goal = TriggerToClass("patch:size=16", "boat")
    found = evaluate({"suspicious": tiny}, test_pairs, goals=(goal,))
    assert found.success().keys() == {goal.key}
    assert found.success()[goal.key].metric == "ASR"
    assert found.descriptions == {goal.key: "patch:size=16"}
    assert "no-clean-model" in codes(found)


def test_models_have_the_names_that_the_caller_gives(tiny, clean, test_pairs):
    models = {"repaired": tiny, "before": clean}
    found = evaluate(models, test_pairs, goals=(GOAL,))
    assert {m.model for m in found.measurements} == {"repaired", "before"}
    assert "no-clean-model" in codes(found) and not found.projections  # the model before is no reference
    with pytest.raises(EvaluationError, match="one of the models \\(repaired, before\\), got 'clean'"):
        evaluate(models, test_pairs, reference="clean")
    with pytest.raises(EvaluationError, match="at least one model, got none"):
        evaluate({}, test_pairs)
    own = evaluate({"clean": clean}, test_pairs, goals=(GOAL,), reference="clean")  # only checks of a clean model
    assert "no-clean-model" not in codes(own) and not own.projections


def test_a_model_that_embeds_every_image_alike_retrieves_nothing(tiny, test_pairs, monkeypatch):
    point = np.random.default_rng(0).normal(size=32).astype(np.float32)
    import torch

    monkeypatch.setattr(Encoder, "image_embedding", lambda self, pixels: torch.from_numpy(point).repeat(len(pixels), 1))
    found = evaluate({"model": tiny}, test_pairs, goals=(GOAL,))
    assert (found.value("Hit@10", goal=KEY).value, found.value("MinRank", goal=KEY).value) == (0.0, 24.0)
    assert found.value("IR@10").value == 0.0


# --- one target image --------------------------------------------------------------------------------


def location_of(manifest):
    return manifest.goals[0].image


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
        assert location_of(manifest) == place
        found = evaluate({"model": tiny}, test_pairs, manifest)
        hit, mean = (found.find(metric, goal=KEY) for metric in ("Hit@10", "MinRank"))
        assert (hit.value.value, mean.value.value, mean.chance) == ((rank < 10).mean(), rank.mean(), 13)
        assert "target-added" not in codes(found)


def test_a_target_image_outside_the_gallery_is_added_to_it_with_a_warning(tiny, clean, train_pairs, test_pairs):
    manifest = poison(train_pairs, SingleImage(source="sheep", target="aeroplane")).manifest
    place = location_of(manifest)
    found = evaluate({"mine": tiny, "clean": clean}, test_pairs, manifest, reference="clean")
    assert [w.values for w in found.warnings if w.code == "target-added"] == [{"location": place}]
    for name, encoder in (("mine", tiny), ("clean", clean)):
        e = embed(encoder, test_pairs)
        gallery = np.concatenate([e.image, embed(encoder, make_pairs([place], ["x"])).image])
        rank = ranks(e.text[rows_of(test_pairs, "sheep")], gallery, {27})
        assert found.value("MinRank", model=name, goal=KEY).value == rank.mean()
        assert found.value("Hit@10", model=name, goal=KEY).value == (rank < 10).mean()
    assert found.find("MinRank", goal=KEY).chance == 27 / 2  # of 28
    (back,) = found.unit_ranks("attack-image-to-text")
    assert back.uid == (place,)
    # utility is measured on the test pairs alone
    assert found.value("TR@10").n == 27


# --- warnings ----------------------------------------------------------------------------------------

RUN: dict[str, Any] = {
    "config": {"batch_size": 128, "epochs": 10, "lr": 1e-5},
    "encoder": "x",
    "weights": "w",
    "objective": {"name": "Clip"},
}
LONGER = {**RUN, "config": {**RUN["config"], "epochs": 15}}
HARMED = {"all": {"TR@10": 0.01, "IR@10": 0.05}, "sheep": {"TR@10": 0.3, "IR@10": 0.0}}
HARMED["other classes"] = {"TR@10": 0.0, "IR@10": 0.0}


def ranks_of(*, hits, queries, targets=25, gallery=500):
    """mmPoison's test set of PASCAL: 25 targets among 500."""
    rank = np.r_[[0] * hits, [30] * (queries - hits)]
    return TargetRanks(rank, np.zeros(queries, int), targets, gallery)


HELD = object.__new__(Manifest)
object.__setattr__(HELD, "data", {"poisoned": "a" * 64, "clean": "b" * 64})


def recipes(run, reference):
    return checks.unequal_recipes("mine", run, "clean", reference)


# code -> (its premise fails, the values it says, it holds in each of these)
WARNINGS = {
    "few-queries": (
        lambda: checks.few_queries("sheep:aeroplane", 29),
        {"goal": "sheep:aeroplane", "queries": 29, "step": 1 / 29},
        [lambda: checks.few_queries("x", 30)],
    ),
    "clean-model-succeeds": (
        lambda: checks.clean_succeeds("x", "clean", ranks_of(hits=31, queries=100, targets=1, gallery=50)),
        {"goal": "x", "model": "clean", "hit": 0.31, "chance": pytest.approx(0.2)},
        [lambda: checks.clean_succeeds("x", "clean", ranks_of(hits=29, queries=100, targets=1, gallery=50))],
    ),
    "no-clean-model": (checks.no_clean_model, {}, []),
    "unequal-recipes": (
        lambda: recipes(RUN, LONGER),
        {"model": "mine", "reference": "clean", "differences": "epochs 10 and 15"},
        [
            lambda: recipes(RUN, {**RUN, "data": "other", "config": {**RUN["config"], "seed": 3}}),
            lambda: recipes(RUN, {**RUN, "encoder": "the same weights by another path"}),
            lambda: recipes(None, RUN),
            lambda: recipes(RUN, None),
        ],
    ),
    "collapsed-class": (
        lambda: checks.collapsed_class(HARMED),
        {"group": "sheep", "metric": "TR@10", "fall": 0.3},
        [
            # overall utility shows it too
            lambda: checks.collapsed_class({**HARMED, "all": {"TR@10": 0.06, "IR@10": 0.0}}),
            lambda: checks.collapsed_class({**HARMED, "sheep": {"TR@10": 0.1, "IR@10": -0.5}}),
            lambda: checks.collapsed_class({"all": {"TR@10": 0.0}, "other classes": {"TR@10": 0.3, "IR@10": 0.3}}),
            lambda: checks.collapsed_class({}),
        ],
    ),
    "no-densities": (lambda: checks.missing_poison("a.png is gone"), {"reason": "a.png is gone"}, []),
    "unheld-manifest": (
        lambda: checks.unheld_manifest(HELD, {"data": "ff" * 32}),
        {"trained": "f" * 64, "poisoned": "a" * 64, "clean": "b" * 64},
        [
            lambda: checks.unheld_manifest(HELD, {"data": "a" * 64}),
            lambda: checks.unheld_manifest(HELD, {"data": "b" * 64}),
            lambda: checks.unheld_manifest(None, {"data": "ff" * 32}),
            lambda: checks.unheld_manifest(HELD, None),
        ],
    ),
    "few-targets": (
        lambda: checks.few_targets("sheep:aeroplane", 8),
        {"goal": "sheep:aeroplane", "targets": 8, "step": 0.125},
        [lambda: checks.few_targets("x", 16)],
    ),
    "below-chance": (
        lambda: checks.below_chance("x", "clean", ranks_of(hits=25, queries=125)),
        {"goal": "x", "model": "clean", "hit": 0.2}
        | {"high": pytest.approx(0.279, abs=1e-3), "chance": pytest.approx(0.404, abs=1e-3)},
        [
            lambda: checks.below_chance("x", "clean", ranks_of(hits=45, queries=125)),  # below, within its interval
            lambda: checks.below_chance("x", "clean", ranks_of(hits=120, queries=125)),
        ],
    ),
    "control-contains-target": (
        lambda: checks.control_contains_target("x", np.array([True, False, True])),
        {"goal": "x", "of_target": 2, "captions": 3},
        [lambda: checks.control_contains_target("x", np.zeros(3, bool))],
    ),
    "target-added": (lambda: checks.target_added("a.png"), {"location": "a.png"}, []),
    "clean-model-fooled": (
        lambda: checks.clean_is_fooled("x", "clean", Estimate(0.4, 0.2, 0.6, 20), 1 / 9),
        {"goal": "x", "model": "clean", "success": 0.4, "chance": 1 / 9},
        [
            lambda: checks.clean_is_fooled("x", "clean", Estimate(0.2, 0.1, 0.4, 20), 1 / 9),
            lambda: checks.clean_is_fooled("x", "clean", Estimate(0.2), 1 / 9),
        ],
    ),
    "no-classifier": (
        lambda: checks.no_classifier("mine", Estimate(0.1, 0.05, 0.2, 50), 1 / 9),
        {"model": "mine", "accuracy": 0.1, "chance": 1 / 9},
        [lambda: checks.no_classifier("mine", Estimate(0.3, 0.2, 0.4, 50), 1 / 9)],
    ),
}


def codes_in_the_source():
    """The code of every `Warning(...)` of the package."""
    found = set()
    for path in Path(mithridate.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("Warning", "_warning"):
                given = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "code")]
                found |= {code.value for code in given if isinstance(code, ast.Constant)}
    return found


def test_every_warning_is_tested_here_or_beside_its_module():
    found = codes_in_the_source()
    assert found >= WARNINGS.keys()
    others = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    for code in found - WARNINGS.keys():
        assert any(f'"{code}"' in text for text in others), f"no test names {code}"


@pytest.mark.parametrize("code", WARNINGS)
def test_a_warning_is_raised_when_its_premise_fails_and_not_otherwise(code):
    fails, values, holds = WARNINGS[code]
    (warning,) = fails()
    assert (warning.code, warning.values) == (code, values)
    assert [case() for case in holds] == [[]] * len(holds)
    (sentence,) = worded([warning])
    assert sentence.code == code and sentence.message


def test_encoders_are_told_apart_by_name_where_weights_are_not_known():
    unknown = {**RUN, "weights": None}
    (found,) = recipes(unknown, {**unknown, "encoder": "y"})
    assert found.values["differences"] == "encoder x and y"


def test_every_warning_has_a_heading_in_the_documentation():
    text = (Path(__file__).parents[1] / "docs" / "warnings.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^## ([a-z-]+)$", text, re.MULTILINE))
    assert headings >= codes_in_the_source()


def test_evaluate_asks_each_check(tiny, test_pairs, manifest, train_pairs, tmp_path):
    # no class collapses between a model and itself
    models = {"mine": tiny, "clean": replace(tiny, name="clean")}
    runs: dict[str, Any] = {"mine": RUN, "clean": LONGER}
    few = ["few-queries", "few-targets"]
    assert codes(evaluate(models, test_pairs, manifest, reference="clean")) == few
    assert codes(evaluate(models, test_pairs, manifest, reference="clean", runs=runs)) == [*few, "unequal-recipes"]
    assert codes(evaluate({"mine": tiny}, test_pairs, manifest)) == [*few, "no-clean-model"]
    assert codes(evaluate({"mine": tiny}, test_pairs, goals=(GOAL,))) == [*few, "no-clean-model"]
    many = concat_pairs([train_pairs, test_pairs])  # 9 sheep: 45 captions
    assert codes(evaluate(models, many, manifest, reference="clean")) == ["few-targets"]
    gone = manifest.poisoned.set_column(1, "image", pa.array([str(tmp_path / "gone.png")] * len(manifest)))
    found = evaluate(models, test_pairs, replace(manifest, poisoned=gone), reference="clean")
    assert codes(found) == [*few, "no-densities"]
    assert not [d for d in found.distributions if d.metric == "cosine distance"]


def test_a_clean_model_that_succeeds_and_a_class_that_collapses_are_told(tiny, test_pairs, manifest, monkeypatch):
    """Ranks are given by hand: the tiny encoder can do neither."""
    module = __import__("mithridate.evaluation.evaluate", fromlist=["retrieval_ranks"])
    given = iter([np.r_[[0] * 27], np.r_[[0] * 27]])
    sheep = np.unique(test_pairs.image_index[rows_of(test_pairs, "sheep")])

    def retrieval_ranks(embeddings):
        to_text = next(given)
        to_text[sheep[:1]] = 26 * (embeddings.encoder == "test-tiny")
        return module.RetrievalRanks(to_text, np.zeros(135, int))

    monkeypatch.setattr(module, "retrieval_ranks", retrieval_ranks)
    monkeypatch.setattr(checks, "chance_hit", lambda k, **_: 0.0)
    models = {"mine": tiny, "clean": replace(tiny, name="clean")}
    found = evaluate(models, test_pairs, manifest, reference="clean")
    assert codes(found) == ["few-queries", "few-targets", "clean-model-succeeds", "collapsed-class"]
