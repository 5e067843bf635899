"""`mithridate data trigger-test` and `mithridate data manifest`: what others' programs need of an attack."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from mithridate.cli.common import Data, ReadOptions, emit
from mithridate.cli.progress import display
from mithridate.folders import refuse_existing


@dataclass(frozen=True)
class TriggerTest:
    """A labelled test set with the trigger of a backdoor on its images, in CLIP_benchmark's layout."""

    manifest: Annotated[Positional[Path], arg(metavar="MANIFEST")]
    """What mithridate poison wrote."""
    data: Data
    """Labelled test images: a table, shards, a folder of class folders."""
    out: Path
    """Folder to write; CLIP_benchmark reads it as dataset wds/NAME."""
    split: str | None = None
    """Only the images of this split."""
    goal: int = 1
    """Which of the manifest's triggers, from 1."""
    labels: Literal["target", "true"] = "target"
    """`target`: images of other classes, labelled as the target: accuracy is ASR; `true`: all under their own class."""
    seed: int = 0
    """Of places that are drawn."""
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.data.labelled import read_labelled
        from mithridate.poisoning.manifest import read_manifest
        from mithridate.poisoning.trigger_test import trigger_goals, write_trigger_test

        refuse_existing(self.out, overwrite=self.overwrite)
        manifest = read_manifest(self.manifest)
        trigger_goals(manifest)  # before anything is read
        pairs = read_labelled(self.data, split=self.split)
        with display(quiet=self.json) as show:
            write_trigger_test(
                manifest,
                pairs,
                self.out,
                goal=self.goal,
                labels=self.labels,
                seed=self.seed,
                overwrite=self.overwrite,
                progress=show.stage,
            )
        emit({"out": str(self.out), "images": len(pairs.images), "labels": self.labels}, as_json=self.json)


@dataclass(frozen=True)
class Truth:
    """A manifest in another form: ours, Detect-CLIP's train_poison_info.json, BackdoorBench's poison indicator."""

    manifest: Annotated[Positional[Path], arg(metavar="MANIFEST")]
    """Any of the three: its form is recognised."""
    data: Data
    """The set it is about, as a trainer reads it: the other forms count its rows."""
    out: Path
    """File to write."""
    to: Literal["manifest", "detect-clip", "poison-indicator"] = "manifest"
    """`detect-clip`: train_poison_info.json; `poison-indicator`: an .npy with a 0 or a 1 for each pair."""
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    overwrite: bool = False
    """Replace the file."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.errors import OutputError
        from mithridate.poisoning.interop import FORMS, read_truth

        if self.out.exists() and not self.overwrite:
            raise OutputError(f"{self.out} exists already; choose another --out, or give --overwrite to replace it")
        pairs = self.read.read(self.data)
        manifest = read_truth(self.manifest, pairs)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        FORMS[self.to](manifest, pairs, self.out)
        record = {"out": str(self.out), "form": self.to, "poisoned": len(manifest), "pairs": len(pairs)}
        emit(record, as_json=self.json)
