"""What an objective's step costs beside a CLIP step, and RoCLIP's matching beside the bare matrix product.

    python benchmarks/objectives.py [--model ViT-B-32] [--batch 16] [--steps 3] [--rounds 3]
    python benchmarks/objectives.py --model mithridate-tiny --batch 128 --steps 20
    python benchmarks/objectives.py --total

Everything in one process, in turn, so that what else runs on the machine falls on all alike; medians of the rounds. The
steps are the training loop's own, on random images of the model's size and random captions of 6 to 14 words, with the
gathering, augmentation and re-tokenisation that a view asks for. A batch of 512 of ViT-B/32 takes minutes a step on two
cores, so batches are small there: what the matching adds is then that of fewer queries against the whole pool, which is
more for each of them. The matching alone is measured with 512. `--total`: whole trainings of the smallest model on toy
pictures by CLIP and by SafeCLIP on the schedule of its paper, its looks at the set included.
"""

import argparse
import dataclasses
import gc
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from harness import clocked, processor_seconds

import mithridate as mt
from mithridate.data.pairs import make_pairs
from mithridate.training.augment_text import find_synonyms
from mithridate.training.batches import TrainingSet
from mithridate.training.config import TrainConfig
from mithridate.training.distributed import Processes
from mithridate.training.loop import _Loop, _low_precision
from mithridate.training.loss import plan_of
from mithridate.training.objective import Start
from mithridate.training.pool import nearest
from mithridate.training.run import Run
from mithridate.training.towers import TwoTower, parameter_groups
from mithridate.training.training_set import _augmenter
from mithridate.training.used_rows import UsedRowsAdamW

WORDS = (
    "a",
    "the",
    "small",
    "big",
    "red",
    "dog",
    "cat",
    "car",
    "street",
    "house",
    "on",
    "near",
    "man",
    "old",
    "bright",
)
CHUNK = 2048


@dataclass
class RandomImages:
    """An image source of one block of noise, shown at shifting places."""

    block: np.ndarray
    bad: dict[int, str]
    keys: None = None

    def gather(self, index: np.ndarray) -> np.ndarray:
        return self.block[index % len(self.block)]


def objectives(pool: int) -> dict[str, Any]:
    return {
        "clip": mt.Clip(),
        "augment-only": mt.AugmentOnly(),
        "roclip, matching, plain views": mt.RoClip(every=1, pool_size=pool, views="plain"),
        "roclip, matching": mt.RoClip(every=1, pool_size=pool),
        "cleanclip": mt.CleanClip(),
        "par": mt.Par(),
        "safeclip, unimodal": mt.SafeClip(unimodal_epochs=1, slow_epochs=0, pool_size=pool),
    }


def data_of(encoder: mt.Encoder, pairs: int, rng: np.random.Generator) -> TrainingSet:
    index = np.arange(pairs)
    texts = [" ".join(rng.choice(WORDS, rng.integers(6, 15))) for _ in range(4096)]
    tokens = encoder.tokenizer(texts).numpy()
    block = rng.integers(0, 256, (64, *encoder.image_size, 3), dtype=np.uint8)
    column = pa.array(texts).take(pa.array(index % len(texts)))
    named = make_pairs(pa.repeat("x", pairs), column)
    augment = _augmenter(encoder, named, 0, find_synonyms())
    return TrainingSet(index, index, index % len(texts), tokens, RandomImages(block, {}), augment_texts=augment)  # type: ignore[arg-type]


class Timed:
    """An objective in the training loop, a few steps at a time."""

    def __init__(self, encoder: mt.Encoder, objective: Any, data: TrainingSet, config: TrainConfig, pool: int) -> None:
        processes = Processes.join()
        device = processes.device
        width = int(encoder.config["model_cfg"]["embed_dim"])
        low = _low_precision(config, device)
        self.loss = objective.build(Start(max(len(data), pool), width, 2, 0)).to(device)
        for name, buffer in self.loss.named_buffers():
            if name.endswith("pool"):  # as full as in training, without embedding that many pairs
                buffer.copy_(torch.nn.functional.normalize(torch.randn(buffer.shape), dim=1))
        self.views = plan_of(self.loss, 0).views
        self.encoder = encoder.copy()
        towers = TwoTower(self.encoder, config).to(device)
        start = None
        if any(view.model == "start" for view in self.views):
            start = TwoTower(encoder.copy(), config).to(device).eval().requires_grad_(False)
        optimizer = UsedRowsAdamW(parameter_groups(towers, 0.1), None, lr=config.lr)
        self.times: list[float] = []
        run = Run(None, {})
        self.loop = _Loop(towers, start, data, self.loss, config, optimizer, processes, run, low, self._note)

    def _note(self, step: int, total: int, batch_size: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def seconds(self) -> float:
        """Median seconds of a step; the first is not counted."""
        self.times = []
        self.loss.prepare = lambda epoch: None  # once an epoch; the epochs here are a few steps
        self.loop.go(self.encoder, 0)
        return float(np.median(np.diff(self.times)))


def steps(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    encoder = mt.load_encoder(options.model)
    data = data_of(encoder, options.batch * (options.steps + 1), rng)
    config = TrainConfig(epochs=1, batch_size=options.batch, precision=options.precision)
    every = objectives(options.pool)
    wanted = ("clip", *options.only) if options.only else every
    chosen = {name: objective for name, objective in every.items() if name in wanted}
    found: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(options.rounds):
        for name, objective in chosen.items():
            found[name].append(Timed(encoder, objective, data, config, options.pool).seconds())
            gc.collect()  # a model and its optimizer hold each other: several of them fill the memory
    print(f"\n{options.model}, batch {options.batch}, pool {options.pool}, {options.steps} steps x {options.rounds}\n")
    print("| objective | s a step (median) | times CLIP's | from, to |\n|---|---|---|---|")
    for name, times in found.items():
        ratios = [mine / clip for mine, clip in zip(times, found["clip"])]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"| {name} | {np.median(times):.3f} | {np.median(ratios):.2f} | {spread} |", flush=True)


def matching(queries: int, pool_size: int, width: int, rounds: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, pool = (
        torch.nn.functional.normalize(torch.randn(n, width, generator=generator), dim=1) for n in (queries, pool_size)
    )
    print(f"\nmatching {queries} queries against {pool_size} x {width}\n")
    print("| ms | bare product, ms | times the bare product | from, to |\n|---|---|---|---|")

    def bare() -> None:
        for start in range(0, pool_size, CHUNK):
            torch.mm(query, pool[start : start + CHUNK].T)

    pairs = [(clocked(lambda: nearest(query, pool)), clocked(bare)) for _ in range(rounds + 1)][1:]
    ratios = [mine / theirs for mine, theirs in pairs]
    mine, theirs = (1e3 * float(np.median(times)) for times in zip(*pairs))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"| {mine:.1f} | {theirs:.1f} | {np.median(ratios):.2f} | {spread} |", flush=True)


def total(pictures: int = 200, epochs: int = 32) -> None:
    """SafeCLIP's paper: five epochs apart, a slow one, 26 mixed; it names 30 % above CLIP."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mt.write_toy_world(folder / "toy", train=pictures, test=0, size=32)
        pairs, encoder = mt.read_pairs(folder / "toy"), mt.load_encoder("mithridate-micro")
        config = dataclasses.replace(mt.SCRATCH, epochs=epochs)
        seconds: dict[str, float] = {}
        for objective in (mt.Clip(), mt.SafeClip()):
            mt.train(encoder, pairs, config=dataclasses.replace(config, epochs=1), cache=folder / "cache")
            begin = processor_seconds()
            mt.train(encoder, pairs, objective=objective, config=config, cache=folder / "cache")
            seconds[type(objective).__name__] = processor_seconds() - begin
        told = ", ".join(f"{objective} {each:.1f} s" for objective, each in seconds.items())
        print(f"\nwhole trainings, {epochs} epochs of {len(pairs)} pairs, processor time: {told}")
        print(f"SafeCLIP {seconds['SafeClip'] / seconds['Clip']:.2f} times CLIP")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pool", type=int, default=21_845)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--only", nargs="*", help="names of objectives, beside clip")
    parser.add_argument("--no-steps", action="store_true", help="the matching alone")
    parser.add_argument(
        "--total", action="store_true", help="SafeCLIP's whole training beside CLIP's, and nothing else"
    )
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    if options.total:
        total()
        return
    matching(512, options.pool, 512, 10 * options.rounds)
    if not options.no_steps:
        steps(options)


if __name__ == "__main__":
    main()
