"""`mithridate repair MODEL --findings DIR --data CLEAN [--start START] --out DIR`: takes out what inspect flagged."""

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
from mithridate.folders import new_folder, refuse_existing
from mithridate.text import say


@dataclass(frozen=True)
class RepairModel:
    """Take out of a model what mithridate inspect flagged: a model folder, findings.json of what is left, a page."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model that was inspected."""
    findings: Path
    """Folder that mithridate inspect wrote about it."""
    data: str
    """Clean pairs of your own: one half is used to repair, the other to report."""
    out: Path
    """Folder to write; it loads in open_clip as local-dir:OUT."""
    pretrained: str | None = None
    """Pretrained tag or checkpoint file of the model."""
    start: str | None = None
    """The model that it was fine-tuned from."""
    start_pretrained: str | None = None
    """Pretrained tag or checkpoint file of the start."""
    method: Annotated[
        tuple[str, ...],
        arg(
            help="unlearn, interpolate, task-vector, fine-pruning, channel-pruning, head-ablation, clip, cleanclip, "
            "par, or one of a plugin; several work one after the other. By default interpolate where there is a "
            "start, then unlearn."
        ),
    ] = ()
    max_loss: float = 0.02
    """How much of IR@10 and of zero-shot accuracy may be lost."""
    verify: bool = True
    """Inspect the repaired model and say what is left."""
    passes: int = 2
    """How often at most: what the inspection of the repaired model flags is unlearned too, within the same loss."""
    keep: Place | None = None
    """Use only the pairs of this keep-list: what mithridate audit wrote."""
    refuse_manifest: Path | None = None
    """Refuse pairs that this manifest calls poisoned."""
    seed: int = 0
    """Of every draw."""
    plugin: Plugins = ()
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    cache: OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        refuse_existing(self.out, overwrite=self.overwrite)
        from mithridate.encoder.encoder import load_encoder, save_encoder
        from mithridate.inspection.findings_file import read_findings
        from mithridate.repairing.repair import repair
        from mithridate.report.verdict import repair_lines, repair_summary, write_repair

        inspection = read_findings(self.findings)
        encoder = load_encoder(self.model, pretrained=self.pretrained)
        start = None if self.start is None else load_encoder(self.start, pretrained=self.start_pretrained)
        pairs = only_kept(self.read.read(self.data), self.keep, encoder)
        refuse_poison(pairs, self.refuse_manifest)
        refuse_poison_in(self.data, pairs)
        with display(quiet=self.json) as show:
            repaired = repair(
                encoder,
                inspection,
                pairs,
                start=start,
                methods=self.method or None,
                max_loss=self.max_loss,
                verify=self.verify,
                passes=self.passes,
                seed=self.seed,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                progress=show.stage,
            )
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            save_encoder(repaired.encoder, folder, location=self.out)
            write_repair(repaired, inspection, folder)
        if self.json:
            emit({**repair_summary(repaired), "out": str(self.out)}, as_json=True)
            return
        say(*repair_lines(repaired), self.out / "report.html")
        suggest("evaluate", self.out, "TEST-PAIRS", "--before", self.model, "--out", f"{self.out}-report")


def run(argv: Sequence[str]) -> None:
    parse(RepairModel, with_plugins(argv), prog="repair").run()
