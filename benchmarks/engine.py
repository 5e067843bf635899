"""What the engine costs over a bare loop, in time and memory, and how far one driver reaches.

    OMP_NUM_THREADS=1 python benchmarks/engine.py [--out runs/engine]
    python benchmarks/engine.py --few SHARDS --data SHARDS --encoder E [--out runs/throughput]

A shard here waits half a second, 120 of them a minute: what other processes do does not count, and all that is added is
the engine's. Beside the whole run stands the share without the start of the workers, which a longer run pays once too.
The growth beyond is simulated: one driver that spends the measured processor time on each call, workers that take as
long as a shard does.

With --data throughput alone is measured: real shards embedded with one worker and with two, and audited; the start of
the processes and the loading of models drop out by what the shards of --few take.
"""

import argparse
import heapq
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mithridate.engine.calls import Engine
from mithridate.engine.run import map_shards

SECONDS, SHARDS = 0.5, 120
BARS = {"processes": 0.03, "ray": 0.10}


def work(shard: int, path: Path) -> None:
    """Waits, and leaves a small file."""
    time.sleep(SECONDS)
    path.write_text(str(shard))


def nothing(shard: int, path: Path) -> None:
    """Leaves an empty file."""
    path.touch()


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock, and of this process's processor."""
    clock, used = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - used


def mapped(function: Any, count: int, engine: Engine) -> tuple[float, float]:
    function = getattr(importlib.import_module("engine"), function.__name__)  # by a name that workers can import
    with tempfile.TemporaryDirectory() as folder:
        found: list[Any] = []
        seconds = timed(
            lambda: found.append(
                map_shards(function, range(count), out=lambda shard: Path(folder, str(shard)), engine=engine)
            )
        )
        assert found[0].done == count, found[0].failed[:1]
        return seconds


def overheads(engines: dict[str, Engine]) -> dict[str, Any]:
    """Against the bare loop shared out: the whole run, and without the start, which a run of a call each takes."""
    with tempfile.TemporaryDirectory() as folder:
        bare, _ = timed(lambda: [work(shard, Path(folder, str(shard))) for shard in range(SHARDS)])
    rows: dict[str, Any] = {"bare loop": {"seconds": bare}}
    for name, engine in engines.items():
        workers = engine.jobs or 1
        start, _ = mapped(work, workers, engine)
        seconds, _ = mapped(work, SHARDS, engine)
        once = max(0.0, start - SECONDS)
        ideal = bare / workers
        rows[name] = {
            "workers": workers,
            "seconds": seconds,
            "start": once,
            "overhead": seconds / ideal - 1,
            "overhead without start": (seconds - once) / ideal - 1,
        }
    return rows


def call_cost(engine: Engine) -> float:
    """Processor time of the driver a call: what many calls that do nothing take beyond few."""
    few, many = (mapped(nothing, count, engine)[1] for count in (20, 520))
    return max(0.0, many - few) / 500


MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engine import nothing
from mithridate.engine.calls import Engine
from mithridate.engine.run import map_shards
if __name__ == "__main__":
    jobs, count, folder = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    map_shards(nothing, range(count), out=lambda s: Path(folder, str(s)), engine=Engine(jobs=jobs))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def memory(counts: tuple[int, ...], jobs: int) -> dict[int, float]:
    """MiB that the driver takes at most, by the number of shards."""
    found = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, "memory.py")
            script.write_text(MEMORY)
            Path(folder, "out").mkdir()
            command = [sys.executable, str(script), str(Path(__file__).parent), str(jobs), str(count), f"{folder}/out"]
            found[count] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def done_by(command: list[str]) -> dict[str, float]:
    """Pairs, seconds on the clock and processor seconds of a command and its workers."""
    with tempfile.TemporaryDirectory() as folder:
        before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        words = [sys.executable, "-m", "mithridate", *command, "--out", f"{folder}/out", "--json", "--threads"]
        jobs = command[command.index("--jobs") + 1]
        done = subprocess.run([*words, jobs], capture_output=True, text=True)
        assert not done.returncode, done.stderr
        seconds, after = time.perf_counter() - clock, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"pairs": json.loads(done.stdout.splitlines()[-1])["pairs"], "seconds": seconds, "processor seconds": used}


def throughput(name: str, jobs: str, few: str, many: str, encoder: str) -> dict[str, Any]:
    """Pairs a second, a whole run over `many` shards; and a core, from what `many` take beyond `few` (no start)."""
    small, large = (done_by([name, data, "--encoder", encoder, "--jobs", jobs]) for data in (few, many))
    more = {key: large[key] - small[key] for key in large}
    return {
        **large,
        "pairs a second": large["pairs"] / large["seconds"],
        "pairs a second without the start": more["pairs"] / more["seconds"],
        "pairs a processor second without the start": more["pairs"] / more["processor seconds"],
    }


def forward(name: str, count: int = 32) -> dict[str, float]:
    """Images, and captions of a dozen words, that a model takes in a processor second, in batches of `count`."""
    import torch

    from mithridate.encoder.encoder import load_encoder

    encoder = load_encoder(name)
    pixels = torch.zeros(count, *encoder.image_size, 3, dtype=torch.uint8)
    texts = ["two brown dogs play with a ball on the wet grass"] * count
    with torch.inference_mode():
        encoder.encode_image(pixels)
        _, images = timed(lambda: [encoder.encode_image(pixels) for _ in range(3)])
        _, captions = timed(lambda: [encoder.encode_text(texts) for _ in range(3)])
    return {"images": 3 * count / images, "captions": 3 * count / captions}


USED = """
import json, resource, sys
from mithridate.cli import main
if __name__ == "__main__":
    main(sys.argv[1:])
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([each.ru_utime + each.ru_stime for each in used]))
"""


def shared_out(few: str, many: str) -> dict[str, Any]:
    """Of commands that leave no parts: milliseconds of processor a pair of the driver, and of its two workers."""
    found: dict[str, Any] = {}
    count = 0
    for name, options in (("describe", []), ("doctor", []), ("convert", ["--to", "webdataset"])):
        used = []
        for data in (few, many):
            with tempfile.TemporaryDirectory() as folder:
                script = Path(folder, "used.py")
                script.write_text(USED)
                out = ["--out", f"{folder}/out"] if name == "convert" else []
                words = ["data", name, data, *options, *out, "--jobs", "2", "--json"]
                done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=True)
            *_, said, cpu = done.stdout.splitlines()
            used.append(json.loads(cpu))
            if name == "describe":
                count = json.loads(said)["pairs"] - count
        found[name] = {who: 1000 * (used[1][i] - used[0][i]) / count for i, who in enumerate(("driver", "workers"))}
    return found


def simulated(cost: float, start: float, seconds: float, workers: int, shards: int) -> float:
    """The share of the workers' time that is work: one driver gives out the shards one after the other."""
    free = [start] * workers
    driver = 0.0
    for _ in range(shards):
        ready = heapq.heappop(free)
        driver = max(driver, ready) + cost
        heapq.heappush(free, driver + seconds)
    return shards * seconds / (workers * max(free))


def _write(result: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "engine.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="several tar shards")
    parser.add_argument("--few", help="fewer of them, two at least")
    parser.add_argument("--only", default="", help="of the throughputs, those that have this in their names")
    parser.add_argument("--encoder", default="mithridate-tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/engine"))
    options = parser.parse_args()
    if options.data:
        sets = options.few, options.data
        parts: dict[str, Callable[[], Any]] = {
            "ViT-B-32, a processor second": lambda: forward("ViT-B-32"),
            "milliseconds a pair": lambda: shared_out(*sets),
            "embed, 1 worker": lambda: throughput("embed", "1", *sets, options.encoder),
            "embed, 2 workers": lambda: throughput("embed", "2", *sets, options.encoder),
            "audit, 1 worker": lambda: throughput("audit", "1", *sets, options.encoder),
        }
        found = {}
        for name, part in parts.items():
            if options.only in name:
                found[name] = part()
                print(json.dumps({name: found[name]}), flush=True)
        _write(found, options.out)
        return
    engines = {"in this process": Engine(), "processes": Engine(jobs=2)}
    try:
        import ray

        here = str(Path(__file__).parent)
        os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
        engines["ray"] = Engine(ray="auto", jobs=2)
    except ImportError:
        print("ray is not installed: left out")
    result: dict[str, Any] = {"overhead": overheads(engines)}
    result["driver seconds a call"] = {name: call_cost(engine) for name, engine in engines.items()}
    result["driver MiB by shards"] = {f"{jobs} jobs": memory((1000, 30_000), jobs) for jobs in (1, 2)}
    ways = {name: result["driver seconds a call"][name] for name in engines if name != "in this process"}
    result["simulated share of work"] = {
        name: {
            f"{workers} workers, shards of {seconds} s": simulated(
                cost, result["overhead"][name]["start"], seconds, workers, 100 * workers
            )
            for seconds in (10, 300)
            for workers in (2, 16, 128, 1024)
        }
        for name, cost in ways.items()
    }
    _write(result, options.out)
    broken = {name: bar for name, bar in BARS.items() if name in engines and result["overhead"][name]["overhead"] > bar}
    if broken:
        sys.exit(f"more overhead than {broken}")


if __name__ == "__main__":
    main()
