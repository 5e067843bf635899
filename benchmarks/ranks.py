"""Ranks against the bare matrix product, alternately in one process: the ratio, and the peak of memory.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/ranks.py [--sizes 10000 50000] [--repeats 5 1] [--loop 5000]

On a machine that is busy with other work, threads that wait by spinning (the default) make every short operation wait
for the scheduler: ours has some, the product has none. `OMP_WAIT_POLICY=PASSIVE`, or one thread, keeps the ratio fair.

`product` multiplies blocks of rows into one buffer and looks at nothing. Embeddings are random, of unit length, 512
wide. `loop` is what research code does: for every query a whole argsort, then where each target stands in it.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from harness import clocked

from mithridate.metrics.ranks import best_ranks, ranks_both_ways, sweep

WIDTH = 512
TARGETS = 100


def memory(name: str) -> float:
    """A line of this process's memory, in GiB: VmRSS (now) or VmHWM (the most so far)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 2**20


def embeddings(n: int, rng: np.random.Generator) -> np.ndarray:
    rows = rng.standard_normal((n, WIDTH), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def product(query: np.ndarray, gallery: np.ndarray, rows: int = 1024) -> None:
    """The whole product, a block of rows at a time into one buffer."""
    columns = torch.from_numpy(gallery).T
    out = torch.empty(rows, len(gallery))
    for low in range(0, len(query), rows):
        block = torch.from_numpy(query[low : low + rows])
        torch.mm(block, columns, out=out[: len(block)])


def loop(query: np.ndarray, gallery: np.ndarray, targets: np.ndarray) -> list[int]:
    """0-based position of each query's best target, as research code finds it."""
    similarity = query @ gallery.T
    ranks = []
    for row in similarity:
        order = np.argsort(-row)
        ranks.append(min(int(np.where(order == target)[0][0]) for target in targets))
    return ranks


def compare(n: int, repeats: int, rng: np.random.Generator) -> None:
    query, gallery = embeddings(n, rng), embeddings(n, rng)
    targets = np.sort(rng.choice(n, TARGETS, replace=False))
    own = rng.permutation(n)
    jobs = {
        f"Hit@K, MinRank of {TARGETS} targets": lambda: best_ranks(query, gallery, targets),
        "recall both ways": lambda: ranks_both_ways(query, gallery, own),
        "all of it from one product": lambda: sweep(query, gallery, targets=targets, own=own),
    }
    small = slice(0, 2000)
    product(query[small], gallery[small])
    sweep(query[small], gallery[small], targets=np.arange(TARGETS), own=np.arange(2000))
    before, ratios, seconds = memory("VmHWM"), {name: [] for name in jobs}, []
    start = memory("VmRSS")
    for name, job in jobs.items():
        for _ in range(repeats):
            ours = clocked(job)
            bare = clocked(product, query, gallery)
            ratios[name].append(ours / bare)
            seconds.append(bare)
    for name, found in ratios.items():
        spread = f"{min(found):.2f} to {max(found):.2f}"
        print(f"| {n:,} x {n:,} | {name} | {np.median(found):.2f} | {spread} | {repeats} |", flush=True)
    flops = 2 * n * n * WIDTH / np.median(seconds) / 1e9
    above = memory("VmHWM") - min(start, before)
    print(f"bare product {np.median(seconds):.2f} s ({flops:.0f} GFLOP/s); peak {above:.2f} GiB above the embeddings")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 50_000])
    parser.add_argument("--repeats", type=int, nargs="*", default=[5, 1])
    parser.add_argument("--loop", type=int, default=5000, help="size of the argsort loop; 0 leaves it out")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| size | what | times the bare product (median) | from, to | repeats |\n|---|---|---|---|---|")
    for n, repeats in zip(options.sizes, options.repeats, strict=True):
        compare(n, repeats, rng)
    if options.loop:
        n = options.loop
        query, gallery = embeddings(n, rng), embeddings(n, rng)
        targets = np.sort(rng.choice(n, TARGETS, replace=False))
        ratios = []
        for _ in range(3):
            ours = clocked(best_ranks, query, gallery, targets)
            theirs = clocked(loop, query, gallery, targets)
            ratios.append(theirs / ours)
        same = np.mean(best_ranks(query, gallery, targets) == loop(query, gallery, targets))
        told = f"{np.median(ratios):.1f} times ours ({same:.1%} equal ranks)"
        print(f"argsort per query, {n:,} x {n:,}, {TARGETS} targets: {told}")


if __name__ == "__main__":
    main()
