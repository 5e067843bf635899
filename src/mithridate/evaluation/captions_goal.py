"""Do captions of the source class retrieve the target: with every comparison that gives the number a meaning."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mithridate.data.images import read_bytes
from mithridate.data.pairs import Pairs, nearest_names
from mithridate.encoder.embed import embed_images, image_source
from mithridate.errors import EvaluationError
from mithridate.evaluation import checks
from mithridate.evaluation.material import Findings, Material, retrieval_rows, unit_ranks
from mithridate.metrics import names
from mithridate.metrics.retrieval import target_ranks
from mithridate.poisoning.goals import CaptionsToClass, RetrievalGoal
from mithridate.poisoning.manifest import Manifest
from mithridate.randomness import stream


@dataclass(frozen=True)
class Queries:
    """Rows of captions (q,) that should not retrieve the target, and the targets (t,), positions of images."""

    rows: np.ndarray
    targets: np.ndarray


def measure_captions_goal(
    m: Material, goal: RetrievalGoal, goals: Sequence[RetrievalGoal], manifest: Manifest | None, found: Findings
) -> Queries:
    """Hit@K and the like of `goal`, of random captions and from image to text; adds to `found`.

    `goals` are all of the evaluation: captions of their classes are no control, as they may find the target rightly.
    """
    source, target = goal_masks(goal, m.pairs)
    rows = np.flatnonzero(source)
    galleries = {model: e.image for model, e in m.embedded.items()}
    locations: Sequence[str] = m.pairs.images.to_pylist()
    if isinstance(goal, CaptionsToClass):
        targets = np.unique(m.pairs.image_index[target])
    else:
        at = find_image(goal.image, m.pairs, manifest)
        if at is None:
            found.warnings += checks.target_added(goal.image)
            at = len(m.pairs.images)
            added = pa.array([goal.image])
            galleries = {
                model: np.concatenate(
                    [galleries[model], embed_images(e, image_source(e, added, cache=m.cache, limit=m.cache_limit), 1)]
                )
                for model, e in m.encoders.items()
            }
        targets = np.array([at])
    control = _control(m, goal, goals, len(rows))
    found.warnings += checks.control_contains_target(goal.key, m.pairs.labelled(goal.target)[control])

    def add(task: str, group: str, uid: tuple[str, ...], image: np.ndarray, ranks: dict) -> None:
        for model, each in ranks.items():
            found.measurements += retrieval_rows(model, each, goal=goal.key, group=group, seed=m.seed, image=image)
        found.ranks.append(unit_ranks(task, goal.key, uid, image, ranks))

    image = m.image_of_pair
    text = {model: e.text for model, e in m.embedded.items()}
    forth = {model: target_ranks(text[model][rows], galleries[model], targets) for model in m.encoders}
    add(names.ATTACK, names.ALL, m.uids(rows), image[rows], forth)
    by_control = {m.model: target_ranks(text[m.model][control], galleries[m.model], targets)}
    add(names.CONTROL, names.RANDOM_CAPTIONS, m.uids(control), image[control], by_control)
    back = {model: target_ranks(galleries[model][targets], text[model], rows) for model in m.encoders}
    uid = m.uids_of_images(targets) if targets.max() < len(locations) else (str(getattr(goal, "image", "")),)
    add(names.ATTACK_IMAGES, names.TARGET_IMAGES, uid, targets, back)

    found.warnings += checks.few_queries(goal.key, len(rows)) + checks.few_targets(goal.key, len(targets))
    if m.reference is not None:
        found.warnings += checks.clean_succeeds(goal.key, m.reference, forth[m.reference])
        found.warnings += checks.below_chance(goal.key, m.reference, forth[m.reference], image[rows])
    return Queries(rows, targets)


def _control(m: Material, goal: RetrievalGoal, goals: Sequence[RetrievalGoal], count: int) -> np.ndarray:
    """Rows of at most `count` captions of classes that no goal names, drawn without repeats."""
    part = np.zeros(len(m.pairs), dtype=bool)
    for other in goals:
        part |= m.pairs.labelled(other.source) | m.pairs.labelled(other.target)
    others = np.flatnonzero(~part)
    if not len(others):
        raise EvaluationError("the control needs captions of classes outside the goals, and the test pairs have none")
    rng = stream(m.seed, f"random captions, {goal.key}")
    return np.sort(rng.choice(others, size=min(count, len(others)), replace=False))


def goal_masks(goal: RetrievalGoal, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """(n,) pairs of the source class alone and of the target class alone, as attacks choose them in training.

    Raises `EvaluationError` where there are none.
    """
    a, b = pairs.labelled(goal.source), pairs.labelled(goal.target)
    source, target = a & ~b, b & ~a
    wanted = [("query", source, goal.source, goal.target)]
    if isinstance(goal, CaptionsToClass):
        wanted.append(("target image", target, goal.target, goal.source))
    for what, mask, label, other in wanted:
        if not mask.any():
            why = (
                f"all that are labelled {label!r} are labelled {other!r} too; take other classes, or other test pairs"
                if label in pairs.classes
                else f"none is labelled {label!r}; {nearest_names(label, pairs.classes)}"
            )
            raise EvaluationError(f"the test pairs have no {what}: {why}")
    return source, target


def find_image(location: str, pairs: Pairs, manifest: Manifest | None) -> int | None:
    """Position of the target image among the test images: by location, else by content, which `manifest` knows."""
    locations = pairs.images.to_pylist()
    if location in locations:
        return locations.index(location)
    if manifest is None or not len(manifest):
        return None
    wanted = manifest.poisoned["sha256"][0].as_py()
    for at, candidate in enumerate(locations):
        if hashlib.sha256(read_bytes(candidate)).hexdigest() == wanted:
            return at
    return None
