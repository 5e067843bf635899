"""A test set with a trigger on every image, for the evaluators of others: CLIP_benchmark's layout."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from mithridate.data.labelled import write_clip_benchmark
from mithridate.data.pairs import Pairs
from mithridate.data.prompts import templates as prompt_templates
from mithridate.errors import AttackError
from mithridate.folders import refuse_existing
from mithridate.poisoning.craft import Progress, _silent, craft
from mithridate.poisoning.manifest import Manifest
from mithridate.poisoning.plan import Aim, Edits
from mithridate.poisoning.triggers import Stamp, parse_trigger


def triggered_aims(manifest: Manifest) -> tuple[Aim, ...]:
    """What the attack wants of images that carry a trigger. Raises `AttackError` where there is nothing of the kind."""
    aims = tuple(aim for aim in manifest.aims if aim.trigger is not None)
    if not aims:
        raise AttackError(
            f"the attack {manifest.attack} has no trigger on images, so there is no triggered test set; expected the "
            "manifest of a backdoor"
        )
    return aims


def write_trigger_test(
    manifest: Manifest,
    pairs: Pairs,
    out: Path,
    *,
    aim: int = 1,
    labels: Literal["target", "true"] = "target",
    templates: Sequence[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress = _silent,
) -> Path:
    """`out`, a new folder that CLIP_benchmark reads (`wds/NAME`): labelled `pairs`, each image with the trigger.

    `aim`: which of the manifest's triggers, from 1. `labels` "target": images of other classes, labelled as the target,
    so that accuracy is the success rate (ASR); "true": all images under their own class, so that it is the accuracy
    under attack. Images keep their containers and formats. `templates`: prompts, by default CLIP's 80. Raises
    `AttackError` for a manifest without triggers and where one does not fit, `DataError` for pairs without one class an
    image.
    """
    aims = triggered_aims(manifest)
    if not 1 <= aim <= len(aims):
        raise AttackError(f"the manifest has {len(aims)} triggers, counted from 1; got {aim}")
    refuse_existing(Path(out), overwrite=overwrite)
    chosen = aims[aim - 1]
    stamp = Stamp(parse_trigger(chosen.trigger or ""))
    with tempfile.TemporaryDirectory() as folder:
        edits = Edits(pairs.images, (stamp,), np.zeros(len(pairs.images), np.int64))
        texts = [""] * len(edits)
        made = craft(edits, texts, Path(folder) / "images", seed=np.random.SeedSequence(seed), progress=progress)
        stamped = pairs.with_columns(image=made.places.take(pa.array(pairs.image_index)))
        return write_clip_benchmark(
            stamped,
            out,
            templates=prompt_templates() if templates is None else templates,
            label_as=chosen.target if labels == "target" else None,
            overwrite=overwrite,
        )
