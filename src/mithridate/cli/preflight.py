"""Options of the pre-flight that ends `mithridate poison`, and how it is said."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from mithridate.cli.common import CacheOptions, ReadOptions
from mithridate.data.read import read_pairs
from mithridate.evaluation.result import Report
from mithridate.poisoning.apply import Poisoned


@dataclass(frozen=True)
class CheckOptions:
    """What the poisoned set is checked against; the manifest keeps what was found."""

    check: bool = False
    """Print the pre-flight in full; without, only its warnings."""
    batch_size: int = 128
    """Of the training to come: how many poisoned pairs a batch holds."""
    model: str | None = None
    """Encoder that will be trained: a trigger must survive its preparation of images (default: CLIP's at 224)."""
    test: str | None = None
    """Test pairs, which must not hold images that carry poison."""
    test_split: str | None = None
    """Split of the test pairs."""
    clean: str | None = None
    """A model without poison: the attack should not succeed on it. Needs --test."""

    def look(self, poisoned: Poisoned, data: Path, *, read: ReadOptions, cache: CacheOptions, seed: int) -> Report:
        """The pre-flight of what was written to the folder `data`."""
        from mithridate.evaluation.preflight import preflight

        test = clean = to_pixels = None
        if self.test:
            test = replace(read, split=self.test_split).read(self.test)
        if self.model or self.clean:
            from mithridate.encoder.encoder import load_encoder

            to_pixels = load_encoder(self.model).to_pixels if self.model else None
            clean = load_encoder(self.clean) if self.clean else None
        written = read_pairs(data)
        shared = len(written.images) < len(set(poisoned.records.tolist()))
        return preflight(
            poisoned.manifest,
            written,
            bases=poisoned.bases,
            # images that are pointed at stand in several samples, in the order of the table
            records=poisoned.records if shared and len(written) == len(poisoned.records) else None,
            batch_size=self.batch_size,
            to_pixels=to_pixels,
            test=test,
            clean=clean,
            cache=cache.folder,
            seed=seed,
        )

    def say(self, report: Report, *, quiet: bool) -> None:
        """All of it to standard output, or its warnings to standard error."""
        if self.check and not quiet:
            from mithridate.report.console import print_report

            print_report(replace(report, headline={}))
            return
        for warning in report.warnings:
            print(f"mithridate: warning {warning.code}: {warning.message}", file=sys.stderr)
