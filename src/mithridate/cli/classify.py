"""`mithridate classify RUN DATA --out DIR`."""

import difflib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.cli.common import CacheOptions, Data, Threads, display, emit, parse
from mithridate.data.labelled import class_index, match_classes, read_labelled, read_templates, refuse_templates
from mithridate.data.pairs import Pairs
from mithridate.encoder.embed import Progress
from mithridate.encoder.encoder import load_encoder
from mithridate.errors import DataError, EvaluationError
from mithridate.evaluation.probe import PROBES, cross_fit, image_features, refuse_overlap, refuse_twins
from mithridate.evaluation.zeroshot import (
    TEMPLATES,
    Classified,
    chance,
    class_scores,
    classification_tables,
    clip_benchmark_metrics,
    unit_length,
    zero_shot_weights,
)
from mithridate.folders import new_folder, refuse_existing, write_atomically
from mithridate.report.console import print_report
from mithridate.report.document import Ranking, Report
from mithridate.report.write import write_report
from mithridate.text import say
from mithridate.version import __version__


@dataclass(frozen=True)
class Classify:
    """Zero-shot classification and linear probe on labelled images: report.json, .md, .html and metrics.json."""

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
        self._check_probe()
        templates = _templates(self.templates)
        pairs = read_labelled(self.data, split=self.split)
        # the order of the user's list is not ours: it must not move a number
        names = tuple(sorted(match_classes(pairs, self.classes or None)))
        train = None if self.probe_train is None else read_labelled(self.probe_train, split=self.probe_split)
        if train is not None:
            match_classes(train, names)
            refuse_overlap(train, pairs)
        with display(quiet=self.json) as show:
            results = self._classify(pairs, train, names, templates, show.stage)
        report = self._report(results, pairs, train, templates)
        tasks = {"metrics.json": "zeroshot_classification", "metrics-probe.json": "linear_probe"}
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_report(report, folder)
            for (file, task), result in zip(tasks.items(), results):
                told = clip_benchmark_metrics(
                    result,
                    dataset=Path(self.data).name,
                    model=self.model,
                    pretrained=self.pretrained or "",
                    task=task,
                )
                write_atomically(folder / file, json.dumps(told, ensure_ascii=False) + "\n")
        if self.json:
            emit(report.headline, as_json=True)
        else:
            print_report(report)
            say(self.out / "report.html")

    def _check_probe(self) -> None:
        given = [self.probe_train is not None, self.probe_folds is not None]
        if self.probe == "none" and any(given):
            raise EvaluationError("images to train a probe on were given, but no probe; add --probe lbfgs or adamw")
        if self.probe != "none" and sum(given) != 1:
            raise EvaluationError(
                f"--probe {self.probe} needs either --probe-train DATA or --probe-folds K, got "
                f"{'both' if all(given) else 'neither'}"
            )
        if self.probe_split is not None and self.probe_train is None:
            raise EvaluationError("--probe-split is of no use without --probe-train; leave it out")

    def _classify(
        self, pairs: Pairs, train: Pairs | None, names: tuple[str, ...], templates: Sequence[str], progress: Progress
    ) -> list[Classified]:
        encoder = load_encoder(self.model, pretrained=self.pretrained)
        where: dict[str, Any] = {"cache": self.cache.folder, "cache_limit": self.cache.limit, "progress": progress}
        weights = zero_shot_weights(encoder, names, templates, progress=progress)
        features = image_features(encoder, pairs, **where)[pairs.image_index]
        labels = class_index(pairs, names)
        results = [Classified("zero-shot", names, labels, class_scores(unit_length(features), weights))]
        if self.probe == "none":
            return results
        rng = np.random.default_rng(self.seed)
        probe = PROBES[self.probe]()
        if train is not None:
            trained = image_features(encoder, train, **where)[train.image_index]
            scores = probe.fit_predict(trained, class_index(train, names), features, rng)
        else:
            assert self.probe_folds is not None
            refuse_twins(pairs)
            scores = cross_fit(probe, features, labels, folds=self.probe_folds, rng=rng)
        return [*results, Classified(f"{self.probe} probe", names, labels, scores)]

    def _report(self, results: list[Classified], pairs: Pairs, train: Pairs | None, templates: Sequence[str]) -> Report:
        c = len(results[0].classes)
        lines = [
            f"{result.name}: {result.accuracy().value:.3f} of {len(pairs):,} images are taken for their own class "
            f"among {c}; chance is {chance(1, c):.3f}."
            for result in results
        ]
        if self.probe != "none":
            on = (
                f"on {len(train):,} images that share no place and no bytes with the test images"
                if train is not None
                else f"on the other folds of {self.probe_folds}; the folds' mistakes are not independent, so its "
                "interval is a little too narrow"
            )
            lines.append(f"The probe was trained {on}.")
        numbers: dict[str, Any] = {
            result.name: {
                "top-1": asdict(result.accuracy(1)),
                **({"top-5": asdict(result.accuracy(5))} if c >= 5 else {}),
                "mean recall": asdict(result.mean_per_class_recall()),
            }
            for result in results
        }
        numbers["chance"] = {"top-1": chance(1, c), **({"top-5": chance(5, c)} if c >= 5 else {}), "mean recall": 1 / c}
        uid = tuple(pairs.uid.to_pylist())
        return Report(
            title=f"Classification: {Path(self.data).name}",
            summary=tuple(lines),
            tables=classification_tables(results),
            rankings=tuple(
                Ranking(r.name, uid, {"model": tuple(r.ranks.tolist())}, tuple(pairs.image_index.tolist()))
                for r in results
            ),
            headline={"classification": numbers},
            provenance={
                "model": self.model,
                "pretrained": self.pretrained,
                "test data": {"fingerprint": pairs.fingerprint, "images": len(pairs), "split": self.split},
                "probe data": None if train is None else {"fingerprint": train.fingerprint, "images": len(train)},
                "probe": None if self.probe == "none" else {"name": self.probe, **asdict(PROBES[self.probe]())},
                "probe folds": self.probe_folds,
                "templates": {"set": self.templates, "count": len(templates)},
                "seed": self.seed,
                "versions": _versions(),
            },
        )


def _templates(name: str) -> Sequence[str]:
    if name in TEMPLATES:
        return TEMPLATES[name]
    if not Path(name).is_file():
        near = difflib.get_close_matches(name, TEMPLATES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(f"no file and no set of templates is called {name!r}: expected {', '.join(TEMPLATES)}{hint}")
    templates = read_templates(Path(name))
    refuse_templates(templates)
    return templates


def _versions() -> dict[str, str]:
    import sklearn
    import torch

    return {
        "mithridate": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
    }


def run(argv: Sequence[str]) -> None:
    parse(Classify, argv, prog="classify").run()
