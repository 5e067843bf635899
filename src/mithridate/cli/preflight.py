"""Options of the pre-flight that ends `mithridate poison`, and how it is printed."""

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
from mithridate.report.console import print_report
from mithridate.report.sections.preflight import preflight_report
from mithridate.text import say

if TYPE_CHECKING:
    from mithridate.encoder.encoder import Encoder
    from mithridate.evaluation.preflight import Preflight


@dataclass(frozen=True)
class CheckInputs:
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
            raise MithridateError("--clean requires --test")
        if self.test_split and not self.test:
            raise MithridateError("--test-split requires --test")

    def inputs(self, read: ReadOptions) -> CheckInputs:
        """What is needed besides the poisoned set, read before that is made: an error then costs nothing."""
        test = replace(read, split=self.test_split).read(self.test) if self.test else None
        if not (self.model or self.clean):
            return CheckInputs(test)
        from mithridate.encoder.encoder import load_encoder

        return CheckInputs(
            test,
            load_encoder(self.clean) if self.clean else None,
            load_encoder(self.model).to_pixels if self.model else None,
        )

    def look(
        self, poisoned: Poisoned, data: Path, inputs: CheckInputs, *, cache: CacheOptions, seed: int
    ) -> "Preflight":
        """The pre-flight of what was written to the folder `data`."""
        from mithridate.evaluation.preflight import preflight

        return preflight(
            poisoned.manifest,
            read_pairs(data),
            bases=poisoned.bases,
            records=poisoned.records,
            batch_size=self.batch_size,
            to_pixels=inputs.to_pixels,
            test=inputs.test,
            clean=inputs.clean,
            cache=cache.folder,
            seed=seed,
        )

    def print(self, found: "Preflight", *, quiet: bool) -> None:
        """All of it to standard output, or its warnings to standard error."""
        report = preflight_report(found)
        if self.check and not quiet:
            print_report(report)
            return
        for warning in report.warnings:
            say(f"mithridate: warning {warning.code}: {warning.message}", stderr=True)
