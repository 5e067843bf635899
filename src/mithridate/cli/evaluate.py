"""`mithridate evaluate RUN DATA --out DIR`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.cli.common import CacheOptions, Data, ReadOptions, display, emit, parse
from mithridate.encoder.encoder import load_encoder
from mithridate.errors import EvaluationError
from mithridate.evaluation.evaluate import evaluate
from mithridate.folders import new_folder, refuse_existing
from mithridate.poisoning.manifest import read_manifest
from mithridate.poisoning.plan import Goal
from mithridate.report.console import print_report
from mithridate.report.write import write_report
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
    seed: int = 0
    """Of the random captions, the bootstrap and the queries shown."""
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    cache: OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
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
        with display(quiet=self.json) as show:
            report = evaluate(
                load_encoder(self.model, pretrained=self.pretrained),
                pairs,
                manifest,
                goals=tuple(Goal.parse(text) for text in self.goal),
                clean=None if self.clean is None else load_encoder(self.clean),
                train=trained_on,
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
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_report(report, folder)
        if self.json:
            emit(report.headline, as_json=True)
        else:
            print_report(report)
            print(f"{self.out / 'report.html'}")


def run(argv: Sequence[str]) -> None:
    parse(Evaluate, argv, prog="evaluate").run()
