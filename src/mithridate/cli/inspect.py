"""`mithridate inspect MODEL --data CLEAN [--start START] --out DIR`: a verdict on a checkpoint of unknown origin."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.cli.common import (
    CacheOptions,
    Place,
    Plugins,
    ReadOptions,
    Threads,
    emit,
    only_kept,
    parse,
    refuse_poison,
    refuse_poison_in,
    suggest,
    with_plugins,
)
from mithridate.cli.progress import display
from mithridate.cli.workers import ModelWorkerOptions
from mithridate.folders import new_folder, refuse_existing
from mithridate.text import say


@dataclass(frozen=True)
class Inspect:
    """Look for planted behaviour in a model: findings.json, triggers.npy and a page (report.html)."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model: a run's folder, an open_clip model, local-dir:FOLDER."""
    data: str
    """Clean pairs of your own that the model was not trained on: a table, tar shards, an annotation file, a folder."""
    out: Path
    """Folder to write."""
    pretrained: str | None = None
    """Pretrained tag or checkpoint file of the model."""
    start: str | None = None
    """The model that it was fine-tuned from; without it nothing is said of recovered image triggers."""
    start_pretrained: str | None = None
    """Pretrained tag or checkpoint file of the start."""
    labels: bool = False
    """Refuse pairs without labels; otherwise frequent words of the captions stand in where there are none."""
    nulls: int = 0
    """Fine-tune the start so many times on your pairs, shared out by --jobs or --ray: the model must exceed all."""
    compare: bool = False
    """Run published detectors too; they take no part in the verdict."""
    keep: Place | None = None
    """Use only the pairs of this keep-list: what mithridate audit wrote."""
    refuse_manifest: Path | None = None
    """Refuse pairs that this manifest calls poisoned."""
    seed: int = 0
    """Of every draw."""
    plugin: Plugins = ()
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    cache: OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    engine: OmitArgPrefixes[ModelWorkerOptions] = field(default_factory=ModelWorkerOptions)
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        refuse_existing(self.out, overwrite=self.overwrite)
        self.engine.refuse_idle(self.nulls > 1, "only several null models (--nulls) are shared out")
        from mithridate.encoder.encoder import load_encoder
        from mithridate.inspection.findings_file import summary
        from mithridate.inspection.inspect import inspect
        from mithridate.report.verdict import inspection_lines, write_inspection

        encoder = load_encoder(self.model, pretrained=self.pretrained)
        start = None if self.start is None else load_encoder(self.start, pretrained=self.start_pretrained)
        pairs = only_kept(self.read.read(self.data), self.keep, encoder)
        refuse_poison(pairs, self.refuse_manifest)
        refuse_poison_in(self.data, pairs)
        with display(quiet=self.json) as show:
            inspection = inspect(
                encoder,
                pairs,
                start=start,
                labels=self.labels,
                nulls=self.nulls,
                compare=self.compare,
                seed=self.seed,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                engine=self.engine.engine,
                progress=show.stage,
            )
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_inspection(inspection, folder)
        if self.json:
            emit({**summary(inspection), "out": str(self.out)}, as_json=True)
            return
        say(*inspection_lines(inspection), self.out / "report.html")
        split = () if self.read.split is None else ("--split", self.read.split)
        if inspection.flagged:
            known = () if self.start is None else ("--start", self.start)
            out = f"{self.out}-repaired"
            suggest("repair", self.model, "--findings", self.out, "--data", self.data, *split, *known, "--out", out)
        elif inspection.verdict == "not assessable":
            suggest("evaluate", self.model, self.data, *split, "--out", f"{self.out}-report")
        else:
            suggest("screen", self.model, "IMAGES", "--data", self.data, *split, "--out", f"{self.out}-screened")


def run(argv: Sequence[str]) -> None:
    parse(Inspect, with_plugins(argv), prog="inspect").run()
