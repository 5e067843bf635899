"""Which tower carries the attack? Attack II with one tower frozen at a time, frozen for real.

    python examples/modality_study.py OUT [SEEDS]

For each seed a clean model is trained on one toy world. From it, models are fine-tuned on a poisoned copy of another
world: with both towers, with one of them, with neither; with and without the logit scale; and with about equal numbers
of trainable parameters in either tower (nearly all of the text tower's are token embeddings, of which few are used).
OUT/report.html and OUT/report.md hold the table.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import mithridate as mt
from mithridate.evaluation.result import Cell, Estimate, Table
from mithridate.evaluation.seeds import hierarchical_bootstrap

# everything but 196,608 parameters of the image tower, and everything but 198,272 of the text tower
IMAGE_BUDGET = (
    "text",
    "visual.trunk.conv1.*",
    "visual.trunk.bn1.*",
    "visual.trunk.layer[123].*",
    "visual.trunk.layer4.0.conv2.*",
    "visual.trunk.layer4.0.bn*",
    "visual.trunk.layer4.0.downsample.2.*",
)
TEXT_BUDGET = ("image", "token_embedding.*", "positional_embedding", "ln_final.*", "text_projection")

# name -> (what is frozen, is the logit scale frozen)
VARIANTS: dict[str, tuple[tuple[str, ...], bool]] = {
    "both towers": ((), False),
    "both towers, scale frozen": ((), True),
    "image tower": (("text",), False),
    "image tower, scale frozen": (("text",), True),
    "text tower": (("image",), False),
    "text tower, scale frozen": (("image",), True),
    "196,608 of the image tower": (IMAGE_BUDGET, True),
    "198,272 of the text tower": (TEXT_BUDGET, True),
}
RECIPE = replace(mt.SCRATCH, epochs=1, lr=5e-4)


def ranks(report: mt.Report, name: str) -> np.ndarray:
    """The ranks of the attacked model in a report: (q,)."""
    ranking = next(r for r in report.rankings if r.name == name)
    return np.array(next(iter(ranking.ranks.values())))


def measure(model: mt.Encoder, test: mt.Pairs, goal: mt.Goal) -> dict[str, np.ndarray]:
    """Per-query values of one model: (q,) for the attack, (n,) for utility on classes outside the goal."""
    report = mt.evaluate(model, test, goals=(goal,))
    attack = ranks(report, f"attack {goal.source}:{goal.target}")
    rest = ~(test.labelled(goal.source) | test.labelled(goal.target))
    return {"Hit@10": attack < 10, "MinRank": attack, "IR@10": (ranks(report, "ir") < 10)[rest]}


def study(out: Path, *, seeds: int, train_images: int, test_images: int, epochs: int) -> Table:
    """The table, one row a variant; intervals over seeds, then queries within them."""
    goal = mt.Goal("sheep", "aeroplane")
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for seed in range(seeds):
        for number, name in enumerate(("start", "data")):
            mt.write_toy_world(out / f"{name}-{seed}", train=train_images, test=test_images, seed=2 * seed + number)
        before = mt.read_pairs(out / f"start-{seed}", split="train")
        train, test = (mt.read_pairs(out / f"data-{seed}", split=split) for split in ("train", "test"))
        start = mt.train(
            mt.load_encoder("mithridate-tiny", seed=seed), before, config=replace(mt.SCRATCH, epochs=epochs, seed=seed)
        )
        poisoned = mt.poison(train, mt.SingleLabel(source=goal.source, target=goal.target), seed=seed)
        models = {"neither (the start)": start}
        for name, (freeze, scale) in VARIANTS.items():
            config = replace(RECIPE, seed=seed, freeze=freeze, freeze_logit_scale=scale)
            models[name] = mt.train(start, poisoned.pairs, config=config)
        for name, model in models.items():
            for metric, values in measure(model, test, goal).items():
                found.setdefault(name, {}).setdefault(metric, []).append(values)
            print(seed, name, {m: float(np.mean(v[-1])) for m, v in found[name].items()}, flush=True)
    rng = np.random.default_rng(0)
    rows: list[tuple[Cell, ...]] = []
    for name, metrics in found.items():
        rows.append((name, *(_interval(values, rng) for values in metrics.values())))
    return Table(
        "modality",
        "Attack II by what is trainable",
        ("trainable", "Hit@10", "MinRank", "IR@10 of other classes"),
        tuple(rows),
        f"Toy world, {seeds} seeds, {train_images} images to train on, {test_images} to test with; sheep to aeroplane, "
        "all images of sheep replaced, one epoch of fine-tuning. 95 % hierarchical bootstrap: seeds, then captions.",
    )


def _interval(values: list[np.ndarray], rng: np.random.Generator) -> Estimate:
    # every seed has a world of its own, so no two share a query
    return hierarchical_bootstrap([v.astype(float) for v in values], rng=rng, same_units=False)


def main(out: Path, *, seeds: int = 3, train_images: int = 4000, test_images: int = 405, epochs: int = 3) -> mt.Report:
    table = study(out, seeds=seeds, train_images=train_images, test_images=test_images, epochs=epochs)
    report = mt.Report(title="Which tower carries the attack", summary=(table.note,), tables=(table,))
    mt.write_report(report, out)
    return report


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/modality"), seeds=int((sys.argv[2:] or ["3"])[0]))
