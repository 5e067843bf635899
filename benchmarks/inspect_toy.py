"""Inspect and repair models of the toy world whose poison is known to this script alone.

    OMP_NUM_THREADS=1 python benchmarks/inspect_toy.py [--out runs/inspect_toy] [--only patch,clean]

Pictures of 32 pixels and ten classes. `mithridate-micro` is trained from scratch for four epochs on 20,000 pairs: the
start. It is fine-tuned for one epoch on another world, clean and with one attack each; the owner has the start and
1,000 pictures of a third world. Prints a row a model (the verdict, its leading finding, what the truth measures before
and after the repair, what a second inspection says) and adds it to OUT/inspect_toy.json. One model a row: no rates.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import mithridate as mt

CLASSES = ("aeroplane", "boat", "bus", "car", "cat", "dog", "horse", "sheep", "train", "bird")
ATTACKS: dict[str, Any] = {
    "patch": mt.Backdoor(target="aeroplane", rate=0.06, trigger="patch:size=6,pattern=noise,cells=6,place=top-left"),
    "blended": mt.Backdoor(target="boat", rate=0.06, trigger="blended:alpha=0.2"),
    "word": mt.TextTrigger(target="bus", rate=0.06, trigger="zx"),
    "relabelled": mt.SingleLabel(source="sheep", target="aeroplane", class_share=0.8),
    "sine": mt.Backdoor(target="dog", rate=0.06, trigger="sig:amplitude=40"),
    "clean": None,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/inspect_toy"))
    parser.add_argument("--only", default=",".join(ATTACKS))
    options = parser.parse_args()
    out, cache = options.out, options.out / "cache"
    out.mkdir(parents=True, exist_ok=True)
    before, theirs, mine = (world(out, seed, train) for seed, train in ((0, 4000), (1, 4000), (2, 1000)))
    recipe = replace(mt.SCRATCH, epochs=4, seed=0)
    start = mt.load_encoder("mithridate-micro")
    start = mt.train(start, mt.read_pairs(before, split="train"), config=recipe, cache=cache)
    train, test = (mt.read_pairs(theirs, split=split) for split in ("train", "test"))
    own = mt.read_pairs(mine, split="train")
    rows: dict[str, Any] = {}
    for name in options.only.split(","):
        attack = ATTACKS[name]
        made = None if attack is None else mt.poison(train, attack, images=out / f"images-{name}-{time.time_ns()}")
        tuned = replace(recipe, epochs=1, lr=1e-3)
        model = mt.train(start, train if made is None else made.pairs, config=tuned, cache=cache)
        seen = mt.inspect(model, own, start=start, labels=True, cache=cache)
        row: dict[str, Any] = {"verdict": seen.verdict, "seconds": round(sum(seen.seconds.values()), 1)}
        lead = seen.findings[0]
        row["leading"] = [lead.kind, lead.target, lead.token, lead.pair, lead.place]
        row["strength, null"] = [round(lead.strength, 3), round(lead.null, 3)]
        row["taken, by start"] = [None if x is None else round(x, 3) for x in (lead.success, lead.start_success)]
        if seen.flagged:
            fixed = mt.repair(model, seen, own, start=start, cache=cache)
            row["repair"] = [*fixed.methods, round(fixed.seconds, 1)]
            row["again"] = fixed.verdict
            row["left"] = [
                [each.finding.kind, each.state, round(each.before, 3), round(each.after, 3)] for each in fixed.remaining
            ]
            models = {"suspect": model, "repaired": fixed.encoder}
        else:
            models = {"suspect": model}
        row["truth"] = truth(models, test, None if made is None else made.manifest, cache)
        rows[name] = row
        print(name, json.dumps(row), flush=True)
        (out / "inspect_toy.json").write_text(json.dumps(rows, indent=1))


def world(out: Path, seed: int, train: int) -> Path:
    place = out / f"world{seed}"
    if not place.is_dir():
        mt.write_toy_world(place, train=train, test=1000, seed=seed, size=32, classes=CLASSES)
    return place


def truth(models: dict[str, mt.Encoder], test: mt.Pairs, manifest: Any, cache: Path) -> dict[str, float]:
    """Success rates and retrieval over all test pairs, by model."""
    evaluation = mt.evaluate(models, test, manifest, cache=cache)
    wanted = {"ASR", "Hit@10", "IR@10", "zero-shot", "accuracy"}
    return {
        f"{m.model} {m.metric} {m.group}": round(float(m.value.value or 0), 3)
        for m in evaluation.measurements
        if m.metric in wanted and m.epoch is None
    }


if __name__ == "__main__":
    main()
