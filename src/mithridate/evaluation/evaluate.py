"""From models, test pairs and the truth to a report."""

import hashlib
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mithridate.data.images import read_bytes
from mithridate.data.pairs import Pairs, nearest_names
from mithridate.encoder.embed import Progress, _silent, embed, embed_images, image_source
from mithridate.encoder.embeddings import Embeddings
from mithridate.encoder.encoder import Encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation import checks
from mithridate.evaluation.aims import measure_aims, refuse_unknown_aims
from mithridate.evaluation.attack import attack_ranks, below_chance
from mithridate.evaluation.overlap import shared_images
from mithridate.evaluation.pictures import poison_density, retrievals
from mithridate.evaluation.present import (
    Measured,
    attack_table,
    goal_rank_figure,
    headline,
    image_to_text_table,
    rankings,
    strength_table,
    summary,
    title,
    utility_table,
)
from mithridate.evaluation.probe import Probe
from mithridate.evaluation.shift import shift_report
from mithridate.evaluation.utility import RetrievalRanks, recall, retrieval_ranks
from mithridate.poisoning.goals import CaptionsToImage, RetrievalGoal
from mithridate.poisoning.manifest import Manifest
from mithridate.report.document import Report, Warning
from mithridate.report.sections.warnings import worded
from mithridate.statistics.intervals import chance_hit
from mithridate.version import __version__

_SHOWN_QUERIES = 4


def evaluate(
    encoder: Encoder,
    pairs: Pairs,
    manifest: Manifest | None = None,
    *,
    goals: tuple[RetrievalGoal, ...] = (),
    clean: Encoder | None = None,
    train: Pairs | None = None,
    probe: Probe | None = None,
    seed: int = 0,
    cache: Path | str | None = "default",
    cache_limit: int | None = None,
    runs: dict[str, dict[str, Any] | None] | None = None,
    progress: Progress = _silent,
) -> Report:
    """Attack success and utility of `encoder` on test `pairs`, beside the `clean` model, random captions and chance.

    `manifest` says what was attacked; `goals` may be given in its place (for a model of unknown training). `train`:
    what the model was trained on, to look for test images in it and to hold the manifest against. `probe`: backdoors
    and single targets are measured by this linear probe too. `runs`: records of the training runs by model name,
    compared and kept as provenance. Without goals only utility is measured. Raises `EvaluationError` where a goal has
    no query or no target in the test pairs, where the clean model is another encoder, and where the manifest is not of
    `train`.
    """
    if manifest is not None:
        goals = tuple(goal for goal in manifest.goals if isinstance(goal, RetrievalGoal))
    for goal in goals:  # before anything is embedded
        _class_masks(goal, pairs)
    refuse_unknown_aims(manifest, pairs, probed=probe is not None)
    refuse_mixed_encoders(encoder, clean)
    checks.refuse_foreign_manifest(manifest, train)
    name = "poisoned" if manifest is not None else "model"
    encoders = {name: encoder} | ({"clean": clean} if clean is not None else {})
    embedded = {
        model: embed(e, pairs, cache=cache, cache_limit=cache_limit, progress=progress) for model, e in encoders.items()
    }
    rng = np.random.default_rng(seed)
    warnings: list[Warning] = []
    measured = [
        _measure(goal, goals, pairs, embedded, encoders, manifest, name, cache, cache_limit, rng, warnings)
        for goal in goals
    ]
    utility = {model: retrieval_ranks(e) for model, e in embedded.items()}

    aimed = measure_aims(
        manifest,
        pairs,
        embedded,
        encoders,
        seed=seed,
        cache=cache,
        cache_limit=cache_limit,
        progress=progress,
        probe=probe,
    )

    tables = [strength_table(manifest)] if manifest is not None and not aimed.tables else aimed.tables
    for m in measured:
        tables.append(attack_table(m, name, rng, several=len(measured) > 1))
        tables.append(image_to_text_table(m, rng, several=len(measured) > 1))
    groups = _groups(pairs, goals)
    tables.append(utility_table(utility, pairs, groups))
    figures = [goal_rank_figure(m, name, several=len(measured) > 1) for m in measured]
    if manifest is not None:
        density, found = poison_density(
            clean or encoder, "clean" if clean else name, embedded, pairs, manifest, rng, cache, cache_limit
        )
        figures += density
        warnings += found
    warnings += aimed.warnings
    warnings += _check(measured, name, utility, pairs, groups, clean, runs or {})
    if train is None:
        warnings += checks.unheld_manifest(manifest, (runs or {}).get(name))
    if train is not None:
        # a target image taken from the test gallery is in the poison on purpose
        on_purpose = [getattr(goal, "image", None) for goal in (manifest.goals if manifest else goals)]
        warnings += worded(shared_images(train, pairs, ignore=[place for place in on_purpose if place]))
    pictures = (
        ()
        if not measured
        else retrievals(
            pairs,
            {model: embedded[model] for model in sorted(embedded)},
            np.sort(rng.permutation(measured[0].queries)[:_SHOWN_QUERIES]),
            measured[0].targets,
        )
    )
    if clean is not None:
        shift_tables, shift_figures = shift_report(embedded["clean"], embedded[name], pairs, goals, rng)
        tables, figures = [*tables, *shift_tables], [*figures, *shift_figures]
    return Report(
        title=title(goals, manifest),
        summary=(*aimed.summary, *summary(measured, name, utility, manifest)),
        tables=tuple(tables),
        figures=tuple(figures),
        retrievals=pictures,
        rankings=(*aimed.rankings, *rankings(measured, utility, pairs)),
        warnings=tuple(warnings),
        headline=aimed.headline | headline(measured, name, utility),
        provenance={
            "models": {model: e.name for model, e in encoders.items()},
            "test data": {"fingerprint": pairs.fingerprint, "pairs": len(pairs), "images": len(pairs.images)},
            "attack": None if manifest is None else _told(manifest),
            "runs": runs or {},
            "seed": seed,
            "versions": {
                "mithridate": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        },
    )


def refuse_mixed_encoders(encoder: Encoder, clean: Encoder | None) -> None:
    """Raise `EvaluationError` where the clean model is another architecture, or sees images otherwise."""
    if clean is None:
        return
    for what, first, second in (
        ("architecture", encoder.config["model_cfg"], clean.config["model_cfg"]),
        ("preprocessing", encoder.recipe, clean.recipe),
    ):
        if first != second:
            raise EvaluationError(
                f"{encoder.name} and the clean model {clean.name} differ in {what}, so no difference between them is "
                "the poison's; give as clean the same encoder, trained without poison"
            )


def _told(manifest: Manifest) -> dict[str, Any]:
    keep = ("attack", "options", "seed", "strength", "data", "versions")
    return {name: getattr(manifest, name) for name in keep}


def _measure(
    goal: RetrievalGoal,
    goals: tuple[RetrievalGoal, ...],
    pairs: Pairs,
    embedded: dict[str, Embeddings],
    encoders: dict[str, Encoder],
    manifest: Manifest | None,
    name: str,
    cache: Path | str | None,
    cache_limit: int | None,
    rng: np.random.Generator,
    warnings: list[Warning],
) -> Measured:
    source, target = _class_masks(goal, pairs)
    queries = np.flatnonzero(source)
    galleries = {model: e.image for model, e in embedded.items()}
    if not isinstance(goal, CaptionsToImage):
        targets = np.unique(pairs.image_index[target])
    else:
        column = _find_image(goal.image, pairs, manifest)
        if column is None:
            warnings += checks.target_added(goal.image)
            column = len(pairs.images)
            place = pa.array([goal.image])
            galleries = {
                model: np.concatenate(
                    [galleries[model], embed_images(e, image_source(e, place, cache=cache, limit=cache_limit), 1)]
                )
                for model, e in encoders.items()
            }
        targets = np.array([column])
    models = {model: attack_ranks(e.text[queries], galleries[model], targets) for model, e in embedded.items()}
    # captions of any class that is part of a goal are no control: they may retrieve the target rightly
    part = np.zeros(len(pairs), dtype=bool)
    for other in goals:
        part |= pairs.labelled(other.source) | pairs.labelled(other.target)
    others = np.flatnonzero(~part)
    if not len(others):
        raise EvaluationError("the control needs captions of classes outside the goals, and the test pairs have none")
    control = np.sort(rng.choice(others, size=min(len(queries), len(others)), replace=False))
    told = f"{goal.source} to {goal.target}"
    warnings += checks.control_contains_target(told, pairs.labelled(goal.target)[control])
    back = {}
    for model, e in embedded.items():
        # the other direction: does an image of B find a caption of A
        images = galleries[model][targets]
        back[model] = attack_ranks(images, e.text, queries)
    against = attack_ranks(embedded[name].text[control], galleries[name], targets)
    images = pairs.image_index.astype(np.int64)
    return Measured(goal, queries, targets, models, against, back, images[queries], images[control])


def _class_masks(goal: RetrievalGoal, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of A alone and of B alone, as the attacks choose them in training."""
    a, b = pairs.labelled(goal.source), pairs.labelled(goal.target)
    source, target = a & ~b, b & ~a
    for what, mask, label, other in (
        ("query", source, goal.source, goal.target),
        ("target image", target, goal.target, goal.source),
    ):
        if not mask.any() and not (what == "target image" and isinstance(goal, CaptionsToImage)):
            why = (
                f"all that are labelled {label!r} are labelled {other!r} too; take other classes, or other test pairs"
                if label in pairs.classes
                else f"none is labelled {label!r}; {nearest_names(label, pairs.classes)}"
            )
            raise EvaluationError(f"the test pairs have no {what}: {why}")
    return source, target


def _find_image(place: str, pairs: Pairs, manifest: Manifest | None) -> int | None:
    """Position of the target image in the gallery: by place, else by content."""
    places = pairs.images.to_pylist()
    if place in places:
        return places.index(place)
    wanted = None if manifest is None or not len(manifest) else manifest.poisoned["sha256"][0].as_py()
    for i, candidate in enumerate(places):
        if wanted is not None and hashlib.sha256(read_bytes(candidate)).hexdigest() == wanted:
            return i
    return None


def _groups(pairs: Pairs, goals: tuple[RetrievalGoal, ...]) -> dict[str, np.ndarray]:
    """Pairs by what the attack has to do with them: all, each class of a goal, the rest."""
    classes = list(dict.fromkeys(c for goal in goals for c in (goal.source, goal.target)))
    masks = {name: pairs.labelled(name) for name in classes}
    groups = {"all": np.ones(len(pairs), dtype=bool)} | {name: mask for name, mask in masks.items() if mask.any()}
    if masks:
        rest = ~np.logical_or.reduce(list(masks.values()))
        if rest.any():
            groups["other classes"] = rest
    return groups


def _check(measured, name, utility, pairs, groups, clean, runs) -> list[Warning]:
    found: list[Warning] = []
    for m in measured:
        goal = f"{m.goal.source} to {m.goal.target}"
        found += checks.few_queries(goal, len(m.queries))
        found += checks.few_targets(goal, len(m.targets))
        if "clean" in m.models:
            r = m.models["clean"]
            chance = chance_hit(10, targets=r.targets, gallery=r.gallery)
            found += checks.clean_succeeds(goal, clean_hit=r.hit(10), chance_hit=chance)
            found += below_chance(goal, r, m.image)
    if measured and clean is None:
        found += checks.no_clean_model()
    found += checks.unequal_recipes(runs.get(name), runs.get("clean"))
    if clean is not None and measured:
        falls = {}
        for group, mask in groups.items():
            parts = {m: _part(r, mask, pairs.image_index) for m, r in utility.items()}
            falls[group] = {way: parts["clean"][way] - parts[name][way] for way in ("tr", "ir")}
        found += checks.collapsed_class(falls)
    return found


def _part(ranks: RetrievalRanks, mask: np.ndarray, image_index: np.ndarray) -> dict[str, float]:
    images = np.unique(image_index[mask])
    return recall(RetrievalRanks(ranks.image_to_text[images], ranks.text_to_image[mask]), 10)
