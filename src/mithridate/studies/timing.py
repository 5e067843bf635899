"""What a study took, and how long the rest takes: by what is done of it, else by a few steps of training."""

import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import torch

from mithridate.data.read import read_pairs
from mithridate.encoder.encoder import load_encoder
from mithridate.sealed import read_object
from mithridate.studies.execute import LOG
from mithridate.studies.graph import Graph
from mithridate.studies.spec.data import ToySpec
from mithridate.studies.stages.initial_model import InitialModel
from mithridate.studies.stages.measured_cell import MeasuredCell
from mithridate.studies.stages.stage import RECORD
from mithridate.studies.stages.trained_model import TrainedModel
from mithridate.toy.world import write_toy_world
from mithridate.training.loop import train

_PICTURES = 128  # of a batch of the trial, at most
_BESIDES = 1.2  # what worlds, poison and measuring add to training


def seconds_spent(out: Path) -> dict[str, float]:
    """What the stages done in `out` took, by kind, most first: seconds of one process, of several added up."""
    spent: dict[str, float] = {}
    try:
        lines = (out / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        with suppress(ValueError, KeyError, TypeError, OverflowError, RecursionError):  # a line that is being written
            record = json.loads(line)
            spent[str(record["kind"])] = spent.get(str(record["kind"]), 0.0) + _of_a_clock(record["seconds"])
    return dict(sorted(spent.items(), key=lambda entry: -entry[1]))


def seconds_left(graph: Graph, wanted: Iterable[str] | None = None) -> float | None:
    """How long what is left takes one process, by what is done of its kind; None where too little is.

    `wanted`: of these measurements, by default of all.
    """
    spent: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for task in graph.tasks.values():
        seconds = _seconds(task.folder)
        if seconds is not None:
            for alike in task.stage.alike():
                spent.setdefault(alike, []).append((seconds, task.stage.cost()))
    total = 0.0
    for task in graph.left(wanted):
        alike = next((alike for alike in task.stage.alike() if alike in spent), None)
        if alike is None:
            if isinstance(task.stage, TrainedModel | MeasuredCell):
                return None
            continue
        seconds, done = (sum(part) for part in zip(*spent[alike]))
        total += task.stage.cost() * seconds / done
    return total


def _seconds(folder: Path) -> float | None:
    try:
        return _of_a_clock(read_object(folder / RECORD)["seconds"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def _of_a_clock(value: Any) -> float:
    """`value` if it can be a number of seconds, else `ValueError`."""
    seconds = float(value)
    if not 0 <= seconds < inf:
        raise ValueError(f"{seconds} seconds")
    return seconds


def seconds_by_trial(graph: Graph) -> float | None:
    """As `seconds_left` for a process with a core of its own, by a few steps of the first training that is left.

    None where that is not on a toy world.
    """
    left = [task.stage for task in graph.left() if isinstance(task.stage, TrainedModel)]
    first = next((s for s in left if isinstance(s.start, InitialModel) and _toy_of(s)), None)
    if first is None or not isinstance(first.start, InitialModel):
        return None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        toy = _toy_of(first)
        assert toy is not None  # chosen so
        size = min(first.config.batch_size, _PICTURES)
        # as many pictures as a batch has pairs: with the captions of each that makes five steps an epoch
        write_toy_world(folder / "world", train=size, test=0, size=toy.size, classes=toy.classes)
        start = load_encoder(first.start.encoder, pretrained=first.start.pretrained)
        config = replace(first.config, epochs=1, batch_size=size, save_epochs=False, warmup=0)
        ends: list[float] = []
        with _one_thread():
            train(
                start,
                read_pairs(folder / "world"),
                config=config,
                cache=folder / "cache",
                on_step=lambda *_: ends.append(time.process_time()),
            )
    step = min(after - before for before, after in pairwise(ends))
    return _BESIDES * sum(stage.cost() for stage in left) * step / size


@contextmanager
def _one_thread() -> Iterator[None]:
    """What is counted inside in processor time is what a core of its own takes, whatever else runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _toy_of(stage: TrainedModel) -> ToySpec | None:
    """The toy dataset that a training is on, if it is."""
    toy = stage.pairs.clean.toy
    return None if toy is None else toy.toy
