"""A test set with a trigger on every image, for the evaluators of others: CLIP_benchmark's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from mithridate.data.labelled import write_clip_benchmark
from mithridate.data.pairs import Pairs
from mithridate.data.prompts import templates as prompt_templates
from mithridate.errors import AttackError
from mithridate.folders import refuse_existing, scratch_folder
from mithridate.poisoning.craft import Progress, _silent, craft
from mithridate.poisoning.goals import TriggerToClass
from mithridate.poisoning.manifest import Manifest
from mithridate.poisoning.plan import Edits
from mithridate.poisoning.triggers import Stamp, parse_trigger


def trigger_goals(manifest: Manifest) -> tuple[TriggerToClass, ...]:
    """What the attack wants of images that carry a trigger. Raises `AttackError` where there is nothing of the kind."""
    goals = tuple(goal for goal in manifest.goals if isinstance(goal, TriggerToClass))
    if not goals:
        raise AttackError(
            f"the attack {manifest.attack} has no trigger on images, so there is no triggered test set; expected the "
            "manifest of a backdoor"
        )
    return goals


def write_trigger_test(
    manifest: Manifest,
    pairs: Pairs,
    out: Path,
    *,
    goal: int = 1,
    labels: Literal["target", "true"] = "target",
    templates: Sequence[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = _silent,
) -> Path:
    """`out`, a new folder that CLIP_benchmark reads (`wds/NAME`): labelled `pairs`, each image with the trigger.

    `goal`: which of the manifest's triggers, from 1. `labels` "target": images of other classes, labelled as the
    target, so that accuracy is the success rate (ASR); "true": all images under their own class, so that it is the
    accuracy under attack. Images keep their containers and formats. `templates`: prompts, by default CLIP's 80. Raises
    `AttackError` for a manifest without triggers and where one does not fit, `DataError` for pairs without one class an
    image.
    """
    goals = trigger_goals(manifest)
    if not 1 <= goal <= len(goals):
        raise AttackError(f"the manifest has {len(goals)} triggers, counted from 1; got {goal}")
    refuse_existing(Path(out), overwrite=overwrite)
    chosen = goals[goal - 1]
    stamp = Stamp(parse_trigger(chosen.trigger))
    with scratch_folder(Path(out)) as folder:
        edits = Edits(pairs.images, (stamp,), np.zeros(len(pairs.images), np.int64))
        texts = [""] * len(edits)
        made = craft(edits, texts, folder / "images", seed=seed, progress=progress)
        stamped = pairs.with_columns(image=made.places.take(pa.array(pairs.image_index)))
        return write_clip_benchmark(
            stamped,
            out,
            templates=prompt_templates() if templates is None else templates,
            label_as=chosen.target if labels == "target" else None,
            overwrite=overwrite,
        )
