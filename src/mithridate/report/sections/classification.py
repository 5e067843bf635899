"""Tables of triggers and single target images: by prompts, by captions retrieved, by a linear probe."""

from collections.abc import Sequence

from mithridate.evaluation.measurement import Evaluation
from mithridate.metrics import names
from mithridate.poisoning.goals import TriggerToClass
from mithridate.report.document import Cell, Table
from mithridate.report.numbers import show
from mithridate.statistics.estimate import Estimate

_SHOWN_TARGETS = 100


def accuracy_table(e: Evaluation) -> Table | None:
    """Zero-shot accuracy on untouched test images."""
    found = [e.find(names.ZERO_SHOT, model=model) for model in e.models]
    first = found[0]
    if first is None or e.classes is None:
        return None
    rows: list[tuple[Cell, ...]] = [(m.model, e.classes.images, m.value) for m in found if m is not None]
    rows.append(("chance", None, first.chance))
    left_out = f" {e.classes.left_out} images without exactly one class are left out." if e.classes.left_out else ""
    return Table(
        "zero-shot",
        "Zero-shot accuracy on untouched test images",
        ("model", "images", "accuracy"),
        tuple(rows),
        f"{len(e.classes.names)} classes, 80 prompts each; 95 % Wilson intervals.{left_out}",
    )


def backdoor_tables(e: Evaluation, goals: Sequence[TriggerToClass]) -> list[Table]:
    """Success of every trigger, and the captions that triggered images retrieve."""
    rows: list[tuple[Cell, ...]] = []
    for goal in goals:
        trigger = e.descriptions[goal.key]
        (ranks,) = e.unit_ranks(names.BACKDOOR, goal.key)
        for model in e.models:
            rate, before, z = (
                _value(e, metric, model, goal.key, group)
                for metric, group in (
                    (names.ASR, names.ALL),
                    (names.ASR, names.UNTOUCHED),
                    (names.Z_SCORE, names.ALL),
                )
            )
            score = None if z is None else z.value
            rows.append((model, trigger, goal.target, len(ranks.uid), rate, before, score))
        chance = _chance(e, names.ASR, goal.key)
        rows.append(("chance", trigger, goal.target, None, chance, chance, None))
    return [
        Table(
            "backdoor",
            "Backdoor: triggered test images",
            ("model", "trigger", "target", "images", "success", "without trigger", "z-score"),
            tuple(rows),
            "Success (ASR): share of triggered images of other classes that are taken for the target, first among "
            "all classes, ties against it; the target class is left out. Without trigger: the same images untouched. "
            "z-score: how far the trigger draws images together (Carlini & Terzis 2022). 95 % Wilson intervals.",
        ),
        _captions_table(
            e,
            "backdoor-captions",
            "Backdoor: captions of triggered images",
            [(goal.key, (e.descriptions[goal.key], goal.target)) for goal in goals],
            before=True,
        ),
    ]


def targeted_tables(e: Evaluation) -> list[Table]:
    """Success over single target images, what each is taken for, and the captions that they retrieve."""
    assert e.predictions is not None
    goal, wanted, taken = names.SINGLE_IMAGES, e.predictions.wanted, e.predictions.taken
    rows: list[tuple[Cell, ...]] = [(m, len(wanted), _value(e, names.PSR, m, goal, names.ALL)) for m in e.models]
    rows.append(("chance", None, _chance(e, names.PSR, goal)))
    classes = 0 if e.classes is None else len(e.classes.names)
    shown = range(min(len(wanted), _SHOWN_TARGETS))
    return [
        Table(
            "targeted",
            "Targeted: single images",
            ("model", "targets", "success"),
            tuple(rows),
            "Success (PSR): share of target images that are taken for their adversarial class, first among all "
            f"{classes} classes, ties against it. A target is the unit; 95 % Wilson intervals.",
        ),
        Table(
            "targets",
            "What each target image is taken for",
            ("target", "adversarial class", *e.models),
            tuple((i + 1, wanted[i], *(taken[model][i] for model in e.models)) for i in shown),
            f"The first {len(shown)} of {len(wanted)}." if len(wanted) > len(shown) else "",
        ),
        _captions_table(e, "targeted-captions", "Targeted: captions of single images", [(goal, ())], before=False),
    ]


def probe_table(e: Evaluation, triggers: Sequence[TriggerToClass]) -> Table | None:
    """The same where a linear probe tells the classes."""
    if e.probe is None or e.classes is None:
        return None
    probe, folds = e.probe
    rows: list[tuple[Cell, ...]] = [
        (model, "untouched images, own class", None, e.classes.images, e.value(names.PROBE_ACCURACY, model=model), None)
        for model in e.models
    ]
    for goal in triggers:
        (ranks,) = e.unit_ranks(names.PROBE, goal.key)
        for model in e.models:
            after, before = (
                _value(e, names.PROBE_ASR, model, goal.key, group) for group in (names.ALL, names.UNTOUCHED)
            )
            rows.append((model, e.descriptions[goal.key], goal.target, len(ranks.uid), after, before))
    for model in e.models:
        psr = _value(e, names.PROBE_PSR, model, names.SINGLE_IMAGES, names.ALL)
        if psr is not None:
            rows.append((model, "single target images", "their own", psr.n, psr, None))
    chance = _chance(e, names.PROBE_ACCURACY, "")
    rows.append(("chance", None, None, None, chance, chance if triggers else None))
    return Table(
        "probe",
        f"A linear probe ({probe}) on frozen features",
        ("model", "what", "target", "images", "success", "without trigger"),
        tuple(rows),
        f"Trained on untouched test images: each image is scored by a probe of the other {folds - 1} of {folds} "
        "folds, single targets by a probe of all but them. Success: of triggered images of other classes the share "
        "taken for the target (ASR), of single targets the share taken for their adversarial class (PSR), of "
        "untouched images the share taken for their own; ties count against the class. 95 % Wilson intervals; "
        "folds share training images, so they are a little too narrow.",
    )


def _captions_table(
    e: Evaluation, name: str, title: str, goals: Sequence[tuple[str, tuple[str, ...]]], *, before: bool
) -> Table:
    """`goals`: key of each, and the first cells of its rows (trigger, target)."""
    metrics = [*map(names.hit, names.RECALLS), names.MIN_RANK]
    columns = [(metric, names.ALL) for metric in metrics] + ([(names.hit(10), names.UNTOUCHED)] if before else [])
    rows: list[tuple[Cell, ...]] = []
    for goal, cells in goals:
        (ranks,) = e.unit_ranks(names.CAPTIONS, goal)
        for model in e.models:
            numbers = (_value(e, metric, model, goal, group) for metric, group in columns)
            rows.append((model, *cells, len(ranks.uid), *numbers))
        rows.append(("chance", *cells, None, *(_chance(e, metric, goal, group) for metric, group in columns)))
    captions = 0 if e.test is None else e.test.pairs
    return Table(
        name,
        title,
        ("model", *("trigger", "target")[: len(goals[0][1])], "images", *metrics)
        + (("Hit@10 without trigger",) if before else ()),
        tuple(rows),
        f"Each image ranks all {show(captions)} test captions. Hit@K: share of images with a caption of the class "
        "wanted among the first K. MinRank: 0-based rank of the best of them, mean over images; ties count against "
        "them. 95 % intervals: Wilson, and bootstrap over images.",
    )


def _value(e: Evaluation, metric: str, model: str, goal: str, group: str) -> Estimate | None:
    found = e.find(metric, model=model, goal=goal, group=group)
    return None if found is None else found.value


def _chance(e: Evaluation, metric: str, goal: str, group: str = names.ALL) -> float | None:
    found = e.find(metric, goal=goal, group=group)
    return None if found is None else found.chance
