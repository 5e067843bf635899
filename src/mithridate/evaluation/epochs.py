"""Success and utility after every epoch that a training run has kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mithridate.errors import EvaluationError
from mithridate.evaluation.measurement import Evaluation, Measurement

if TYPE_CHECKING:
    from mithridate.encoder.encoder import Encoder


def success_by_epoch(run: Path, measure: Callable[[Encoder], Evaluation]) -> tuple[Measurement, ...]:
    """Success of every goal and utility after each epoch, with `epoch` set: rows for `Evaluation.measurements`.

    `measure` evaluates one encoder. Checkpoints of the folder `run` are loaded one after the other. Some defences let
    success swing from epoch to epoch (RoCLIP): the last one alone may mislead. Raises `EvaluationError` where no
    checkpoint was kept.
    """
    from mithridate.encoder.encoder import load_encoder

    folders = sorted(
        (int(folder.name), folder) for folder in (Path(run) / "epochs").glob("*") if folder.name.isdecimal()
    )
    if not folders:
        raise EvaluationError(f"{run} has no epochs/NNN; train with --save-epochs to keep the model of every epoch")
    found = []
    for epoch, folder in folders:
        evaluation = measure(load_encoder(str(folder)))
        kept = [*evaluation.success().values(), *evaluation.utility().values()]
        found += [replace(measurement, epoch=epoch) for measurement in kept]
    return tuple(found)
