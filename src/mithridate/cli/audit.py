"""`mithridate audit DATA --encoder E --out DIR`: which groups of pairs look planted, and which pairs may stay."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from mithridate.cli.common import (
    CacheOptions,
    Place,
    Plugins,
    ReadOptions,
    Threads,
    emit,
    parse,
    pick,
    refuse_poison_in,
    with_plugins,
)
from mithridate.cli.progress import display
from mithridate.cli.workers import EngineOptions
from mithridate.errors import FilterError
from mithridate.folders import new_folder, refuse_existing
from mithridate.remote.paths import RemotePath, location
from mithridate.remote.uploads import workplace
from mithridate.text import say

if TYPE_CHECKING:
    from mithridate.auditing.data import DataAudit


@dataclass(frozen=True)
class Audit:
    """Look for planted pairs: a review page (report.html), scores.parquet, a keep-list.

    With --decisions, DATA is the folder of an earlier audit: what was decided on its page becomes the keep-list.
    """

    out: Place
    """Folder to write."""
    data: Annotated[Positional[str | None], arg(metavar="DATA")] = None
    """The pairs to be trained on: a table, tar shards, an annotation file, or a folder."""
    embeddings: Place | None = None
    """In place of DATA and an encoder: a folder that mithridate embed wrote, or clip-retrieval. Images are not read."""
    encoder: str | None = None
    """What looks at the pairs: an open_clip model, local-dir:FOLDER, a run's folder; one not trained on them."""
    pretrained: str | None = None
    """Its pretrained tag or checkpoint file."""
    clean: str | None = None
    """Pairs known to be clean, from elsewhere (with --embeddings: their embeddings): p-values are held against them."""
    clean_split: str | None = None
    """Split of the clean pairs."""
    trained: bool = False
    """The encoder was trained on these pairs (the record of a run tells it): more detectors are run."""
    detector: Annotated[tuple[str, ...], UseAppendAction, arg(metavar="NAME")] = ()
    """Run this detector, and no others but those named; repeatable."""
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
    engine: OmitArgPrefixes[EngineOptions] = field(default_factory=EngineOptions)
    threads: Threads = None
    plugin: Plugins = ()
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        refuse_existing(self.out, overwrite=self.overwrite)
        if self.decisions is not None:
            self._decide(self.decisions)
            return
        from mithridate.auditing.audit_files import summary
        from mithridate.report.review import audit_lines, write_review

        done = self._audit()
        with new_folder(self.out, overwrite=self.overwrite, scratch=(self._partial,)) as folder:
            write_review(done, folder)
        if self.json:
            emit({**summary(done.audit), "out": str(self.out)}, as_json=True)
            return
        say(*audit_lines(done.audit))
        page, decided = self.out / "report.html", f"{self.out}-decided"
        say(
            f"next: open {page}, decide, export, then "
            f"mithridate audit {self.out} --decisions decisions.json --out {decided}"
        )

    def _audit(self) -> "DataAudit":
        from mithridate.auditing.audit import AuditOptions
        from mithridate.auditing.data import audit, audit_files, audit_folder, trained_on
        from mithridate.auditing.decisions import read_decisions
        from mithridate.auditing.registry import DETECTORS
        from mithridate.encoder.embed_shards import ShardEmbedder
        from mithridate.encoder.encoder import load_encoder

        if self.embeddings is not None and (self.data is not None or self.encoder is not None):
            raise FilterError("an audit takes --embeddings or DATA with --encoder, not both")
        if self.embeddings is None and (self.data is None or self.encoder is None):
            raise FilterError(
                "an audit needs DATA and --encoder, a model that was not trained on these pairs, or --embeddings"
            )
        chosen = {name: pick(DETECTORS, name, "detector")() for name in self.detector} or None
        allow = () if self.allow is None else tuple(read_decisions(self.allow).dismissed)
        options = AuditOptions(detectors=chosen, flag=self.flag, allow=allow, trained=self.trained, seed=self.seed)
        shards = [] if self.data is None else self._shards()
        if self.engine != EngineOptions() and not shards:
            raise FilterError(
                "--jobs, --ray and --max-errors share out local tar shards, expected several, got "
                f"{self.data or 'embeddings, which are made already'}; leave them out, or write shards with mithridate "
                "data convert"
            )
        if self.embeddings is not None:
            clean = None if self.clean is None else location(self.clean)
            with display(quiet=self.json) as show:
                return audit_folder(self.embeddings, clean=clean, options=options, progress=show.stage)
        pairs = self.read.read(str(self.data), engine=self.engine.engine)
        options = replace(options, trained=self.trained or trained_on(str(self.encoder), pairs))
        clean_pairs = None if self.clean is None else self.read.read(self.clean, split=self.clean_split)
        if self.clean is not None and clean_pairs is not None:
            refuse_poison_in(self.clean, clean_pairs)
        encoder = load_encoder(str(self.encoder), pretrained=self.pretrained)
        with display(quiet=self.json) as show:
            if shards:
                embedder = ShardEmbedder(
                    str(self.encoder), self.pretrained, vars(self.read), self.cache.cache, self.cache.limit
                )
                return audit_files(
                    shards,
                    self._partial,
                    pairs,
                    encoder,
                    embedder,
                    engine=self.engine.engine,
                    clean=clean_pairs,
                    options=options,
                    progress=show.stage,
                )
            return audit(
                pairs,
                encoder,
                clean=clean_pairs,
                options=options,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                progress=show.stage,
            )

    @property
    def _partial(self) -> Path:
        work = workplace(self.out)
        return work.parent / f".{work.name}.partial"  # outlives a kill, and is deleted in the end

    def _shards(self) -> list[Path]:
        """The tar shards of this machine that the data are; empty where they are anything else, and read as a whole."""
        from mithridate.data.read import separate_files

        files = separate_files(str(self.data), tables=False)
        return [] if any(isinstance(file, RemotePath) for file in files) else files

    def _decide(self, path: Path) -> None:
        from mithridate.auditing.audit_files import apply_decisions, write_kept
        from mithridate.auditing.decisions import read_decisions

        if self.data is None:
            raise FilterError("--decisions needs DATA: the folder of the audit that they are about")
        uid, record = apply_decisions(location(self.data), read_decisions(path))
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_kept(uid, location(self.data), record, folder)
        emit(
            {"out": str(self.out), "pairs": record["pairs"], "kept": len(uid)},
            as_json=self.json,
            then=("train", "DATA", "--keep", self.out, "--out", "run"),
        )


def run(argv: Sequence[str]) -> None:
    parse(Audit, with_plugins(argv), prog="audit").run()
