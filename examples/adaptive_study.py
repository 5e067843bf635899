"""Poison that agrees: what does it cost the cosine filter, and what does it cost the attack?

    python examples/adaptive_study.py --out runs/adaptive                      # all variants, three seeds
    python examples/adaptive_study.py --out runs/adaptive --variants random "collage 0.3" --seeds 1

Attack II (sheep to aeroplane) on the toy world with the demo's recipe and all images of class A, in several ways that
differ in nothing else. Two clean models of other worlds look on: the surrogate, under which poison is made to agree,
and the filter's encoder. For each variant OUT/report.html, .md and .json tell how well the cosine filter finds the
poison (AUROC) and how far captions of A find images of B (Hit@10); OUT/tradeoff.png and .svg draw one against the
other. A cell that is done is not done again, and a training that was killed goes on, so the same line may be started
any number of times.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

import mithridate as mt
from mithridate.cli.demo import EPOCHS, TEST_IMAGES, TRAIN_IMAGES
from mithridate.encoder.surrogate import SurrogateEncoder
from mithridate.evaluation.detection import poisoned_rows
from mithridate.evaluation.intervals import rate
from mithridate.evaluation.result import Cell, Estimate, Table
from mithridate.evaluation.seeds import hierarchical_bootstrap
from mithridate.folders import write_atomically

PLAIN = mt.SingleLabel(source="sheep", target="aeroplane")
VARIANTS = {
    "random": PLAIN,
    "best-match": replace(PLAIN, pairing="best-match"),
    "mixed": replace(PLAIN, mixed=True),
    "collage 0.3": replace(PLAIN, collage=0.3),
    "collage 0.5": replace(PLAIN, collage=0.5),
    "collage 0.7": replace(PLAIN, collage=0.7),
    "pgd 4": replace(PLAIN, pgd=4),
    "pgd 8": replace(PLAIN, pgd=8),
    "pgd 16": replace(PLAIN, pgd=16),
    "best-match, mixed": replace(PLAIN, pairing="best-match", mixed=True),
    "best-match, pgd 16": replace(PLAIN, pairing="best-match", pgd=16),
    "mixed, collage 0.5": replace(PLAIN, mixed=True, collage=0.5),
}
SURROGATE, FILTER = 1000, 2000  # seeds of the worlds and models that look on
INSIDE = (0.05, 0.95)  # quantiles of clean pairs


class Study:
    """Worlds, clean models and cells of one folder; each is made once."""

    def __init__(self, out: Path, *, train: int, test: int, config: mt.TrainConfig) -> None:
        self.out, self.train, self.test, self.config = out, train, test, config
        out.mkdir(parents=True, exist_ok=True)
        told = json.dumps({"train": train, "test": test, "epochs": config.epochs})
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
        if (self.out / name / "model").is_dir():
            return mt.load_encoder(str(self.out / name))
        start = mt.load_encoder("mithridate-tiny", seed=seed)
        config = replace(self.config, seed=seed)
        return mt.train(start, pairs, config=config, out=self.out / name, cache=self.out / "cache")

    def clean(self, seed: int) -> mt.Encoder:
        """The model of a world without poison."""
        return self.model(f"clean-{seed}", self.world(seed)[0], seed)

    def cell(self, name: str, seed: int) -> dict[str, Any]:
        path = self.out / "cells" / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}.json"
        if path.is_file():
            return json.loads(path.read_text())
        pairs, test = self.world(seed)
        images, run = self.out / "altered" / path.stem, self.out / f"poisoned-{path.stem}"
        shutil.rmtree(images, ignore_errors=True)
        watchers = {"filter": self.clean(FILTER), "surrogate": self.clean(SURROGATE)}
        surrogate = SurrogateEncoder(watchers["surrogate"], cache=self.out / "cache")
        done = mt.poison(pairs, VARIANTS[name], seed=seed, embed_images=surrogate, images=images)
        seen = {watcher: self.seen(encoder, done) for watcher, encoder in watchers.items()}
        poisoned = self.model(run.name, done.pairs, seed)
        report = mt.evaluate(poisoned, test, done.manifest, clean=self.clean(seed), seed=seed, cache=self.out / "cache")
        ranking = next(r for r in report.rankings if r.name.startswith("attack "))
        found = {
            "strength": done.manifest.strength,
            "seen": seen,
            "hits": {model: [int(rank < 10) for rank in ranks] for model, ranks in ranking.ranks.items()},
            "headline": report.headline,
        }
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(found))
        shutil.rmtree(run)
        return found

    def seen(self, encoder: mt.Encoder, done: mt.Poisoned) -> dict[str, Any]:
        """What the cosine filter with this encoder makes of a poisoned set."""
        embedded = mt.embed(encoder, done.pairs, cache=self.out / "cache")
        scores = mt.filter(embedded, threshold=mt.Budget(pairs=1)).scores
        bad = poisoned_rows(scores, done.manifest)
        auroc = mt.detection(scores.suspicion, bad, embedded.image_index).auroc
        low, high = np.quantile(scores.suspicion[~bad], INSIDE)
        inside = (scores.suspicion[bad] >= low) & (scores.suspicion[bad] <= high)
        medians = [float(np.median(scores.suspicion[which])) for which in (bad, ~bad)]
        return {"auroc": asdict(auroc), "inside": float(inside.mean()), "poisoned": medians[0], "clean": medians[1]}


def over_seeds(values: Sequence[Sequence[int]], rng: np.random.Generator) -> Estimate:
    if len(values) == 1:  # holds for other captions, not for other seeds
        return rate(np.array(values[0], bool))
    return hierarchical_bootstrap([np.array(v, float) for v in values], rng=rng, same_units=False)


def auroc_over_seeds(found: Sequence[dict[str, Any]], watcher: str) -> Estimate:
    """Mean over seeds, from the lowest lower to the highest upper end: seeds are few, and worlds differ."""
    parts = [Estimate(**cell["seen"][watcher]["auroc"]) for cell in found]
    ends = [(p.low, p.high) for p in parts if p.low is not None and p.high is not None]
    value = float(np.mean([p.value for p in parts]))
    return Estimate(value, min(low for low, _ in ends), max(high for _, high in ends), len(parts))


def table_of(cells: dict[str, list[dict[str, Any]]]) -> Table:
    rng = np.random.default_rng(0)
    rows: list[tuple[Cell, ...]] = []
    for name, found in cells.items():
        hits = [over_seeds([c["hits"][model] for c in found], rng) for model in ("poisoned", "clean")]
        inside = float(np.mean([c["seen"]["filter"]["inside"] for c in found]))
        rows.append(
            (
                name,
                int(found[0]["strength"]["count"]),
                len(found),
                auroc_over_seeds(found, "filter"),
                auroc_over_seeds(found, "surrogate"),
                inside,
                *hits,
                hits[0].value - hits[1].value,
            )
        )
    return Table(
        "adaptive",
        "What the cosine filter finds, and what the attack reaches",
        (
            "variant",
            "pairs",
            "seeds",
            "AUROC of the filter",
            "AUROC under the surrogate",
            "inside clean quantiles",
            "Hit@10",
            "of the clean model",
            "gain",
        ),
        tuple(rows),
        "AUROC of 1 - cosine under a clean model of another world than the surrogate's, and under the surrogate "
        "itself: mean over seeds, from the lowest to the highest end of their 95 % intervals over images. Inside: "
        f"share of poison between the {INSIDE[0]:.0%} and {INSIDE[1]:.0%} quantiles of clean pairs, for the filter. "
        "Hit@10: share of captions of class A with an image of B among the first ten; 95 % hierarchical bootstrap (one "
        "seed: Wilson's).",
    )


def draw(table: Table, out: Path) -> None:
    """Hit@10 against the filter's AUROC, a point a variant: an attacker wants the upper left."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for row in table.rows:
        x, y = row[3], row[6]
        assert isinstance(x, Estimate) and isinstance(y, Estimate)
        bars = [np.array([[max(0.0, e.value - (e.low or 0))], [max(0.0, (e.high or 0) - e.value)]]) for e in (x, y)]
        axes.errorbar([x.value], [y.value], xerr=bars[0], yerr=bars[1], marker="o", capsize=2, label=str(row[0]))
    clean = [row[7].value for row in table.rows if isinstance(row[7], Estimate)]
    axes.axhline(float(np.mean(clean)), color="grey", linewidth=0.8, label="clean model")
    axes.axvline(0.5, color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="AUROC of the cosine filter", ylabel="Hit@10 of the attack", ylim=(-0.03, 1.03))
    axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    for ending in ("png", "svg"):
        figure.savefig(out / f"tradeoff.{ending}", dpi=160, metadata={"Date": None} if ending == "svg" else None)
    plt.close(figure)


def main(
    out: Path,
    *,
    variants: Sequence[str] = tuple(VARIANTS),
    seeds: int = 3,
    train: int = TRAIN_IMAGES,
    test: int = TEST_IMAGES,
    epochs: int = EPOCHS,
) -> mt.Report:
    study = Study(out, train=train, test=test, config=replace(mt.SCRATCH, epochs=epochs))
    cells: dict[str, list[dict[str, Any]]] = {}
    for seed in range(seeds):
        for name in variants:
            found = study.cell(name, seed)
            cells.setdefault(name, []).append(found)
            told = {model: round(float(np.mean(hits)), 3) for model, hits in found["hits"].items()}
            auroc = {who: round(seen["auroc"]["value"], 3) for who, seen in found["seen"].items()}
            print(seed, name, "Hit@10", told, "AUROC", auroc, flush=True)
    table = table_of(cells)
    report = mt.Report(title="Poison that agrees", summary=(table.note,), tables=(table,))
    mt.write_report(report, out)
    draw(table, out)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptive"))
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    for name, value in (("seeds", 3), ("train", TRAIN_IMAGES), ("test", TEST_IMAGES), ("epochs", EPOCHS)):
        parser.add_argument(f"--{name}", type=int, default=value)
    main(**vars(parser.parse_args()))
