"""`mithridate train DATA --out DIR`."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

from tyro.conf import OmitArgPrefixes

from mithridate.cli.common import (
    CacheOptions,
    Data,
    Place,
    Plugins,
    ReadOptions,
    Threads,
    emit,
    only_kept,
    parse,
    pick,
    refuse_poison,
    with_plugins,
)
from mithridate.cli.options import early
from mithridate.cli.progress import display
from mithridate.errors import MithridateError
from mithridate.training.config import PRESETS, TrainConfig
from mithridate.training.registry import OBJECTIVES

Options = TypeVar("Options")


@dataclass(frozen=True)
class Train(Generic[Options]):
    """Train an encoder on pairs. Killed and started again, the same command goes on to the same weights."""

    data: Data
    """The pairs: a table, tar shards, an annotation file, a folder, or what mithridate poison wrote."""
    out: Path
    """Folder to write: run.json, metrics.jsonl, model/ (open_clip's layout)."""
    encoder: str = "mithridate-tiny"
    """What to start from: an open_clip model, mithridate-tiny, local-dir:FOLDER, hf-hub:ORG/REPO, a run's folder."""
    pretrained: str | None = None
    """Its pretrained tag or checkpoint file."""
    preset: Literal["finetune", "scratch", "repair-1e-3", "repair-1e-4", "repair-1e-5"] | None = None
    """Defaults of what follows: `scratch` without weights, else `finetune`; `repair-RATE`: one epoch on clean pairs."""
    config: OmitArgPrefixes[TrainConfig] = field(default_factory=TrainConfig)
    objective: str = "clip"
    """clip, augment-only, roclip, cleanclip, safeclip, par; --objective NAME --help shows the options of each."""
    options: OmitArgPrefixes[Options] = field(kw_only=True)
    keep: Place | None = None
    """Train only on the pairs of this keep-list: what mithridate filter wrote, a list of uids, a DataComp subset."""
    refuse_manifest: Path | None = None
    """Refuse to train where a pair that this manifest calls poisoned is still as it was poisoned: for repair."""
    read: OmitArgPrefixes[ReadOptions] = field(default_factory=ReadOptions)
    cache: OmitArgPrefixes[CacheOptions] = field(default_factory=CacheOptions)
    plugin: Plugins = ()
    threads: Threads = None
    overwrite: bool = False
    """Replace what is in the output folder."""
    json: bool = False
    """One JSON object on the last line."""

    def run(self) -> None:
        from mithridate.encoder.encoder import load_encoder
        from mithridate.training.loop import train
        from mithridate.training.run import METRICS

        pairs = self.read.read(self.data)
        start = load_encoder(self.encoder, pretrained=self.pretrained, seed=self.config.seed)
        pairs = only_kept(pairs, self.keep, start)
        refuse_poison(pairs, self.refuse_manifest)
        clock = time.perf_counter()
        with _nothing_left_if_refused(self.out), display(quiet=self.json) as show:
            trained = train(
                start,
                pairs,
                objective=self.options,  # type: ignore[arg-type]
                config=self.config,
                out=self.out,
                overwrite=self.overwrite,
                cache=self.cache.folder,
                cache_limit=self.cache.limit,
                progress=show.stage,
                on_step=show.training("training", self.out / METRICS),
            )
        parameters = sum(p.numel() for p in trained.model.parameters())
        seconds = round(time.perf_counter() - clock, 1)
        emit(
            {"out": str(self.out), "pairs": len(pairs), "parameters": parameters, "seconds": seconds},
            as_json=self.json,
            then=("evaluate", self.out, "TEST-PAIRS", "--out", f"{self.out}-report"),
        )


@contextmanager
def _nothing_left_if_refused(out: Path) -> Iterator[None]:
    """Take away the record of a run that was refused before its first step: a corrected one may use the folder."""
    try:
        yield
    except MithridateError:
        from mithridate.training.run import RUN

        if out.is_dir() and [path.name for path in out.iterdir()] == [RUN]:
            shutil.rmtree(out)
        raise


def run(argv: Sequence[str]) -> None:
    argv = with_plugins(argv)
    # which defaults hold is decided by options that are read before the others
    known = early(argv, "encoder", "pretrained", "preset", "objective")
    encoder, preset = (known["encoder"] or [""])[-1], (known["preset"] or [None])[-1]
    bare = not known["pretrained"] and ":" not in encoder and not Path(encoder or "x").is_dir()
    if preset not in PRESETS:
        preset = "scratch" if bare else "finetune"
    objective = pick(OBJECTIVES, (known["objective"] or ["clip"])[-1], "objective")
    default = Train[objective](data="", out=Path(), config=PRESETS[preset], options=objective())
    parse(Train[objective], argv, prog="train", default=_required(default)).run()


def _required(default: Train) -> Train:
    """The default with its positional and `--out` left to be given."""
    import copy

    import tyro

    default = copy.copy(default)
    for name in ("data", "out"):  # not by the constructor, which may check types
        object.__setattr__(default, name, tyro.MISSING)
    return default
