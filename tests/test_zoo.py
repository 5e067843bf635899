"""Studies of inspections: what was planted held against what was found, and the tables of it."""
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# (that a cell holds an estimate is part of what is tested)

from dataclasses import asdict, replace

import numpy as np
import pytest

from mithridate.errors import StudyError
from mithridate.poisoning.goals import CaptionsToClass, ImageToClass, PhraseToClass, TriggerToClass
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.outcomes import Again, Inspected, Outcome, read_outcomes
from mithridate.studies.inspection_truth import as_planted, held_against_truth, names
from mithridate.studies.render.inspections import inspection_figures, inspection_tables, inspections_in_words
from mithridate.studies.run import run_study
from mithridate.studies.spec.load import study_of
from mithridate.studies.spec.located import parse_located
from mithridate.studies.spec.study import ShowInspections
from mithridate.studies.status import preview_study

FILE = """\
study: seen
data: {toy: {train: 60, test: 20, size: 32, classes: [sheep, aeroplane, bird]}}
start: {encoder: mithridate-micro, pretrain: {preset: scratch, epochs: 1, batch_size: 50, warmup: 1}}
train: {preset: scratch, epochs: 1, batch_size: 50, warmup: 1}
inspect: {on: {toy: {train: 60, test: 20, size: 32, classes: [sheep, aeroplane, bird]}}, repair: true}
experiments:
  - name: kinds
    attack:
      - {attack: single-label, source: sheep, target: aeroplane}
      - {attack: backdoor, target: bird, trigger: 'patch:size=6', rate: 0.1}
    show: [{inspections: {rows: [attack]}}]
"""

TOLD = """\
  - name: told
    attack: {attack: backdoor, target: bird, trigger: 'patch:size=6', rate: 0.1}
    inspect:
      on: {toy: {train: 60, test: 20, size: 32, classes: [sheep, aeroplane, bird]}}
      repair: true
      verify: false
      told: true
      methods: [unlearn]
"""


def finding(**options):
    plain = {"probe": "mask-inversion", "kind": "patch", "strength": 0.5, "null": 0.1, "flagged": True}
    return {**plain, "target": None, "token": None, "pair": None, **options}


@pytest.mark.parametrize(
    ("found", "goal", "right"),
    [
        (finding(target="boat"), TriggerToClass("patch", "boat"), True),
        (finding(target="bus"), TriggerToClass("patch", "boat"), False),
        (finding(target="boat", token="zx"), TriggerToClass("patch", "boat"), False),
        (finding(target="boat"), ImageToClass("image", "boat"), True),
        (finding(target="boat", token="zx"), PhraseToClass("end:zx", "boat"), True),
        (finding(target="boat", token="bird"), PhraseToClass("end:zx", "boat"), False),
        (finding(target="boat"), PhraseToClass("end:zx", "boat"), False),
        (finding(target="boat", pair=["sheep", "boat"]), CaptionsToClass("sheep", "boat"), True),
        (finding(target="boat", pair=["boat", "sheep"]), CaptionsToClass("sheep", "boat"), False),
        (finding(target="boat"), CaptionsToClass("sheep", "boat"), False),
    ],
)
def test_a_finding_names_what_was_planted_or_does_not(found, goal, right):
    assert names(found, goal) is right


@pytest.mark.parametrize(
    "goal",
    [TriggerToClass("patch:size=6", "boat"), PhraseToClass("end:zx", "boat"), CaptionsToClass("sheep", "boat")],
)
def test_what_was_planted_is_a_finding_that_names_it(goal):
    (planted,) = as_planted([goal])
    assert planted.flagged
    assert names(asdict(planted), goal)


def test_of_a_single_image_no_finding_tells_a_repair_anything():
    assert as_planted([ImageToClass("image", "boat")]) == ()


def test_only_a_leading_finding_that_is_flagged_names_anything():
    goal = TriggerToClass("patch", "boat")
    weak, strong = finding(target="boat", flagged=False), finding(target="bus", probe="token-scan")
    said = {"verdict": "suspicious", "seconds": 1.0, "findings": [strong, weak]}
    assert held_against_truth(said, [goal])["right"] is False
    seen = held_against_truth({**said, "findings": [weak]}, [goal])
    assert (seen["right"], seen["flagged"], seen["strengths"]) == (False, [], {"mask-inversion": [0.5, 0.1]})


def outcomes():
    """Two models of a kind and two clean ones; each clean model stands beside every kind."""
    study = study_of(parse_located(FILE + "    vary: {data.toy.offset: [0, 1]}\n", "seen.yaml"))
    found = []
    for cell in study.cells:
        offset, kind = cell.axis["data.toy.offset"], cell.axis["attack"]
        strong = 0.9 if kind == "backdoor" else 0.0
        planted = Inspected("suspicious" if strong else "nothing found", 2.0, bool(strong), (), {"p": (strong, 0.1)})
        clean = Inspected("suspicious" if offset else "nothing found", 2.0, False, (), {"p": (0.2, 0.1)})
        values = {("poisoned", 1, "ASR"): np.array([1, 1]), ("repaired", 1, "ASR"): np.array([0, 1])}
        seen = {"poisoned": planted, "clean": clean}
        again = Again(("unlearn",), 3.0, "nothing found") if strong else Again((), 0.0, None)
        found.append(Outcome(cell, 1, values, {}, {}, {}, None, False, seen, again))  # type: ignore[arg-type]
    return found


def test_rates_are_over_models_and_a_clean_model_counts_once():
    verdicts, probes, repairs = inspection_tables(ShowInspections(rows=("attack",)), outcomes(), name="kinds-1")
    rows = {row[0]: dict(zip(verdicts.columns, row)) for row in verdicts.rows}
    assert [rows[kind]["models"] for kind in ("single-label", "backdoor", "clean models")] == [2, 2, 2]
    assert [rows[kind]["suspicious"].value for kind in rows] == [0.0, 1.0, 0.5]
    assert rows["backdoor"]["named right"].n == 2
    assert rows["clean models"]["named right"] is None
    (probe,) = (dict(zip(probes.columns, row)) for row in probes.rows)
    assert (probe["AUROC backdoor"].value, probe["AUROC single-label"].value) == (1.0, 0.0)
    left = {row[0]: dict(zip(repairs.columns, row)) for row in repairs.rows}
    assert (left["backdoor"]["success before, median"], left["backdoor"]["after, median"]) == (1.0, 0.5)
    assert isinstance(left["backdoor"]["nothing found again"], Estimate)
    assert left["single-label"]["repaired"] == "0 of 2"


def test_verdicts_are_said_in_words_and_drawn():
    shown = ShowInspections(title="Kinds", rows=("attack",))
    assert inspections_in_words(shown, outcomes()) == (
        "Kinds: 2 of 4 planted models and 1 of 2 clean ones are called suspicious. "
        "Named right in all models: backdoor; in none: single-label."
    )
    verdicts, repairs = inspection_figures(shown, outcomes(), name="kinds-1")
    assert verdicts.ticks == ("single-label", "backdoor", "clean models")
    assert [(curve.label, curve.y) for curve in verdicts.curves] == [
        ("suspicious", (0.0, 1.0, 0.5)),
        ("named right", (0.0, 1.0)),
    ]
    levels = {curve.label: curve.y[1] for curve in repairs.curves}
    assert (levels["poisoned"], levels["repaired"], np.isnan(levels["clean"])) == (1.0, 0.5, True)
    alone = replace(shown, tables=("repairs",))
    assert inspections_in_words(alone, outcomes()) is None
    assert [figure.name for figure in inspection_figures(alone, outcomes(), name="k")] == ["k-repairs"]


def test_a_clean_model_beside_several_repairs_counts_once():
    """Two models, each beside two repairs that never touch it."""
    cells = [
        replace(outcome, cell=replace(outcome.cell, inspect=replace(outcome.cell.inspect, methods=(method,))))
        for outcome in outcomes()
        for method in ("unlearn", "interpolate")
    ]
    (verdicts,) = inspection_tables(ShowInspections(rows=("attack",), tables=("verdicts",)), cells, name="x")
    counts = {row[0]: row[1] for row in verdicts.rows}
    assert (counts["clean models"], counts["backdoor"]) == (2, 4)


def test_only_the_tables_that_are_asked_for_are_shown():
    asked = FILE.replace("rows: [attack]}", "rows: [attack], tables: [repairs]}")
    (shown,) = study_of(parse_located(asked, "seen.yaml")).experiments[0].shows
    (table,) = inspection_tables(shown, outcomes(), name="x")  # type: ignore[arg-type]
    assert table.name == "x-repairs"
    with pytest.raises(StudyError, match=r"seen.yaml, line 11.*no table is called 'repair'.*repairs"):
        study_of(parse_located(asked.replace("[repairs]", "[repair]"), "seen.yaml"))


def test_without_inspections_there_is_no_table():
    bare = [replace(outcome, inspections={}) for outcome in outcomes()]
    assert inspection_tables(ShowInspections(rows=("attack",)), bare, name="x") == []


def test_an_estimate_by_training_says_what_it_leaves_out(tmp_path):
    status = preview_study(study_of(parse_located(FILE, "seen.yaml")), tmp_path / "out")
    assert status.estimated
    assert status.not_counted == {"inspections": 3, "repairs": 2}


@pytest.mark.slow
def test_a_study_inspects_repairs_and_measures_each_model_once(tmp_path):
    study = study_of(parse_located(FILE + TOLD, "seen.yaml"))
    assert run_study(study, tmp_path / "out").failed == ()
    found = read_outcomes(study, tmp_path / "out")
    assert len(list((tmp_path / "out" / "stages" / "inspected").iterdir())) == 3  # the clean model once
    for outcome in found:
        assert outcome.inspections.keys() == {"poisoned", "clean"}
        assert outcome.again is not None
        assert ("repaired", 1, "IR@10") in outcome.values
    told = found[-1]
    assert told.again.methods  # though nothing may have been flagged
    assert told.again.left is None
