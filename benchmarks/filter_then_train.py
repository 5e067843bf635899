"""Does training on what a filter leaves remove the attack? On the toy world, and on real photographs.

    python benchmarks/filter_then_train.py toy --out runs/filter-toy --seeds 3
    python benchmarks/filter_then_train.py photographs --data ../shared/data --out runs/filter-photographs

Attack II of mmPoison, all of class A replaced. Trained by one recipe: on the clean pairs, on the poisoned pairs, and on
what each filter leaves of them. Every step is a command of this package and writes one folder; a folder that is
finished is not made again, a training run that was killed goes on, so the same line may be started any number of times.
The table at the end is also in OUT/table.md.

The filter's encoder on the toy world is the tiny model trained on a clean world of another seed, and its threshold
comes from that world's test pairs: nothing is chosen with the truth in hand. On photographs it is the pre-trained
encoder that fine-tuning also starts from (there is no other), which `train --keep` warns of.
"""

import argparse
import json
from pathlib import Path

from mithridate.cli import main
from mithridate.cli.demo import EPOCHS, TEST_IMAGES, TRAIN_IMAGES
from mithridate.evaluation.result import Estimate, read_report
from mithridate.report.numbers import show

# chosen blind: by how many clean pairs may be lost
FILTERS = {
    "cosine distance, clean quantile 0.9": ("cosine-distance", "--clean-quantile", "0.9"),
    "cosine distance, clean quantile 0.8": ("cosine-distance", "--clean-quantile", "0.8"),
    "negCLIPLoss, clean quantile 0.8": ("neg-clip-loss", "--clean-quantile", "0.8"),
}
# the paper's level, for encoders of the kind that it was read off
PAPER = {"cosine distance above 0.8": ("cosine-distance", "--above", "0.8")}
COLUMNS = ("seed", "trained on", "pairs", "poison left", "Hit@1", "Hit@10", "MinRank", "IR@10", "TR@10")


def step(made: Path, *argv: object) -> None:
    """Run a command unless `made`, the last thing that it writes, is there."""
    if made.exists():
        return
    print("mithridate", *argv, flush=True)
    if main([str(word) for word in argv]) != 0:
        raise SystemExit(1)


def compare(
    out: Path,
    seed: int,
    *,
    data: list[str],
    test: list[str],
    goal: tuple[str, str],
    looks: list[str],
    clean: list[str],
    recipe: list[str],
    filters: dict[str, tuple[str, ...]],
) -> list[list[str]]:
    """Rows of the table. `data`, `test`, `clean`: what is poisoned, tested on, known to be clean, as arguments.

    `looks` names the filter's encoder, `recipe` how everything is trained, `filters` what is compared.
    """
    cache = ["--cache", out.parent / "cache"]
    poisoned, seen, reference = out / "poisoned", out / "embeddings", out / "clean-embeddings"
    attack = ["--source", goal[0], "--target", goal[1], "--seed", seed]
    step(poisoned / "manifest.json", "poison", "single-label", *data, *attack, "--out", poisoned)
    step(seen / "encoder.json", "embed", poisoned, *looks, *cache, "--out", seen)
    step(reference / "encoder.json", "embed", *clean, *looks, *cache, "--out", reference)
    train = [*recipe, "--seed", seed, *cache]
    step(out / "clean" / "model", "train", *data, *train, "--out", out / "clean")
    step(out / "all" / "model", "train", poisoned, *train, "--out", out / "all")
    runs = {"clean pairs": out / "clean", "all pairs": out / "all"}
    kept: dict[str, tuple[int, str]] = {}
    for number, (name, (detector, *threshold)) in enumerate(filters.items()):
        chosen, run = out / f"filter-{number}", out / f"kept-{number}"
        quantile = ["--clean", reference] if "--clean-quantile" in threshold else []
        truth = ["--manifest", poisoned, "--json"]
        step(chosen / "report.json", "filter", detector, seen, *threshold, *quantile, *truth, "--out", chosen)
        step(run / "model", "train", poisoned, "--keep", chosen, *train, "--out", run)
        runs[name] = run
        told, table = json.loads((chosen / "filter.json").read_text()), read_report(chosen).table("detection")
        removed = next(row[1] for row in table.rows if row[0] == "poisoned pairs removed")
        assert isinstance(removed, Estimate)
        kept[name] = (told["kept"], f"{1 - removed.value:.1%}")
    rows = []
    for name, run in runs.items():
        report = out / f"report-{run.name}"
        truth = ["--manifest", poisoned, "--clean", out / "clean", "--seed", seed, "--json"]
        step(report / "report.json", "evaluate", run, *test, *truth, *cache, "--out", report)
        table = read_report(report)
        attacked = table.table("attack")
        row = dict(zip(attacked.columns, attacked.rows[0]))
        utility = table.headline["utility"]["poisoned"]
        pairs, left = kept.get(
            name, (json.loads((run / "run.json").read_text())["pairs"], "100 %" if run.name == "all" else "none")
        )
        numbers = [str(show(row[key])) for key in ("Hit@1", "Hit@10", "MinRank")]
        rows.append(
            [str(seed), name, f"{pairs:,}", left, *numbers, *(f"{utility[f'{way}@10']:.3f}" for way in ("ir", "tr"))]
        )
    return rows


def toy(out: Path, seed: int) -> list[list[str]]:
    sizes = ["--train", TRAIN_IMAGES, "--test", TEST_IMAGES]
    recipe = ["--preset", "scratch", "--epochs", str(EPOCHS)]
    for name, drawn in (("world", seed), ("other-world", 1000 + seed)):
        step(out / name / "metadata.jsonl", "data", "toy", "--out", out / name, *sizes, "--seed", drawn)
    other = str(out / "other-world")
    looks = out / "filter-encoder"
    step(looks / "model", "train", other, "--split", "train", *recipe, "--seed", 1000 + seed, "--out", looks)
    world = str(out / "world")
    return compare(
        out,
        seed,
        data=[world, "--split", "train"],
        test=[world, "--split", "test"],
        goal=("sheep", "aeroplane"),
        looks=["--encoder", str(looks)],
        clean=[other, "--split", "test"],
        recipe=recipe,
        filters=FILTERS,
    )


def photographs(out: Path, seed: int, data: Path) -> list[list[str]]:
    """README's recipe: Flickr8k, bicycle to boat, the image trunk frozen. The clean reference is the test set."""
    encoder, flickr = str(data / "weights" / "mnv2-lit"), data / "flickr8k"
    recipe = ["--encoder", encoder, "--freeze", "image-trunk", "--epochs", "5", "--batch-size", "256", "--lr", "3e-4"]
    return compare(
        out,
        seed,
        data=[str(flickr / "train-{003..005}.tar")],
        test=[str(flickr / "dev-000.tar")],
        goal=("bicycle", "boat"),
        looks=["--encoder", encoder],
        clean=[str(flickr / "dev-000.tar")],
        recipe=[*recipe, "--min-lr", "3e-5", "--betas", "0.9", "0.98", "--precision", "fp32"],
        filters={**FILTERS, **PAPER},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on what a filter leaves of a poisoned set.")
    parser.add_argument("world", choices=("toy", "photographs"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder with flickr8k/ and weights/mnv2-lit/")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    if options.world == "photographs" and options.data is None:
        parser.error("photographs need --data")
    found, table = [list(COLUMNS), ["---"] * len(COLUMNS)], ""
    for seed in range(options.seeds):
        part = options.out / f"seed-{seed}"
        part.mkdir(parents=True, exist_ok=True)
        found += toy(part, seed) if options.world == "toy" else photographs(part, seed, options.data)
        table = "\n".join(f"| {' | '.join(row)} |" for row in found)
        (options.out / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)
