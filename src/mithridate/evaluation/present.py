"""A measurement as tables, figures, a headline and sentences."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mithridate.data.pairs import Pairs
from mithridate.evaluation.attack import AttackRanks, attack_columns, attack_row, chance_row
from mithridate.evaluation.curves import rank_figure
from mithridate.evaluation.utility import RetrievalRanks, recall, utility_columns, utility_row
from mithridate.poisoning.goals import CaptionsToImage, ClassificationGoal, RetrievalGoal
from mithridate.poisoning.manifest import Manifest
from mithridate.report.document import Figure, Ranking, Table
from mithridate.statistics.intervals import chance_hit, chance_min_rank


@dataclass(frozen=True)
class Measured:
    """A goal's test material: rows of queries, columns of targets, what each model made of them.

    `image` (q,) and `control_image` say which image each query and each caption of the control belongs to.
    """

    goal: RetrievalGoal
    queries: np.ndarray
    targets: np.ndarray
    models: dict[str, AttackRanks]
    control: AttackRanks
    image_to_text: dict[str, AttackRanks]
    image: np.ndarray
    control_image: np.ndarray


def _suffix(goal: RetrievalGoal, several: bool) -> tuple[str, str]:
    return (f"-{goal.source}-{goal.target}", f": {goal.source} to {goal.target}") if several else ("", "")


def strength_table(manifest: Manifest) -> Table:
    s = manifest.strength
    return Table(
        "strength",
        "Strength of the attack",
        ("attack", "poisoned pairs", "of all pairs", "images of class A used", "of class A"),
        ((manifest.attack, int(s["count"]), s["rate"], int(s["images"]), s["class_share"]),),
        f"Of {int(s['pairs']):,} training pairs, poison included; class A has {int(s['class_images']):,} images.",
    )


def aimed_strength_table(manifest: Manifest) -> Table:
    s = manifest.strength
    return Table(
        "strength",
        "Strength of the attack",
        ("attack", "poisoned pairs", "of all pairs", "targets", "of all pairs, each target", "images used"),
        (
            (
                manifest.attack,
                int(s["count"]),
                s["rate"],
                int(s["targets"]),
                s["rate_per_target"],
                int(s["images"]),
            ),
        ),
        f"Of {int(s['pairs']):,} training pairs, poison included. Images used: altered, or lending captions.",
    )


def aimed_strength(manifest: Manifest) -> str:
    s = manifest.strength
    each = f", {s['rate_per_target']:.4%} for each of {int(s['targets'])} targets" if s["targets"] > 1 else ""
    return f"{int(s['count']):,} of {int(s['pairs']):,} training pairs are poisoned ({s['rate']:.3%}{each})."


def attack_table(m: Measured, name: str, rng: np.random.Generator, *, several: bool) -> Table:
    ranks = m.models[name]
    suffix, words = _suffix(m.goal, several)
    titles = {"poisoned": "poisoned model", "clean": "clean model", "model": "model"}
    rows = [attack_row(titles[model], r, rng=rng, image=m.image) for model, r in m.models.items()]
    rows.append(attack_row("random captions", m.control, rng=rng, image=m.control_image))
    rows.append(chance_row(targets=ranks.targets, gallery=ranks.gallery))
    what = (
        "the target image" if isinstance(m.goal, CaptionsToImage) else f"the {ranks.targets} images of {m.goal.target}"
    )
    return Table(
        f"attack{suffix}",
        f"Attack, text to image{words}",
        attack_columns(ranks.gallery),
        tuple(rows),
        f"{len(m.queries)} captions of {m.goal.source} among {ranks.gallery} test images; targets: {what}. "
        "Hit@K: share of captions with a target among the first K. MinRank: 0-based rank of the best target, mean "
        f"over captions. Random captions: {len(m.control.rank)} of other classes, on the "
        f"{titles[name]}. 95 % intervals over the {len(np.unique(m.image))} images that the captions belong to: "
        "Wilson for shares, bootstrap for means.",
    )


def image_to_text_table(m: Measured, rng: np.random.Generator, *, several: bool) -> Table:
    first = next(iter(m.image_to_text.values()))
    suffix, words = _suffix(m.goal, several)
    rows = [
        attack_row(f"{model} model" if model != "model" else model, r, rng=rng) for model, r in m.image_to_text.items()
    ]
    rows.append(chance_row(targets=first.targets, gallery=first.gallery))
    return Table(
        f"attack-image-to-text{suffix}",
        f"Attack, image to text{words}",
        attack_columns(first.gallery),
        tuple(rows),
        f"{len(first.rank)} target images among {first.gallery} test captions; targets: the {first.targets} captions "
        f"of {m.goal.source}.",
    )


def utility_table(utility: dict[str, RetrievalRanks], pairs: Pairs, groups: dict[str, np.ndarray]) -> Table:
    rows = tuple(
        utility_row(model, group, ranks, pairs=mask, image_index=pairs.image_index)
        for group, mask in groups.items()
        for model, ranks in utility.items()
    )
    return Table(
        "utility",
        "Utility: retrieval on clean test pairs",
        utility_columns(),
        rows,
        "TR@K: share of images with an own caption among the first K of all captions; IR@K: share of captions whose "
        "image is among the first K of all images. Queries of one group, galleries whole. 95 % Wilson intervals over "
        "images.",
    )


def goal_rank_figure(m: Measured, name: str, *, several: bool) -> Figure:
    suffix, words = _suffix(m.goal, several)
    ranks = {f"{model} model" if model != "model" else model: r.rank for model, r in m.models.items()}
    return rank_figure(
        f"ranks{suffix}",
        f"Where the best target stands{words}",
        {**ranks, "random captions": m.control.rank},
        f"Captions of {m.goal.source}; a curve further left is a stronger attack.",
    )


def headline(measured: list[Measured], name: str, utility: dict[str, RetrievalRanks]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    goals = {}
    for m in measured:
        first = m.models[name]
        goals[f"{m.goal.source}:{m.goal.target}"] = {
            **{model: {"hit@10": r.hit(10), "min_rank": r.min_rank} for model, r in m.models.items()},
            "random_captions": {"hit@10": m.control.hit(10), "min_rank": m.control.min_rank},
            "chance": {
                "hit@10": chance_hit(10, targets=first.targets, gallery=first.gallery),
                "min_rank": chance_min_rank(targets=first.targets, gallery=first.gallery),
            },
        }
    if len(goals) == 1:
        found["attack"] = next(iter(goals.values()))
    elif goals:
        found |= {f"attack {goal}": values for goal, values in goals.items()}
    found["utility"] = {
        model: {f"{way}@10": value for way, value in recall(ranks, 10).items()} for model, ranks in utility.items()
    }
    return found


def rankings(measured: list[Measured], utility: dict[str, RetrievalRanks], pairs: Pairs) -> tuple[Ranking, ...]:
    """Ranks of every query, for paired comparisons with other evaluations."""
    first = np.unique(pairs.image_index, return_index=True)[1]
    found = [
        Ranking(
            f"attack {m.goal.source}:{m.goal.target}",
            tuple(pairs.uid.take(pa.array(m.queries)).to_pylist()),
            {model: tuple(r.rank.tolist()) for model, r in m.models.items()},
            tuple(m.image.tolist()),
        )
        for m in measured
    ]
    ways = {
        "tr": (first, {model: r.image_to_text for model, r in utility.items()}),
        "ir": (np.arange(len(pairs)), {model: r.text_to_image for model, r in utility.items()}),
    }
    for way, (rows, ranks) in ways.items():
        uid = tuple(pairs.uid.take(pa.array(rows)).to_pylist())
        image = tuple(pairs.image_index[rows].tolist())
        found.append(Ranking(way, uid, {model: tuple(r.tolist()) for model, r in ranks.items()}, image))
    return tuple(found)


def title(goals: tuple[RetrievalGoal, ...], manifest: Manifest | None) -> str:
    if not goals and manifest is not None and manifest.goals:
        targets = list(dict.fromkeys(aim.target for aim in manifest.goals))
        return f"{manifest.attack}: {', '.join(targets[:5])}{' ...' if len(targets) > 5 else ''}"
    if not goals:
        return "Utility"
    words = ", ".join(f"{goal.source} to {goal.target}" for goal in goals)
    return f"{manifest.attack}: {words}" if manifest is not None else words


def summary(
    measured: list[Measured], name: str, utility: dict[str, RetrievalRanks], manifest: Manifest | None
) -> tuple[str, ...]:
    lines = []
    if manifest is not None and not any(isinstance(goal, ClassificationGoal) for goal in manifest.goals):
        s = manifest.strength
        lines.append(
            f"{int(s['count']):,} of {int(s['pairs']):,} training pairs are poisoned ({s['rate']:.2%}): captions of "
            f"{int(s['images']):,} of the {int(s['class_images']):,} images of class A ({s['class_share']:.0%})."
        )
    for m in measured:
        mine = m.models[name]
        chance = chance_hit(10, targets=mine.targets, gallery=mine.gallery)
        beside = f", {m.models['clean'].hit(10):.3f} on the clean model" if "clean" in m.models else ""
        what = "the target image" if isinstance(m.goal, CaptionsToImage) else m.goal.target
        lines.append(
            f"A caption of {m.goal.source} finds {what} among the first ten in {mine.hit(10):.3f} of cases{beside}; "
            f"chance is {chance:.3f}. Mean best rank {mine.min_rank:.1f}."
        )
    told = "; ".join(
        f"{model} model TR@10 {recall(r, 10)['tr']:.3f}, IR@10 {recall(r, 10)['ir']:.3f}"
        for model, r in utility.items()
    )
    lines.append(f"Utility: {told.replace('model model', 'model')}.")
    return tuple(lines)
