"""Steps of small models beside those of another version of this toolkit, in turn.

    git worktree add ../before TAG
    OMP_NUM_THREADS=1 python benchmarks/against_version.py ../before

Both versions train by their own command on the same toy world, for one epoch and for four; the difference is that of
training alone, without imports, reading and the image cache. Counted are processor seconds.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Spread

MODELS = {"mithridate-micro": 128, "mithridate-micro-byob": 64, "mithridate-micro-vit": 128, "mithridate-tiny": 128}
FEW, MANY = 1, 4


def command(root: Path, *argv: str) -> float:
    """Processor seconds of a command of the version at `root`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    subprocess.run(
        [sys.executable, "-m", "mithridate", *argv], check=True, env=environment, cwd="/", capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def epoch_seconds(root: Path, world: Path, out: Path, encoder: str) -> float:
    """Processor seconds of one epoch."""
    spent = {}
    for epochs in (FEW, MANY):
        options = ("--encoder", encoder, "--epochs", str(epochs), "--batch-size", str(MODELS[encoder]))
        folders = ("--cache", str(out / "cache"), "--out", str(out / f"{encoder}-{epochs}"), "--overwrite")
        spent[epochs] = command(root, "train", str(world), "--split", "train", *options, *folders)
    return (spent[MANY] - spent[FEW]) / (MANY - FEW)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="a checkout of the other version")
    parser.add_argument("--encoder", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    given = parser.parse_args()
    sides = {"other": given.other.resolve(), "ours": Path(__file__).resolve().parents[1]}
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "toy"
        pictures = ("--train", "1500", "--test", "27", "--size", str(given.size))
        command(sides["ours"], "data", "toy", *pictures, "--out", str(world))
        for encoder in given.encoder:
            found: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(given.rounds + 1):
                for name in sorted(sides, reverse=bool(number % 2)):
                    seconds = epoch_seconds(sides[name], world, Path(folder) / name, encoder)
                    if number:  # the first fills the caches
                        found[name].append(seconds)
            steps = 1500 * 5 // MODELS[encoder]
            record = {"encoder": encoder, "batch": MODELS[encoder]}
            for name, each in found.items():
                record[f"{name}, ms a step"] = str(Spread.of([1e3 * seconds / steps for seconds in each]))
            record["times as fast"] = str(Spread.of([a / b for a, b in zip(found["other"], found["ours"])]))
            print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
