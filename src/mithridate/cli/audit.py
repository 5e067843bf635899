"""`mithridate audit DATA --encoder E --out DIR`: which groups of pairs look planted, and which pairs may stay."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.cli.common import CacheOptions, ReadOptions, Threads, display, emit, parse
from mithridate.errors import FilterError
from mithridate.folders import new_folder, refuse_existing
from mithridate.text import say


@dataclass(frozen=True)
class Audit:
    """Look for planted pairs: a review page (report.html), scores.parquet, a keep-list.

    With --decisions, DATA is the folder of an earlier audit: what was decided on its page becomes the keep-list.
    """

    data: Annotated[Positional[str], arg(metavar="DATA")]
    """The pairs to be trained on: a table, tar shards, an annotation file, or a folder."""
    out: Path
    """Folder to write."""
    encoder: str | None = None
    """What looks at the pairs: an open_clip model, local-dir:FOLDER, a run's folder; one not trained on them."""
    pretrained: str | None = None
    """Its pretrained tag or checkpoint file."""
    clean: str | None = None
    """Pairs known to be clean, from elsewhere: p-values are held against them."""
    clean_split: str | None = None
    """Split of the clean pairs."""
    flag: float = 6.0
    """Strength (-log10 of a tail probability) from which a group of pairs is flagged."""
    allow: Path | None = None
    """Decisions on an earlier audit: groups that were kept there are not flagged again."""
    decisions: Path | None = None
    """What was decided on the page of the audit in DATA."""
    seed: int = 0
    """Of every draw."""
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    cache: OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        refuse_existing(self.out, overwrite=self.overwrite)
        if self.decisions is not None:
            self._decide(self.decisions)
            return
        if self.encoder is None:
            raise FilterError("an audit needs --encoder: a model that was not trained on these pairs")
        from mithridate.auditing.audit_files import summary, write_audit
        from mithridate.auditing.data import audit
        from mithridate.auditing.decisions import read_decisions
        from mithridate.encoder.encoder import load_encoder
        from mithridate.report.review import audit_lines, review_page

        dismissed = () if self.allow is None else read_decisions(self.allow).dismissed
        pairs = self.read.read(self.data)
        clean = None if self.clean is None else self.read.read(self.clean, split=self.clean_split)
        encoder = load_encoder(self.encoder, pretrained=self.pretrained)
        with display(quiet=self.json) as show:
            done = audit(
                pairs,
                encoder,
                clean=clean,
                flag=self.flag,
                allow=dismissed,
                seed=self.seed,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                progress=show.stage,
            )
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_audit(done.audit, folder, encoder=encoder.name, weights=done.weights)
            page = review_page(done.audit, encoder=encoder.name, crops=done.crop)
            (folder / "report.html").write_text(page, encoding="utf-8")
        if self.json:
            emit({**summary(done.audit), "out": str(self.out)}, as_json=True)
            return
        say(*audit_lines(done.audit))
        page, decided = self.out / "report.html", f"{self.out}-decided"
        say(
            f"next: open {page}, decide, export, then "
            f"mithridate audit {self.out} --decisions decisions.json --out {decided}"
        )

    def _decide(self, path: Path) -> None:
        from mithridate.auditing.audit_files import apply_decisions, write_kept
        from mithridate.auditing.decisions import read_decisions

        uid, record = apply_decisions(Path(self.data), read_decisions(path))
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_kept(uid, Path(self.data), record, folder)
        emit({"out": str(self.out), "pairs": record["pairs"], "kept": len(uid)}, as_json=self.json)


def run(argv: Sequence[str]) -> None:
    parse(Audit, argv, prog="audit").run()
