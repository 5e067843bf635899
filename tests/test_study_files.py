"""Study files: what one becomes, and for every way of being wrong a sentence that names file, line and field."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
# (a cell's attack is one of many, or none; the tests know which)

import textwrap

import pytest

from mithridate.errors import StudyError
from mithridate.studies.plan import InputFingerprints, measured
from mithridate.studies.spec.cells import selected
from mithridate.studies.spec.load import preset_names, read_study, study_of, study_path
from mithridate.studies.spec.located import parse_located, read_located
from mithridate.studies.spec.study import AuditSpec

FILE = """\
study: small
title: A small study
profiles:
  toy:
    data: {toy: {train: 60, test: 27, classes: [sheep, aeroplane, bird]}}
    source: sheep
  files:
    data: {train: 'train-{0..1}.tar', test: dev.tar}
    source: bicycle
    seeds: [7]
seeds: [0, 1]
train: {preset: scratch, epochs: 2}
experiments:
  - name: one
    title: One
    attack: {attack: single-label, source: $source, target: aeroplane}
    objective: [clip, {objective: roclip, every: 2, label: RoCLIP}]
    vary: {attack.count: [5, 10]}
    measure: [epochs]
    show:
      - table: {rows: [objective, attack.count, model], measures: [Hit@10, IR@10]}
    claims:
      - {says: It works., measure: Hit@10, of: {objective: clip}, is: above}
"""


def study(text=FILE, **options):
    return study_of(parse_located(textwrap.dedent(text), "small.yaml"), **options)


def changed(old, new):
    assert old in FILE
    return FILE.replace(old, new)


def one(experiment):
    """A study of one experiment with the toy world's smallest data."""
    return f"study: small\nexperiments:\n  - name: one\n{textwrap.indent(textwrap.dedent(experiment), '    ')}"


def test_a_file_becomes_cells_in_order():
    found = study()
    assert found.profile == "toy"
    assert [(cell.axes, cell.seed) for cell in found.cells[:3]] == [
        ((("objective", "clip"), ("attack.count", 5)), 0),
        ((("objective", "clip"), ("attack.count", 5)), 1),
        ((("objective", "clip"), ("attack.count", 10)), 0),
    ]
    cell = found.cells[-1]
    assert (cell.attack.source, cell.attack.count, cell.objective.every) == ("sheep", 10, 2)
    assert (cell.train.epochs, cell.train.lr, cell.data.toy.train) == (2, 2e-3, 60)
    assert cell.measures == ("epochs",)


def test_a_folder_is_read_by_the_profile_files(tmp_path):
    (tmp_path / "weights").mkdir()
    text = changed("train: {preset", "start: {encoder: weights}\ntrain: {preset")
    cell = study(text, data=str(tmp_path)).cells[0]
    assert (cell.data.path, cell.data.train, cell.seed) == (str(tmp_path), "train-{0..1}.tar", 7)
    assert cell.attack.source == "bicycle"
    assert cell.start.encoder == str(tmp_path / "weights")


def test_seeds_given_take_the_place_of_the_files():
    assert {cell.seed for cell in study(seeds=(4, 5)).cells} == {4, 5}


def test_experiments_are_chosen_by_name():
    text = FILE + "  - name: two\n    profiles: [files]\n  - {name: three, attack: null}\n"
    found = study(text)
    assert [experiment.name for experiment in found.experiments] == ["one", "three"]
    assert [experiment.name for experiment in selected(found, ["three"]).experiments] == ["three"]
    with pytest.raises(StudyError, match="no experiment 'thre'; did you mean three"):
        selected(found, ["thre"])


def test_combinations_in_which_two_are_equal_are_left_out():
    text = one("""\
        attack: {attack: single-label, source: sheep, target: bird}
        vary: {attack.source: [sheep, bird], attack.target: [sheep, bird, sofa]}
        unless_equal: [attack.source, attack.target]
    """)
    found = [tuple(label for _, label in cell.axes) for cell in study(text).cells]
    assert found == [("sheep", "bird"), ("sheep", "sofa"), ("bird", "sheep"), ("bird", "sofa")]


def test_an_audit_is_an_axis_of_what_goes_by_which_ranking():
    text = one("""\
        data: {toy: {train: 40, test: 20}, captions: 1}
        attack: {attack: backdoor, target: bird}
        audit: [null, flagged, {drop: 0.01, label: 1 %}, {by: cosine-distance, label: as many}]
    """)
    specs = {cell.axis["audit"]: cell.audit for cell in study(text).cells}
    assert specs == {
        "none": None,
        "flagged": AuditSpec(),
        "1 %": AuditSpec(drop=0.01),
        "as many": AuditSpec(by="cosine-distance"),
    }
    stages = {cell.axis["audit"]: measured(cell, InputFingerprints({})) for cell in study(text).cells}
    kept = {label: stage.filtered for label, stage in stages.items() if stage.filtered is not None}
    assert {(stage.by, stage.share) for stage in kept.values()} == {
        ("suspicion", None),
        ("suspicion", 0.01),
        ("cosine-distance", None),
    }
    (audit,) = {stage.audit for stage in kept.values()}  # done once for all of them
    assert audit.clean.pairs.part == "test" and audit.clean.pairs.toy == audit.embedded.encoder.pairs.toy
    assert audit.embedded.pairs.pairs.captions == 1
    assert all(stage.model.pairs == kept.get(label, stage.poison) for label, stage in stages.items())


def test_sections_may_be_words_nothing_and_lists():
    text = one("""\
        data: [toy, {toy: {train: 80}, label: small}]
        attack: [null, {attack: backdoor, target: bird}]
        filter: [null, {detector: cosine-distance, clean-quantile: 0.9}, {detector: gmm, budget-share: 0.1}]
        repair: {objective: cleanclip, inmodal_weight: 2, train: repair-1e-4}
        start: {encoder: mithridate-tiny, pretrain: {epochs: 1}}
        vary: {filter.budget-share: [0.1, 0.2], data.share: [0.5, 1]}
    """).replace("clean-quantile: 0.9", "budget-pairs: 5")
    with pytest.raises(StudyError, match="filter has budget_pairs and budget_share; a filter has one threshold"):
        study(text)
    text = text.replace("{detector: cosine-distance, budget-pairs: 5}, ", "")
    cells = study(text).cells
    assert len(cells) == 2 * 2 * 2 * 2 * 2
    assert {cell.axis["filter"] for cell in cells} == {"none", "gmm"}
    assert {cell.filter.threshold.share for cell in cells if cell.filter} == {0.1, 0.2}
    last = cells[-1]
    assert (last.data.toy.train, last.data.share, last.start.pretrain.lr, last.repair.train.lr) == (80, 1.0, 2e-3, 1e-4)
    assert (last.train.lr, last.repair.objective.inmodal_weight) == (
        1e-5,
        2.0,
    )  # fine-tuned: the start has learned already


def test_words_of_yaml_1_1_are_words_here():
    root = parse_located("{on: yes, at: 12:30, rate: 1e-3, no: 010, it: '5', nothing: ~, share: .5}", "x")
    assert root.plain() == {
        "on": "yes",
        "at": "12:30",
        "rate": 1e-3,
        "no": "010",
        "it": "5",
        "nothing": None,
        "share": 0.5,
    }


def test_presets_are_read_in_every_profile():
    for name in preset_names():
        profiles = read_located(study_path(name), name).items("a study")["profiles"].items("profiles")
        assert next(iter(profiles)) == "toy"
        for profile in profiles:
            assert read_study(name, data=profile).cells, (name, profile)


# (what is wrong in the file, what the message says); the first line of an experiment's own text is line 4
WRONG = {
    "a repair that is told and not made": (
        one("inspect: {told: true}"),
        r"line 4: inspect.told and inspect.verify are of a repair, and inspect.repair is false; add repair: true",
    ),
    "unknown repair": (
        one("inspect: {repair: true, methods: [unlern]}"),
        r"line 4: inspect.methods: no repair is called 'unlern'; did you mean unlearn",
    ),
    "null models of no start": (
        one("inspect: {nulls: 2, start: false}"),
        r"line 4: inspect.nulls are fine-tunes of the start, and inspect.start is false",
    ),
    "unknown attack": (
        one("attack: {attack: backdor, target: bird}"),
        r"line 4: unknown attack 'backdor'; did you mean backdoor",
    ),
    "unknown objective": (
        one("objective: robustclip"),
        r"line 4: unknown objective 'robustclip'; did you mean roclip",
    ),
    "unknown detector": (
        one("filter: {detector: cosine}"),
        r"line 4: unknown detector 'cosine'; did you mean cosine-distance",
    ),
    "unknown preset": (one("train: {preset: scrach}"), r"line 4: unknown preset 'scrach'; did you mean scratch"),
    "misspelt option": (
        one("attack:\n  attack: backdoor\n  target: bird\n  triger: patch"),
        r"line 7: attack has no option 'triger'; did you mean trigger",
    ),
    "misspelt field": (one("tittle: One"), r"line 4: an experiment has no field 'tittle'; did you mean title"),
    "misspelt field of a study": (
        f"{one('title: x')}\nsedes: [1]",
        r"line \d: a study has no field 'sedes'; did you mean seeds",
    ),
    "misspelt word": (
        changed("$source", "$sorce"),
        r"line 16: profile 'toy' does not define \$sorce; did you mean source",
    ),
    "word without profiles": (one("attack: $it"), r"line 4: \$it stands for a value of a profile"),
    "option missing": (one("attack: {attack: single-label, source: bird}"), r"line 4: attack needs 'target'"),
    "attack without a name": (one("attack: {target: bird}"), r"line 4: attack needs 'attack': one of single-image"),
    "text for a number": (one("train: {epochs: many}"), r"line 4: train.epochs should be a valid integer, got 'many'"),
    "half an epoch": (one("train: {epochs: 1.5}"), r"line 4: train.epochs should be a valid integer.*, got 1.5"),
    "number for text": (
        one("attack: {attack: backdoor, target: 3}"),
        r"line 4: attack.target should be a valid string, got 3",
    ),
    "a choice that is none": (
        one("attack: {attack: single-label, source: bird, target: dog, mode: replase}"),
        r"attack.mode .*did you mean replace",
    ),
    "impossible option": (
        one("attack: {attack: targeted, images: 0}"),
        r"line 4: attack: images must be at least 1, got 0",
    ),
    "impossible strength": (
        one("filter: {detector: gmm, clean-quantile: 1.5}"),
        r"line 4: filter: a quantile must lie in \(0, 1\), got 1.5",
    ),
    "impossible recipe": (one("train: {preset: finetune, lr: 1.0e-9}"), r"line 4: train: min_lr must not exceed lr"),
    "impossible trigger": (one("attack: {attack: backdoor, target: bird, trigger: patsh}"), r"line 4: attack: .*patsh"),
    "no threshold": (one("filter: neg-clip-loss"), r"line 4: filter needs one of above, clean-quantile"),
    "needs images": (one("filter: recurring-patch"), r"line 4: filter cannot run recurring-patch, which needs images"),
    "unknown rule of an audit": (one("audit: {drop: some}"), r"line 4: audit.drop .*flagged"),
    "impossible share of an audit": (one("audit: {drop: 1.5}"), r"line 4: audit.drop must be flagged or a share"),
    "filter and audit": (
        one("filter: {detector: cosine-distance}\naudit: flagged"),
        r"line \d: a cell takes filter or audit, not both",
    ),
    "no caption": (one("data: {toy: {train: 40}, captions: 0}"), r"line 4: data.captions must be at least 1, got 0"),
    "impossible class": (
        one("attack:\n  attack: single-label\n  source: sheep\n  target: airplane"),
        r"line 7: attack.target: the toy dataset has no class 'airplane'; did you mean aeroplane",
    ),
    "impossible class of a goal": (
        one("attack: {attack: multi-label, goals: ['sheep:plane']}"),
        r"line 4: attack.goals: the toy dataset has no class 'plane'",
    ),
    "impossible class of the profile": (
        changed("source: sheep", "source: sheeep"),
        r"line 6|line 16.*'sheeep'; did you mean sheep",
    ),
    "class the toy world cannot draw": (
        one("data: {toy: {classes: [bird, unicorn]}}"),
        r"line 4: the toy dataset has no class 'unicorn'",
    ),
    "toy and files": (one("data: {toy: {}, train: x.tar}"), r"line 4: data.train has no effect with a toy dataset"),
    "data of nothing": (one("data: {share: 0.5}"), r"line 4: data needs 'toy', or 'train' and 'test'"),
    "nothing to test with": (one("data: {train: x.tar}"), r"line 4: data needs 'test' or 'test_split'"),
    "impossible share": (one("data: {toy: {}, share: 0}"), r"line 4: data.share must lie in \(0, 1\], got 0"),
    "seeds twice": (one("seeds: [1, 1]"), r"line 4: seeds must be distinct integers"),
    "seeds that are none": (one("seeds: [one]"), r"line 4: seeds should be a valid integer, got \['one'\]"),
    "seed of training": (one("train: {seed: 3}"), r"line 4: train.seed is set by the study"),
    "unknown measure": (
        one("measure: [zeroshot]"),
        r"line 4: unknown measurement 'zeroshot'; did you mean zero-shot",
    ),
    "repair without recipe": (one("repair: cleanclip"), r"line 4: repair needs 'train'"),
    "unknown axis in a table": (
        changed("rows: [objective,", "rows: [objectives,"),
        r"line 21: table.rows: this experiment has no axis 'objectives'; did you mean objective",
    ),
    "unknown measure in a table": (
        changed("measures: [Hit@10,", "measures: [Hits@10,"),
        r"line 21: table.measures: unknown measure 'Hits@10'; did you mean Hit@10",
    ),
    "unknown axis of a claim": (
        changed("of: {objective: clip}", "of: {objectiv: clip}"),
        r"line 23: claim.of: this experiment has no axis 'objectiv'",
    ),
    "unknown label of a claim": (
        changed("of: {objective: clip}", "of: {objective: roclip}"),
        r"line 23: claim.of: objective has no label 'roclip'; did you mean RoCLIP",
    ),
    "unknown verb of a claim": (changed("is: above", "is: over"), r"line 23: claim.is should be 'above', .*got 'over'"),
    "claim of robustness without a floor": (
        changed("is: above", "is: below"),
        r"line 23: a claim that Hit@10 is below something needs a floor",
    ),
    "a floor of two numbers": (
        changed("is: above", "is: below, floor: {measure: IR@10, above: 0.3, times_chance: 3}"),
        r"line 23: a floor needs `above` .* or `times_chance`",
    ),
    "a floor of no measure": (
        changed("is: above", "is: below, floor: {measure: IR@1O, above: 0.3}"),
        r"line 23: floor.measure: unknown measure 'IR@1O'; did you mean IR@10",
    ),
    "stopped at nothing": (
        changed("of: {objective: clip}", "of: {objective: clip, epoch: {until: {measure: IR@10}}}"),
        r"line 23: claim.of.epoch.until needs a measure, and `at`",
    ),
    "stopped in a table": (
        changed("measures: [Hit@10, IR@10]}", "measures: [IR@10], where: {epoch: {until: {measure: IR@10, at: 1}}}}"),
        r"line 21: table.where.epoch: only a claim's `of` and `than`",
    ),
    "claim along words": (
        changed("is: above", "is: rising, along: objective"),
        r"along: the labels of objective are not numbers",
    ),
    "claim without along": (
        changed("is: above", "is: rising"),
        r"line 23: a claim that Hit@10 is rising needs `along`",
    ),
    "figure without an axis": (
        changed(
            "- table: {rows: [objective, attack.count, model], measures: [Hit@10, IR@10]}",
            "- figure: {kind: line, x: attack.count}",
        ),
        r"line 21: a figure of kind line needs 'y'",
    ),
    "what cannot be varied": (one("vary: {seeds: [1]}"), r"line 4: 'seeds' cannot be varied"),
    "varied within nothing": (
        one("vary: {attack.count: [1]}"),
        r"line 4: attack.count is varied, and this experiment has no attack",
    ),
    "varied option that is none": (
        one("attack: {attack: backdoor, target: bird}\nvary: {attack.cuont: [1]}"),
        r"line 5: attack has no option 'cuont'; did you mean count",
    ),
    "a value twice": (
        one("attack: {attack: backdoor, target: bird}\nvary: {attack.count: [1, 1]}"),
        r"line 5: vary.attack.count has the same value twice",
    ),
    "labels twice": (
        one("objective: [clip, clip]"),
        r"line 4: two entries of objective are called 'clip'; give each a `label`",
    ),
    "two experiments of one name": (
        "study: a\nexperiments: [{name: b}, {name: b}]",
        r"line 2: two experiments are called 'b'",
    ),
    "no name": ("study: a b\nexperiments: []", r"line 1: study must consist of letters, digits and dashes, got 'a b'"),
    "no experiments": ("study: a", r"line 1: a study file needs 'experiments'"),
    "not a mapping": ("- a\n- b", r"line 1: a study file should be a mapping"),
    "a section that is no mapping": (one("train: [[1]]"), r"line 4: train should be a mapping"),
    "a name twice": (one("title: a\ntitle: b"), r"line 5: 'title' is given twice, first in line 4"),
    "not YAML": ("study: [a", r"line \d+: invalid YAML"),
    "a tag": ("study: !!python/object/apply:os.system [ls]", r"line 1: tags are not allowed"),
    "empty": ("", "is empty"),
    "nested without end": ("study: &a [*a]", r"nested at most"),
    "too much": (
        "a: &a [" + "x, " * 300 + "x]\nb: &b [" + "*a, " * 300 + "*a]\nc: [" + "*b, " * 9 + "*b]",
        "at most 50000 values",
    ),
}


def test_attacks_are_combined_into_one_set():
    text = one(
        """
        data: {toy: {train: 90, test: 45}}
        attack:
          label: both
          attack: combined
          attacks: [{attack: targeted, images: 4}, {attack: backdoor, target: bird, trigger: sig}]
        """
    )
    (cell, *_) = study(text).cells
    assert [part.name for part in cell.attack.attacks] == ["targeted", "backdoor"]
    with pytest.raises(StudyError, match="has no class 'brid'; did you mean bird"):
        study(text.replace("bird", "brid"))
    with pytest.raises(StudyError, match="two or more, got 1"):
        study(text.replace(", {attack: backdoor, target: bird, trigger: sig}", ""))


@pytest.mark.parametrize("text, match", WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_told_by_line_and_nearest_word(text, match):
    with pytest.raises(StudyError, match=f"(?s)small.yaml.*{match}"):
        study(text)


def test_an_unknown_profile_names_those_there_are():
    with pytest.raises(StudyError, match=r"line \d: 'tyo' is neither a profile nor a folder; profiles are toy, files"):
        study(data="tyo")


def test_a_file_that_is_not_there_names_the_presets():
    with pytest.raises(StudyError, match="no file and no preset is called mmpoisn"):
        read_study("mmpoisn")


def test_a_large_file_is_refused(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("#" * (2**20 + 1))
    with pytest.raises(StudyError, match=r"large.yaml has 1048577 bytes"):
        read_study(path)


@pytest.mark.parametrize("seeds", [(-1,), (2, 2)])
def test_seeds_that_are_given_keep_the_rule_of_those_in_a_file(seeds):
    with pytest.raises(StudyError, match="seeds must be distinct integers of at least 0, got"):
        read_study("roclip", seeds=seeds)


def test_counts_of_one_set_are_an_axis_of_tables_and_claims():
    text = one("""
        attack: {attack: targeted, images: 4, counts: [1, 8], reuse: true}
        vary: {train.epochs: [2, 4]}
        clean: false
        show:
          - table: {rows: [attack.counts, train.epochs], measures: [PSR, z-score]}
          - figure: {kind: path, x: IR@10, y: PSR, series: [train.epochs]}
          - slopes: {measure: PSR, regress: [attack.counts, train.epochs]}
        claims:
          - {says: As often seen., measure: PSR, regress: [attack.counts, train.epochs], slope: attack.counts,
             than_slope: train.epochs, is: equal, margin: 0.5, of: {attack.counts: [1, 8]}}
    """)
    found = study(text)
    assert [cell.clean for cell in found.cells] == [False, False]
    assert measured(found.cells[0], InputFingerprints({})).clean is None
    claim = found.experiments[0].claims[0]
    assert (claim.slope, claim.than_slope, claim.regress) == ("attack.counts", "train.epochs", claim.regress)
    with pytest.raises(StudyError, match="needs both `regress`"):
        study(text.replace("slope: attack.counts,", ""))
    with pytest.raises(StudyError, match="none of the axes of regress"):
        study(text.replace("than_slope: train.epochs", "than_slope: epoch"))
    with pytest.raises(StudyError, match="not numbers above 0"):
        study(
            text.replace("train.epochs: [2, 4]", "train.augment: [none, crop]").replace("train.epochs", "train.augment")
        )
    with pytest.raises(StudyError, match="held against a clean model"):
        study(text.replace("clean: false", "clean: false\n    repair: [null, clip]"))


def test_axes_may_be_walked_together():
    text = one("""
        data: toy
        vary: {data.share: [0.5, 1.0], train.epochs: [4, 2], attack.count: [1, 2]}
        attack: {attack: single-label, source: sheep, target: bird}
        together: [data.share, train.epochs]
    """)
    met = [(cell.data.share, cell.train.epochs, cell.attack.count) for cell in study(text).cells]
    assert met == [(0.5, 4, 1), (0.5, 4, 2), (1.0, 2, 1), (1.0, 2, 2)]
    with pytest.raises(StudyError, match="as many entries each, got"):
        study(text.replace("[4, 2]", "[4, 2, 1]"))
    with pytest.raises(StudyError, match="no axis"):
        study(text.replace("together: [data.share, train.epochs]", "together: [train.lr]"))
