"""Targeted poisoning and poison that agrees, on real photographs with a real encoder: the tables of docs/attacks.md.

    OMP_NUM_THREADS=1 python benchmarks/photographs.py targeted --data ../shared/data --out runs/photographs
    OMP_NUM_THREADS=1 python benchmarks/photographs.py agreeing --data ../shared/data --out runs/photographs

Both fine-tune `mnv2-lit` with its image trunk frozen on flickr8k shards 003-005, as README's example does, and measure
on `dev-000`. A training that was killed goes on and what is done is not done again, so the same line may be started
any number of times. `targeted`: for each number of captions, photographs of dev-000 that are nobody else's meet so
many captions of a class that they are not of; all of them in one training set (--apart: a training for each number).
`agreeing`: all images of bicycles become images of boats, paired in several ways, under a surrogate that is the
encoder before fine-tuning; how well the cosine filter finds them under that and under another encoder, the clean
fine-tune, and what captions of bicycles retrieve.
"""

import argparse
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import mithridate as mt
from mithridate.encoder.embed import embed
from mithridate.encoder.surrogate import SurrogateEncoder
from mithridate.evaluation.evaluate import evaluate
from mithridate.evaluation.zeroshot import zero_shot_weights
from mithridate.folders import write_atomically
from mithridate.metrics.detection import detection
from mithridate.statistics.estimate import Estimate
from mithridate.statistics.intervals import rate

RECIPE = mt.TrainConfig(
    epochs=5, batch_size=256, lr=3e-4, min_lr=3e-5, betas=(0.9, 0.98), precision="fp32", freeze=("image-trunk",)
)
PLAIN = mt.SingleLabel(source="bicycle", target="boat")
VARIANTS = {
    "random": PLAIN,
    "best-match": replace(PLAIN, pairing="best-match"),
    "mixed": replace(PLAIN, mixed=True),
    "collage 0.5": replace(PLAIN, collage=0.5),
    "pgd 8": replace(PLAIN, pgd=8, pgd_steps=10),
    "best-match, mixed": replace(PLAIN, pairing="best-match", mixed=True),
    "mixed, collage 0.5": replace(PLAIN, mixed=True, collage=0.5),
}


class Photographs:
    """The data, the encoder and a folder of runs, each made once."""

    def __init__(self, data: Path, out: Path, *, clean: Path | None, seed: int) -> None:
        flickr = data / "flickr8k"
        self.train = mt.read_pairs(str(flickr / "train-{003..005}.tar"))
        self.dev = mt.read_pairs(flickr / "dev-000.tar")
        self.start = mt.load_encoder(str(data / "weights" / "mnv2-lit"))
        self.out, self.seed, self._clean = out, seed, clean
        out.mkdir(parents=True, exist_ok=True)

    def model(self, name: str, pairs: mt.Pairs) -> mt.Encoder:
        folder = self.out / name
        if (folder / "model").is_dir():
            return mt.load_encoder(str(folder))
        return mt.train(self.start, pairs, config=replace(RECIPE, seed=self.seed), out=folder)

    @property
    def clean(self) -> mt.Encoder:
        return mt.load_encoder(str(self._clean)) if self._clean else self.model(f"clean-{self.seed}", self.train)


def shown(e: Estimate) -> str:
    return (
        f"{e.value:.3f} [{e.low:.2f}, {e.high:.2f}]" if e.low is not None and e.high is not None else f"{e.value:.3f}"
    )


# --- targeted ---------------------------------------------------------------------------------------------


def targeted(p: Photographs, strengths: list[int], targets: int) -> None:
    """One training: `targets` photographs for each of the strengths, none of them twice.

    A target is asked by the 80 prompts for every class of the training set: most adversarial classes that are drawn
    from these have no photograph of their own in dev-000.
    """
    name = f"targeted-{'-'.join(map(str, strengths))}-{targets}-{p.seed}"
    first = np.unique(p.dev.image_index, return_index=True)[1]
    order = np.random.default_rng(p.seed).permutation(first)
    if len(order) < targets * len(strengths):
        raise SystemExit(f"{len(order)} photographs do not suffice for {len(strengths)} times {targets}")
    names = sorted(p.train.classes)
    pairs, wanted = p.train, []
    for number, strength in enumerate(strengths):
        rows = order[number * targets : (number + 1) * targets]
        attack = mt.Targeted(uids=tuple(p.dev.uid.take(pa.array(rows)).to_pylist()), per_target=strength, reuse=True)
        done = mt.poison(pairs, attack, seed=p.seed + number, gallery=p.dev)
        pairs = done.pairs
        wanted.append([names.index(aim.target) for aim in done.manifest.goals])
    models = {"poisoned": p.model(name, pairs), "clean": p.clean}
    shown_to = p.dev.take(order[: targets * len(strengths)])
    taken = {}
    for model, encoder in models.items():
        embedded = embed(encoder, shown_to)
        images = embedded.image[embedded.image_index]
        taken[model] = (images @ zero_shot_weights(encoder, names).T).argmax(axis=1).reshape(len(strengths), targets)
    print(f"{len(pairs) - len(p.train)} of {len(pairs)} pairs are poisoned; {len(names)} classes")
    print("| captions a target | targets | success | on the clean model |\n|---|---|---|---|")
    for number, strength in enumerate(strengths):
        rates = [shown(rate(taken[model][number] == wanted[number])) for model in models]
        print(f"| {strength} | {targets} | {rates[0]} | {rates[1]} |")
    found = evaluate(models, p.dev, reference="clean", seed=p.seed)
    print({name: {metric: m.value.value for metric, m in found.utility(name).items()} for name in found.models})


# --- poison that agrees -----------------------------------------------------------------------------------


def poisoned_set(p: Photographs, name: str, cell: Path) -> mt.Poisoned:
    """The same at every call, with its altered images in the folder of the variant."""
    shutil.rmtree(cell / "images", ignore_errors=True)
    return mt.poison(p.train, VARIANTS[name], seed=p.seed, surrogate=SurrogateEncoder(p.start), images=cell / "images")


def area(p: Photographs, which: str, done: mt.Poisoned) -> Estimate:
    """How well the cosine filter with this encoder finds the poison. Clean pairs are the same in all variants."""
    encoder = p.start if which == "surrogate" else p.clean
    kept = p.out / f"distance-{which}-{p.seed}.npy"
    if not kept.is_file():
        np.save(kept, 1 - embed(encoder, p.train).similarity())
    distance = dict(zip(p.train.uid.to_pylist(), np.load(kept).tolist()))
    bad = np.isin(done.pairs.uid.to_pylist(), done.manifest.poisoned["uid"].to_pylist())
    poisoned = done.pairs.where(bad)
    distance |= zip(poisoned.uid.to_pylist(), (1 - embed(encoder, poisoned).similarity()).tolist())
    suspicion = np.array([distance[uid] for uid in done.pairs.uid.to_pylist()], np.float64)
    return detection(suspicion, bad, done.pairs.image_index).auroc


def success(found: mt.Evaluation) -> dict[str, dict[str, Any]]:
    """Success of the one goal on each model."""
    return {name: asdict(m.value) for name in found.models for m in found.success(name).values()}


def agreeing(p: Photographs, variants: list[str], *, train: bool, look: list[str]) -> None:
    for name in variants:
        cell = p.out / f"agreeing-{name.replace(', ', '-').replace(' ', '-')}-{p.seed}"
        cell.mkdir(exist_ok=True)
        found = json.loads((cell / "cell.json").read_text()) if (cell / "cell.json").is_file() else {}
        if any(which not in found for which in look) or (train and "success" not in found):
            done = poisoned_set(p, name, cell)
            for which in look:
                if which not in found:
                    found[which] = asdict(area(p, which, done))
            if train and "success" not in found:
                models = {"poisoned": p.model(f"{cell.name}/run", done.pairs), "clean": p.clean}
                measured = evaluate(models, p.dev, done.manifest, reference="clean", seed=p.seed)
                (cell / "report").mkdir(exist_ok=True)
                mt.write_evaluation(measured, cell / "report")
                mt.write_report(mt.evaluation_report(measured), cell / "report")
                found["success"] = success(measured)
                found["utility"] = {
                    name: {metric: m.value.value for metric, m in measured.utility(name).items()} for name in models
                }
            write_atomically(cell / "cell.json", json.dumps(found))
        told = [shown(Estimate(**found[which])) if which in found else "" for which in ("surrogate", "clean")]
        hits = [shown(Estimate(**found["success"][m])) for m in ("poisoned", "clean")] if "success" in found else []
        utility = [f"{v['IR@10']:.3f}, {v['TR@10']:.3f}" for v in found.get("utility", {}).values()]
        print(f"| {name} | {' | '.join([*told, *hits, *utility])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("targeted", "agreeing"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/photographs"))
    parser.add_argument("--clean", type=Path, help="a run on the clean pairs by the same recipe; else it is made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strengths", nargs="+", type=int, default=[2, 4, 8, 16, 32], help="captions a target")
    parser.add_argument("--targets", type=int, default=32, help="photographs for each strength")
    parser.add_argument("--apart", action="store_true", help="a training for each strength")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--no-train", action="store_true", help="only what the filter sees")
    parser.add_argument("--look", nargs="*", choices=("surrogate", "clean"), default=["surrogate", "clean"])
    o = parser.parse_args()
    p = Photographs(o.data, o.out, clean=o.clean, seed=o.seed)
    if o.what == "agreeing":
        agreeing(p, o.variants, train=not o.no_train, look=o.look)
        return
    for strengths in [[strength] for strength in o.strengths] if o.apart else [o.strengths]:
        targeted(p, strengths, o.targets)


if __name__ == "__main__":
    main()
