"""How every comparison of the benchmarks is timed and told: both sides in turn, in one process, after warm-up.

Of each pair of runs the ratio is taken, and of the ratios the median with the smallest and the largest. Beside the time
on the clock stands the processor's (of worker processes too): where other work keeps the cores busy, the clock tells
how they were shared out and the processor's time what was done.
"""

import gc
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROUNDS = 5


@dataclass(frozen=True)
class Spread:
    """The median of several, the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio`: how many times as long the alternative takes, on the clock; `work`: in processor time.

    `floor` is what no way of doing it can be faster than; `above_floor`: how many times the floor's processor time ours
    takes.
    """

    what: str
    ours: float  # seconds, median
    alternative: str
    theirs: float
    ratio: Spread
    work: Spread
    floor: str = ""
    above_floor: Spread | None = None
    note: str = ""


@dataclass
class Timed:
    """Seconds of the runs of one side, on the clock and of processors."""

    clock: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)

    def run(self, job: Callable[[], Any]) -> None:
        begin, worked = time.perf_counter(), processor_seconds()
        job()
        self.clock.append(time.perf_counter() - begin)
        self.work.append(processor_seconds() - worked)


def clocked(job: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    """Seconds of one run, on the clock."""
    begin = time.perf_counter()
    job(*arguments, **options)
    return time.perf_counter() - begin


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def compare(
    what: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    alternative: str,
    *,
    floor: Callable[[], Any] | None = None,
    floor_name: str = "",
    rounds: int = ROUNDS,
    warm: bool = True,
    note: str = "",
) -> Row:
    """Time the two sides, and the floor, in turn. Without `warm` there is no run that is not counted."""
    sides = {"ours": ours, "theirs": theirs} | ({} if floor is None else {"floor": floor})
    if warm:
        for job in sides.values():
            job()
    timed = {name: Timed() for name in sides}
    for _ in range(rounds):
        for name, job in sides.items():
            gc.collect()
            timed[name].run(job)
    mine, other = timed["ours"], timed["theirs"]
    above = None
    if floor is not None:
        above = Spread.of([a / b for a, b in zip(mine.work, timed["floor"].work)])
    return Row(
        what,
        statistics.median(mine.clock),
        alternative,
        statistics.median(other.clock),
        Spread.of([b / a for a, b in zip(mine.clock, other.clock)]),
        Spread.of([b / a for a, b in zip(mine.work, other.work)]),
        floor_name,
        above,
        note,
    )


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    load = os.getloadavg()[0]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "bf16": any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile")),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": round(load, 1),
    }


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    head = ("what", "ours, s", "alternative", "its time, s", "ratio", "ratio in processor time", "floor", "times floor")
    lines = [f"| {' | '.join(head)} | note |", f"|{'---|' * (len(head) + 1)}"]
    for row in rows:
        cells = (
            row.what,
            f"{row.ours:.3g}",
            row.alternative,
            f"{row.theirs:.3g}",
            str(row.ratio),
            str(row.work),
            row.floor or "-",
            "-" if row.above_floor is None else str(row.above_floor),
            row.note or "-",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(rows: list[Row], out: Path) -> None:
    """`bench.json` and `bench.md` in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    found = machine()
    content = {"machine": found, "rows": [asdict(row) for row in rows]}
    (out / "bench.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    told = ", ".join(f"{name} {value}" for name, value in found.items())
    (out / "bench.md").write_text(f"{told}\n\n{table(rows)}\n", encoding="utf-8")
