"""Options of the pre-flight that ends `mithridate poison`, and how it is said."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mithridate.cli.common import CacheOptions, ReadOptions
from mithridate.data.pairs import Pairs
from mithridate.data.read import read_pairs
from mithridate.errors import MithridateError
from mithridate.poisoning.apply import Poisoned
from mithridate.report.document import Report
from mithridate.text import say

if TYPE_CHECKING:
    from mithridate.encoder.encoder import Encoder


@dataclass(frozen=True)
class Material:
    """What a poisoned set is checked against; `to_pixels` prepares images as the trainer does."""

    test: Pairs | None
    clean: "Encoder | None" = None
    to_pixels: Callable[[Image.Image], np.ndarray] | None = None


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

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise MithridateError(f"batch_size must be at least 1, got {self.batch_size}")
        if self.clean and not self.test:
            raise MithridateError("--clean is measured on test pairs: give them too (--test DATA)")
        if self.test_split and not self.test:
            raise MithridateError("--test-split is the split of --test, which is not given; give --test DATA")

    def material(self, read: ReadOptions) -> Material:
        """What is needed besides the poisoned set, read before that is made: an error then costs nothing."""
        test = replace(read, split=self.test_split).read(self.test) if self.test else None
        if not (self.model or self.clean):
            return Material(test)
        from mithridate.encoder.encoder import load_encoder

        return Material(
            test,
            load_encoder(self.clean) if self.clean else None,
            load_encoder(self.model).to_pixels if self.model else None,
        )

    def look(self, poisoned: Poisoned, data: Path, material: Material, *, cache: CacheOptions, seed: int) -> Report:
        """The pre-flight of what was written to the folder `data`."""
        from mithridate.evaluation.preflight import preflight

        written = read_pairs(data)
        shared = len(written.images) < len(set(poisoned.records.tolist()))
        return preflight(
            poisoned.manifest,
            written,
            bases=poisoned.bases,
            # images that are pointed at stand in several samples, in the order of the table
            records=poisoned.records if shared and len(written) == len(poisoned.records) else None,
            batch_size=self.batch_size,
            to_pixels=material.to_pixels,
            test=material.test,
            clean=material.clean,
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
            say(f"mithridate: warning {warning.code}: {warning.message}", stderr=True)
