"""Three million pairs: how long a Parquet table takes to open, and an attack to plan, with the peak of memory.

    python benchmarks/large_table.py [--pairs N]

Each figure is of a process of its own, which has imported what it needs before the clock starts. Beside it the time of
processors, which a busy machine leaves as it is.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CLASSES = 1000
CAPTIONS = 5


def write_table(path: Path, n: int) -> None:
    """A table of n pairs: five captions an image, a class each, captions of eight words from 2,000."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(2000)])
    image = np.arange(n) // CAPTIONS
    texts = [" ".join(row) for row in words[rng.integers(len(words), size=(n, 8))]]
    table = pa.table(
        {
            "image": pa.array([f"images/{i // 1000:05d}/{i:08d}.jpg" for i in image]),
            "caption": pa.array(texts),
            "label": pa.array([f"class{c}" for c in rng.integers(CLASSES, size=image[-1] + 1)[image]]),
        }
    )
    pq.write_table(table, path)


def peak_memory() -> float:
    """Largest resident size of this process so far, in GiB (getrusage would count the parent's, before exec)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def measure(path: Path) -> None:
    """Open and plan; prints the seconds of both and the peak memory of this process."""
    from mithridate.data.read import read_pairs
    from mithridate.poisoning.relabel import SingleLabel

    before = peak_memory()
    clock, worked = time.perf_counter(), time.process_time()
    pairs = read_pairs(path)
    opened, opening = time.perf_counter(), time.process_time()
    plan = SingleLabel(source="class1", target="class2").plan(pairs, np.random.default_rng(0))
    planned, planning = time.perf_counter(), time.process_time()
    print(
        f"{len(pairs):,} pairs: open {opened - clock:.2f} s ({opening - worked:.2f} s of processors), "
        f"plan {planned - opened:.2f} s ({planning - opening:.2f} s; {len(plan):,} poisoned), "
        f"peak {peak_memory():.2f} GiB ({before:.2f} GiB of it imports)",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3_000_000)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        measure(options.table)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pairs.parquet"
        write_table(table, options.pairs)
        for _ in range(5):
            subprocess.run([sys.executable, __file__, "--table", str(table)], check=True)


if __name__ == "__main__":
    main()
