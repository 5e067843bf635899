"""`mithridate repair-curve CLEAN --encoder POISONED --test TEST --manifest M --out DIR`."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tyro.conf import OmitArgPrefixes

from mithridate.cli.common import CacheOptions, Data, ReadOptions, Threads, emit, parse, pick, refuse_poison, suggest
from mithridate.cli.options import early
from mithridate.cli.progress import display
from mithridate.data.pairs import Pairs
from mithridate.errors import MithridateError, OutputError
from mithridate.folders import refuse_existing
from mithridate.poisoning.manifest import Manifest, read_manifest
from mithridate.sealed import DamagedFile, read_sealed_json, write_sealed_json
from mithridate.text import say
from mithridate.training.config import TrainConfig
from mithridate.training.registry import OBJECTIVES

if TYPE_CHECKING:
    from mithridate.encoder.encoder import Encoder
    from mithridate.studies.repair_curve import RepairCurveStudy

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
    """Folder to write: runs/ (links to every model), reports/ (every evaluation), report.html."""
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
        from mithridate.encoder.encoder import load_encoder, weights_fingerprint
        from mithridate.evaluation.evaluation_file import write_evaluation
        from mithridate.evaluation.tradeoff import measured_point
        from mithridate.report.console import print_brief
        from mithridate.report.sections.evaluation import evaluation_report
        from mithridate.report.sections.tradeoff import tradeoff_report
        from mithridate.report.write import write_report
        from mithridate.studies.repair_curve import CLEAN, START

        recipes = self._recipes()
        pairs = self.read.read(self.data)
        test = self.read.read(self.test, split=self.test_split)
        manifest = read_manifest(self.manifest)
        refuse_poison(pairs, self.manifest)
        start = load_encoder(self.encoder, pretrained=self.pretrained)
        self._open(start, pairs, test, manifest)
        curve = self._curve(recipes, pairs, test, weights_fingerprint(start.model))
        del start
        with display(quiet=self.json) as show:
            evaluations = curve.run(
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                progress=show.stage,
                on_training=lambda label: show.training(f"repairing, {self.vary} {label}"),
            )
        for name, evaluation in evaluations.items():
            folder = self.out / "reports" / name
            folder.mkdir(parents=True, exist_ok=True)
            write_evaluation(evaluation, folder)
            write_report(evaluation_report(evaluation), folder)
        points = curve.points(evaluations)
        report = tradeoff_report(
            measured_point(evaluations[START]),
            points,
            varied=self.vary,
            title=f"Repair by {self.objective}",
            max_loss=self.max_loss,
            clean=measured_point(evaluations[CLEAN]) if self.clean is not None else None,
        )
        write_report(replace(report, provenance={**report.provenance, **read_curve(self.out)}), self.out)
        if self.json:
            emit(report.headline, as_json=True)
        else:
            print_brief(report)
            say(self.out / "report.html")
            suggest("report", self.out)

    def _curve(
        self, recipes: dict[str, tuple[Any, TrainConfig]], pairs: Pairs, test: Pairs, weights: str
    ) -> "RepairCurveStudy":
        """The stages of the curve."""
        from mithridate.encoder.encoder import load_encoder, weights_fingerprint
        from mithridate.studies.repair_curve import RepairCurveStudy
        from mithridate.studies.stages.evaluated_model import GivenManifest
        from mithridate.studies.stages.initial_model import InitialModel

        clean = None
        if self.clean is not None:
            clean = InitialModel(self.clean, weights=weights_fingerprint(load_encoder(self.clean).model))
        return RepairCurveStudy(
            out=self.out,
            varied=self.vary,
            recipes=recipes,
            start=InitialModel(self.encoder, self.pretrained, weights=weights),
            clean=clean,
            pairs=pairs,
            test=test,
            manifest=GivenManifest.at(self.manifest),
            seed=self.config.seed,
        )

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

    def _open(self, start: "Encoder", pairs: Pairs, test: Pairs, manifest: Manifest) -> None:
        """Begin, or go on with the same curve. Raises `OutputError` where `out` holds another."""
        from mithridate.encoder.encoder import weights_fingerprint

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
            if read_curve(self.out) != record:
                raise OutputError(f"{self.out} holds another curve; choose another --out, or give --overwrite")
            return
        refuse_existing(self.out, overwrite=self.overwrite)
        if self.out.exists():
            import shutil

            shutil.rmtree(self.out)
        self.out.mkdir(parents=True)
        write_sealed_json(path, record)


def read_curve(out: Path) -> dict[str, Any]:
    """What decides the curve in `out`. Raises `OutputError` where the disk has damaged it."""
    path = Path(out) / CURVE
    try:
        return read_sealed_json(path)
    except DamagedFile as error:
        raise OutputError(
            f"{path} is damaged: {error}; choose another --out, or give --overwrite to begin again"
        ) from error


def run(argv: Sequence[str]) -> None:
    objective = (early(argv, "objective")["objective"] or ["clip"])[-1]
    parse(RepairCurve[pick(OBJECTIVES, objective, "objective")], argv, prog="repair-curve").run()
