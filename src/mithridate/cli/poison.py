"""`mithridate poison ATTACK DATA --out DIR`: a poisoned set in DIR/data, the truth in DIR/manifest.json."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from tyro.conf import OmitArgPrefixes

from mithridate.cli.common import (
    CacheOptions,
    Data,
    Plugins,
    ReadOptions,
    Threads,
    emit,
    parse,
    pick,
    with_plugins,
)
from mithridate.cli.preflight import CheckOptions
from mithridate.cli.progress import Display, display
from mithridate.cli.workers import WorkerOptions
from mithridate.data.write import write_table, write_webdataset
from mithridate.folders import new_folder, refuse_existing
from mithridate.poisoning.apply import poison
from mithridate.poisoning.manifest import Manifest, write_manifest
from mithridate.poisoning.plan import Surrogate
from mithridate.poisoning.registry import ATTACKS
from mithridate.report.numbers import show_tick
from mithridate.text import say

A = TypeVar("A")


@dataclass(frozen=True)
class Poison(Generic[A]):
    """Poison a data set. The set is written to OUT/data, the truth about it to OUT/manifest.json."""

    data: Data
    """The clean pairs: a table, tar shards, an annotation file, or a folder."""
    out: Path
    """Folder to write."""
    attack: OmitArgPrefixes[A]
    format: Literal["overlay", "table", "webdataset"] = "overlay"
    """`overlay`: a table that points at the clean images; the others hold copies, every sample under a new name."""
    seed: int = 0
    """Of every draw."""
    gallery: str | None = None
    """Pairs outside the training set that a target image is taken from; by default DATA itself."""
    gallery_split: str | None = None
    """Split of the gallery."""
    surrogate: str | None = None
    """Encoder that an attack works with: a model's name, local-dir:FOLDER, a run's folder."""
    surrogate_pretrained: str | None = None
    """Its pretrained tag or checkpoint file."""
    check: OmitArgPrefixes[CheckOptions] = field(default_factory=CheckOptions)
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    cache: OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    engine: OmitArgPrefixes[WorkerOptions] = field(default_factory=WorkerOptions)
    plugin: Plugins = ()
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        refuse_existing(self.out, overwrite=self.overwrite)
        engine = self.engine.engine
        self.engine.refuse_idle(self.format != "overlay", "an overlay copies no images")
        pairs = self.read.read(self.data, engine=engine)
        gallery = None
        if self.gallery or self.gallery_split:
            gallery = self.read.read(self.gallery or self.data, split=self.gallery_split)
        inputs = self.check.inputs(self.read)
        with new_folder(self.out, overwrite=self.overwrite) as folder:
            data = folder / "data"
            data.mkdir()
            # an overlay points at altered images; copies of them have names of their own, so they lie with the truth
            images = (data if self.format == "overlay" else folder) / "images"
            with display(quiet=self.json) as show:
                poisoned = poison(
                    pairs,
                    self.attack,  # type: ignore[arg-type]
                    seed=self.seed,
                    gallery=gallery,
                    surrogate=self._surrogate(show),
                    images=images,
                    progress=show.stage,
                )
            if self.format == "webdataset":
                write_webdataset(poisoned.pairs, data, records=poisoned.records, origin=poisoned.origin, engine=engine)
            else:
                copied = self.format == "table"
                records = poisoned.records if copied else None
                write_table(poisoned.pairs, data, copy_images=copied, records=records, engine=engine)
            found = self.check.look(poisoned, data, inputs, cache=self.cache, seed=self.seed)
            manifest = replace(poisoned.manifest, preflight=found.record())
            write_manifest(manifest, folder / "manifest.json")
        self.check.print(found, quiet=self.json)
        strength = poisoned.manifest.strength
        shown = strength if self.json else {name: show_tick(float(value)) for name, value in strength.items()}
        made = {"out": str(self.out), "attack": poisoned.manifest.attack, **shown, **_altered(poisoned.manifest)}
        made["warnings"] = found.codes
        emit(made, as_json=self.json, then=("train", self.out, "--out", f"{self.out}-run"))

    def _surrogate(self, show: Display) -> Surrogate | None:
        if self.surrogate is None:
            return None
        from mithridate.encoder.encoder import load_encoder
        from mithridate.encoder.surrogate import SurrogateEncoder

        encoder = load_encoder(self.surrogate, pretrained=self.surrogate_pretrained)
        return SurrogateEncoder(encoder, self.cache.folder, self.cache.limit, show.stage)


def _altered(manifest: Manifest) -> dict[str, Any]:
    """How many images were altered, and what of their containers could not be kept."""
    if not manifest.crafted:
        return {}
    lost = manifest.crafted["not_kept"]
    return {"altered_images": manifest.crafted["images"], **({"not_kept": lost} if lost else {})}


def run(argv: Sequence[str]) -> None:
    argv = with_plugins(argv)
    if not argv or argv[0] in ("-h", "--help"):
        say("usage: mithridate poison ATTACK DATA --out DIR ...", "")
        for name, attack in ATTACKS.items():
            say(f"  {name:<13} {(attack.__doc__ or '').splitlines()[0]}")
        return
    parse(Poison[pick(ATTACKS, argv[0], "attack")], argv[1:], prog=f"poison {argv[0]}").run()
