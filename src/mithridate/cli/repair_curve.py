"""`mithridate repair-curve CLEAN --encoder POISONED --test TEST --manifest M --out DIR`."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from tyro.conf import OmitArgPrefixes

from mithridate.cli.common import (
    CacheOptions,
    Data,
    Display,
    ReadOptions,
    Threads,
    display,
    emit,
    parse,
    pick,
    refuse_poison,
)
from mithridate.data.pairs import Pairs
from mithridate.encoder.encoder import CONFIG, Encoder, load_encoder, weights_fingerprint
from mithridate.errors import MithridateError, OutputError
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.evaluation_file import read_evaluation, write_evaluation
from mithridate.evaluation.measurement import Evaluation
from mithridate.evaluation.tradeoff import Point, measured_point
from mithridate.folders import refuse_existing, write_atomically
from mithridate.poisoning.manifest import Manifest, read_manifest
from mithridate.report.console import print_report
from mithridate.report.sections.evaluation import evaluation_report
from mithridate.report.sections.tradeoff import tradeoff_report
from mithridate.report.write import write_report
from mithridate.text import say
from mithridate.training.config import TrainConfig
from mithridate.training.loop import train
from mithridate.training.registry import OBJECTIVES
from mithridate.training.run import METRICS, MODEL

Options = TypeVar("Options")
CURVE = "curve.json"


@dataclass(frozen=True)
class RepairCurve(Generic[Options]):
    """Repair a model at several strengths and measure it after every epoch: attack success against utility.

    Killed and started again, the same command goes on.
    """

    data: Data
    """Clean pairs to repair with."""
    encoder: str
    """The poisoned model: a run's folder, or anything that names an encoder."""
    test: str
    """Test pairs."""
    manifest: Path
    """What was attacked; pairs that are still poisoned by it are refused."""
    out: Path
    """Folder to write: runs/ (every model), reports/ (every evaluation), report.html."""
    pretrained: str | None = None
    """Pretrained tag or checkpoint file of the model."""
    clean: str | None = None
    """The same model trained without poison, for its level."""
    test_split: str | None = None
    """Split of the test pairs."""
    vary: str = "lr"
    """What the strength is: `lr`, or a numeric option of the objective (weight, inmodal_weight)."""
    strengths: tuple[float, ...] = (1e-3, 1e-4, 1e-5)
    """Its values; with lr the cosine ends at a tenth of it."""
    max_loss: float = 0.02
    """Largest fall of any measure of utility that the chosen point may have."""
    objective: str = "clip"
    """clip, cleanclip, par, or any other; --objective NAME --help shows the options of each."""
    options: OmitArgPrefixes[Options] = field(kw_only=True)
    config: OmitArgPrefixes[TrainConfig] = field(default_factory=lambda: TrainConfig(epochs=2))
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    cache: OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    threads: Threads = None
    overwrite: bool = False
    """Begin again in a folder with another curve in it."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        recipes = self._recipes()
        pairs = self.read.read(self.data)
        test = self.read.read(self.test, split=self.test_split)
        manifest = read_manifest(self.manifest)
        refuse_poison(pairs, self.manifest)
        start = load_encoder(self.encoder, pretrained=self.pretrained)
        self._open(start, pairs, test, manifest)
        with display(quiet=self.json) as show:
            before = self._measure(start, test, manifest, "start", show)
            points = []
            for label, (objective, config) in recipes.items():
                points += self._repair(label, objective, config, start, pairs, test, manifest, show)
            clean = None
            if self.clean is not None:
                clean = measured_point(self._measure(load_encoder(self.clean), test, manifest, "clean", show))
        report = tradeoff_report(
            measured_point(before),
            points,
            varied=self.vary,
            title=f"Repair by {self.objective}",
            max_loss=self.max_loss,
            clean=clean,
        )
        record = json.loads((self.out / CURVE).read_text(encoding="utf-8"))
        write_report(replace(report, provenance={**report.provenance, **record}), self.out)
        if self.json:
            emit(report.headline, as_json=True)
        else:
            print_report(report)
            say(self.out / "report.html")

    def _recipes(self) -> dict[str, tuple[Any, TrainConfig]]:
        """Objective and recipe by strength. Raises `MithridateError` for a strength that cannot be."""
        options: Any = self.options
        numeric = [f.name for f in fields(options) if type(getattr(options, f.name)) in (int, float)]
        if self.vary not in ("lr", *numeric):
            raise MithridateError(f"--vary is one of {', '.join(['lr', *numeric])}, got {self.vary}")
        if not self.strengths or not all(math.isfinite(value) for value in self.strengths):
            raise MithridateError(f"--strengths are one or more numbers, got {self.strengths}")
        config = replace(self.config, save_epochs=True)
        if self.vary == "lr":
            return {str(lr): (options, replace(config, lr=lr, min_lr=lr / 10)) for lr in self.strengths}
        kind = type(getattr(options, self.vary))
        strengths = [kind(value) for value in self.strengths]
        return {str(value): (replace(options, **{self.vary: value}), config) for value in strengths}

    def _open(self, start: Encoder, pairs: Pairs, test: Pairs, manifest: Manifest) -> None:
        """Begin, or go on with the same curve. Raises `OutputError` where `out` holds another."""
        record = {
            "encoder": {"name": start.name, "weights": weights_fingerprint(start.model)},
            "clean": self.clean,
            "data": pairs.fingerprint,
            "test": test.fingerprint,
            "attack": {"name": manifest.attack, "poisoned": manifest.data["poisoned"]},
            "objective": {"name": self.objective, **asdict(self.options)},  # type: ignore[call-overload]
            "config": asdict(self.config),
        }
        record = json.loads(json.dumps(record))
        path = self.out / CURVE
        if path.is_file() and not self.overwrite:
            if json.loads(path.read_text(encoding="utf-8")) != record:
                raise OutputError(f"{self.out} holds another curve; choose another --out, or give --overwrite")
            return
        refuse_existing(self.out, overwrite=self.overwrite)
        if self.out.exists():
            import shutil

            shutil.rmtree(self.out)
        self.out.mkdir(parents=True)
        write_atomically(path, json.dumps(record, indent=1))

    def _repair(
        self,
        label: str,
        objective: Any,
        config: TrainConfig,
        start: Encoder,
        pairs: Pairs,
        test: Pairs,
        manifest: Manifest,
        show: Display,
    ) -> list[Point]:
        """Train at one strength, where it is not done, and measure after every epoch."""
        folder = self.out / "runs" / f"{self.vary}-{label}"
        if not (folder / MODEL / CONFIG).is_file():
            train(
                start,
                pairs,
                objective=objective,
                config=config,
                out=folder,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                progress=show.stage,
                on_step=show.training(f"repairing, {self.vary} {label}"),
            )
        steps = len((folder / METRICS).read_text(encoding="utf-8").splitlines()) // config.epochs
        points = []
        for epoch in range(1, config.epochs + 1):
            model = load_encoder(str(folder / "epochs" / f"{epoch:03d}"))
            found = self._measure(model, test, manifest, f"{self.vary}-{label}-{epoch:03d}", show)
            points.append(measured_point(found, strength=label, epoch=epoch, steps=epoch * steps))
        return points

    def _measure(self, model: Encoder, test: Pairs, manifest: Manifest, name: str, show: Display) -> Evaluation:
        """The evaluation called `name`, made where it is not there yet."""
        folder = self.out / "reports" / name
        if (folder / "report.html").is_file():
            return read_evaluation(folder)
        evaluation = evaluate(
            {name: model},
            test,
            manifest,
            seed=self.config.seed,
            cache=self.cache.folder,
            cache_limit=self.cache.limit,
            progress=show.stage,
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_evaluation(evaluation, folder)
        write_report(evaluation_report(evaluation), folder)
        return evaluation


def run(argv: Sequence[str]) -> None:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--objective")
    known, _ = first.parse_known_args(list(argv))
    parse(RepairCurve[pick(OBJECTIVES, known.objective or "clip", "objective")], argv, prog="repair-curve").run()
