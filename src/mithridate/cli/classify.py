"""`mithridate classify RUN DATA --out DIR`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.cli.common import CacheOptions, Data, Threads, emit, parse, suggest
from mithridate.cli.progress import display
from mithridate.errors import EvaluationError
from mithridate.folders import new_folder, refuse_existing
from mithridate.text import say


@dataclass(frozen=True)
class Classify:
    """Zero-shot classification and linear probe on labelled images: a report, evaluation.json and metrics.json."""

    model: Annotated[Positional[str], arg(metavar="RUN")]
    """The model: a run's folder, or anything that names an encoder."""
    data: Data
    """Test images: class folders, a zip of them, a table with a class column, CLIP_benchmark's shards."""
    out: Path
    """Folder to write."""
    pretrained: str | None = None
    """Pretrained tag or checkpoint file of the model."""
    classes: tuple[str, ...] = ()
    """The names of the classes, to be checked against those of the data: all of them, in any order."""
    templates: str = "openai"
    """Prompts: openai (80), simple (7), or a text file with one template a line, {} for the name."""
    probe: Literal["none", "lbfgs", "adamw"] = "none"
    """Linear probe on the image tower's features."""
    probe_train: str | None = None
    """Labelled images that the probe is trained on; they must share none with the test images."""
    probe_split: str | None = None
    """Only this split of them."""
    probe_folds: int | None = None
    """In place of them: cross-validation over the test images in this many folds."""
    split: str | None = None
    """Only this split of the test images (train, val, test)."""
    allow_outside: bool = False
    """Read images that a table names outside its folder."""
    seed: int = 0
    """Of the probe."""
    cache: OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        refuse_existing(self.out, overwrite=self.overwrite)
        if self.probe_split is not None and self.probe_train is None:
            raise EvaluationError("--probe-split selects a split of --probe-train; pass --probe-train or leave it out")
        # what loads torch is imported once there is something to do
        from mithridate.data.labelled import read_labelled
        from mithridate.encoder.encoder import load_encoder
        from mithridate.evaluation.classify import classify
        from mithridate.evaluation.evaluation_file import write_evaluation
        from mithridate.evaluation.probe import PROBES
        from mithridate.evaluation.zeroshot import find_templates
        from mithridate.report.console import print_brief
        from mithridate.report.sections.classify import classification_report, write_metrics
        from mithridate.report.write import write_report

        templates = find_templates(self.templates)
        pairs = read_labelled(self.data, split=self.split, allow_outside=self.allow_outside)
        train = None
        if self.probe_train is not None:
            train = read_labelled(self.probe_train, split=self.probe_split, allow_outside=self.allow_outside)
        with display(quiet=self.json) as show:
            result = classify(
                load_encoder(self.model, pretrained=self.pretrained),
                pairs,
                classes=self.classes or None,
                templates=templates,
                probe=None if self.probe == "none" else PROBES[self.probe](),
                probe_train=train,
                probe_folds=self.probe_folds,
                seed=self.seed,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                progress=show.stage,
            )
        dataset = Path(self.data).name
        options = {
            "model": self.model,
            "pretrained": self.pretrained,
            "template set": self.templates,
            "split": self.split,
        }
        report = classification_report(result, dataset=dataset, provenance=options)
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_evaluation(result.evaluation(), folder)
            write_report(report, folder)
            write_metrics(result, folder, dataset=dataset, model=self.model, pretrained=self.pretrained or "")
        if self.json:
            emit({"classification": result.record()}, as_json=True)
        else:
            print_brief(report)
            say(self.out / "report.html")
            suggest("compare", self.out, "OTHER-CLASSIFIED", "--out", "difference")


def run(argv: Sequence[str]) -> None:
    parse(Classify, argv, prog="classify").run()
