"""Attacks against defences: the axis `defence`, what plugins add, the ranking, the file, and the page."""

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from mithridate import plugins
from mithridate.auditing.registry import audit_detectors
from mithridate.cli import main
from mithridate.errors import StudyError
from mithridate.report.document import Curve, Figure
from mithridate.report.figures import figure_svg
from mithridate.statistics.estimate import Estimate
from mithridate.studies.analysis.board import UNPOISONED, Board, BoardCell, BoardDefence, joined, read_board
from mithridate.studies.analysis.ranking import standings
from mithridate.studies.render.leaderboard import leaderboard_markdown
from mithridate.studies.render.matrix import matrix_figures, ranking_in_words, ranking_table
from mithridate.studies.spec.load import read_study, study_of
from mithridate.studies.spec.located import parse_located

FILE = """\
study: small
title: Small
data: {toy: {train: 60, test: 60, classes: [sheep, bird]}}
seeds: [0]
floor: {measure: zero-shot, times_chance: 2}
experiments:
  - name: one
    attack:
      - {attack: backdoor, target: bird, count: 5}
      - plugged: {source: sheep, target: bird, count: 5}
    defence: DEFENCES
    show: [{matrix: {success: [ASR, Hit@1], utility: [zero-shot]}}]
"""

DEFENCES = """
      - null
      - {objective: cleanclip}
      - {label: trimmed, filter: {detector: cosine-distance, budget-share: 0.1}}
      - {label: both, audit: flagged, repair: {objective: par, train: repair-1e-4}}
      - plugged: {filter: {budget-share: 0.2}, audit: {drop: 0.1}, inspect: {nulls: 0}}
"""

# ten lines; the worse half of a batch is not learned from
PLUGIN = """
from dataclasses import dataclass
import torch
from mithridate.training.clip_loss import clip_loss

@dataclass(frozen=True)
class BetterHalf:
    def build(self, start):
        class Loss(torch.nn.Module):
            def forward(self, batch):
                best = (batch.image * batch.text).sum(1).topk(len(batch.image) // 2).indices
                return clip_loss(batch.image[best], batch.text[best], batch.scale)
        return Loss()

OBJECTIVES = {"better-half": BetterHalf}
"""

MORE = """
@dataclass(frozen=True, kw_only=True)
class Far:
    name = "far"
    measures = "distance"
    own_level = None
    needs = ()
    def examine(self, corpus, rng): ...

@dataclass(frozen=True, kw_only=True)
class Seen(Far):
    name = "seen"
    needs = ("pixels",)

@dataclass(frozen=True)
class Mend:
    name = "mend"
    needs_start = needs_findings = False
    def candidates(self, case): ...

@dataclass(frozen=True, kw_only=True)
class Swap:
    name = "swap"
    needs_gallery = needs_surrogate = False
    source: str
    target: str
    def plan(self, pairs, rng, *, gallery=None, surrogate=None): ...

DETECTORS = {"far": Far, "seen": Seen}
REPAIRS = {"mend": Mend}
ATTACKS = {"swap": Swap}
"""


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    yield file
    file.write_text("ATTACKS = {}")
    for kind, name in list(plugins._owner):
        if plugins._owner[kind, name] == file:
            plugins._registry(kind).pop(name)
            del plugins._owner[kind, name]
    plugins._forget(file)


def cells(defences=DEFENCES):
    study = study_of(parse_located(FILE.replace(" DEFENCES", defences), "small.yaml"))
    return {(str(cell.axis["attack"]), str(cell.axis["defence"])): cell for cell in study.cells}


def test_a_defence_is_a_bundle_of_sections():
    found: dict[str, Any] = {defence: cell for (_, defence), cell in cells().items()}
    assert list(found) == ["none", "cleanclip", "trimmed", "both"]
    assert [type(cell.objective).__name__ for cell in found.values()] == ["Clip", "CleanClip", "Clip", "Clip"]
    assert found["trimmed"].filter.threshold.share == 0.1
    assert (found["both"].audit.drop, type(found["both"].repair.objective).__name__) == ("flagged", "Par")
    assert found["none"].filter is found["none"].audit is found["none"].repair is None


@pytest.mark.parametrize(
    ("defences", "message"),
    [
        (" [roclip]", "a defence is a mapping"),
        (" [{label: x, objectiv: roclip}]", "no part 'objectiv'; did you mean objective"),
        (" [{label: x}]", "a defence needs one of filter, audit, objective, repair, inspect"),
        (" [null, {audit: {detectors: [mismach]}}]", "unknown 'mismach'; did you mean mismatch"),
        (" [null, {plugged: {filters: {}}}]", "no field 'filters'; did you mean filter"),
    ],
)
def test_a_wrong_defence_is_told(defences, message):
    with pytest.raises(StudyError, match=message):
        cells(defences)


def test_the_preset_audits_as_the_command_does():
    """Its detectors are named, so that a plugged-in one is a column of its own and changes no other."""
    for data in ("toy", "tiny"):
        cells = read_study("matrix", data=data).cells
        audits = {cell.axis["defence"]: cell.audit for cell in cells if cell.audit is not None}
        assert all(set(audit.detectors) == audit_detectors().keys() for audit in audits.values())
    toy = read_study("matrix").cells
    assert min(len({str(cell.axis[axis]) for cell in toy}) for axis in ("attack", "defence")) >= 10
    assert {cell.seed for cell in toy} == {0, 1, 2}


def test_a_matrix_needs_its_axes_and_a_floor():
    with pytest.raises(StudyError, match="has no axis 'defence'"):
        study_of(parse_located(FILE.replace("    defence: DEFENCES\n", ""), "small.yaml"))
    without = FILE.replace("floor: {measure: zero-shot, times_chance: 2}\n", "").replace(" DEFENCES", " [null]")
    with pytest.raises(StudyError, match="a matrix needs a floor"):
        study_of(parse_located(without, "small.yaml"))


def test_what_plugins_add_are_rows_and_columns(plugin):
    plugin.write_text(PLUGIN + MORE)
    plugins.load_plugins([plugin])
    found: dict[tuple[str, str], Any] = cells()
    assert len(found) == 2 * 8
    assert found["swap", "none"].attack.source == "sheep"  # what it has no option for is left out
    assert type(found["swap", "better-half"].objective).__name__ == "BetterHalf"
    assert found["swap", "far"].filter.threshold.share == 0.2
    assert (found["swap", "seen"].audit.detectors, found["swap", "seen"].audit.drop) == (("seen",), 0.1)
    assert (found["swap", "mend"].inspect.methods, found["swap", "mend"].inspect.repair) == (("mend",), True)


# --- the ranking -------------------------------------------------------------------------------------


def made_board(success, utility, attacks=("a", "b", "c", "d"), seeds=(0, 1, 2), floor=0.3):
    """`success`: by defence one number an attack; seeds differ by little."""
    made = []
    for defence, numbers in success.items():
        for attack, number in zip(attacks, numbers):
            by_seed = {
                str(seed): {"success": number + 0.01 * (seed - 1), "zero-shot": utility[defence], "pairs": 100.0}
                for seed in seeds
            }
            value = utility[defence]
            estimates = {
                "success": Estimate(number, max(0.0, number - 0.05), min(1.0, number + 0.05)),
                "zero-shot": Estimate(value, value - 0.05, value + 0.05),
            }
            made.append(BoardCell(attack, defence, "ASR", by_seed, estimates))
    defences = tuple(BoardDefence(name, {}, "0") for name in success if name != UNPOISONED)
    return Board(
        "Made", "toy", {"train": {"epochs": 1}}, {name: {"rate": 0.1} for name in attacks}, defences, ("zero-shot",),
        "zero-shot", floor, {"zero-shot": 0.1}, tuple(made),
    )  # fmt: skip


SUCCESS = {
    "none": (0.9, 0.9, 0.9, 0.9),
    "best": (0.1, 0.1, 0.1, 0.1),
    "here": (0.30, 0.40, 0.32, 0.38),  # the same mean as `there`, each better against other attacks
    "there": (0.40, 0.30, 0.38, 0.32),
    "asleep": (0.05, 0.05, 0.05, 0.05),
    UNPOISONED: (0.02, 0.03, 0.02, 0.03),
}
UTILITY = {"none": 0.7, "best": 0.6, "here": 0.6, "there": 0.6, "asleep": 0.2, UNPOISONED: 0.7}


def test_ranks_are_ties_where_the_difference_covers_nothing():
    found = {s.defence: s for s in standings(made_board(SUCCESS, UTILITY))}
    assert list(found) == ["best", "here", "there", "none", "asleep", UNPOISONED]
    assert {name: s.ranks for name, s in found.items()} == {
        "best": (1, 1), "here": (2, 3), "there": (2, 3), "none": (4, 4), "asleep": None, UNPOISONED: None,
    }  # fmt: skip
    assert [s.verdict for s in found.values()] == [*["ranked"] * 4, "not learned", "reference"]
    assert found["best"].success.value == pytest.approx(0.1)
    assert found["best"].gain is not None and found["best"].gain.value == pytest.approx(-0.8)
    assert found["none"].gain is None
    table = ranking_table(made_board(SUCCESS, UTILITY), name="t")
    assert [row[0] for row in table.rows] == ["1", "2 to 3", "2 to 3", "4", "not learned", "–"]


def test_the_ranking_in_a_sentence_names_the_best_beside_no_defence_and_no_poison():
    assert ranking_in_words(made_board(SUCCESS, UTILITY)) == (
        "Least success over all attacks: best (0.100, rank 1), here (0.350, rank 2 to 3), there (0.350, rank 2 to 3); "
        "0.900 without a defence, 0.025 without poison. Ranks that overlap are ties."
    )
    asleep = dict.fromkeys(UTILITY, 0.2)
    assert ranking_in_words(made_board(SUCCESS, asleep)) == (
        "No defence is ranked: none has models above the floor (zero-shot above 0.3) for all attacks."
    )


def test_what_lacks_an_attack_or_a_seed_is_not_ranked():
    board = made_board(SUCCESS, UTILITY)
    fewer = replace(board, cells=tuple(c for c in board.cells if (c.attack, c.defence) != ("a", "best")))
    found = {s.defence: s.verdict for s in standings(fewer)}
    assert found["best"] == "incomplete" and found["here"] == "ranked"
    one = [replace(c, seeds={"0": c.seeds["0"]}) if c.defence == "here" else c for c in board.cells]
    assert {s.defence: s.verdict for s in standings(replace(board, cells=tuple(one)))}["here"] == "incomplete"


def test_one_seed_is_ranked_over_attacks():
    found = {s.defence: s.ranks for s in standings(made_board(SUCCESS, UTILITY, seeds=(0,)))}
    assert found["best"] == (1, 1) and found["none"] == (4, 4)


# --- the file ----------------------------------------------------------------------------------------


def test_a_matrix_is_read_back_and_takes_defences_of_others(tmp_path, capsys):
    board = made_board(SUCCESS, UTILITY)
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(board.to_json())
    assert read_board(first) == board
    mine = {"none": (0.8,) * 4, "mine": (0.05,) * 4, UNPOISONED: (0.0,) * 4}
    second.write_text(made_board(mine, {"none": 0.7, "mine": 0.6, UNPOISONED: 0.7}).to_json())
    whole, doubled = joined([read_board(first), read_board(second)])
    assert doubled == ["none"]
    assert [s.defence for s in standings(whole)][:2] == ["mine", "best"]
    assert whole.cell("a", "none") == board.cell("a", "none")  # that of the first
    assert main(["study", "leaderboard", str(first), str(second), "--json"]) == 0
    said = capsys.readouterr()
    assert "none is in several files" in said.err
    (tmp_path / "joined.json").write_text(said.out)
    assert read_board(tmp_path / "joined.json") == whole
    assert main(["study", "leaderboard", str(tmp_path / "joined.json")]) == 0
    page = capsys.readouterr().out
    assert page == leaderboard_markdown(whole, files=[str(tmp_path / "joined.json")])
    assert "| 1 | mine | 0.050" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": {"train": {"epochs": 2}}}, "another budget"),
        ({"attacks": {"a": {"rate": 0.2}}}, "another attacks"),
        ({"level": 0.1}, "another level"),
    ],
)
def test_what_was_measured_otherwise_is_not_joined(change, message):
    board = made_board(SUCCESS, UTILITY)
    with pytest.raises(StudyError, match=message):
        joined([board, replace(board, **change)])


GOOD = made_board({"mine": (0.5,)}, {"mine": 0.6}, attacks=("a",), seeds=(0,)).to_json()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (GOOD, "[]"),
        (GOOD, "{"),
        ('"mithridate-matrix/1"', '"mithridate-matrix/9"'),
        ('"level": 0.3', '"level": NaN'),
        ('"0": {', '"x": {'),
        ('"name": "mine"', f'"name": "{UNPOISONED}"'),
        ('"title"', '"more": 1, "title"'),
    ],
)
def test_a_file_that_is_no_matrix_is_refused(tmp_path, old, new, capsys):
    file = tmp_path / "x.json"
    file.write_text(GOOD)
    assert read_board(file).to_json() == GOOD
    file.write_text(GOOD.replace(old, new))
    assert main(["study", "leaderboard", str(file)]) == 1
    assert "x.json" in capsys.readouterr().err


# --- the page ----------------------------------------------------------------------------------------


def test_a_cell_says_its_interval_and_is_bracketed_below_the_floor():
    board = made_board(SUCCESS, UTILITY)
    figure = matrix_figures(board, name="f")[0]
    assert figure.ticks == ("none", "best", "here", "there", "asleep", UNPOISONED)
    assert {curve.bracketed for curve in figure.curves} == {(4,)}
    svg = ElementTree.fromstring(figure_svg(figure, prefix="f"))
    titles = {node.text for node in svg.iter("title")}
    assert "a, best: 0.100 [0.05, 0.15]" in titles
    assert len(titles) == 4 * 6
    texts = [node.text for node in svg.iter("text")]
    assert texts.count("(0.05)") == 4 and "0.05" not in texts


def test_strangers_names_in_a_matrix_are_text():
    name = "<script>&\"'"
    figure = Figure("a", "t", "heat", "x", "y", (Curve(name, (0.0,), (0.2,)),), ticks=("]]>",), z_label="z")
    assert "<script" not in figure_svg(figure, prefix="f")


@pytest.mark.slow
def test_a_plugged_in_defence_gets_its_row(plugin, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["study", "matrix", "--data", "tiny", "--plugin", str(plugin), "--out", str(out)]) == 0
    board = read_board(out / "tables" / "matrix.json")
    assert [defence.name for defence in board.defences] == ["none", "cosine filter 10 %", "better-half"]
    assert {cell.attack: cell.measure for cell in board.cells} == {"single-label": "Hit@10", "corner patch": "ASR"}
    assert len(board.cells) == 2 * 4
    assert {s.defence for s in standings(board) if s.verdict != "incomplete"} >= {"better-half", UNPOISONED}
    kept = {cell.defence: cell.seeds["0"].get("pairs") for cell in board.cells}
    assert kept == {"none": 300, "cosine filter 10 %": 270, "better-half": 300, UNPOISONED: None}
    assert json.loads((out / "report.json").read_text())["sections"][0]["figures"][0]["ticks"][2] == "better-half"
    capsys.readouterr()
    assert main(["study", "leaderboard", str(out / "tables" / "matrix.json")]) == 0
    assert "better-half" in capsys.readouterr().out
