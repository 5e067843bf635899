"""What test-time scores see: AUROC of images with a trigger against clean ones that the model takes for the same class.

    OMP_NUM_THREADS=1 python benchmarks/screen_toy.py [--out runs/screen_toy] [--only patch,blended]

Pictures of 32 pixels and ten classes. `mithridate-micro` is trained from scratch for four epochs on 20,000 pairs: the
start. It is fine-tuned for one epoch on another world with one attack each (models that OUT has are not trained again).
For each 300 test pictures of other classes that the trigger takes to its class, against clean test pictures that the
model takes for it. Prints a row a model, and the dict that src/mithridate/inspection/scores/seen.py holds.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import mithridate as mt
from mithridate.encoder.embed import image_source
from mithridate.inspection.finding import as_images
from mithridate.inspection.known_triggers import stamped_with
from mithridate.inspection.material import own_data, view_of
from mithridate.inspection.scores.registry import SCORES
from mithridate.inspection.scores.score import Screen
from mithridate.metrics.detection import detection

CLASSES = ("aeroplane", "boat", "bus", "car", "cat", "dog", "horse", "sheep", "train", "bird")
ATTACKS = {
    "patch": mt.Backdoor(target="aeroplane", rate=0.06, trigger="patch:size=6,pattern=noise,cells=6,place=top-left"),
    "blended": mt.Backdoor(target="boat", rate=0.06, trigger="blended:alpha=0.2"),
    "sine": mt.Backdoor(target="dog", rate=0.06, trigger="sig:amplitude=40"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/screen_toy"))
    parser.add_argument("--only", default=",".join(ATTACKS))
    options = parser.parse_args()
    out, cache = options.out, options.out / "cache"
    out.mkdir(parents=True, exist_ok=True)
    before, theirs, mine = (world(out, seed, train) for seed, train in ((0, 4000), (1, 4000), (2, 1000)))
    recipe = replace(mt.SCRATCH, epochs=4, seed=0)
    train, test = (mt.read_pairs(theirs, split=split) for split in ("train", "test"))
    own = mt.read_pairs(mine, split="train")
    seen: dict[str, dict[str, float]] = {}
    for kind in options.only.split(","):
        attack = ATTACKS[kind]
        start = trained(
            out / "start",
            lambda: mt.load_encoder("mithridate-micro"),
            mt.read_pairs(before, split="train"),
            recipe,
            cache,
        )
        made = mt.poison(train, attack, images=out / f"images-{kind}-{time.time_ns()}").pairs
        model = trained(out / kind, lambda s=start: s, made, replace(recipe, epochs=1, lr=1e-3), cache)
        for name, area in areas(model, own, test, attack, cache).items():
            seen.setdefault(name, {})[kind] = area
        print(kind, json.dumps({name: row[kind] for name, row in seen.items()}), flush=True)
    print(json.dumps(seen))


def world(out: Path, seed: int, train: int) -> Path:
    place = out / f"world{seed}"
    if not place.is_dir():
        mt.write_toy_world(place, train=train, test=1000, seed=seed, size=32, classes=CLASSES)
    return place


def trained(folder, first, pairs, recipe, cache):
    if not folder.is_dir():
        model = mt.train(first(), pairs, config=recipe, cache=cache)
        folder.mkdir()
        mt.save_encoder(model, folder)
    return mt.load_encoder(str(folder))


def areas(model, own, test, attack, cache) -> dict[str, float]:
    """By score the AUROC of triggered against clean images, all of them taken for the target."""
    data = own_data(own, model, cache=cache)
    view = view_of(model, data.classes)
    screen = Screen(view, data.classes, data.images, data.captions)
    source = image_source(model, test.images, cache=cache)
    images = as_images(torch.from_numpy(np.ascontiguousarray(source.gather(np.arange(len(test.images))))))
    target = data.classes.index(attack.target)
    taken = view.predicted(images) == target
    stamped = stamped_with(images[~taken][:600], attack.trigger, 0)
    assert stamped is not None  # the pictures are large enough for these triggers
    hit = stamped[view.predicted(stamped) == target][:300]
    clean = images[taken]
    truth = np.repeat([True, False], [len(hit), len(clean)])
    both = torch.cat([hit, clean])
    return {
        name: round(detection(kind().suspicion(screen, both).numpy().astype(np.float64), truth).auroc.value, 2)
        for name, kind in SCORES.items()
    }


if __name__ == "__main__":
    main()
