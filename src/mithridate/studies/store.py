"""Where the stages of a study lie, whether they are there, and how they are read. What is there is whole."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mithridate.data.pairs import Pairs
from mithridate.data.read import read_pairs
from mithridate.encoder.embeddings import Embeddings
from mithridate.encoder.encoder import CONFIG, Encoder, load_encoder
from mithridate.folders import new_folder, write_atomically
from mithridate.poisoning.manifest import Manifest, read_manifest
from mithridate.studies.spec.study import DataSpec
from mithridate.studies.stages import (
    KINDS,
    CleanPairs,
    EmbeddedPairs,
    FilteredPairs,
    InitialModel,
    PoisonedPairs,
    Stage,
    TrainedModel,
    key_of,
)
from mithridate.training.run import METRICS, MODEL

STAGE = "stage.json"
_SHARE = 7  # tells the draw of a share from every other draw of a seed


class Store:
    """The stages below `out`; `epochs` are the keys of trainings that shall keep the model of every epoch."""

    def __init__(self, out: Path, epochs: frozenset[str] = frozenset()) -> None:
        self.out, self.epochs = Path(out), epochs
        self._clean = lru_cache(maxsize=8)(self._read_clean)

    def folder(self, stage: Stage) -> Path:
        return self.out / "stages" / KINDS[type(stage)] / key_of(stage)

    def has(self, stage: Stage) -> bool:
        """Whether a stage is done, and what it gave is still there."""
        return has(self.folder(stage), stage, epochs=self.keeps_epochs(stage))

    def keeps_epochs(self, stage: Stage) -> bool:
        return isinstance(stage, TrainedModel) and key_of(stage) in self.epochs

    def cache(self, pairs: CleanPairs | PoisonedPairs | FilteredPairs) -> Path:
        """The image cache for these pairs: one for a world with all that is made of it, one for what is read."""
        while not isinstance(pairs, CleanPairs):
            pairs = pairs.embedded.pairs if isinstance(pairs, FilteredPairs) else pairs.pairs
        return self.out / "cache" / ("read" if pairs.world is None else key_of(pairs.world))

    @contextmanager
    def new(self, stage: Stage, seconds: Any = None) -> Iterator[Path]:
        """A folder to write a stage into; it is there when the block ends. `seconds()` tells how long it took."""
        folder = self.folder(stage)
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with new_folder(folder, overwrite=True) as part:
            yield part
            told = {"kind": KINDS[type(stage)], "seconds": None if seconds is None else round(seconds(), 3)}
            (part / STAGE).write_text(json.dumps(told), encoding="utf-8")

    def drop(self, stage: Stage) -> None:
        """Take away what a stage gave; of a training what it measured stays."""
        folder = self.folder(stage)
        gone = [folder / MODEL, folder / "epochs"] if isinstance(stage, TrainedModel) else [folder]
        for path in gone:
            aside = path.with_name(f".{path.name}-gone")
            shutil.rmtree(aside, ignore_errors=True)
            if path.is_dir():
                path.rename(aside)  # at once: half of it must never be found
                shutil.rmtree(aside, ignore_errors=True)

    # --- what stages gave -------------------------------------------------------------------------------

    def pairs(self, of: CleanPairs | PoisonedPairs | FilteredPairs) -> Pairs:
        if isinstance(of, CleanPairs):
            return self._clean(of)
        if isinstance(of, PoisonedPairs):
            return read_pairs(self.folder(of) / "data")
        return self.pairs(of.embedded.pairs).where(np.load(self.folder(of) / "keep.npy", allow_pickle=False))

    def _read_clean(self, of: CleanPairs) -> Pairs:
        if of.world is not None:
            pairs = read_pairs(self.folder(of.world) / "world", split=of.part)
        else:
            assert of.data is not None  # clean pairs are of one or the other
            pairs = read_data(of.data, of.part)
        return pairs if of.share == 1 else share_of(pairs, of.share, of.seed)

    def manifest(self, of: PoisonedPairs) -> Manifest:
        return read_manifest(self.folder(of))

    def encoder(self, of: InitialModel | TrainedModel, epoch: int | None = None) -> Encoder:
        """A model; of a training the one after `epoch`, by default the last."""
        if isinstance(of, InitialModel):
            return load_encoder(of.encoder, pretrained=of.pretrained, seed=of.seed)
        folder = self.folder(of)
        return load_encoder(str(folder if epoch is None else folder / "epochs" / f"{epoch:03d}"))

    def embeddings(self, of: EmbeddedPairs) -> Embeddings:
        folder = self.folder(of)
        told = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        image, index, text = (np.load(folder / f"{n}.npy", allow_pickle=False) for n in ("image", "index", "text"))
        return Embeddings(self.pairs(of.pairs).uid, image, index, text, told["encoder"], told["weights"])

    def found(self, of: Stage) -> dict[str, Any]:
        """What a stage wrote down beside its arrays."""
        return json.loads((self.folder(of) / "found.json").read_text(encoding="utf-8"))


def has(folder: Path, stage: Stage, *, epochs: bool = False) -> bool:
    """Whether `folder` holds what `stage` gives."""
    if not isinstance(stage, TrainedModel):
        return (folder / STAGE).is_file()
    if not (folder / MODEL / CONFIG).is_file():
        return False
    return not epochs or (folder / "epochs" / f"{stage.config.epochs:03d}" / CONFIG).is_file()


def sweep(folder: Path) -> None:
    """Take away what killed processes left of `folder`, which nobody else writes."""
    for part in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(part, ignore_errors=True)


def training_seconds(folder: Path, batch_size: int) -> float:
    """How long the steps of a training took, also where it was killed and went on."""
    seconds = 0.0
    for line in (folder / METRICS).read_text(encoding="utf-8").splitlines():
        seconds += batch_size / max(float(json.loads(line)["pairs_per_s"]), 1e-9)
    return seconds


def read_data(data: DataSpec, part: str) -> Pairs:
    """The pairs of a part (train, test) of data that lie outside."""
    name, split = (data.train, data.train_split) if part == "train" else (data.test, data.test_split)
    place = f"{data.path.rstrip('/')}/{name}" if data.path and name else data.path or name
    return read_pairs(
        place,
        split=split,
        image_root=data.image_root,
        label_rule=data.label_rule,
        exclude_coco=data.exclude_coco,
    )


def share_of(pairs: Pairs, share: float, seed: int) -> Pairs:
    """The pairs of `share` of the images of each class alike, drawn by `seed`; one image of each at least."""
    rng = np.random.default_rng([seed, _SHARE])
    first = np.unique(pairs.image_index, return_index=True)[1]
    classes = [(found or [""])[0] for found in pairs.labels.take(first).to_pylist()]
    of_class: dict[str, list[int]] = {}
    for image, name in enumerate(classes):
        of_class.setdefault(name, []).append(image)
    kept = np.zeros(len(pairs.images), dtype=bool)
    for images in of_class.values():
        kept[rng.permutation(images)[: max(1, round(share * len(images)))]] = True
    return pairs.where(kept[pairs.image_index])


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False))
