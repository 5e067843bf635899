"""Stages carried out: each function reads what its stage needs from the store and writes what it gives."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mithridate.audit.filter import filter
from mithridate.data.write import write_table
from mithridate.encoder.embed import embed
from mithridate.encoder.surrogate import SurrogateEncoder
from mithridate.errors import OutputError
from mithridate.evaluation.filter_outcome import poisoned_rows
from mithridate.metrics.detection import detection, losses
from mithridate.poisoning.apply import poison
from mithridate.poisoning.manifest import write_manifest
from mithridate.statistics.intervals import rate
from mithridate.studies.measure import classify, measure
from mithridate.studies.stages import (
    ClassifiedImages,
    EmbeddedPairs,
    FilteredPairs,
    MeasuredCell,
    PoisonedPairs,
    Stage,
    ToyDataset,
    TrainedModel,
)
from mithridate.studies.store import STAGE, Store, training_seconds, write_json
from mithridate.toy.world import write_toy_world
from mithridate.training.loop import train
from mithridate.training.run import RUN, STATE


def carry_out(stage: Stage, store: Store) -> None:
    """Do a stage; what it needs is in the store. Killed at any moment it is as if it had not begun, or goes on."""
    _DO[type(stage)](stage, store)


def _world(stage: ToyDataset, store: Store) -> None:
    with store.new(stage, _clock()) as folder:
        toy = stage.toy
        write_toy_world(
            folder / "world", train=toy.train, test=toy.test, seed=stage.seed, size=toy.size, classes=toy.classes
        )


def _poisoned(stage: PoisonedPairs, store: Store) -> None:
    surrogate = None
    if stage.surrogate is not None:
        surrogate = SurrogateEncoder(store.encoder(stage.surrogate), cache=store.cache(stage))
    with store.new(stage, _clock()) as folder:
        data = folder / "data"
        data.mkdir()
        found = poison(
            store.pairs(stage.pairs),
            stage.attack,
            seed=stage.seed,
            gallery=None if stage.gallery is None else store.pairs(stage.gallery),
            surrogate=surrogate,
            images=data / "images",
        )
        write_table(found.pairs, data, copy_images=False)
        write_manifest(found.manifest, folder / "manifest.json")


def _embedded(stage: EmbeddedPairs, store: Store) -> None:
    with store.new(stage, _clock()) as folder:
        found = embed(store.encoder(stage.encoder), store.pairs(stage.pairs), cache=store.cache(stage.pairs))
        for name, array in (("image", found.image), ("index", found.image_index), ("text", found.text)):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        told = {"encoder": found.encoder, "weights": found.weights}
        (folder / "encoder.json").write_text(json.dumps(told), encoding="utf-8")


def _kept(stage: FilteredPairs, store: Store) -> None:
    with store.new(stage, _clock()) as folder:
        reference = None if stage.reference is None else store.embeddings(stage.reference)
        embeddings = store.embeddings(stage.embedded)
        filtered = filter(embeddings, stage.detector, threshold=stage.threshold, clean=reference, seed=stage.seed)
        np.save(folder / "keep.npy", filtered.keep, allow_pickle=False)
        found = {"clean pairs lost": rate(~filtered.keep)}
        if isinstance(stage.embedded.pairs, PoisonedPairs):
            bad = poisoned_rows(filtered.scores, store.manifest(stage.embedded.pairs))
            lost = losses(filtered.keep, bad, filtered.image_index)
            found = {
                "AUROC": detection(filtered.scores.suspicion, bad, filtered.image_index).auroc,
                "poison removed": lost.poison_removed,
                "clean pairs lost": lost.clean_lost,
            }
        told = {"pairs": int(filtered.keep.sum()), "estimates": {name: asdict(e) for name, e in found.items()}}
        (folder / "found.json").write_text(json.dumps(told), encoding="utf-8")


def _trained(stage: TrainedModel, store: Store) -> None:
    folder = store.folder(stage)
    if folder.is_dir() and (not (folder / RUN).is_file() or (folder / STAGE).is_file()):
        shutil.rmtree(folder)  # killed before it began; or done, and its model given up since
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = replace(stage.config, save_epochs=store.keeps_epochs(stage))
    pairs, start = store.pairs(stage.pairs), store.encoder(stage.start)

    def go() -> None:
        train(start, pairs, objective=stage.objective, config=config, out=folder, cache=store.cache(stage.pairs))

    try:
        go()
    except OutputError:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise  # the others began already
        # what lies there is of another version, or damaged; a full disk fails again
        shutil.rmtree(folder, ignore_errors=True)
        go()
    (folder / STATE).unlink(missing_ok=True)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    seconds = training_seconds(folder, stage.config.batch_size)
    write_json(folder / STAGE, {"kind": "models", "seconds": round(seconds, 3), "pairs": len(pairs)})


def _classified(stage: ClassifiedImages, store: Store) -> None:
    with store.new(stage, _clock()) as folder:
        np.savez(folder / "values.npz", **classify(stage, store))  # type: ignore[arg-type]


def _measured(stage: MeasuredCell, store: Store) -> None:
    with store.new(stage, _clock()) as folder:
        measure(stage, store, folder)


_DO: dict[type, Callable[[Any, Store], None]] = {
    ToyDataset: _world,
    PoisonedPairs: _poisoned,
    EmbeddedPairs: _embedded,
    FilteredPairs: _kept,
    TrainedModel: _trained,
    ClassifiedImages: _classified,
    MeasuredCell: _measured,
}


def _clock() -> Callable[[], float]:
    begin = time.perf_counter()
    return lambda: time.perf_counter() - begin
