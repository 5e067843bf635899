"""How many threads a command works with: as many as there are cores that nothing else keeps busy."""

import os
import sys
import time
from pathlib import Path

_CHOSEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_LOOK = 0.2  # seconds; the kernel counts in hundredths


def settle_threads() -> None:
    """Set `OMP_NUM_THREADS`, where it is not set and other processes keep cores busy. To be called before torch loads.

    Threads of one product wait for each other by spinning. Where there are more of them than free cores, one waits
    for another that does not run: two threads on two busy cores take several times as long as one.
    """
    if any(os.environ.get(name) for name in _CHOSEN):
        return
    before = idle_seconds()
    if len(before) < 2:
        return
    time.sleep(_LOOK)
    free = free_cores(before, idle_seconds(), _LOOK)
    if free < len(before):
        os.environ["OMP_NUM_THREADS"] = str(free)
        print(
            f"mithridate: other work keeps {len(before) - free} of {len(before)} cores busy, so this uses "
            f"{free} thread{'s' if free > 1 else ''}; set OMP_NUM_THREADS to choose",
            file=sys.stderr,
        )


def idle_seconds(stat: Path = Path("/proc/stat")) -> dict[int, float]:
    """Seconds that each core this process may use has been idle; empty where the system does not tell."""
    try:
        lines = stat.read_text(encoding="ascii").splitlines()
        ours, tick = os.sched_getaffinity(0), os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):  # not Linux
        return {}
    fields = (line.split() for line in lines if line.startswith("cpu") and line[3:4].isdigit())
    counts = {int(name[3:]): (int(values[3]) + int(values[4])) / tick for name, *values in fields if len(values) > 4}
    return {core: seconds for core, seconds in counts.items() if core in ours}


def free_cores(before: dict[int, float], after: dict[int, float], seconds: float) -> int:
    """Cores that were idle for most of the time between two readings, at least 1."""
    return max(1, round(sum(min(1.0, (after.get(core, start) - start) / seconds) for core, start in before.items())))
