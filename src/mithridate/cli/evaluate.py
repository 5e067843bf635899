"""`mithridate evaluate RUN DATA --out DIR`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.cli.common import CacheOptions, Data, Display, ReadOptions, Threads, display, emit, parse
from mithridate.data.pairs import Pairs
from mithridate.encoder.encoder import Encoder, load_encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.probe import PROBES
from mithridate.evaluation.success import success_by_epoch
from mithridate.evaluation.tradeoff import measures
from mithridate.folders import new_folder, refuse_existing
from mithridate.poisoning.goals import CaptionsToClass
from mithridate.poisoning.manifest import Manifest, read_manifest
from mithridate.report.console import print_report
from mithridate.report.write import write_report
from mithridate.statistics.estimate import Estimate
from mithridate.text import say
from mithridate.training.run import read_run


@dataclass(frozen=True)
class Evaluate:
    """Attack success and utility of a model on test pairs: report.json, report.md and report.html."""

    model: Annotated[Positional[str], arg(metavar="RUN")]
    """The model: a run's folder, or anything that names an encoder."""
    data: Data
    """Test pairs: a table, tar shards, an annotation file, or a folder."""
    out: Path
    """Folder to write."""
    manifest: Path | None = None
    """What was attacked: the manifest that mithridate poison wrote."""
    goal: tuple[str, ...] = ()
    """In place of a manifest: SOURCE:TARGET, one or more."""
    clean: str | None = None
    """The same model trained without poison: a run's folder, or anything that names an encoder."""
    pretrained: str | None = None
    """Pretrained tag or checkpoint file of the model."""
    train: str | None = None
    """What the model was trained on: test images in it are warned of, and the manifest is held against it."""
    train_split: str | None = None
    """Split of the training data."""
    by_epoch: bool = False
    """Measure the model after every epoch too, where it was trained with --save-epochs: some defences let success swing
    from epoch to epoch."""
    probe: Literal["none", "lbfgs", "adamw"] = "none"
    """Measure backdoors and single targets by a linear probe on the test images as well."""
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
        refuse_existing(self.out, overwrite=self.overwrite)
        if self.manifest is not None and self.goal:
            raise EvaluationError("the goals are those of the manifest; leave out --goal, or --manifest")
        manifest = None if self.manifest is None else read_manifest(self.manifest)
        pairs = self.read.read(self.data)
        trained_on = None
        if self.train:
            # `--split` is of the test data, often of the same table
            options = replace(self.read, split=self.train_split)
            trained_on = options.read(self.train)
        name = "poisoned" if manifest else "model"
        goals = tuple(CaptionsToClass.parse(text) for text in self.goal)
        with display(quiet=self.json) as show:
            measure = partial(self._after, pairs=pairs, manifest=manifest, goals=goals, show=show)
            epochs = success_by_epoch(Path(self.model), measure) if self.by_epoch else None
            report = evaluate(
                load_encoder(self.model, pretrained=self.pretrained),
                pairs,
                manifest,
                goals=goals,
                clean=None if self.clean is None else load_encoder(self.clean),
                train=trained_on,
                probe=None if self.probe == "none" else PROBES[self.probe](),
                seed=self.seed,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                runs={
                    model: read_run(Path(where))
                    for model, where in ((name, self.model), ("clean", self.clean))
                    if where
                },
                progress=show.stage,
            )
        if epochs is not None:
            table, figure = epochs
            report = replace(report, tables=(*report.tables, table), figures=(*report.figures, figure))
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_report(report, folder)
        if self.json:
            emit(report.headline, as_json=True)
        else:
            print_report(report)
            say(self.out / "report.html")

    def _after(
        self,
        encoder: Encoder,
        *,
        pairs: Pairs,
        manifest: Manifest | None,
        goals: tuple[CaptionsToClass, ...],
        show: Display,
    ) -> dict[str, Estimate]:
        """What is measured of the model of one epoch."""
        report = evaluate(
            encoder,
            pairs,
            manifest,
            goals=goals,
            seed=self.seed,
            cache=self.cache.folder,
            cache_limit=self.cache.limit,
            progress=show.stage,
        )
        return measures(report, "poisoned" if manifest else "model")


def run(argv: Sequence[str]) -> None:
    parse(Evaluate, argv, prog="evaluate").run()
