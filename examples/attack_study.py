"""How many poisons does an attack need? Backdoors and targeted poisoning on the toy world, over seeds and counts.

    python examples/attack_study.py --out runs/attacks                          # every attack at 1 % of the pairs
    python examples/attack_study.py --out runs/attacks --attacks patch targeted --counts 1 2 4 8 16 32 64 128 256

A count is of poisoned images (with their five captions) for backdoors and phrases, of captions for each target image
for `targeted`. The toy world, recipe and model of the demo; one world and one clean model for each seed. A cell that is
done is not done again, and a training that was killed goes on, so the same line may be started any number of times,
with more seeds, counts or attacks. OUT/report.html, .md and .json hold the table, OUT/success.png and .svg the figure.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import mithridate as mt
from mithridate.cli.demo import EPOCHS, TEST_IMAGES, TRAIN_IMAGES
from mithridate.evaluation.intervals import rate
from mithridate.evaluation.result import Cell, Estimate, Table
from mithridate.evaluation.seeds import hierarchical_bootstrap
from mithridate.folders import write_atomically

TARGET, CAPTIONS, TARGETS = "aeroplane", 5, 64
# Triggers on pictures of 64 pixels; what is finer than their pixels is given in fewer periods, or larger.
TRIGGERS = {
    "patch": "patch:size=16/128",
    "noise-patch": "patch:size=16/128,pattern=noise",
    "blended": "blended:alpha=0.2,cells=8",
    "sig": "sig:amplitude=60,frequency=6",
    "warp": "warp:k=4,s=16",
    "filter": "filter:tone=warm",
    "stripes": "stripes:alpha=0.1,count=16",
    "triangles": "triangles:alpha=0.15,count=4",
    "text": "text:word=Watermarked,alpha=0.5",
    "fresh-noise": "fresh-noise:form=patch,size=16/128",
}
ATTACKS = (*TRIGGERS, "label-consistent", "templates", "targeted", "text-trigger")


def attack_of(name: str, count: int, *, targets: int) -> mt.Backdoor | mt.Targeted | mt.TextTrigger:
    """The attack called `name` with `count` poisons."""
    if name == "targeted":
        return mt.Targeted(images=targets, per_target=count, reuse=True)
    if name == "text-trigger":
        return mt.TextTrigger(target=TARGET, trigger="verily", count=count * CAPTIONS)
    backdoor = mt.Backdoor(target=TARGET, trigger=TRIGGERS.get(name, TRIGGERS["patch"]), count=count * CAPTIONS)
    if name == "label-consistent":
        return replace(backdoor, captions="label-consistent")
    return replace(backdoor, captions="templates") if name == "templates" else backdoor


def successes(report: mt.Report, model: str) -> list[int]:
    """Whether the attack succeeds on each triggered image, target image or triggered caption (Hit@10)."""
    ranking = next(r for r in report.rankings if r.name.split()[0] in ("backdoor", "targeted", "text-trigger"))
    first = 10 if ranking.name.startswith("text-trigger") else 1
    return [int(rank < first) for rank in ranking.ranks[model]]


class Study:
    """Worlds, clean models and cells of one folder; each is made once."""

    def __init__(self, out: Path, *, train: int, test: int, config: mt.TrainConfig, targets: int) -> None:
        self.out, self.train, self.test, self.config, self.targets = out, train, test, config, targets
        out.mkdir(parents=True, exist_ok=True)
        told = json.dumps({"train": train, "test": test, "epochs": config.epochs, "targets": targets})
        settings = out / "settings.json"
        if settings.is_file() and settings.read_text() != told:
            raise SystemExit(
                f"{out} holds a study of {settings.read_text()}, this one is of {told}; choose another --out"
            )
        write_atomically(settings, told)

    def world(self, seed: int) -> tuple[mt.Pairs, mt.Pairs]:
        folder = self.out / f"world-{seed}"
        if not folder.is_dir():
            mt.write_toy_world(folder, train=self.train, test=self.test, seed=seed)
        return mt.read_pairs(folder, split="train"), mt.read_pairs(folder, split="test")

    def model(self, name: str, pairs: mt.Pairs, seed: int) -> mt.Encoder:
        folder = self.out / name
        if (folder / "model").is_dir():
            return mt.load_encoder(str(folder))
        start = mt.load_encoder("mithridate-tiny", seed=seed)
        config = replace(self.config, seed=seed)
        return mt.train(start, pairs, config=config, out=folder, cache=self.out / "cache")

    def cell(self, name: str, count: int, seed: int) -> dict[str, Any]:
        path = self.out / "cells" / f"{name}-{count}-{seed}.json"
        if path.is_file():
            return json.loads(path.read_text())
        pairs, test = self.world(seed)
        images, run = self.out / "altered", self.out / f"poisoned-{path.stem}"
        shutil.rmtree(images, ignore_errors=True)
        attack = attack_of(name, count, targets=self.targets)
        done = mt.poison(pairs, attack, seed=seed, gallery=test, images=images)
        models = {"clean": self.model(f"clean-{seed}", pairs, seed), "poisoned": self.model(run.name, done.pairs, seed)}
        report = mt.evaluate(
            models["poisoned"], test, done.manifest, clean=models["clean"], seed=seed, cache=self.out / "cache"
        )
        found = {
            "strength": done.manifest.strength,
            "success": {model: successes(report, model) for model in models},
            "headline": report.headline,
        }
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(found))
        shutil.rmtree(run)
        return found


def estimate(values: Sequence[Sequence[int]], rng: np.random.Generator) -> Estimate:
    if len(values) == 1:  # holds for other test images, not for other seeds
        return rate(np.array(values[0], bool))
    # every seed has a world of its own, so no two share a test image
    return hierarchical_bootstrap([np.array(v, float) for v in values], rng=rng, same_units=False)


def table_of(cells: dict[tuple[str, int], list[dict[str, Any]]], chance: float) -> Table:
    rng = np.random.default_rng(0)
    rows: list[tuple[Cell, ...]] = []
    for (name, count), found in cells.items():
        accuracy = [
            float(np.mean([c["headline"]["zero-shot"][model]["accuracy"]["value"] for c in found]))
            if "zero-shot" in found[0]["headline"]
            else None
            for model in ("poisoned", "clean")
        ]
        rates = [estimate([c["success"][model] for c in found], rng) for model in ("poisoned", "clean")]
        pairs = int(found[0]["strength"]["count"])
        rows.append((name, count, pairs, found[0]["strength"]["rate"], len(found), *rates, *accuracy))
    rows.append(("chance", *(None,) * 4, chance, chance, chance, chance))
    return Table(
        "attacks",
        "Success by attack and count",
        (
            "attack",
            "count",
            "pairs",
            "of all pairs",
            "seeds",
            "success",
            "on the clean model",
            "zero-shot accuracy",
            "of the clean model",
        ),
        tuple(rows),
        f"Success: share of triggered images of other classes taken for {TARGET}; of target images taken for their "
        "adversarial class; of triggered captions with a target image among the first ten (chance is of the others). "
        "95 % hierarchical bootstrap: seeds, then units within them; of one seed, Wilson's over units. Accuracy: mean "
        "over seeds.",
    )


def draw(table: Table, out: Path) -> None:
    """Success against count, one line an attack, with its intervals."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for name in dict.fromkeys(str(row[0]) for row in table.rows[:-1]):
        points = sorted((row[1], row[5]) for row in table.rows if row[0] == name)  # type: ignore[type-var]
        x, y = [count for count, _ in points], [rate for _, rate in points]
        ends = np.array([[max(0.0, e.value - e.low), max(0.0, e.high - e.value)] for e in y]).T  # type: ignore[union-attr]
        axes.errorbar(x, [e.value for e in y], yerr=ends, marker="o", capsize=3, label=name)  # type: ignore[union-attr, arg-type]
    axes.axhline(table.rows[-1][5], color="grey", linewidth=0.8, label="chance")  # type: ignore[arg-type]
    axes.set(xlabel="poisoned images, or captions a target", ylabel="success", ylim=(-0.03, 1.03))
    axes.set_xscale("log", base=2)
    axes.legend(frameon=False, fontsize=8)
    for ending in ("png", "svg"):
        figure.savefig(out / f"success.{ending}", dpi=160, metadata={"Date": None} if ending == "svg" else None)
    plt.close(figure)


def main(
    out: Path,
    *,
    attacks: Sequence[str] = ATTACKS,
    counts: Sequence[int] = (),
    seeds: int = 3,
    train: int = TRAIN_IMAGES,
    test: int = TEST_IMAGES,
    epochs: int = EPOCHS,
    targets: int = TARGETS,
) -> mt.Report:
    """`counts` is by default 1 % of the images, and for `targeted` one sample's five captions."""
    study = Study(out, train=train, test=test, config=replace(mt.SCRATCH, epochs=epochs), targets=targets)
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for seed in range(seeds):
        for name in attacks:
            for count in counts or (CAPTIONS if name == "targeted" else max(1, round(train / 100)),):
                found = study.cell(name, count, seed)
                cells.setdefault((name, count), []).append(found)
                rates = {model: round(float(np.mean(hits)), 3) for model, hits in found["success"].items()}
                print(seed, name, count, rates, flush=True)
    classes = len(study.world(0)[1].classes)
    table = table_of(cells, 1 / classes)
    report = mt.Report(title="Attacks on the toy world", summary=(table.note,), tables=(table,))
    mt.write_report(report, out)
    draw(table, out)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/attacks"))
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--counts", nargs="+", type=int, default=[])
    for name, value in (("seeds", 3), ("train", TRAIN_IMAGES), ("test", TEST_IMAGES), ("epochs", EPOCHS)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--targets", type=int, default=TARGETS)
    main(**vars(parser.parse_args()))
