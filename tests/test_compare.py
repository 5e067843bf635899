"""Comparing evaluations: paired by query, whatever the order; refused where the test data differ."""
# pyright: reportOptionalMemberAccess=false, reportArgumentType=false, reportOperatorIssue=false, reportAttributeAccessIssue=false
# (cells of a table may be anything; here they are known)

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from mithridate.cli import main
from mithridate.errors import EvaluationError
from mithridate.evaluation.compare import compare, side
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.evaluation_file import read_evaluation, write_evaluation
from mithridate.evaluation.measurement import Evaluation, TestData, UnitRanks
from mithridate.poisoning.goals import CaptionsToClass
from mithridate.report.document import read_report
from mithridate.report.sections.comparison import comparison_report

ATTACK = "attack sheep:aeroplane"


def mcnemar(better, worse):
    return binomtest(better, better + worse).pvalue if better + worse else 1.0


GOAL = CaptionsToClass("sheep", "aeroplane")


def made(ranks, *, model="mine", task="attack", uid=None, image=None, data="abc", runs: Any = None):
    """An evaluation of one model with nothing but the ranks of one task."""
    uid = uid or tuple(f"q{i}" for i in range(len(ranks)))
    unit_ranks = UnitRanks(
        task=task,
        goal=GOAL.key if task == "attack" else "",
        uid=uid,
        image=image or tuple(int(name[1:]) for name in uid),
        ranks={model: tuple(int(r) for r in ranks)},
    )
    return Evaluation(
        models=(model,),
        goals=(GOAL,),
        test=TestData(fingerprint=data, pairs=60, images=60),
        ranks=(unit_ranks,),
        runs=runs or {},
    )


def compared(*sides):
    return comparison_report(compare(sides))


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
    shuffled = made(after[order], uid=tuple(f"q{i}" for i in order))
    found = rows(compared(*[side("clean", made(before)), side("attack", shuffled)]))
    assert found == rows(compared(*[side("clean", made(before)), side("attack", made(after))]))
    for k in (1, 5, 10):
        cell = found["attack", f"Hit@{k}"]
        assert (cell["of clean"], cell["of the model"]) == ((before < k).mean(), (after < k).mean())
        assert cell["difference"].value == pytest.approx((after < k).mean() - (before < k).mean())
        assert cell["p"] == pytest.approx(
            mcnemar(int(((after < k) > (before < k)).sum()), int(((after < k) < (before < k)).sum()))
        )
        assert cell["p (Holm)"] >= cell["p"]
    assert found["attack", "MinRank"]["difference"].value == pytest.approx((after - before).mean())
    assert found["attack", "MinRank"]["significant"] == "yes"


def test_what_is_told_is_what_was_found(ranks):
    before, after = ranks
    found = compared(*[side("clean", made(before)), side("attack", made(after))])
    assert len(found.summary) == 2
    assert "Attack, sheep to aeroplane, Hit@10 of attack against clean: higher, significant: 0." in found.summary[0]
    assert "MinRank of attack against clean: lower, significant: -" in found.summary[1]
    headline = found.headline[ATTACK]
    assert headline["clean"] == {"hit@10": (before < 10).mean(), "min rank": before.mean()}
    assert headline["difference"]["hit@10"]["n"] == 60
    nothing = compared(*[side("one", made(before)), side("two", made(before))])
    assert all("not significant: 0.000 [" in line for line in nothing.summary)
    assert {cell["p"] for cell in rows(nothing).values()} == {1.0}
    assert nothing.warnings == ()
    few = compared(*[side("one", made(before[:9])), side("two", made(after[:9]))])
    assert [warning.code for warning in few.warnings] == ["few-queries"]


def test_several_are_held_against_the_first_and_corrected_together(ranks):
    before, after = ranks
    sides = [side(name, made(r)) for name, r in (("a", before), ("b", after), ("c", before))]
    found = rows(compared(*sides))
    assert len(found) == 8
    assert found["c", "Hit@10"]["p"] == 1
    alone = rows(compared(*sides[:2]))
    smallest = min(cell["p"] for cell in found.values())
    assert min(cell["p (Holm)"] for cell in found.values()) == pytest.approx(8 * smallest)
    assert min(cell["p (Holm)"] for cell in alone.values()) == pytest.approx(4 * smallest)


def test_captions_of_one_image_are_one_unit(ranks):
    before, after = np.repeat(ranks[0][:12], 5), np.repeat(ranks[1][:12], 5)
    sides = [side("a", made(before)), side("b", made(after))]
    alone = compared(*sides)
    image = tuple(i // 5 for i in range(60))
    together = compared(side("a", made(before, image=image)), sides[1])
    for key, cell in rows(together).items():
        assert cell["difference"].n == 12
        assert cell["difference"].value == rows(alone)[key]["difference"].value
        assert cell["p"] >= rows(alone)[key]["p"]
    with pytest.raises(ValueError, match="60 queries need as many images, got 3"):
        made(before, image=(1, 2, 3))


def test_what_only_some_have_measured_is_said_and_left_out(ranks):
    first = made(ranks[0])
    both = replace(first, ranks=(*first.ranks, *made([0, 1], task="tr").ranks))
    found = compare([side("a", both), side("b", made(ranks[1]))])
    assert found.left_out == {("tr", ""): ("b",)}
    assert comparison_report(found).summary[-1] == "Utility, image to text is not compared: b did not measure it."
    with pytest.raises(EvaluationError, match="no goal and no utility in common"):
        compare([side("a", first), side("b", made(ranks[1], task="tr"))])


def test_the_control_and_the_other_direction_are_no_differences(ranks):
    first = made(ranks[0])
    more = replace(first, ranks=(*first.ranks, *(replace(first.ranks[0], task=t) for t in ("random-captions",))))
    assert [task.task for task in compare([side("a", more), side("b", more)]).tasks] == ["attack"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made([1, 2], data="xyz"), "a and b were evaluated on different test data"),
        (made([1, 2], uid=("q0", "q9")), "different queries for attack sheep:aeroplane"),
        (replace(made([1, 2]), test=None), "b does not say on what test data"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(EvaluationError, match=message):
        compare([side("a", made([0, 1])), side("b", other)])


def test_sides_are_at_least_two_and_told_apart():
    one = side("a", made([0, 1]))
    with pytest.raises(EvaluationError, match="at least two evaluations, got 1"):
        compare([one])
    with pytest.raises(EvaluationError, match="different names, got a, a"):
        compare([one, one])
    with pytest.raises(EvaluationError, match="no model 'clean'; choose --model of mine"):
        side("a", made([0, 1]), "clean")
    with pytest.raises(EvaluationError, match="no ranks of its queries"):
        side("a", replace(made([0, 1]), ranks=()))
    assert side("a", made([0], model="repaired")).model == "repaired"


def test_ranks_that_are_no_positions_are_refused():
    for wrong in (-2, 2**70):
        with pytest.raises(ValueError, match="a rank of mine is no position"):
            made([1, wrong])
    with pytest.raises(ValueError, match="two queries have one uid"):
        made([1, 2], uid=("q0", "q0"))


def test_recipes_that_differ_are_listed(ranks):
    def run(lr):
        return {"mine": {"objective": {"name": "Clip"}, "config": {"lr": lr, "epochs": 3}}}

    sides = [side("a", made(ranks[0], runs=run(1e-5))), side("b", made(ranks[1], runs=run(1e-4)))]
    assert compared(*sides).table("recipes").rows == (("config.lr", "1e-05", "0.0001"),)
    with pytest.raises(KeyError):
        compared(*[sides[0], side("c", made(ranks[1]))]).table("recipes")


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluations(tiny, test_pairs, tmp_path_factory):
    from mithridate.encoder.encoder import load_encoder

    folder = tmp_path_factory.mktemp("compare")
    other = load_encoder("test-tiny", seed=1)
    for name, encoder in (("first", tiny), ("second", other)):
        (folder / name).mkdir()
        models = {"mine": encoder, "clean": tiny}
        write_evaluation(evaluate(models, test_pairs, goals=(GOAL,), reference="clean"), folder / name)
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
    both = [read_evaluation(evaluations / name).unit_ranks("ir")[0] for name in ("first", "second")]
    one, two = (np.array(ranks.ranks["mine"]) for ranks in both)
    cell = rows(found, "difference-ir")["second", "IR@10"]
    assert cell["difference"].value == pytest.approx((two < 10).mean() - (one < 10).mean())


def test_models_of_one_evaluation(evaluations, tmp_path, capsys):
    folder = str(evaluations / "second")
    command = ["compare", folder, folder, "--model", "clean", "mine", "--out", str(tmp_path / "out"), "--json"]
    assert main(command) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said[ATTACK].keys() == {"second (clean)", "second (mine)", "difference"}
    assert said[ATTACK]["difference"]["hit@10"]["n"] == 3  # 15 captions of three sheep
    assert said["utility"]["difference"]["tr@10"]["n"] == 27


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--model", "a", "b", "c"], "one name, or one for each of 2 folders"),
        (["--model", "poisoned"], "no model 'poisoned'"),
    ],
)
def test_wrong_options_are_one_sentence(extra, message, evaluations, tmp_path, capsys):
    folders = [str(evaluations / name) for name in ("first", "second")]
    assert main(["compare", *folders, "--out", str(tmp_path / "out"), *extra]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_one_folder_is_nothing_to_compare(evaluations, tmp_path, capsys):
    assert main(["compare", str(evaluations / "first"), "--out", str(tmp_path / "out")]) == 1
    assert "at least two folders of evaluations, got 1" in capsys.readouterr().err
