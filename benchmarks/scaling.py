"""Time and memory against n, each size in a process of its own, with the exponent that fits: cost ~ n^exponent.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py [--jobs cache embed ...] [--largest N] [--out runs/scaling]

Seconds are the processor's, after imports and without making the input; memory is what the process grew by at its
peak. The exponent is fitted on sizes whose cost is above a tenth of a second: below that what is paid once decides.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from harness import processor_seconds
from large_table import peak_memory

SIZES = {
    "cache": (30, 300, 3000, 30_000),
    "craft": (30, 300, 3000, 30_000),
    "embed": (30, 300, 3000, 30_000),
    "train": (300, 3000, 30_000, 300_000),
    "filter": (1000, 10_000, 100_000, 1_000_000),
    "ranks": (30, 300, 3000, 30_000),
}
WHAT = {
    "cache": "images of 224 px into the cache",
    "craft": "poisoned images of 224 px written",
    "embed": "images embedded by the tiny model, from the cache",
    "train": "pairs of an epoch of the tiny model, from the cache",
    "filter": "pairs scored by cosine distance, 512 wide",
    "ranks": "queries and gallery, 100 targets, 512 wide",
}


def pictures(folder: Path, n: int) -> list[str]:
    """n distinct JPEGs, made from few."""
    from craft import write_photos

    (folder / "few").mkdir()
    few = [Path(place).read_bytes() for place in write_photos(folder / "few", min(n, 50))]
    places = []
    for i in range(n):
        place = folder / f"{i}.jpg"
        place.write_bytes(few[i % len(few)] + i.to_bytes(4, "little"))  # after a JPEG's end nothing is looked at
        places.append(str(place))
    return places


def cache_job(folder: Path, n: int) -> Callable[[], Any]:
    import mithridate as mt
    from mithridate.encoder.embed import image_source

    encoder, places = mt.load_encoder("mithridate-tiny"), pa.array(pictures(folder, n))
    return lambda: image_source(encoder, places, cache=folder / "cache")


def craft_job(folder: Path, n: int) -> Callable[[], Any]:
    from craft import ours

    places = pictures(folder, n)
    return lambda: ours(places, folder / "out", "patch:pattern=noise")


def _cached(folder: Path, n: int) -> tuple[Any, Any]:
    """The tiny encoder, and n pixels in memory that count as cached images."""
    import mithridate as mt
    from mithridate.data.cache import CachedImages, Part

    block = np.random.default_rng(0).integers(0, 256, (min(n, 256), 64, 64, 3), dtype=np.uint8)
    rows = np.arange(n) % len(block)
    part = Part(block, np.array([zlib.crc32(image.data) for image in block], np.uint32))
    return mt.load_encoder("mithridate-tiny"), CachedImages([part], np.zeros(n, np.int64), rows, None)


def embed_job(folder: Path, n: int) -> Callable[[], Any]:
    from mithridate.encoder.embed import embed_images

    encoder, source = _cached(folder, n)
    return lambda: embed_images(encoder, source, n)


def train_job(folder: Path, n: int) -> Callable[[], Any]:
    from objectives import Timed

    import mithridate as mt
    from mithridate.training.batches import TrainingSet
    from mithridate.training.config import TrainConfig

    encoder, source = _cached(folder, n)
    tokens = encoder.tokenizer(["a small red sheep standing on the green grass near an old tree"]).numpy()
    index = np.arange(n)
    data = TrainingSet(index, index, np.zeros(n, np.int64), tokens, source)
    timed = Timed(encoder, mt.Clip(), data, TrainConfig(epochs=1, batch_size=128), 1)
    return timed.seconds


def filter_job(folder: Path, n: int) -> Callable[[], Any]:
    import mithridate as mt
    from mithridate.encoder.embeddings import Embeddings

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, 512), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    uid = pa.chunked_array([pa.array(np.arange(n)).cast(pa.string())])
    embedded = Embeddings(uid, rows, np.arange(n), rows[::-1], "random")
    return lambda: mt.filter(embedded, threshold=mt.Above(2.0))


def ranks_job(folder: Path, n: int) -> Callable[[], Any]:
    from ranks import embeddings

    from mithridate.metrics.ranks import best_ranks

    rng = np.random.default_rng(0)
    query, gallery = embeddings(n, rng), embeddings(n, rng)
    return lambda: best_ranks(query, gallery, np.arange(min(n, 100)))


JOBS = {
    "cache": cache_job,
    "craft": craft_job,
    "embed": embed_job,
    "train": train_job,
    "filter": filter_job,
    "ranks": ranks_job,
}


def one(job: str, n: int) -> dict[str, float]:
    """Carried out in this process."""
    with tempfile.TemporaryDirectory() as folder:
        do = JOBS[job](Path(folder), n)
        before, worked = peak_memory(), processor_seconds()
        do()
        return {"n": n, "seconds": processor_seconds() - worked, "gib": max(0.0, peak_memory() - before)}


def exponent(found: list[dict[str, float]]) -> float | None:
    """Slope of log seconds over log n, where enough is done to be measured."""
    counted = [row for row in found if row["seconds"] > 0.1]
    if len(counted) < 2:
        return None
    n, seconds = (np.log([row[name] for row in counted]) for name in ("n", "seconds"))
    return float(np.polyfit(n, seconds, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="*", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--largest", type=int, default=2**62, help="leave larger sizes out")
    parser.add_argument("--out", type=Path, default=Path("runs/scaling"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], int(options.one[1]))))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    lines = ["| what | n | processor, s | memory above the input, GiB | exponent |", "|---|---|---|---|---|"]
    print("\n".join(lines))
    everything = {}
    for job in options.jobs:
        found = []
        for n in (size for size in SIZES[job] if size <= options.largest):
            command = [sys.executable, __file__, "--one", job, str(n)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.append(json.loads(told.splitlines()[-1]))
        slope = exponent(found)
        everything[job] = {"what": WHAT[job], "sizes": found, "exponent": slope}
        for row in found:
            fit = "-" if slope is None or row is not found[-1] else f"{slope:.2f}"
            line = f"| {WHAT[job]} | {row['n']:,} | {row['seconds']:.3g} | {row['gib']:.2f} | {fit} |"
            lines.append(line)
            print(line, flush=True)
        (options.out / "scaling.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
        (options.out / "scaling.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
