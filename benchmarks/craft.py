"""Speed of crafting patch poisons over 224-pixel JPEGs, against bare decoding and encoding on the same cores.

    OMP_NUM_THREADS=1 python benchmarks/craft.py [--images N] [--rounds R] [--trigger TEXT]

Bare is what anybody would write: open the file, decode, encode with the same tables, by as many threads as there are
cores, and write the file. Both take turns in one run, each into a fresh folder, so that what else the machine does
falls on both.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, JpegImagePlugin

from mithridate.poisoning.craft import craft
from mithridate.poisoning.plan import Edits
from mithridate.poisoning.triggers import Stamp, parse_trigger


def write_photos(folder: Path, count: int, *, size: int = 224) -> list[str]:
    """JPEGs with edges and noise, of qualities that scraped photographs have: 10 to 25 kB."""
    rng = np.random.default_rng(0)
    places = []
    for number in range(count):
        cells = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
        image = np.asarray(Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC), np.int16)
        grain = rng.integers(-5, 6, image.shape)
        place = folder / f"{number:05d}.jpg"
        pixels = np.clip(image + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place, quality=int(rng.integers(70, 96)), subsampling=int(rng.integers(0, 3)))
        places.append(str(place))
    return places


def bare(places: list[str], out: Path) -> None:
    def one(place: str) -> None:
        image = Image.open(io.BytesIO(Path(place).read_bytes()))
        image.load()
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        coded = io.BytesIO()
        image.save(coded, "JPEG", qtables=image.quantization, subsampling=JpegImagePlugin.get_sampling(image))
        (out / Path(place).name).write_bytes(coded.getvalue())

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(one, places))


def ours(places: list[str], out: Path, trigger: str) -> None:
    edits = Edits(pa.array(places), (Stamp(parse_trigger(trigger)),), np.zeros(len(places), int))
    craft(edits, [""] * len(places), out, seed=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trigger", default="patch:pattern=noise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").mkdir()
        places = write_photos(folder / "source", options.images)
        seconds: dict[str, list[float]] = {"bare": [], "ours": []}
        cpu: dict[str, list[float]] = {"bare": [], "ours": []}
        for turn in range(options.rounds):
            for what in ("bare", "ours"):
                out = folder / f"{what}{turn}"
                if what == "bare":
                    out.mkdir()
                begin, worked = time.perf_counter(), time.process_time()
                if what == "bare":
                    bare(places, out)
                else:
                    ours(places, out, options.trigger)
                seconds[what].append(time.perf_counter() - begin)
                cpu[what].append(time.process_time() - worked)
        medians = {what: statistics.median(taken) for what, taken in seconds.items()}
        each = [b / o for b, o in zip(seconds["bare"], seconds["ours"])]
        print(
            json.dumps(
                {
                    "images": options.images,
                    "trigger": options.trigger,
                    "cores": len(os.sched_getaffinity(0)),
                    **{f"{what}_images_per_s": round(options.images / m, 1) for what, m in medians.items()},
                    **{f"{what}_cpu_ms_an_image": round(1e3 * min(c) / options.images, 3) for what, c in cpu.items()},
                    "relative_speed": round(medians["bare"] / medians["ours"], 3),
                    "relative_speed_of_each_round": [round(r, 3) for r in each],
                }
            )
        )


if __name__ == "__main__":
    main()
