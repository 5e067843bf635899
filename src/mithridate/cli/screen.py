"""`mithridate screen MODEL IMAGES --data CLEAN --out DIR`: single images held against clean ones, promising nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.cli.common import CacheOptions, ReadOptions, Threads, emit, parse, refuse_poison_in, suggest
from mithridate.cli.progress import display
from mithridate.errors import DataError, InspectionError
from mithridate.folders import new_folder, refuse_existing
from mithridate.text import say

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class ScreenImages:
    """Score images for a trigger by several published statistics, each against clean images that the model takes for
    the same class: scores.csv and a page (report.html). No score is a proof, either way."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """The model: a run's folder, an open_clip model, local-dir:FOLDER."""
    images: Annotated[Positional[str], arg(metavar="IMAGES")]
    """What is to be screened: a folder of images, one image, or pairs as other commands read them."""
    data: str
    """Clean pairs of your own: thresholds are taken from their images."""
    out: Path
    """Folder to write."""
    pretrained: str | None = None
    """Pretrained tag or checkpoint file of the model."""
    score: tuple[str, ...] = ()
    """scale-up, bdetclip, strip, occlusion, masking, one or several; by default all."""
    false_alarms: float = 0.05
    """The share of clean images of a class that may exceed a threshold."""
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
        from mithridate.encoder.embed import image_source
        from mithridate.encoder.encoder import load_encoder
        from mithridate.inspection.scores.registry import SCORES
        from mithridate.inspection.screen import screen
        from mithridate.report.screen import most_suspicious, screen_lines, screen_page, screen_summary, screen_table

        unknown = [name for name in self.score if name not in SCORES]
        if unknown:
            raise InspectionError(f"no score is called {unknown[0]!r}; expected one of {', '.join(SCORES)}")
        chosen = {name: SCORES[name]() for name in self.score or SCORES}
        encoder = load_encoder(self.model, pretrained=self.pretrained)
        images, pairs = self._images(), self.read.read(self.data)
        refuse_poison_in(self.data, pairs)
        with display(quiet=self.json) as show:
            screened = screen(
                encoder,
                images,
                pairs,
                scores=chosen,
                false_alarms=self.false_alarms,
                seed=self.seed,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                progress=show.stage,
            )
        shown = pa.array([screened.locations[row] for row in most_suspicious(screened)])
        pixels = list(image_source(encoder, shown, cache=None).gather(np.arange(len(shown))))
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            (folder / "scores.csv").write_text(screen_table(screened), encoding="utf-8")
            (folder / "report.html").write_text(screen_page(screened, pixels), encoding="utf-8")
        if self.json:
            emit({**screen_summary(screened), "out": str(self.out)}, as_json=True)
            return
        say(*screen_lines(screened), self.out / "report.html")
        suggest("inspect", self.model, "--data", self.data, "--out", f"{self.out}-verdict")

    def _images(self) -> pa.Array:
        """Locations: of a folder or a file with images alone its images, else those of the pairs."""
        path = Path(self.images)
        if path.is_file() and path.suffix.lower() in _ENDINGS:
            return pa.array([str(path)])
        try:
            return self.read.read(self.images).images
        except DataError:
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in _ENDINGS) if path.is_dir() else []
            if not found:
                raise
            return pa.array([str(p) for p in found])


def run(argv: Sequence[str]) -> None:
    parse(ScreenImages, argv, prog="screen").run()
