"""Robust objectives against attacks on the toy world: attack success and utility, over seeds, at equal lr and epochs.

    OMP_NUM_THREADS=1 python benchmarks/defence_table.py --out runs/defences --seeds 3
    python benchmarks/defence_table.py --out runs/defences --defences clip roclip --attacks backdoor

The toy world and the recipe of the demo. For every seed a world, every attack on it, every defence trained on each. A
cell that is done is not done again and a training that was killed goes on, so the same line may be started any number
of times, with more seeds, attacks or defences. The table is printed and written to OUT/report.html at the end.

Success is measured after the last epoch, and after the one before it: RoCLIP's epochs are of two kinds. Utility is
measured after the last: retrieval both ways, zero-shot classification, and a linear probe trained on the clean training
images. With several seeds the intervals hold for other seeds and other queries, with one for other queries alone.
"""

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import mithridate as mt
from mithridate.cli import main as command
from mithridate.cli.demo import EPOCHS, TEST_IMAGES, TRAIN_IMAGES
from mithridate.data.labelled import class_index, match_classes
from mithridate.evaluation.intervals import rate
from mithridate.evaluation.probe import image_features
from mithridate.evaluation.result import Cell, Estimate, Table
from mithridate.evaluation.seeds import hierarchical_bootstrap
from mithridate.evaluation.tradeoff import success_outcomes, utility_outcomes
from mithridate.folders import write_atomically
from mithridate.report.console import print_report

ATTACKS = {
    "single-label": ["single-label", "--source", "sheep", "--target", "aeroplane"],
    "backdoor": ["backdoor", "--target", "aeroplane", "--rate", "0.01"],
    "targeted": ["targeted", "--images", "16", "--per-target", "20", "--gallery-split", "test"],
}
CLEAN = "none, clean pairs"
MEASURES = ("IR@10", "TR@10", "zero-shot", "probe")


def defences(epochs: int) -> dict[str, Any]:
    """What is compared, by name; `epochs` is for those that have phases."""
    return {
        CLEAN: mt.Clip(),
        "clip": mt.Clip(),
        "augment-only": mt.AugmentOnly(),
        "roclip": mt.RoClip(every=2),
        "roclip, every epoch": mt.RoClip(every=1),
        "roclip, as published": mt.RoClip(every=2, faithful=True),
        "cleanclip": mt.CleanClip(),
        "safeclip": mt.SafeClip(unimodal_epochs=max(1, epochs // 4)),
    }


def poisoned(out: Path, seed: int, attack: str, train: int, test: int) -> tuple[mt.Pairs, Path, mt.Manifest]:
    """The poisoned pairs of a seed, its world, and the truth; made where they are not there."""
    world, folder = out / f"world-{seed}", out / f"poison-{seed}-{attack}"
    if not world.is_dir():
        mt.write_toy_world(world, train=train, test=test, seed=seed)
    if not (folder / "manifest.json").is_file():
        argv = ["poison", *ATTACKS[attack], str(world), "--split", "train", "--seed", str(seed), "--out", str(folder)]
        if command(argv) != 0:
            raise SystemExit(1)
    return mt.read_pairs(folder / "data"), world, mt.read_manifest(folder)


def of_one_class(pairs: mt.Pairs) -> mt.Pairs:
    """One pair of each image that has one class."""
    first = pairs.take(np.unique(pairs.image_index, return_index=True)[1])
    return first.where(np.array([len(found) == 1 for found in first.labels.to_pylist()]))


def classified(model: mt.Encoder, train: mt.Pairs, test: mt.Pairs, cache: Path) -> dict[str, list[int]]:
    """Whether each test image is classified rightly, by prompts and by a probe on clean training images."""
    seen, new = of_one_class(train), of_one_class(test)
    names = match_classes(new)
    zero_shot = mt.zero_shot(model, new, classes=names, cache=cache)
    features = [image_features(model, pairs, cache=cache) for pairs in (seen, new)]
    scores = mt.AdamWProbe().fit_predict(features[0], class_index(seen, names), features[1], np.random.default_rng(0))
    return {
        "zero-shot": (zero_shot.ranks == 0).astype(int).tolist(),
        "probe": (scores.argmax(axis=1) == class_index(new, names)).astype(int).tolist(),
    }


def cell(out: Path, seed: int, attack: str, name: str, config: mt.TrainConfig, train: int, test: int) -> None:
    """Train one defence on one poisoned world and write what came of it."""
    path = out / "cells" / f"{seed}-{attack}-{name.replace(' ', '-').replace(',', '')}.json"
    if path.is_file():
        return
    pairs, world, manifest = poisoned(out, seed, attack, train, test)
    clean, tested = (mt.read_pairs(world, split=split) for split in ("train", "test"))
    config = replace(config, seed=seed, save_epochs=True)
    folder, cache, clock = out / "runs" / path.stem, out / "cache", time.perf_counter()
    if not (folder / "model").is_dir():
        objective = defences(config.epochs)[name]
        start = mt.load_encoder("mithridate-tiny", seed=seed)
        mt.train(start, clean if name == CLEAN else pairs, objective=objective, config=config, out=folder, cache=cache)
    seconds = round(time.perf_counter() - clock, 1)
    reports = {
        when: mt.evaluate(
            mt.load_encoder(str(folder / "epochs" / f"{epoch:03d}")), tested, manifest, seed=seed, cache=cache
        )
        for when, epoch in (("last", config.epochs), ("before", max(1, config.epochs - 1)))
    }
    found: dict[str, Any] = {
        when: {measure: hit.astype(int).tolist() for measure, hit in success_outcomes(report, "poisoned").items()}
        for when, report in reports.items()
    }
    model = mt.load_encoder(str(folder / "epochs" / f"{config.epochs:03d}"))
    found["utility"] = {
        **{measure: hit.astype(int).tolist() for measure, hit in utility_outcomes(reports["last"], "poisoned").items()},
        **classified(model, clean, tested, cache),
    }
    found |= {"seconds": seconds, "strength": manifest.strength}
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(found))
    shutil.rmtree(folder)
    told = ", ".join(f"{measure} {np.mean(hit):.3f}" for measure, hit in {**found["last"], **found["utility"]}.items())
    print(f"seed {seed}, {attack}, {name}: {told}; {seconds:.0f} s", flush=True)


def over_seeds(values: list[list[int]]) -> Cell:
    """Mean with an interval: for other seeds and queries, or for other queries where there is one seed."""
    arrays = [np.array(v, dtype=float) for v in values]
    if len(arrays) == 1:
        return rate(arrays[0] > 0)
    # every seed has a world of its own, so no two share a query
    return hierarchical_bootstrap(arrays, rng=np.random.default_rng(0), same_units=False)


def table(out: Path, attacks: list[str], names: list[str], seeds: int, note: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for attack in attacks:
        for name in names:
            stem = f"{attack}-{name.replace(' ', '-').replace(',', '')}.json"
            cells = [json.loads((out / "cells" / f"{seed}-{stem}").read_text()) for seed in range(seeds)]
            success = [
                over_seeds([[hit for found in each[when].values() for hit in found] for each in cells])
                for when in ("last", "before")
            ]
            utility = [over_seeds([each["utility"][measure] for each in cells]) for measure in MEASURES]
            seconds = Estimate(float(np.median([each["seconds"] for each in cells])))
            rows.append((attack, name, *success, *utility, seconds))
    columns = ("attack", "defence", "success", "success, epoch before", *MEASURES, "seconds to train")
    return Table("defences", "Defences on the toy world", columns, tuple(rows), note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/defences"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--defences", nargs="*", default=list(defences(EPOCHS)), choices=list(defences(EPOCHS)))
    parser.add_argument("--train", type=int, default=TRAIN_IMAGES, help="images to train on")
    parser.add_argument("--test", type=int, default=TEST_IMAGES, help="images to test with")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    config = replace(mt.SCRATCH, epochs=options.epochs)
    # cells of another size or recipe are other cells
    out = options.out / f"{options.train}-{options.test}-{options.epochs}"
    out.mkdir(exist_ok=True)
    for seed in range(options.seeds):
        for attack in options.attacks:
            for name in options.defences:
                cell(out, seed, attack, name, config, options.train, options.test)
    note = (
        f"{options.train} images to train on, {options.test} to test with, {options.epochs} epochs in batches of "
        f"{config.batch_size} at lr {config.lr:g}, {options.seeds} seeds. Success: Hit@10 for single-label, ASR for "
        "backdoor, PSR for targeted. 95 % intervals."
    )
    found = table(out, options.attacks, options.defences, options.seeds, note)
    report = mt.Report(title="Defences on the toy world", summary=(note,), tables=(found,))
    mt.write_report(report, options.out)
    print_report(report)


if __name__ == "__main__":
    main()
