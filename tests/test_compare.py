"""Comparing evaluations: paired by query, whatever the order; refused where the test data differ."""
# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# (cells of a table may be anything; here they are known)

import json
from dataclasses import replace

import numpy as np
import pytest

from mithridate.cli import main
from mithridate.errors import EvaluationError
from mithridate.evaluation.compare import compare, side
from mithridate.evaluation.evaluate import evaluate
from mithridate.poisoning.goals import CaptionsToClass
from mithridate.report.document import Ranking, Report, read_report
from mithridate.report.write import write_report
from mithridate.statistics.differences import mcnemar_p

ATTACK = "attack sheep:aeroplane"


def report(ranks, *, model="poisoned", name=ATTACK, uid=None, data="abc", **provenance):
    uid = uid or tuple(f"q{i}" for i in range(len(ranks)))
    return Report(
        "made up",
        (),
        (),
        rankings=(Ranking(name, uid, {model: tuple(int(r) for r in ranks)}),),
        provenance={"test data": {"fingerprint": data}, **provenance},
    )


def rows(found, name="difference-attack-sheep-aeroplane"):
    table = found.table(name)
    return {(row[0], row[1]): dict(zip(table.columns[2:], row[2:])) for row in table.rows}


@pytest.fixture
def ranks():
    rng = np.random.default_rng(0)
    return rng.integers(0, 30, 60), rng.integers(0, 4, 60)


def test_differences_are_of_the_same_queries_whatever_their_order(ranks):
    before, after = ranks
    order = np.random.default_rng(1).permutation(60)
    shuffled = report(after[order], uid=tuple(f"q{i}" for i in order))
    found = rows(compare([side("clean", report(before)), side("attack", shuffled)]))
    assert found == rows(compare([side("clean", report(before)), side("attack", report(after))]))
    for k in (1, 5, 10):
        cell = found["attack", f"Hit@{k}"]
        assert (cell["of clean"], cell["of the model"]) == ((before < k).mean(), (after < k).mean())
        assert cell["difference"].value == pytest.approx((after < k).mean() - (before < k).mean())
        assert cell["p"] == pytest.approx(mcnemar_p(after < k, before < k))
        assert cell["p (Holm)"] >= cell["p"]
    assert found["attack", "MinRank"]["difference"].value == pytest.approx((after - before).mean())
    assert found["attack", "MinRank"]["significant"] == "yes"


def test_what_is_told_is_what_was_found(ranks):
    before, after = ranks
    found = compare([side("clean", report(before)), side("attack", report(after))])
    assert len(found.summary) == 2
    assert "Attack, sheep to aeroplane, Hit@10 of attack against clean: higher, significant: 0." in found.summary[0]
    assert "MinRank of attack against clean: lower, significant: -" in found.summary[1]
    headline = found.headline[ATTACK]
    assert headline["clean"] == {"hit@10": (before < 10).mean(), "min_rank": before.mean()}
    assert headline["difference"]["hit@10"]["n"] == 60
    nothing = compare([side("one", report(before)), side("two", report(before))])
    assert all("not significant: 0.000 [" in line for line in nothing.summary)
    assert {cell["p"] for cell in rows(nothing).values()} == {1.0}
    assert [warning.code for warning in nothing.warnings] == ["captions-as-units"]
    few = compare([side("one", report(before[:9])), side("two", report(after[:9]))])
    assert [warning.code for warning in few.warnings] == ["few-queries", "captions-as-units"]


def test_several_are_held_against_the_first_and_corrected_together(ranks):
    before, after = ranks
    sides = [side(name, report(r)) for name, r in (("a", before), ("b", after), ("c", before))]
    found = rows(compare(sides))
    assert len(found) == 8
    assert found["c", "Hit@10"]["p"] == 1
    alone = rows(compare(sides[:2]))
    smallest = min(cell["p"] for cell in found.values())
    assert min(cell["p (Holm)"] for cell in found.values()) == pytest.approx(8 * smallest)
    assert min(cell["p (Holm)"] for cell in alone.values()) == pytest.approx(4 * smallest)


def test_captions_of_one_image_are_one_unit(ranks):
    before, after = np.repeat(ranks[0][:12], 5), np.repeat(ranks[1][:12], 5)
    sides = [side("a", report(before)), side("b", report(after))]
    alone = compare(sides)
    together = compare(sides, image={f"q{i}": i // 5 for i in range(60)})
    assert together.warnings == ()
    for key, cell in rows(together).items():
        assert cell["difference"].n == 12
        assert cell["difference"].value == rows(alone)[key]["difference"].value
        assert cell["p"] >= rows(alone)[key]["p"]
    with pytest.raises(EvaluationError, match="60 queries are not in the test pairs given"):
        compare(sides, image={})
    # an evaluation tells of each query which image it belongs to
    first = sides[0].report.rankings[0]
    told = replace(sides[0].report, rankings=(replace(first, image=tuple(np.repeat(range(12), 5).tolist())),))
    assert rows(compare([side("a", told), sides[1]])) == rows(together)
    assert compare([side("a", told), sides[1]]).warnings == ()
    with pytest.raises(ValueError, match="has 60 queries, got 3 images"):
        replace(first, image=(1, 2, 3))


def test_what_only_some_have_measured_is_said_and_left_out(ranks):
    first = report(ranks[0])
    both = replace(first, rankings=(*first.rankings, Ranking("tr", ("q0", "q1"), {"poisoned": (0, 1)})))
    found = compare([side("a", both), side("b", report(ranks[1]))])
    assert found.summary[-1] == "Utility, image to text is not compared: b did not measure it."
    with pytest.raises(EvaluationError, match="no goal and no utility in common"):
        compare([side("a", first), side("b", report(ranks[1], name="tr"))])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (report([1, 2], data="xyz"), "a and b were evaluated on different test data"),
        (report([1, 2], uid=("q0", "q9")), "different queries for attack, sheep to aeroplane"),
        (report([1, 2], uid=("q0", "q0")), "different queries"),
        (report([1, -2]), "negative rank"),
        (report([1, 2**70]), "a rank that is no position"),
        (replace(report([1, 2]), provenance={}), "b does not say on what test data"),
        (replace(report([1, 2]), provenance={"test data": "abc"}), "b does not say on what test data"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(EvaluationError, match=message):
        compare([side("a", report([0, 1])), side("b", other)])


def test_sides_are_at_least_two_and_told_apart():
    one = side("a", report([0, 1]))
    with pytest.raises(EvaluationError, match="at least two evaluations, got 1"):
        compare([one])
    with pytest.raises(EvaluationError, match="different names, got a, a"):
        compare([one, one])
    with pytest.raises(EvaluationError, match="no model 'clean'; choose --model of poisoned"):
        side("a", report([0, 1]), "clean")
    with pytest.raises(EvaluationError, match="no ranks of its queries"):
        side("a", replace(report([0, 1]), rankings=()))
    assert side("a", report([0], model="model")).model == "model"


def test_recipes_that_differ_are_listed(ranks):
    def run(lr):
        return {"poisoned": {"objective": {"name": "Clip"}, "config": {"lr": lr, "epochs": 3}}}

    sides = [side("a", report(ranks[0], runs=run(1e-5))), side("b", report(ranks[1], runs=run(1e-4)))]
    assert compare(sides).table("recipes").rows == (("config.lr", "1e-05", "0.0001"),)
    with pytest.raises(KeyError):
        compare([sides[0], side("c", report(ranks[1]))]).table("recipes")


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluations(tiny, test_pairs, tmp_path_factory):
    from mithridate.encoder.encoder import load_encoder

    folder = tmp_path_factory.mktemp("compare")
    goals = (CaptionsToClass("sheep", "aeroplane"),)
    other = load_encoder("mithridate-tiny", seed=1)
    for name, encoder in (("first", tiny), ("second", other)):
        (folder / name).mkdir()
        write_report(evaluate(encoder, test_pairs, goals=goals, clean=tiny), folder / name)
    return folder


def test_two_folders_on_the_console_and_as_files(evaluations, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["compare", str(evaluations / "first"), str(evaluations / "second"), "--out", str(out)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "second against first" in shown
    assert "significant" in shown
    found = read_report(out)
    assert {table.name for table in found.tables} >= {"difference-attack-sheep-aeroplane", "difference-tr"}
    assert "difference-ir" in {table.name for table in found.tables}
    for name in ("report.md", "report.html"):
        assert "p (Holm)" in (out / name).read_text(encoding="utf-8")
    ranks = [{r.name: r for r in read_report(evaluations / n).rankings} for n in ("first", "second")]
    one, two = (np.array(r["ir"].ranks["model"]) for r in ranks)
    cell = rows(found, "difference-ir")["second", "IR@10"]
    assert cell["difference"].value == pytest.approx((two < 10).mean() - (one < 10).mean())


def test_models_of_one_evaluation_with_the_test_pairs(evaluations, toy_world, tmp_path, capsys):
    folder = str(evaluations / "second")
    command = ["compare", folder, folder, "--model", "clean", "model", "--out", str(tmp_path / "out"), "--json"]
    assert main([*command, "--data", str(toy_world), "--split", "test"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said[ATTACK].keys() == {"second (clean)", "second (model)", "difference"}
    assert said[ATTACK]["difference"]["hit@10"]["n"] == 3  # 15 captions of three sheep
    assert said["utility"]["difference"]["tr@10"]["n"] == 27


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--model", "a", "b", "c"], "one name, or one for each of 2 folders"),
        (["--data", "TRAIN", "--split", "train"], "is not the test data of"),
        (["--model", "poisoned"], "no model 'poisoned'"),
    ],
)
def test_wrong_options_are_one_sentence(extra, message, evaluations, toy_world, tmp_path, capsys):
    extra = [str(toy_world) if word == "TRAIN" else word for word in extra]
    folders = [str(evaluations / name) for name in ("first", "second")]
    assert main(["compare", *folders, "--out", str(tmp_path / "out"), *extra]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_one_folder_is_nothing_to_compare(evaluations, tmp_path, capsys):
    assert main(["compare", str(evaluations / "first"), "--out", str(tmp_path / "out")]) == 1
    assert "at least two folders of evaluations, got 1" in capsys.readouterr().err
