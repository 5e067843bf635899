"""What comes out of a study: claims, tables, figures and files, from outcomes made by hand."""

# a number that is missing fails its test as it should
# pyright: reportOptionalMemberAccess=false, reportOptionalOperand=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from mithridate.errors import DataError
from mithridate.evaluation.evaluation_file import write_evaluation
from mithridate.evaluation.measurement import Evaluation, Measurement, ProjectedItems
from mithridate.report.document import Curve, Figure, Published, Table, read_report
from mithridate.statistics.estimate import Estimate
from mithridate.studies.spec.data import DataSpec, ToySpec
from mithridate.studies.spec.study import (
    Cell,
    Claim,
    Experiment,
    Floor,
    ShowFigure,
    ShowTable,
    StartSpec,
    Study,
)
from mithridate.training.clip import Clip
from mithridate.training.config import TrainConfig

HOSTILE = "<script>alert(1)</script> | $x^2$ [a](https://evil.example) \"onload='x' & `b` 100 % #1 {x}_y \\ ~"


def outcome(
    axes, seed=0, *, experiment="patch", same=True, last=4, numbers=None, estimates=None, chance=None, **values
):
    """An outcome; `hit_clean=[1, 0]` is Hit@10 of the clean model, `hit=...` of the poisoned one."""
    names = {
        "hit": "Hit@10",
        "asr": "ASR",
        "psr": "PSR",
        "rank": "MinRank",
        "ir": "IR@10",
        "shift_image": "shift image",
    }
    cell = Cell(
        experiment,
        tuple(axes.items()),
        seed,
        DataSpec(toy=ToySpec()),
        StartSpec(),
        None,
        Clip(),
        TrainConfig(),
        measures=(),
    )
    found = {}
    for key, array in values.items():
        name, _, model = key.rpartition("_") if key.endswith(("_clean", "_start")) else (key, "", "poisoned")
        array = array if isinstance(array, dict) else {last: array}
        found |= {(model, epoch, names[name]): np.asarray(a) for epoch, a in array.items()}
    from mithridate.studies.analysis.outcomes import Outcome

    return Outcome(cell, last, found, chance or {}, estimates or {}, numbers or {}, Path("none"), same)


def rate_of(successes, n):
    return np.arange(n) < successes


COUNTS, OBJECTIVES = (0, 40, 160), ("clip", "roclip")


def made_outcomes(seeds=(0, 1, 2), n=108):
    """A study in which success rises with the count under CLIP and hardly under RoCLIP."""
    rates = {"clip": (0.10, 0.55, 0.97), "roclip": (0.09, 0.11, 0.16)}
    found = []
    for objective in OBJECTIVES:
        for count, success in zip(COUNTS, rates[objective]):
            for seed in seeds:
                rng = np.random.default_rng([seed, count, len(objective)])
                found.append(
                    outcome(
                        {"objective": objective, "attack.count": count},
                        seed,
                        last=4,
                        chance={"ASR": 0.1},
                        numbers={"pairs": 3000, "count": count, "seconds": 41.5},
                        estimates={"AUROC": Estimate(0.9 + seed / 100, 0.85, 0.97, n)},
                        asr={e: rng.random(n) < success * e / 4 for e in (1, 2, 3, 4)},
                        asr_clean=rng.random(n) < 0.09,
                        ir=rng.random(n) < (0.8 if objective == "clip" else 0.7),
                        ir_clean=rng.random(n) < 0.8,
                        rank=np.floor(rng.gamma(2, 40 * (1.05 - success), n)),
                    )
                )
    return found


def made_study(outcomes, text="Success against count", **more):
    shows = (
        ShowTable(
            title=text, rows=("objective", "attack.count", "model"), measures=("ASR", "IR@10", "MinRank", "AUROC")
        ),
        ShowTable(rows=("objective",), measures=("PSR", "ASR"), published="roclip"),
        ShowFigure(kind="line", title=text, x="attack.count", y="ASR", series=("objective", "model"), log=True),
        ShowFigure(kind="line", x="epoch", y="ASR", series=("objective",), where={"attack.count": 160}),
        ShowFigure(kind="heat", x="attack.count", y="objective", z="ASR"),
        ShowFigure(kind="points", x="IR@10", y="ASR", series=("objective",)),
        ShowFigure(kind="report", name="distance"),
    )
    of = {"objective": "clip", "attack.count": 160}
    claims = (
        Claim(
            says="A backdoor beats the clean model.",
            source="Paper, Table 1",
            measure="ASR",
            of=of,
            is_="above",
            than={"model": "clean"},
        ),
        Claim(
            says="RoCLIP takes it to at most 5 %.",
            measure="ASR",
            of={**of, "objective": "roclip"},
            is_="below",
            value=0.05,
        ),
        Claim(
            says="More poison is more success.", measure="ASR", is_="rising", along="attack.count", every=("objective",)
        ),
        Claim(
            says="RoCLIP costs no utility.",
            measure="IR@10",
            of={"objective": "roclip"},
            is_="equal",
            than={"objective": "clip"},
            margin=0.02,
        ),
        Claim(
            says="SafeCLIP does better.",
            measure="ASR",
            of={"objective": "safeclip"},
            is_="below",
            than={"objective": "roclip"},
        ),
    )
    experiment = Experiment(
        name="patch",
        title=text,
        asks=text,
        cells=tuple(o.cell for o in outcomes),
        shows=shows,
        claims=tuple(replace(claim, **more) for claim in claims),
    )
    return Study(name="made", title=text, about=text, profile="toy", experiments=(experiment,))


# --- which cells, and their numbers -----------------------------------------------------------------


def test_a_where_names_cells():
    from mithridate.studies.analysis.select import chosen, grouped, labels

    outcomes = [outcome({"attack": a, "attack.rate": r}, hit=[1, 0]) for a in ("II", "I", "III") for r in (0.01, 0.001)]

    def named(**where):
        return [(o.cell.axis["attack"], o.cell.axis["attack.rate"]) for o in chosen(outcomes, where)]

    assert named(attack="I") == [("I", 0.01), ("I", 0.001)]
    assert named(attack=["I", "III"], model="clean", epoch=2) == named(attack={"not": "II"})
    assert named(attack={"not": ["I", "II"]}, **{"attack.rate": 1e-2}) == [("III", 0.01)]
    assert named(objective="clip") == []
    assert labels(outcomes, "attack") == ["II", "I", "III"]
    assert labels(outcomes, "attack.rate") == [0.001, 0.01]
    assert list(grouped(outcomes, ("attack.rate", "attack")))[:4] == [
        (0.001, "II"), (0.001, "I"), (0.001, "III"), (0.01, "II"),
    ]  # fmt: skip


def test_one_seed_has_the_interval_of_its_units():
    from mithridate.statistics.intervals import wilson
    from mithridate.studies.analysis.select import combine

    one = [outcome({}, hit=rate_of(45, 50), rank=np.arange(50))]
    assert combine(one, "Hit@10") == wilson(45, 50)
    ranks = combine(one, "MinRank")
    assert ranks.value == 24.5
    assert 20 < ranks.low < 24.5 < ranks.high < 29
    assert combine(one, "Hit@10", "clean") is None
    assert combine(one, "PSR") is None


def test_several_seeds_are_bootstrapped_over_both_levels():
    from mithridate.randomness import stream
    from mithridate.statistics.intervals import wilson
    from mithridate.statistics.seeds import hierarchical_bootstrap
    from mithridate.studies.analysis.select import combine

    arrays = [rate_of(k, 40) for k in (30, 34, 38)]
    outcomes = [outcome({}, seed, hit=array) for seed, array in enumerate(arrays)]
    expected = hierarchical_bootstrap(arrays, rng=stream(0, "mean over seeds and units"), same_units=True)
    assert combine(outcomes, "Hit@10") == combine(outcomes[::-1], "Hit@10") == expected
    # where nothing varies, the units still are so many and no more
    same = [outcome({}, seed, hit=np.zeros(40)) for seed in range(3)]
    assert combine(same, "Hit@10").high == wilson(0, 40).high
    other = [outcome({}, seed, same=False, hit=np.ones(40)) for seed in range(3)]
    assert combine(other, "Hit@10").low == wilson(120, 120).low


def test_several_cells_are_taken_together_by_seed():
    from mithridate.studies.analysis.select import units

    cells = [outcome({"rate": r}, seed, hit=[r, seed]) for r in (0, 1) for seed in (0, 1)]
    assert {seed: list(values) for seed, values in units(cells, "Hit@10", "poisoned").items()} == {
        0: [0.5, 0.0],
        1: [0.5, 1.0],
    }
    # a seed that lacks a cell would be of other cells
    assert list(units(cells[:-1], "Hit@10", "poisoned")) == [0]


def test_what_a_cell_has_one_of():
    from mithridate.studies.analysis.select import combine

    given = Estimate(0.9, 0.8, 0.95, 100)
    one = [outcome({}, 0, estimates={"AUROC": given}, numbers={"pairs": 10})]
    assert combine(one, "AUROC") == given
    assert combine(one, "pairs") == Estimate(10.0, n=1)
    three = [outcome({}, s, estimates={"AUROC": Estimate(v)}) for s, v in enumerate((0.8, 0.9, 1.0))]
    found = combine(three, "AUROC")
    # Student's t with two degrees of freedom: 4.303 * 0.1 / sqrt(3) = 0.248, and no rate is above 1
    assert found.value == pytest.approx(0.9)
    assert found.high == 1.0
    assert 0.6 < found.low < 0.75
    assert combine(three, "AUROC", "clean") is None


# --- claims -----------------------------------------------------------------------------------------


def judged(outcomes, **claim):
    from mithridate.studies.analysis.verdicts import judge

    return judge(Claim(says="", **{"measure": "Hit@10", **claim}), outcomes)


def test_one_seed_is_tested_query_by_query():
    # six queries succeed on the poisoned model only: McNemar's exact p is 2 / 2 ** 6
    one = [outcome({}, hit=[1] * 6 + [0] * 4, hit_clean=[0] * 10)]
    found = judged(one, is_="above", than={"model": "clean"})
    (tested,) = found.tests
    assert found.verdict == "held"
    assert tested.difference.value == pytest.approx(0.6)
    assert tested.difference.p == pytest.approx(0.03125)
    assert judged(one, is_="below", than={"model": "clean"}).verdict == "refuted"
    few = [outcome({}, hit=[1] * 3 + [0] * 7, hit_clean=[0] * 10)]
    assert judged(few, is_="above", than={"model": "clean"}).verdict == "open"
    assert judged(few, is_="below", than={"model": "clean"}).verdict == "open"


def test_seeds_are_compared_with_themselves():
    # seeds differ widely, but on each the attack adds three of ten
    base = (0, 30, 60)
    outcomes = [outcome({}, s, hit=rate_of(b + 30, 100), hit_clean=rate_of(b, 100)) for s, b in enumerate(base)]
    found = judged(outcomes, is_="above", than={"model": "clean"})
    assert found.verdict == "held"
    assert found.tests[0].difference.value == pytest.approx(0.3)
    assert found.tests[0].difference.n == 3
    # other units on every seed, and other lengths: the means of each seed are held against each other
    other = [
        outcome({}, s, same=False, hit=rate_of(b + 31 + s, 101), hit_clean=rate_of(b, 100)) for s, b in enumerate(base)
    ]
    assert judged(other, is_="above", than={"model": "clean"}).verdict == "held"


def test_seeds_that_do_not_pair_are_two_groups():
    cells = [outcome({"size": "a"}, s, hit=rate_of(90 + s, 100)) for s in (0, 1, 2)]
    cells += [outcome({"size": "b"}, s, hit=rate_of(20 + s, 100)) for s in (3, 4, 5)]
    found = judged(cells, of={"size": "a"}, is_="above", than={"size": "b"})
    assert found.verdict == "held"
    assert found.tests[0].difference.value == pytest.approx(0.91 - 0.24)


@pytest.mark.parametrize(
    ("successes", "verdict", "p"), [(0, "held", 0.02178), (3, "open", 0.35878), (20, "refuted", 0)]
)
def test_a_fixed_number_is_told_from_a_rate_by_the_score_test(successes, verdict, p):
    # z = |rate - 0.05| / sqrt(0.05 * 0.95 / 100)
    found = judged([outcome({}, asr=rate_of(successes, 100))], measure="ASR", is_="below", value=0.05)
    assert found.verdict == verdict
    assert found.tests[0].difference.p == pytest.approx(p, abs=1e-4)


def test_a_model_that_learned_nothing_does_not_resist():
    """Success falls to nothing in both; one of them still retrieves, the other is at chance."""
    from mithridate.studies.render.words import sentence

    floor = Floor(measure="IR@10", times_chance=3)
    claim = {"measure": "ASR", "is_": "below", "value": 0.5, "floor": floor}
    cells = [
        outcome({"objective": name}, s, chance={"IR@10": 0.1}, asr=rate_of(s, 100), ir=rate_of(found + s, 100))
        for name, found in (("good", 80), ("lost", 12))
        for s in range(3)
    ]
    good, lost = (judged(cells, of={"objective": name}, **claim) for name in ("good", "lost"))
    assert (good.verdict, lost.verdict) == ("held", "not learned")
    assert lost.tests[0].floor.level == pytest.approx(0.3)
    assert lost.tests[0].floor.utility.value == pytest.approx(0.13)
    assert judged(cells, every=("objective",), **claim).verdict == "not learned"
    # half of the triggers succeed, so the success is as open as it was; more seeds say nothing of a model at chance
    half = [outcome({}, s, chance={"IR@10": 0.1}, asr=rate_of(50, 100), ir=rate_of(12 + s, 100)) for s in range(3)]
    assert judged(half, **{**claim, "floor": None}).verdict == "open"
    assert judged(half, **claim).verdict == "not learned"
    assert "is inside its noise" in sentence(judged(half, **claim))
    equal = {"measure": "ASR", "is_": "equal", "value": 0.5, "margin": 0.2, "floor": floor}
    assert ", wholly within ±0.2; IR@10 is 0.130" in sentence(judged(half, **equal))
    near = Floor(measure="IR@10", above=0.14)  # whether they are above it or below is inside their noise
    assert judged(half, **{**claim, "floor": near}).verdict == "open"
    # what is refuted stays so, and a measure that is missing leaves nothing to say
    assert judged(cells, of={"objective": "lost"}, **{**claim, "measure": "IR@10", "value": 0.05}).verdict == "refuted"
    missing = judged(cells, of={"objective": "good"}, **{**claim, "floor": Floor(measure="probe", above=0.3)})
    assert (missing.verdict, missing.missing) == ("not measured", ("probe was not measured on the poisoned model",))
    assert "not above the floor of 0.3" in sentence(lost)
    assert "above the floor of 0.3" in sentence(good)


def test_two_sides_are_compared_at_equal_utility():
    """Plain training is stopped at the first epoch at which it retrieves as much as the defence does in the end."""
    defended = [outcome({"objective": "roclip"}, s, asr=rate_of(10, 100), ir=rate_of(40 + 10 * s, 100)) for s in (0, 1)]
    plain = [
        outcome(
            {"objective": "clip"},
            s,
            asr={e: rate_of(20 * e, 100) for e in (1, 2, 3, 4)},
            ir={e: rate_of(15 * e, 100) for e in (1, 2, 3, 4)},
        )
        for s in (0, 1)
    ]
    of = {"objective": "roclip"}
    than = {"objective": "clip", "epoch": {"until": {"measure": "IR@10", "at": None}}}
    (tested,) = judged([*defended, *plain], measure="ASR", of=of, is_="below", than=than).tests
    # 0.4 is first reached after epoch 3 (0.45), 0.5 after epoch 4 (0.6): ASR 0.6 and 0.8
    assert [side.value for side in tested.sides] == pytest.approx([0.1, 0.7])
    fixed = {"objective": "clip", "epoch": {"until": {"measure": "IR@10", "at": 0.3}}}
    (tested,) = judged([*defended, *plain], measure="ASR", of=of, is_="below", than=fixed).tests
    assert tested.sides[1].value == pytest.approx(0.4)
    never = {"objective": "clip", "epoch": {"until": {"measure": "IR@10", "at": 0.9}}}
    found = judged([*defended, *plain], measure="ASR", of=of, is_="below", than=never)
    assert found.verdict == "not measured"
    assert "IR@10" in found.missing[0]


def test_chance_is_what_the_cells_say():
    outcomes = [outcome({}, s, chance={"Hit@10": 0.4}, hit=rate_of(70 + s, 100)) for s in range(3)]
    found = judged(outcomes, is_="above")
    assert found.verdict == "held"
    assert found.tests[0].level == 0.4
    assert judged([outcome({}, hit=[1, 0])], is_="above").missing == ("chance is not known for Hit@10",)


@pytest.mark.parametrize(("margin", "verdict"), [(0.2, "held"), (0.05, "open"), (0.001, "open")])
def test_equal_needs_the_interval_within_the_margin(margin, verdict):
    rng = np.random.default_rng(0)
    outcomes = [outcome({}, s, ir=rng.random(300) < 0.8, ir_clean=rng.random(300) < 0.8) for s in range(3)]
    assert judged(outcomes, measure="IR@10", is_="equal", than={"model": "clean"}, margin=margin).verdict == verdict


def test_equal_is_refuted_by_an_interval_outside_the_margin():
    outcomes = [outcome({}, s, ir=rate_of(60 + s, 100), ir_clean=rate_of(90 + s, 100)) for s in range(3)]
    assert judged(outcomes, measure="IR@10", is_="equal", than={"model": "clean"}, margin=0.1).verdict == "refuted"


def test_a_rise_is_the_straight_line_from_first_to_last():
    means = {1: (10, 50, 60, 90), 2: (12, 48, 64, 92), 3: (8, 52, 62, 91)}
    outcomes = [
        outcome({"count": count}, seed, hit=rate_of(k, 100))
        for seed, row in means.items()
        for count, k in zip((1, 4, 16, 64), row)
    ]
    found = judged(outcomes, is_="rising", along="count")
    # slope over 0, 1, 2, 3: (-1.5 a - 0.5 b + 0.5 c + 1.5 d) / 5, three steps of it
    expected = np.mean([3 * (-1.5 * a - 0.5 * b + 0.5 * c + 1.5 * d) / 5 for a, b, c, d in means.values()]) / 100
    assert found.verdict == "held"
    assert found.tests[0].difference.value == pytest.approx(expected)
    assert found.tests[0].steps == (1, 4, 16, 64)
    assert judged(outcomes, is_="falling", along="count").verdict == "refuted"
    two = [o for o in outcomes if o.cell.axis["count"] in (1, 64)]
    assert judged(two, is_="rising", along="count").tests[0].difference.value == pytest.approx(0.81)
    assert judged(two[:1], is_="rising", along="count").verdict == "not measured"


def test_epochs_are_an_axis():
    outcomes = [outcome({}, s, last=3, hit={e: rate_of(20 * e + s, 100) for e in (1, 2, 3)}) for s in range(3)]
    outcomes = [replace(o, values={**o.values, ("clean", 3, "Hit@10"): rate_of(5, 100)}) for o in outcomes]
    assert judged(outcomes, is_="rising", along="epoch").verdict == "held"
    early = judged(outcomes, of={"epoch": {"not": 3}}, is_="above", than={"model": "clean"}, every=("epoch",))
    assert early.verdict == "held"  # the clean model was measured at its end only
    assert [tested.at["epoch"] for tested in early.tests] == [1, 2]


def test_every_label_is_tested_and_corrected():
    cells = {"I": 6, "II": 7, "III": 0}
    outcomes = [outcome({"attack": a}, hit=[1] * k + [0] * (10 - k), hit_clean=[0] * 10) for a, k in cells.items()]
    found = judged(outcomes, is_="above", than={"model": "clean"}, every=("attack",))
    assert [tested.verdict for tested in found.tests] == ["open", "held", "open"]
    # Holm: 3 * 2 / 2 ** 7, then 2 * 2 / 2 ** 6
    assert [tested.difference.corrected for tested in found.tests] == pytest.approx([0.0625, 0.046875, 1.0])
    assert found.verdict == "open"
    worse = [*outcomes, outcome({"attack": "IV"}, hit=[0] * 20, hit_clean=[1] * 20)]
    assert judged(worse, is_="above", than={"model": "clean"}, every=("attack",)).verdict == "refuted"
    named = judged(outcomes, of={"attack": ["II", "V"]}, is_="above", than={"model": "clean"}, every=("attack",))
    assert named.verdict == "held"
    assert named.missing == ("attack V: no such cell",)


@pytest.mark.parametrize(
    ("claim", "told"),
    [
        ({"is_": "above", "of": {"attack": "V"}, "value": 0.1}, "Not measured: no cell has attack V."),
        ({"is_": "above", "than": {"model": "start"}}, "Not measured: Hit@10 was not measured on the start model."),
        (
            {"is_": "above", "of": {"attack": "I"}, "than": {"model": "clean"}},
            "Held: Hit@10 is 0.940 [0.88, 0.97] on the poisoned model and 0.100 [0.06, 0.17] on the clean model; the "
            "difference is 0.840 [0.74, 0.90] (p < 0.001, one seed).",
        ),
        (
            {"is_": "below", "of": {"attack": "I"}, "than": {"attack": "II"}},
            "Refuted: Hit@10 is 0.940 [0.88, 0.97] with attack I and 0.500 [0.40, 0.60] with attack II; the difference "
            "is 0.440 [0.33, 0.53] (p < 0.001, one seed).",
        ),
        (
            {"is_": "above", "of": {"attack": "II"}, "value": 0.45},
            "Open: Hit@10 is 0.500 [0.40, 0.60]; whether it is above 0.450 is inside its noise (p = 0.31, one seed).",
        ),
        (
            {"is_": "equal", "of": {"attack": "I"}, "than": {"attack": "II"}, "margin": 0.1},
            "Refuted: Hit@10 is 0.940 [0.88, 0.97] with attack I and 0.500 [0.40, 0.60] with attack II; the difference "
            "is 0.440 [0.33, 0.53] (one seed), wholly outside ±0.1.",
        ),
        (
            {"is_": "above", "of": {"attack": "I"}, "than": {"attack": "I"}, "than_measure": "IR@10"},
            "Held: Hit@10 is 0.940 [0.88, 0.97], IR@10 0.200 [0.13, 0.29]; the difference is "
            "0.740 [0.63, 0.82] (p < 0.001, one seed).",
        ),
        (
            {"is_": "rising", "along": "attack"},
            "Refuted: Hit@10 is 0.940 [0.88, 0.97], 0.500 [0.40, 0.60] at attack I, II; from first to last it falls by "
            "0.440 [0.34, 0.54] (p < 0.001, one seed).",
        ),
        (
            {"is_": "above", "than": {"model": "clean"}, "every": ("attack",)},
            "Held: Hit@10 on the poisoned model, held against the clean model. Held for all 2. attack I: 0.940 "
            "[0.88, 0.97] and 0.100 [0.06, 0.17], difference 0.840 [0.74, 0.90] (p < 0.001); attack II: 0.500 "
            "[0.40, 0.60] and 0.100 [0.06, 0.17], difference 0.400 [0.29, 0.49] (p < 0.001) (one seed; p-values after "
            "Holm).",
        ),
    ],
)
def test_a_verdict_is_a_sentence(claim, told):
    from mithridate.studies.render.words import findings

    outcomes = [
        outcome({"attack": a}, hit=rate_of(k, 100), hit_clean=rate_of(10, 100), ir=rate_of(20, 100))
        for a, k in (("I", 94), ("II", 50))
    ]
    (finding,) = findings([Claim(says="s", measure="Hit@10", **claim)], outcomes)
    assert finding.explanation == told
    assert finding.explanation.lower().startswith(finding.verdict)


def test_rates_that_never_vary_have_a_width_all_the_same():
    from mithridate.studies.analysis.select import combine

    same = [outcome({}, s, same=False, hit=rate_of(27, 27), hit_clean=rate_of(2, 20)) for s in range(3)]
    assert combine(same, "Hit@10").low < 0.97
    clean = combine(same, "Hit@10", "clean")
    assert clean.low < 0.1 < clean.high
    found = judged(same, is_="above", than={"model": "clean"})
    assert found.verdict == "held"
    assert found.tests[0].difference.low < 0.9 < found.tests[0].difference.high
    none = [outcome({}, s, hit=rate_of(0, 9), hit_clean=rate_of(0, 9)) for s in range(3)]
    assert judged(none, is_="above", than={"model": "clean"}).verdict == "open"
    assert judged(none, is_="above", than={"model": "clean"}).tests[0].difference.p == 1.0


def test_intervals_stay_where_numbers_can_be():
    from mithridate.studies.analysis.select import combine

    rng = np.random.default_rng(0)
    outcomes = [
        outcome({}, s, same=False, hit=rate_of(k, 100), hit_clean=rate_of(0, 100), rank=rng.integers(0, 3 * s + 1, 100))
        for s, k in enumerate((60, 99, 100))
    ]
    assert combine(outcomes, "MinRank").low == 0.0
    assert judged(outcomes, is_="above", than={"model": "clean"}).tests[0].difference.high == 1.0


# --- published numbers ------------------------------------------------------------------------------


def test_every_published_number_is_well_formed_and_says_where_it_stands():
    from mithridate.studies.analysis.published import published_names, read_published

    assert {"mmpoison-attacks", "mmpoison-utility", "roclip", "safeclip-attacks", "par"} <= set(published_names())
    for name in published_names():
        found = read_published(name)
        assert found.paper and found.version and found.rows
        for row in found.rows:
            assert row.source and row.dataset and row.tag
            assert row.model in {"poisoned", "clean", "start", "random captions"}
            if row.value is not None and re.match(r"Hit@|[IT]R@|ASR|PSR|zero-shot|probe|AUROC|rate", row.measure):
                assert 0 <= row.value <= 1


def test_published_numbers_by_hand():
    from mithridate.studies.analysis.published import read_published

    attacks = read_published("mmpoison-attacks")
    assert attacks.datasets == ("Flickr-PASCAL", "COCO")
    assert attacks.find({"attack": "II", "attack.rate": 0.1}, "Hit@10", "poisoned", "Flickr-PASCAL").value == 0.936
    assert attacks.find({"attack": "III-2"}, "MinRank", "poisoned", "COCO").value == 12.788
    assert attacks.find({}, "Hit@10", "poisoned", "COCO") is None
    rates = read_published("mmpoison-repair-lr")
    assert rates.find({"repair": "lr 1e-4"}, "MinRank", "poisoned", "Flickr-PASCAL").value == 76.648
    towers = read_published("mmpoison-towers")
    assert towers.find({"train": "text"}, "Hit@10", "start", "Flickr-PASCAL").value == 0.032
    assert read_published("roclip").find({"objective": "roclip"}, "PSR", "poisoned", "CC1M").value == 0.125
    strong = read_published("roclip").find({"objective": "roclip", "attack.rate": 0.01}, "PSR", "poisoned", "CC1M")
    assert strong.source.endswith("1 %")
    with pytest.raises(DataError, match="no published numbers are called 'mmpoison'"):
        read_published("mmpoison")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"set": "b"}, "`set` should be the name"),
        ({"extra": 1}, "a: extra: "),
        ({"rows": [{"where": {}}]}, r"rows\.0\.dataset: Field required"),
        ({"value": "0.9"}, r"rows\.0\.value.*got '0.9'"),
        ({"value": True}, r"rows\.0\.value.*got True"),
        ({"where": {"attack": ["I"]}}, r"rows\.0\.where\.attack.*got \['I'\]"),
        ({"twice": True}, r"rows\.1: the same number twice"),
    ],
)
def test_a_wrong_published_file_is_refused(change, match):
    from mithridate.studies.analysis.published import parse_published

    row = {"where": {}, "dataset": "d", "measure": "ASR", "model": "poisoned", "value": 0.5, "source": "T1", "tag": "V"}
    raw = {"set": "a", "paper": "p", "version": "v", "rows": [row]}
    if change.pop("twice", False):
        raw["rows"] = [row, row]
    elif change.keys() & row.keys():
        raw["rows"] = [{**row, **change}]
    else:
        raw |= change
    with pytest.raises(DataError, match=match):
        parse_published(json.dumps(raw), "a")


# --- tables and figures -----------------------------------------------------------------------------


def columns(table):
    return {name: [row[i] for row in table.rows] for i, name in enumerate(table.columns)}


def test_a_table_has_a_row_a_combination_and_chance_once():
    from mithridate.studies.render.tables import study_table

    shown = ShowTable(rows=("objective", "attack.count", "model"), measures=("ASR", "AUROC", "pairs"))
    table = study_table(shown, made_outcomes(), name="t")
    found = columns(table)
    assert list(found) == ["objective", "attack.count", "model", "ASR", "AUROC", "pairs"]
    assert found["attack.count"] == [0, 0, 40, 40, 160, 160] * 2 + ["all"]
    assert found["model"] == ["poisoned", "clean"] * 6 + ["chance"]
    assert found["ASR"][-1] == 0.1
    assert found["AUROC"][1] is None  # what belongs to the cell is not the clean model's
    assert found["pairs"][0] == 3000
    assert table.note == "Means over 3 seeds; 95 % intervals over seeds and test units."


def test_models_and_epochs_are_axes_or_columns():
    from mithridate.studies.render.tables import study_table

    outcomes = made_outcomes()
    wide = study_table(ShowTable(rows=("objective",), measures=("ASR",)), outcomes, name="t")
    assert wide.columns == ("objective", "ASR", "ASR, clean")
    assert wide.note.endswith("Every number takes all of attack.count together. Chance: ASR 0.100.")
    where = {"model": "poisoned", "epoch": {"not": 4}, "attack.count": 160}
    long = study_table(ShowTable(rows=("epoch", "objective"), measures=("ASR",), where=where), outcomes, name="t")
    assert columns(long)["epoch"] == [1, 1, 2, 2, 3, 3]
    assert study_table(ShowTable(rows=("objective",), measures=("PSR",)), outcomes, name="t").rows == ()


def test_published_numbers_stand_beside_ours():
    from mithridate.studies.render.tables import study_table

    outcomes = [outcome({"attack": a}, hit=rate_of(k, 1000)) for a, k in (("I", 970), ("II", 500), ("other", 10))]
    shown = ShowTable(rows=("attack",), measures=("Hit@10",), published="mmpoison-attacks")
    table = study_table(shown, outcomes, name="t")
    beside = columns(table)["Hit@10 published, Flickr-PASCAL"]
    assert (beside[0].published, beside[1].published, beside[2]) == (0.968, 0.936, None)
    assert [cell.difference for cell in beside[:2]] == pytest.approx([0.002, -0.436])
    assert [cell.inside for cell in beside[:2]] == [True, False]
    assert "T3 [ICML: T2]; T4 [ICML: T3]" in table.note


def test_published_numbers_look_like_this():
    from mithridate.report.numbers import show

    assert str(show(Published(0.936, 0.0123, True))) == "0.936 (ours +0.012, inside)"
    assert str(show(Published(51.048, -40.2, False))) == "51.05 (ours -40.20, outside)"
    assert str(show(Published(0.5))) == "0.500"
    assert str(show(Published(None))) == "–"


def test_lines_have_intervals_and_chance_behind_them():
    from mithridate.studies.render.figures import study_figure

    outcomes = made_outcomes()
    shown = ShowFigure(kind="line", x="attack.count", y="ASR", series=("objective", "model"), log=True)
    figure = study_figure(shown, outcomes, name="f")
    assert [curve.label for curve in figure.curves] == [
        "clip, poisoned model", "clip, clean model", "roclip, poisoned model", "roclip, clean model", "chance",
    ]  # fmt: skip
    first = figure.curves[0]
    assert first.x == (0.0, 40.0, 160.0)
    assert all(low < y < high for low, y, high in zip(first.low, first.y, first.high))
    assert figure.curves[-1].series == -1
    named = study_figure(ShowFigure(kind="line", x="objective", y="ASR"), outcomes, name="f")
    assert named.ticks == ("clip", "roclip")
    assert named.note.endswith("Every number takes all of attack.count together.")
    assert study_figure(ShowFigure(kind="line", x="objective", y="PSR"), outcomes, name="f") is None


def test_a_matrix_has_a_diagonal():
    from mithridate.studies.render.figures import study_figure

    pairs = [(a, b) for a in "abc" for b in "abc" if a != b]
    outcomes = [outcome({"source": a, "target": b}, hit=rate_of(i, 10)) for i, (a, b) in enumerate(pairs)]
    figure = study_figure(ShowFigure(kind="heat", x="target", y="source", z="Hit@10"), outcomes, name="f")
    assert figure.ticks == tuple(curve.label for curve in figure.curves) == ("a", "b", "c")
    assert [[None if np.isnan(y) else y for y in curve.y] for curve in figure.curves] == [
        [None, 0.0, 0.1], [0.2, None, 0.3], [0.4, 0.5, None],
    ]  # fmt: skip


def test_points_have_the_intervals_of_both():
    from mithridate.studies.render.figures import study_figure

    figure = study_figure(
        ShowFigure(kind="points", x="IR@10", y="ASR", series=("objective",)), made_outcomes(), name="f"
    )
    assert [len(curve.x) for curve in figure.curves] == [3, 3]
    assert figure.curves[0].x_low < figure.curves[0].x < figure.curves[0].x_high


def test_a_path_passes_through_the_epochs_in_their_order():
    from mithridate.studies.render.figures import study_figure

    # accuracy falls again: the points stay in the order of training
    walked = [
        outcome({"objective": "clip"}, s, last=3, ir={e: rate_of(n + s, 50) for e, n in ((1, 10), (2, 30), (3, 20))},
                asr={e: rate_of(n, 50) for e, n in ((1, 0), (2, 20), (3, 45))})
        for s in range(3)
    ]  # fmt: skip
    shown = ShowFigure(kind="path", x="IR@10", y="ASR", series=("objective",))
    (curve,) = study_figure(shown, walked, name="f").curves
    assert curve.x == pytest.approx((0.22, 0.62, 0.42))
    assert curve.y == pytest.approx((0.0, 0.4, 0.9))
    assert len(curve.low) == len(curve.high) == 3


# --- several counts in one set, and slopes ------------------------------------------------------------


def counted(seed, hits, counts=(1, 4), **axes):
    """A cell with `hits` of its targets, which have `counts` captions in turn."""
    from mithridate.poisoning.targeted import Targeted

    found = outcome(axes, seed, psr=hits, ir=[1, 0, 1])
    return replace(found, cell=replace(found.cell, attack=Targeted(images=len(hits), counts=counts)))


def test_counts_of_one_set_are_an_axis():
    from mithridate.studies.analysis.by_count import by_count

    found = by_count([counted(0, [0, 1, 0, 1, 1]), outcome({}, psr=[1, 1])])
    assert [o.cell.axis for o in found] == [{"attack.counts": 1}, {"attack.counts": 4}, {}]
    assert [o.values["poisoned", 4, "PSR"].tolist() for o in found] == [[0, 0, 1], [1, 1], [1, 1]]
    assert {len(o.values["poisoned", 4, "IR@10"]) for o in found[:2]} == {3}  # what belongs to the model is whole


def test_a_slope_is_that_of_maximum_likelihood():
    from scipy.optimize import minimize

    from mithridate.studies.analysis.slopes import logistic_slopes

    # one axis with two labels has the odds ratio between them: 6 of 8 at 4 beside 2 of 8 at 1
    hit = np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0])
    x = np.log([[1.0]] * 8 + [[4.0]] * 8)
    assert logistic_slopes(hit, x) == pytest.approx([np.log(9) / np.log(4)], rel=1e-6)
    rng = np.random.default_rng(0)
    x = np.log(rng.choice([1.0, 2.0, 4.0, 8.0], size=(300, 3)))
    hit = (rng.random(300) < 1 / (1 + np.exp(2 - x @ [1.0, 0.7, 0.0]))).astype(int)

    def loss(w):
        z = w[0] + x @ w[1:]
        return np.logaddexp(0, z).sum() - (hit * z).sum()

    assert logistic_slopes(hit, x) == pytest.approx(minimize(loss, np.zeros(4), tol=1e-12).x[1:], abs=1e-4)
    assert logistic_slopes(np.ones(4, int), x[:4]) is None
    assert logistic_slopes(hit[:4], np.ones((4, 1))) is None
    assert logistic_slopes(np.array([0, 0, 1, 1]), np.log([[1.0], [1.0], [4.0], [4.0]])) is None  # divided sharply


def test_slopes_are_claimed_over_seeds():
    from mithridate.studies.analysis.by_count import by_count
    from mithridate.studies.render.tables import slopes_table
    from mithridate.studies.render.words import sentence
    from mithridate.studies.spec.study import ShowSlopes

    # captions and epochs count alike, the size of the data does not; one target in sixteen differs by seed
    def cell(seed, epochs, size):
        hits = np.zeros(64, int)
        for place, count in ((0, 1), (1, 4)):
            share = {1: 4, 4: 16, 16: 28}[count * epochs] + (seed % 2)
            hits[place::2][:share] = 1
        return counted(seed, hits, **{"train.epochs": epochs, "data.toy.train": size})

    outcomes = by_count([cell(s, e, n) for s in range(4) for e in (1, 4) for n in (100, 200)])
    axes = ("attack.counts", "train.epochs", "data.toy.train")
    table = slopes_table(ShowSlopes(measure="PSR", regress=axes), outcomes, name="t")
    assert [row[0] for row in table.rows] == [f"log {axis}" for axis in axes]
    assert table.rows[0][1].value == pytest.approx(table.rows[1][1].value) == pytest.approx(1.36, abs=0.1)
    about = {"measure": "PSR", "regress": axes, "is_": "equal", "margin": 0.5}
    alike = judged(outcomes, **about, slope="attack.counts", than_slope="train.epochs")
    assert (alike.verdict, alike.tests[0].difference.n) == ("held", 4)
    assert "against log train.epochs" in sentence(alike)
    assert judged(outcomes, **about, slope="data.toy.train").verdict == "held"
    assert judged(outcomes, **about, slope="attack.counts").verdict == "refuted"
    assert judged(outcomes, **about | {"is_": "above"}, slope="attack.counts").verdict == "held"
    assert judged(outcomes[:8], **about, slope="attack.counts").verdict == "not measured"  # one seed


def evaluated(folder, points=2_000):
    """An evaluation as a cell leaves it, and outcomes that point to it."""
    x = tuple(float(i % 97) for i in range(points))
    places = (
        ProjectedItems(model="m", method="pca", modality="images", group=group, x=x, y=x) for group in ("a", HOSTILE)
    )
    recall = (Measurement(model="m", metric=f"{way}@10", value=Estimate(0.5)) for way in ("TR", "IR"))
    folder.mkdir(exist_ok=True)
    write_evaluation(Evaluation(models=("m",), projections=tuple(places), measurements=tuple(recall)), folder)
    return [replace(o, evaluation=folder) for o in made_outcomes()]


def test_a_figure_of_an_evaluation_is_taken_by_name_and_thinned(tmp_path):
    from mithridate.studies.render.figures import study_figure

    outcomes = evaluated(tmp_path / "e")
    figure = study_figure(ShowFigure(kind="report", name="projection-m"), outcomes, name="f")
    assert sum(len(curve.x) for curve in figure.curves) <= 1500
    assert "One point in 3 is shown." in figure.note
    with pytest.raises(DataError, match="no figure 'maps'; it has projection-m"):
        study_figure(ShowFigure(kind="report", name="maps"), outcomes, name="f")


NEW = [
    Figure("a", "t", "heat", "x", "y", (Curve("r", (0.0, 1.0), (0.2, np.nan)),), ticks=("<b>", "$b$"), z_label="z"),
    Figure("b", "t", "points", "x", "y", (Curve("r", (0.5,), (0.2,), x_low=(0.4,), x_high=(0.6,)),)),
    Figure("c", "t", "line", "x", "y", (Curve("", (0.0, 9.0), (0.2, 0.3), low=(0.1,) * 2, high=(0.4,) * 2),), log=True),
    Figure("d", "t", "line", "x", "y", (Curve("r", (0.0, 1.0), (0.2, 0.3)),), ticks=("one", "two")),
    Figure("e", "t", "heat", "x", "y", ()),
    Figure("f", "t", "points", "x", "y", ()),
]  # fmt: skip


@pytest.mark.parametrize("figure", NEW, ids=lambda figure: figure.name)
def test_new_kinds_are_drawn_the_same_every_time(tmp_path, figure):
    from mithridate.report.figures import figure_svg, save_figure

    drawn = figure_svg(figure, prefix="f")
    ElementTree.fromstring(drawn)
    assert drawn == figure_svg(figure, prefix="f")
    for name in ("one", "two"):
        save_figure(figure, *(tmp_path / f"{name}.{ending}" for ending in ("svg", "png", "pdf")))
    for ending in ("svg", "png", "pdf"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()
    if figure.ticks and figure.kind == "heat":
        texts = [node.text for node in ElementTree.fromstring(drawn).iter("text")]
        assert {"0.20", "–", "<b>", "$b$", "z"} <= set(texts)


@pytest.mark.parametrize("more", [{"low": (1.0,)}, {"x_high": (1.0,)}])
def test_a_curve_has_an_end_for_each_point(more):
    with pytest.raises(ValueError, match="has 2 x, got 1"):
        Curve("a", (1.0, 2.0), (1.0, 2.0), **more)


# --- tables as files --------------------------------------------------------------------------------


def made_table(text="sheep"):
    return Table(
        "a b_1",
        f"On {text}",
        (text, "n", "Hit@10", "theirs"),
        (
            (text, 1234, Estimate(0.9361234567890123, 0.88, 0.97, 144), Published(0.5, -0.25, False)),
            ("[x]", None, Estimate(0.25), None),
        ),
        f"Note on {text}.",
    )


def test_latex_shows_text_as_it_is():
    from mithridate.report.latex import escape, to_latex

    assert escape("a & b % $c$ #d _e_ {f} ~g ^h \\ <i> [j] *") == (
        r"a \& b \% \$c\$ \#d \_e\_ \{f\} \textasciitilde{}g \textasciicircum{}h \textbackslash{} "
        r"\textless{}i\textgreater{} {[}j{]} {*}"
    )
    assert escape("a\nb – ±") == r"a b -- $\pm$"
    page = to_latex(made_table(HOSTILE))
    assert r"\label{tab:a-b-1}" in page
    assert r"\begin{tabular}{@{}lrrr@{}}" in page
    assert r"& 1,234 & 0.936 & 0.500 \\" in page  # the labels alone are too wide: intervals stand below their value
    assert r"{\scriptsize {[}0.88, 0.97{]}} & {\scriptsize (ours $-$0.250, outside)} \\" in page
    assert "{[}x{]} & -- & 0.250 & -- \\\\" in page
    body = page[page.index(r"\midrule") : page.index(r"\bottomrule")]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if line.endswith("\\\\")] == [3] * 3
    bare = re.sub(r"\\[\\&%$#_{}]", "", page)
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"[%#~^<>|\"]", bare)


def test_a_table_survives_csv_to_the_last_digit():
    from mithridate.report.table_csv import to_csv

    rows = list(csv.reader(io.StringIO(to_csv(made_table(HOSTILE)))))
    assert rows[0] == [
        HOSTILE, "n", "Hit@10", "Hit@10 low", "Hit@10 high", "theirs", "theirs difference", "theirs inside",
    ]  # fmt: skip
    assert rows[1][0] == HOSTILE
    assert rows[1][1] == "1234"
    assert [float(value) for value in rows[1][2:5]] == [0.9361234567890123, 0.88, 0.97]
    assert rows[1][5:] == ["0.5", "-0.25", "no"]
    assert rows[2] == ["[x]", "", "0.25", "", "", "", "", ""]


# --- the whole --------------------------------------------------------------------------------------


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_study_is_written_whole_and_the_same_again(tmp_path, monkeypatch):
    from mithridate.studies.render import page as module
    from mithridate.studies.render.page import write_study

    outcomes = evaluated(tmp_path / "e")
    failed = [(outcomes[0].cell, "RuntimeError: <b>no</b>")]
    study = made_study(outcomes[1:], HOSTILE)
    study = replace(study, experiments=(replace(study.experiments[0], cells=tuple(o.cell for o in outcomes)),))
    study = replace_figure(study, "projection-m")
    out = tmp_path / "out"
    page = write_study(study, outcomes[1:], out, failed=failed)
    first = files(out)
    assert page == out / "report.html"
    assert page.stat().st_size < 1_000_000
    names = {name for name in first if not name.startswith("report.")}
    assert names == {
        *(f"tables/{name}.{ending}" for name in ("claims", "patch-1", "patch-2") for ending in ("md", "tex", "csv")),
        *(f"figures/patch-{i}.{ending}" for i in range(1, 6) for ending in ("svg", "png", "pdf")),
    }
    (out / "figures" / "patch-9.svg").write_text("of an earlier call")
    # that files of figures are the same again is tested above
    monkeypatch.setattr(module, "save_figure", lambda figure, *paths, style=None: None)
    write_study(study, outcomes[1:], out, failed=failed)
    assert files(out) == first

    source = first["report.html"].decode()
    assert "<script" not in source
    assert "&lt;script&gt;" in source
    assert "<b>no" not in source and "&lt;b&gt;no" in source
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", source)
    assert "default-src 'none'" in source
    assert "mithridate study FILE --out DIR --data toy --only patch --seeds 2" in source
    report = read_report(out)
    (section,) = report.sections
    assert [each.verdict for each in section.claims] == ["held", "refuted", "open", "refuted", "not measured"]
    assert list(section.failures.values()) == ["RuntimeError: <b>no</b>"]
    assert columns(section.cells)["state"].count("done") == 17
    assert columns(section.cells)["state"][0] == "failed"
    assert "17 of 18 cells" in report.summary[0]
    claims = list(csv.reader(io.StringIO(first["tables/claims.csv"].decode())))
    assert len(claims) == 6
    assert str(tmp_path) not in json.dumps(report.provenance)


def replace_figure(study, name):
    """The study with a figure of the evaluations that there is."""
    (experiment,) = study.experiments
    shows = tuple(
        replace(s, name=name) if isinstance(s, ShowFigure) and s.kind == "report" else s for s in experiment.shows
    )
    return replace(study, experiments=(replace(experiment, shows=shows),))


def test_nothing_measured_is_a_page_too(tmp_path):
    from mithridate.report.console import print_report
    from mithridate.studies.render.page import write_study

    study = made_study(made_outcomes())
    page = write_study(study, [], tmp_path / "out")
    source = page.read_text(encoding="utf-8")
    assert "0 of 18 cells" in source
    assert source.count("not run") >= 18
    print_report(read_report(tmp_path / "out"))


def test_a_page_too_heavy_is_made_lighter(tmp_path, monkeypatch):
    from mithridate.studies.render import page

    outcomes = evaluated(tmp_path / "e")
    study = replace_figure(made_study(outcomes), "projection-m")
    (experiment,) = study.experiments
    study = replace(study, experiments=(replace(experiment, shows=experiment.shows[-1:], claims=()),))
    monkeypatch.setattr(page, "save_figure", lambda figure, *paths, style=None: None)
    whole = page.write_study(study, outcomes, tmp_path / "out").stat().st_size
    monkeypatch.setattr(page, "MAX_PAGE", whole - 100_000)
    assert page.write_study(study, outcomes, tmp_path / "out").stat().st_size < whole - 100_000
