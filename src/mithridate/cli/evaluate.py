"""`mithridate evaluate RUN DATA --out DIR`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.cli.common import CacheOptions, Data, ReadOptions, Threads, emit, parse, suggest
from mithridate.cli.progress import display
from mithridate.errors import EvaluationError
from mithridate.folders import new_folder, refuse_existing
from mithridate.poisoning.goals import AttackGoal, CaptionsToClass, TriggerToClass
from mithridate.poisoning.manifest import read_manifest
from mithridate.poisoning.triggers import describe, parse_trigger
from mithridate.text import say

if TYPE_CHECKING:
    from mithridate.encoder.encoder import Encoder
    from mithridate.evaluation.measurement import Evaluation

BEFORE, CLEAN = "before", "clean"


@dataclass(frozen=True)
class Evaluate:
    """Attack success and utility of a model on test pairs: evaluation.json, report.json, report.md and report.html."""

    encoder: Annotated[Positional[str], arg(metavar="RUN")]
    """The model: a run's folder, or anything that names an encoder."""
    data: Data
    """Test pairs: a table, tar shards, an annotation file, or a folder."""
    out: Path
    """Folder to write."""
    name: str = "model"
    """What the model is called in the report."""
    clean: str | None = None
    """The same model trained without poison, called "clean": the reference of checks and of shifts."""
    before: str | None = None
    """The model before a repair, called "before"."""
    model: tuple[str, ...] = ()
    """Further models on the same pairs: NAME=RUN, one or more."""
    reference: str | None = None
    """Which of the other models takes the place of --clean."""
    manifest: Path | None = None
    """What was attacked: the manifest that mithridate poison wrote."""
    goal: tuple[str, ...] = ()
    """In place of a manifest: SOURCE:TARGET, one or more."""
    trigger: tuple[str, ...] = ()
    """In place of a manifest: triggers that are put into test images (patch:size=16), one or more, with --target."""
    target: str | None = None
    """The class that images with --trigger should be taken for."""
    pretrained: str | None = None
    """Pretrained tag or checkpoint file of the model."""
    train: str | None = None
    """What the model was trained on: test images in it are warned of, and the manifest is held against it."""
    train_split: str | None = None
    """Split of the training data."""
    by_epoch: bool = False
    """Measure the model after every epoch too, where it was trained with --save-epochs: success may swing."""
    probe: Literal["none", "lbfgs", "adamw"] = "none"
    """Measure triggers and single targets by a linear probe on the test images as well."""
    seed: int = 0
    """Of the random captions, the bootstrap and the queries shown."""
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    cache: OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.encoder.encoder import load_encoder
        from mithridate.evaluation.epochs import success_by_epoch
        from mithridate.evaluation.evaluate import evaluate
        from mithridate.evaluation.evaluation_file import write_evaluation
        from mithridate.evaluation.probe import PROBES
        from mithridate.report.console import print_brief
        from mithridate.report.sections.evaluation import evaluation_report
        from mithridate.report.write import write_report
        from mithridate.training.run import read_run

        refuse_existing(self.out, overwrite=self.overwrite)
        runs, reference, goals = self._runs(), self._reference(), self._goals()
        manifest = None if self.manifest is None else read_manifest(self.manifest)
        pairs = self.read.read(self.data)
        # `--split` is of the test data, often of the same table
        train = replace(self.read, split=self.train_split).read(self.train) if self.train else None
        with display(quiet=self.json) as show:

            def measure(models: "dict[str, Encoder]", **more) -> "Evaluation":
                cache = {"cache": self.cache.folder, "cache_limit": self.cache.limit}
                options = {"goals": goals, "seed": self.seed, "progress": show.stage, **cache, **more}
                return evaluate(models, pairs, manifest, **options)

            by_epoch = ()
            if self.by_epoch:
                by_epoch = success_by_epoch(Path(self.encoder), lambda encoder: measure({self.name: encoder}))
            evaluation = measure(
                {
                    name: load_encoder(run, pretrained=self.pretrained if name == self.name else None)
                    for name, run in runs.items()
                },
                reference=reference,
                train=train,
                probe=None if self.probe == "none" else PROBES[self.probe](),
                runs={name: read_run(Path(run)) for name, run in runs.items()},
            )
        evaluation = replace(evaluation, measurements=(*evaluation.measurements, *by_epoch))
        report = evaluation_report(evaluation)
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_evaluation(evaluation, folder)
            write_report(report, folder)
        if self.json:
            emit(report.headline, as_json=True)
        else:
            print_brief(report)
            say(self.out / "report.html")
            if self.clean is None and self.manifest is not None:
                suggest("train", "CLEAN-PAIRS", "--out", "clean-run")  # what success is held against
            else:
                suggest("compare", self.out, "OTHER-REPORT", "--out", "difference")

    def _runs(self) -> dict[str, str]:
        """By name what each model is loaded from, the evaluated one first. Raises `EvaluationError`."""
        named = [(self.name, self.encoder)]
        named += [(name, run) for name, run in ((BEFORE, self.before), (CLEAN, self.clean)) if run is not None]
        for text in self.model:
            name, equals, run = text.partition("=")
            if not (name and equals and run):
                raise EvaluationError(f"expected --model NAME=RUN, got {text!r}")
            named.append((name, run))
        names = [name for name, _ in named]
        if len(set(names)) < len(names):
            raise EvaluationError(f"every model needs a name of its own, got {', '.join(names)}")
        return dict(named)

    def _reference(self) -> str | None:
        if self.reference is not None and self.clean is not None:
            raise EvaluationError("--clean is the reference already; leave out --reference, or name it by --model")
        return CLEAN if self.clean is not None else self.reference

    def _goals(self) -> tuple[AttackGoal, ...]:
        """The goals of the command line. Raises `EvaluationError` where they contradict each other."""
        if self.manifest is not None and (self.goal or self.trigger):
            raise EvaluationError("the goals are those of the manifest; leave out --goal and --trigger, or --manifest")
        if bool(self.trigger) != (self.target is not None):
            raise EvaluationError("--trigger and --target belong together; pass both: --trigger patch --target CLASS")
        triggers = (describe(parse_trigger(text), full=True) for text in self.trigger)
        return (
            *(CaptionsToClass.parse(text) for text in self.goal),
            *(TriggerToClass(trigger, self.target or "") for trigger in triggers),
        )


def run(argv: Sequence[str]) -> None:
    parse(Evaluate, argv, prog="evaluate").run()
