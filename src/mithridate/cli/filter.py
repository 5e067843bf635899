"""`mithridate filter DETECTOR EMBEDDINGS --out DIR`: scores, keep-lists, a report; on request the pairs kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.auditing.registry import DETECTORS
from mithridate.auditing.threshold import Above, Budget, CleanQuantile, Threshold
from mithridate.cli.common import Place, Plugins, ReadOptions, Threads, emit, parse, pick, suggest, with_plugins
from mithridate.cli.progress import display
from mithridate.errors import FilterError
from mithridate.folders import new_folder, refuse_existing
from mithridate.text import say

D = TypeVar("D")


@dataclass(frozen=True)
class Filter(Generic[D]):
    """Score pairs and say which to keep: scores.parquet, keep.txt, keep.npy, filter.json and a report."""

    embeddings: Annotated[Positional[Place], arg(metavar="EMBEDDINGS")]
    """What mithridate embed wrote, or clip-retrieval; by another encoder than the one to be trained."""
    out: Place
    """Folder to write."""
    detector: OmitArgPrefixes[D]
    above: float | None = None
    """Remove pairs above this suspicion; by default the detector's own level, where it has one."""
    clean_quantile: float | None = None
    """Remove pairs above this quantile of the clean pairs: 0.95 loses 5 % of clean pairs. Requires --clean."""
    clean: Place | None = None
    """Embeddings of pairs known to be clean, by the same encoder."""
    budget: int | None = None
    """Remove the most suspicious pairs, this many."""
    budget_share: float | None = None
    """Remove the most suspicious pairs, this share of all."""
    pairs: str | None = None
    """The data that were embedded: the report then shows captions, and --format can write the pairs kept."""
    format: Literal["table", "parquet", "webdataset", "imagefolder"] | None = None
    """Write the pairs kept to OUT/data in this layout; `parquet` leaves the images where they are."""
    manifest: Path | None = None
    """The truth, to measure the detector with: what mithridate poison wrote. It changes nothing but the report."""
    seed: int = 0
    """Of every draw."""
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    threads: Threads = None
    plugin: Plugins = ()
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.auditing.filter import filter
        from mithridate.auditing.output import write_filtered, write_kept_pairs
        from mithridate.encoder.embeddings import read_embeddings
        from mithridate.evaluation.filter_outcome import filter_outcome
        from mithridate.poisoning.manifest import read_manifest
        from mithridate.report.console import print_brief
        from mithridate.report.sections.filtering import filter_report
        from mithridate.report.write import write_report

        refuse_existing(self.out, overwrite=self.overwrite)
        threshold = self._threshold()
        if self.format is not None and self.pairs is None:
            raise FilterError(f"--format {self.format} requires --pairs, the data that were embedded")
        manifest = None if self.manifest is None else read_manifest(self.manifest)
        embeddings = read_embeddings(self.embeddings)
        pairs = None if self.pairs is None else self.read.read(self.pairs)
        clean = None if self.clean is None else read_embeddings(self.clean)
        with display(quiet=self.json) as show:
            filtered = filter(
                embeddings,
                self.detector,  # type: ignore[arg-type]
                threshold=threshold,
                clean=clean,
                pairs=pairs,
                seed=self.seed,
                progress=show.stage,
            )
        outcome = filter_outcome(filtered, manifest=manifest, pairs=pairs)
        report = filter_report(outcome)
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            write_filtered(filtered, folder)
            write_report(report, folder)
            if self.format is not None and pairs is not None:
                data = folder / "data"
                data.mkdir()
                write_kept_pairs(filtered, pairs, data, form=self.format)
        if self.json:
            emit({"out": str(self.out), "level": filtered.level, **outcome.record()}, as_json=True)
        else:
            print_brief(report)
            say(self.out / "report.html")
            suggest("train", "DATA", "--keep", self.out, "--out", "run")

    def _threshold(self) -> Threshold | None:
        if (self.clean_quantile is None) != (self.clean is None):
            raise FilterError("--clean-quantile and --clean need each other: --clean-quantile Q --clean DIR")
        chosen = {
            "--above": None if self.above is None else Above(self.above),
            "--clean-quantile": None if self.clean_quantile is None else CleanQuantile(self.clean_quantile),
            "--budget": None if self.budget is None else Budget(pairs=self.budget),
            "--budget-share": None if self.budget_share is None else Budget(share=self.budget_share),
        }
        given = {name: threshold for name, threshold in chosen.items() if threshold is not None}
        if len(given) > 1:
            raise FilterError(f"expected one threshold, got {' and '.join(given)}; choose one of them")
        return next(iter(given.values()), None)


def run(argv: Sequence[str]) -> None:
    argv = with_plugins(argv)
    if not argv or argv[0] in ("-h", "--help"):
        say("usage: mithridate filter DETECTOR EMBEDDINGS --out DIR ...", "")
        for name, detector in DETECTORS.items():
            say(f"  {name:<16} {(detector.__doc__ or '').splitlines()[0]}")
        return
    parse(Filter[pick(DETECTORS, argv[0], "detector")], argv[1:], prog=f"filter {argv[0]}").run()
