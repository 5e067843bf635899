"""Tables and figures of retrieval: goals of captions and of phrases, and utility."""

from collections.abc import Sequence

import numpy as np

from mithridate.evaluation.measurement import Evaluation, Measurement, UnitRanks
from mithridate.metrics import names
from mithridate.poisoning.goals import CaptionsToImage, PhraseToClass, RetrievalGoal
from mithridate.report.document import Cell, Figure, Table
from mithridate.report.sections.curves import rank_figure

_EXTREMES = {names.MEDIAN_RANK: "median", names.LOWEST_RANK: "min", names.HIGHEST_RANK: "max"}
_WHOLE = (names.LOWEST_RANK, names.HIGHEST_RANK)

Row = tuple[str, str, str]  # how the row is called, model, group


def captions_tables(e: Evaluation, goal: RetrievalGoal, *, several: bool) -> list[Table]:
    """Text to image with the control, and image to text."""
    (ranks,), (control,) = e.unit_ranks(names.ATTACK, goal.key), e.unit_ranks(names.CONTROL, goal.key)
    (back,) = e.unit_ranks(names.ATTACK_IMAGES, goal.key)
    suffix, words = _suffix(goal, several)
    what = "the target image" if isinstance(goal, CaptionsToImage) else f"the {ranks.targets} images of {goal.target}"
    forth: list[Row] = [(model, model, names.ALL) for model in e.models]
    forth.append((names.RANDOM_CAPTIONS, e.model, names.RANDOM_CAPTIONS))
    return [
        _table(
            e,
            f"attack{suffix}",
            f"Attack, text to image{words}",
            goal.key,
            forth,
            f"{len(ranks.uid)} captions of {goal.source} among {ranks.gallery} test images; targets: {what}. "
            "Hit@K: share of captions with a target among the first K. MinRank: 0-based rank of the best target, mean "
            f"over captions. Random captions: {len(control.uid)} of other classes, on {e.model}. 95 % intervals over "
            f"the {_units(ranks)} images that the captions belong to: Wilson for shares, bootstrap for means.",
        ),
        _table(
            e,
            f"attack-image-to-text{suffix}",
            f"Attack, image to text{words}",
            goal.key,
            [(model, model, names.TARGET_IMAGES) for model in e.models],
            f"{len(back.uid)} target images among {back.gallery} test captions; targets: the {back.targets} captions "
            f"of {goal.source}.",
        ),
    ]


def captions_figure(e: Evaluation, goal: RetrievalGoal, *, several: bool) -> Figure:
    """Where the best target stands, by model and for random captions."""
    (ranks,), (control,) = e.unit_ranks(names.ATTACK, goal.key), e.unit_ranks(names.CONTROL, goal.key)
    suffix, words = _suffix(goal, several)
    each = {model: np.array(ranks.ranks[model]) for model in e.models}
    return rank_figure(
        f"ranks{suffix}",
        f"Where the best target stands{words}",
        {**each, names.RANDOM_CAPTIONS: np.array(control.ranks[e.model])},
        f"Captions of {goal.source}; a curve further left is a stronger attack.",
    )


def phrase_table(e: Evaluation, goal: PhraseToClass, *, several: bool) -> Table:
    """Captions with the phrase and without."""
    (ranks,) = e.unit_ranks(names.TEXT_TRIGGER, goal.key)
    phrase = e.descriptions.get(goal.key, goal.phrase)
    rows: list[Row] = []
    for model in e.models:
        rows += [(model, model, names.ALL), (f"{model}, without the phrase", model, names.UNTOUCHED)]
    return _table(
        e,
        f"text-trigger-{goal.target}" if several else "text-trigger",
        f"Captions with the phrase {phrase!r}",
        goal.key,
        rows,
        f"{len(ranks.uid)} captions of other classes among {ranks.gallery} test images; targets: the {ranks.targets} "
        f"images of {goal.target}. Hit@K: share of captions with a target among the first K. 95 % intervals, over "
        "the images that the captions belong to.",
    )


def utility_table(e: Evaluation) -> Table:
    """Recall@K both ways, by group and model."""
    metrics = [name(k) for name in (names.recall_of_texts, names.recall_of_images) for k in names.RECALLS]
    rows: list[tuple[Cell, ...]] = [
        (
            model,
            size.group,
            size.images,
            size.captions,
            *(_cell(e.find(m, model=model, group=size.group)) for m in metrics),
        )
        for size in e.groups
        for model in e.models
    ]
    return Table(
        "utility",
        "Utility: retrieval on clean test pairs",
        ("model", "images of", "images", "captions", *metrics),
        tuple(rows),
        "TR@K: share of images with an own caption among the first K of all captions; IR@K: share of captions whose "
        "image is among the first K of all images. Queries of one group, galleries whole. 95 % Wilson intervals over "
        "images." + _left_out(e),
    )


def _left_out(e: Evaluation) -> str:
    poisoned = 0 if e.test is None else e.test.poisoned
    if not poisoned:
        return ""
    return f" Not counted: {poisoned} test images, which the attack gives false captions on purpose."


def _table(e: Evaluation, name: str, title: str, goal: str, rows: Sequence[Row], note: str) -> Table:
    first = {m.metric: m for m in e.select(model=rows[0][1], goal=goal, group=rows[0][2], epoch=None)}
    metrics = [names.hit(k) for k in names.HITS if names.hit(k) in first]
    metrics += [names.MIN_RANK, *_EXTREMES, names.PRECISION]
    cells: list[tuple[Cell, ...]] = [
        (label, *(_cell(e.find(metric, model=model, goal=goal, group=group)) for metric in metrics))
        for label, model, group in rows
    ]
    cells.append(("chance", *(first[metric].chance for metric in metrics)))
    return Table(name, title, ("model", *(_EXTREMES.get(m, m) for m in metrics)), tuple(cells), note)


def _cell(m: Measurement | None) -> Cell:
    if m is None:
        return None
    if m.metric in _EXTREMES:
        return int(m.value.value) if m.metric in _WHOLE else m.value.value
    return m.value


def _suffix(goal: RetrievalGoal, several: bool) -> tuple[str, str]:
    return (f"-{goal.source}-{goal.target}", f": {goal.source} to {goal.target}") if several else ("", "")


def _units(ranks: UnitRanks) -> int:
    return len(set(ranks.image))
