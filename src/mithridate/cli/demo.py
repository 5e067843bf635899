"""`mithridate demo`: toy world, poison, a clean and a poisoned model from scratch, both measured, one page."""

import dataclasses
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mithridate.cli.common import Display, Threads, display, emit, parse
from mithridate.data.pairs import nearest_names
from mithridate.data.read import read_pairs
from mithridate.data.write import write_table
from mithridate.encoder.encoder import load_encoder
from mithridate.errors import MithridateError
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.evaluation_file import write_evaluation
from mithridate.folders import refuse_existing, was_killed
from mithridate.poisoning.apply import poison
from mithridate.poisoning.manifest import write_manifest
from mithridate.poisoning.relabel import SingleLabel
from mithridate.poisoning.strength import Strength
from mithridate.report.console import print_report
from mithridate.report.document import Report
from mithridate.report.sections.evaluation import evaluation_report
from mithridate.report.write import write_report
from mithridate.text import say
from mithridate.toy.toy import CLASSES
from mithridate.toy.world import write_toy_world
from mithridate.training.config import SCRATCH, TrainConfig
from mithridate.training.loop import train
from mithridate.training.run import read_run

TRAIN_IMAGES, TEST_IMAGES = 6000, 540
EPOCHS = 4


@dataclass(frozen=True)
class Demo:
    """Attack II of mmPoison (sheep to aeroplane) on the toy world, in minutes on two CPU cores.

    Like the paper, it replaces every training image of class A: the share of the class decides.
    """

    out: Path = Path("runs/demo")
    """Folder to write; report.html in it is the result."""
    source: str = "sheep"
    """Class A: its captions are used."""
    target: str = "aeroplane"
    """Class B: its images are used."""
    class_share: float = 1.0
    """Share of the images of class A that are replaced, in (0, 1]."""
    epochs: int = EPOCHS
    """Passes over the training pairs."""
    seed: int = 0
    """The first seed."""
    seeds: int = 1
    """How many seeds: each draws a world, a poison and both models anew."""
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        if self.seeds < 1:
            raise MithridateError(f"seeds must be at least 1, got {self.seeds}")
        refuse_existing(self.out, overwrite=self.overwrite or was_killed(self.out))
        Strength(class_share=self.class_share)  # checks its range, before minutes are spent
        for name in (self.source, self.target):
            if name not in CLASSES:
                raise MithridateError(f"the toy world has no class {name!r}; {nearest_names(name, CLASSES)}")
        if self.source == self.target:
            raise MithridateError(f"source and target must differ, both are {self.source!r}")
        attack = SingleLabel(source=self.source, target=self.target, class_share=self.class_share)
        if self.out.exists():
            shutil.rmtree(self.out)
        try:
            self._measure(attack)
        except BaseException:
            shutil.rmtree(self.out, ignore_errors=True)
            raise

    def _measure(self, attack: SingleLabel) -> None:
        headlines = []
        for seed in range(self.seed, self.seed + self.seeds):
            # written in place, not renamed at the end: the overlay and the manifest name these paths
            part = self.out if self.seeds == 1 else self.out / f"seed-{seed}"
            config = dataclasses.replace(SCRATCH, epochs=self.epochs)
            with display(quiet=self.json) as show:
                report, seconds = run_once(part, attack, seed=seed, config=config, show=show)
            headlines.append({**report.headline, "seconds": seconds})
            if not self.json:
                print_report(report)
                say(f"seed {seed}: {round(seconds)} s", "")
        result = headlines[0] if self.seeds == 1 else _mean(headlines) | {"seeds": headlines}
        if self.json:
            emit(result, as_json=True)
        else:
            say(*sorted(self.out.glob("**/report.html")))


def run_once(out: Path, attack: SingleLabel, *, seed: int, config: TrainConfig, show: Display) -> tuple[Report, float]:
    """One seed into `out`: what `data toy`, `poison`, `train` twice and `evaluate` do one by one."""
    clock = time.perf_counter()
    config = dataclasses.replace(config, seed=seed)
    write_toy_world(
        out / "toy",
        train=TRAIN_IMAGES,
        test=TEST_IMAGES,
        seed=seed,
        progress=lambda done, total: show.stage("drawing the toy world", done, total),
    )
    clean, test = (read_pairs(out / "toy", split=split) for split in ("train", "test"))
    poisoned = poison(clean, attack, seed=seed)
    (out / "poison" / "data").mkdir(parents=True)
    write_table(poisoned.pairs, out / "poison" / "data", copy_images=False)
    write_manifest(poisoned.manifest, out / "poison" / "manifest.json")
    models = {
        name: train(
            load_encoder("mithridate-tiny", seed=seed),
            pairs,
            config=config,
            out=out / name,
            cache=out / "cache",
            progress=show.stage,
            on_step=show.training(f"training the {name} model"),
        )
        for name, pairs in (("clean", clean), ("poisoned", poisoned.pairs))
    }
    evaluation = evaluate(
        {name: models[name] for name in ("poisoned", "clean")},
        test,
        poisoned.manifest,
        reference="clean",
        seed=seed,
        cache=out / "cache",
        runs={name: read_run(out / name) for name in models},
    )
    write_evaluation(evaluation, out)
    report = evaluation_report(evaluation)
    write_report(report, out)
    return report, round(time.perf_counter() - clock, 1)


def _mean(values: Sequence[Any]) -> Any:
    """The mean of nested dicts of numbers, key by key."""
    if isinstance(values[0], dict):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    return float(np.mean(values))


def run(argv: Sequence[str]) -> None:
    parse(Demo, argv, prog="demo").run()
