"""`mithridate demo`: the preset `demo`, a poisoned and a clean model on the toy dataset, and one page."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mithridate.cli.common import Threads, emit, parse
from mithridate.cli.progress import display
from mithridate.data.pairs import nearest_names
from mithridate.errors import MithridateError
from mithridate.folders import refuse_existing, was_killed
from mithridate.text import say
from mithridate.toy.toy import CLASSES

if TYPE_CHECKING:
    from mithridate.studies.analysis.outcomes import Outcome
    from mithridate.studies.spec.study import Study

EPOCHS = 4


@dataclass(frozen=True)
class Demo:
    """Attack II of mmPoison (sheep to aeroplane) on the toy world, in minutes on two CPU cores.

    Like the paper, it replaces every training image of class A: the share of the class decides.
    """

    out: Path = Path("runs/demo")
    """Folder to write; report.html in it is the result. Killed and started again, the same command goes on."""
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
        for name in (self.source, self.target):
            if name not in CLASSES:
                raise MithridateError(f"the toy world has no class {name!r}; {nearest_names(name, CLASSES)}")
        if self.source == self.target:
            raise MithridateError(f"source and target must differ, both are {self.source!r}")
        # torch is not loaded for --help
        from mithridate.studies.analysis.outcomes import read_outcomes
        from mithridate.studies.record import read_record
        from mithridate.studies.run import run_study

        study = self._study()
        if self.overwrite or read_record(self.out) is None:
            refuse_existing(self.out, overwrite=self.overwrite or was_killed(self.out))
            shutil.rmtree(self.out, ignore_errors=True)
        times = [0.0]
        with display(quiet=self.json) as show:
            summary = run_study(
                study,
                self.out,
                keep_models=True,
                on_cell=lambda cell: times.append(cell.seconds),
                progress=show.stage,
                on_training=lambda stage: show.training(
                    f"training the {'clean' if stage.pairs == stage.pairs.clean else 'poisoned'} model"
                    + (f", seed {stage.config.seed}" if self.seeds > 1 else "")
                ),
            )
        for _, message in summary.failed:
            raise MithridateError(message)
        headlines = []
        for i, outcome in enumerate(read_outcomes(study, self.out)):
            # a cell that was done before took no time
            seconds = round(times[i + 1] - times[i], 1) if len(times) == self.seeds + 1 else 0.0
            headlines.append({**self._write(outcome), "seconds": seconds})
        result = headlines[0] if self.seeds == 1 else _mean(headlines) | {"seeds": headlines}
        if self.json:
            emit(result, as_json=True)
        else:
            say(*sorted(self.out.glob("**/report.html")))

    def _study(self) -> "Study":
        """The preset with these options. Raises `AttackError` for an impossible strength."""
        from mithridate.poisoning.relabel import SingleLabel
        from mithridate.poisoning.strength import Strength
        from mithridate.studies.spec.load import read_study

        Strength(class_share=self.class_share)  # checks its range, before minutes are spent
        attack = SingleLabel(source=self.source, target=self.target, class_share=self.class_share)
        study = read_study("demo", seeds=range(self.seed, self.seed + self.seeds))
        (experiment,) = study.experiments
        cells = tuple(
            replace(cell, attack=attack, train=replace(cell.train, epochs=self.epochs)) for cell in experiment.cells
        )
        return replace(study, experiments=(replace(experiment, cells=cells),))

    def _write(self, outcome: "Outcome") -> dict[str, Any]:
        """The page of one seed; gives back its headline."""
        from mithridate.evaluation.evaluation_file import read_evaluation, write_evaluation
        from mithridate.report.console import print_report
        from mithridate.report.sections.evaluation import evaluation_report
        from mithridate.report.write import write_report
        from mithridate.studies.plan import InputFingerprints, measured
        from mithridate.studies.store import Store

        store, stage = Store(self.out), measured(outcome.cell, InputFingerprints({}))
        assert stage.poison is not None
        assert stage.test.toy is not None
        out = self.out if self.seeds == 1 else self.out / f"seed-{outcome.cell.seed}"
        out.mkdir(exist_ok=True)
        evaluation = read_evaluation(outcome.evaluation)
        report = evaluation_report(evaluation)
        write_evaluation(evaluation, out)
        write_report(report, out)
        part = "" if self.seeds == 1 else f"{out.name}/"
        for name, one in (("poisoned", stage.model), ("clean", stage.clean), ("poison", stage.poison)):
            store.link(f"{part}{name}", one)
        store.link(f"{part}toy", stage.test.toy, "data")
        if not self.json:
            print_report(report)
        return report.headline


def _mean(values: Sequence[Any]) -> Any:
    """The mean of nested dicts of numbers, key by key."""
    if isinstance(values[0], dict):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    return float(np.mean(values))


def run(argv: Sequence[str]) -> None:
    parse(Demo, argv, prog="demo").run()
