"""`mithridate data`: describe, doctor, convert, toy, trigger-test, manifest."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes

from mithridate.cli.common import Data, Place, ReadOptions, emit, parse, pick, suggest
from mithridate.cli.progress import display
from mithridate.cli.truth import TriggerTest, Truth
from mithridate.cli.workers import WorkerOptions
from mithridate.errors import DataError
from mithridate.text import say
from mithridate.toy.toy import CLASSES


@dataclass(frozen=True)
class Describe:
    """What is in a data set: pairs, images, splits, classes, caption lengths, and what was left out of it."""

    data: Data
    """A table, tar shards, an annotation file, or a folder. --jobs and --ray share out tar shards."""
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    engine: OmitArgPrefixes[WorkerOptions] = field(default_factory=WorkerOptions)
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.data.doctor import describe
        from mithridate.data.read import separate_files

        engine = self.engine.engine
        self.engine.refuse_idle(bool(separate_files(self.data, tables=False)), f"{self.data} is read as a whole")
        emit(describe(self.read.read(self.data, engine=engine)), as_json=self.json, then=("data", "doctor", self.data))


@dataclass(frozen=True)
class Doctor:
    """What is wrong with a data set, and what to do about it. Exits with 1 where something is an error."""

    data: Data
    """A table, tar shards, an annotation file, or a folder."""
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    context_length: int = 77
    """Tokens the text tower takes."""
    sample: int | None = None
    """Decode only this many images."""
    engine: OmitArgPrefixes[WorkerOptions] = field(default_factory=WorkerOptions)
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from dataclasses import asdict

        from mithridate.data.doctor import doctor

        for name, value, low in (("sample", self.sample, 0), ("context_length", self.context_length, 2)):
            if value is not None and value < low:
                raise DataError(f"{name} must be at least {low}, got {value}")
        engine = self.engine.engine
        pairs = self.read.read(self.data, engine=engine)
        with display(quiet=self.json) as show:
            findings = doctor(
                pairs, context_length=self.context_length, sample=self.sample, engine=engine, progress=show.stage
            )
        if self.json:
            emit({"findings": [asdict(finding) for finding in findings]}, as_json=True)
        else:
            for finding in findings:
                say(f"{finding.severity}: {finding.message}", f"  do: {finding.remedy}")
            if not findings:
                say("no findings")
        errors = sum(finding.severity == "error" for finding in findings)
        if errors:
            raise DataError(f"{self.data} has {errors} error{'s' if errors > 1 else ''}, named above")
        if not self.json:
            suggest("audit", self.data, "--encoder", "MODEL", "--clean", "MY-CLEAN-PAIRS", "--out", "audit")


@dataclass(frozen=True)
class Convert:
    """The same pairs in another layout. Images are copied byte by byte, never encoded again."""

    data: Data
    """A table, tar shards, an annotation file, or a folder."""
    out: Place
    """Folder to write."""
    to: Literal["table", "webdataset", "parquet", "imagefolder"] = "webdataset"
    """`parquet` is a table that points at the images where they are."""
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    engine: OmitArgPrefixes[WorkerOptions] = field(default_factory=WorkerOptions)
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.data.read import separate_files
        from mithridate.data.write import convert
        from mithridate.folders import refuse_existing

        refuse_existing(self.out, overwrite=self.overwrite)
        engine = self.engine.engine
        useful = self.to != "parquet" or bool(separate_files(self.data, tables=False))
        self.engine.refuse_idle(useful, f"no image is copied and {self.data} is read as a whole")
        pairs = self.read.read(self.data, engine=engine)
        convert(pairs, self.out, to=self.to, overwrite=self.overwrite, engine=engine)
        left_out = {reason: entry.count for reason, entry in pairs.report.left_out.items()}
        made = {"out": str(self.out), "pairs": len(pairs), "images": len(pairs.images)}
        then = ("train", self.out, "--out", f"{self.out}-run")
        emit({**made, **({"left_out": left_out} if left_out else {})}, as_json=self.json, then=then)


@dataclass(frozen=True)
class Toy:
    """The toy world: pictures drawn by code, with five captions each."""

    out: Path
    """Folder to write."""
    train: int = 6000
    """Pictures of the split train."""
    test: int = 540
    """Pictures of the split test."""
    seed: int = 0
    """Another seed is another world."""
    size: int = 64
    """Pixels a side."""
    classes: tuple[str, ...] = CLASSES
    """Which classes are drawn."""
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.toy.world import write_toy_world

        with display(quiet=self.json) as show:
            write_toy_world(
                self.out,
                train=self.train,
                test=self.test,
                seed=self.seed,
                size=self.size,
                classes=self.classes,
                overwrite=self.overwrite,
                progress=lambda done, total: show.stage("drawing", done, total),
            )
        attack = ("--source", self.classes[0], "--target", self.classes[-1], "--out", f"{self.out}-poisoned")
        emit(
            {"out": str(self.out), "train": self.train, "test": self.test},
            as_json=self.json,
            then=("poison", "single-label", self.out, "--split", "train", *attack),
        )


COMMANDS = {
    "describe": Describe,
    "doctor": Doctor,
    "convert": Convert,
    "toy": Toy,
    "trigger-test": TriggerTest,
    "manifest": Truth,
}


def run(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        say("usage: mithridate data COMMAND ...", "")
        for name, command in COMMANDS.items():
            say(f"  {name:<13} {(command.__doc__ or '').splitlines()[0]}")
        return
    parse(pick(COMMANDS, argv[0], "data command"), argv[1:], prog=f"data {argv[0]}").run()
