"""How many threads a command works with: what the caller chose, else what the machine allows.

Sums are split over threads and round otherwise with another number of them, so the number is part of what decides a
result. It does not depend on how busy the machine is, and it is recorded with every run.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# read by OpenMP, MKL and OpenBLAS when they are loaded
_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PROC, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")

_chosen: int | None = None


def thread_count() -> int:
    """Threads of every pool: what `use_threads` was given, else `OMP_NUM_THREADS`, else `available_cores`."""
    if _chosen is not None:
        return _chosen
    named = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # a list is one number a level of nesting
    return int(named) if named.isdecimal() and int(named) > 0 else available_cores()


def use_threads(count: int | None = None) -> int:
    """Work with `count` threads from here on, in every library and in processes begun later; gives back how many.

    None takes `thread_count()`. Libraries that are not loaded yet read it from the environment. Raises `ValueError`
    for fewer than one.
    """
    global _chosen
    if count is not None and count < 1:
        raise ValueError(f"threads must be at least 1, got {count}")
    _chosen = count = count or thread_count()
    for name in _VARIABLES:
        os.environ[name] = str(count)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)
    if (faiss := sys.modules.get("faiss")) is not None:
        faiss.omp_set_num_threads(count)
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(count)  # of what is loaded already, as numpy's BLAS
    return count


@contextmanager
def threads_of_children(count: int) -> Iterator[None]:
    """Processes that begin within have `count` threads, which libraries read when they are loaded there.

    All variables are set: torch takes MKL's number before OpenMP's.
    """
    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group (versions 1 and 2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota(_PROC, _CGROUPS)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _cgroup_quota(proc: Path, root: Path) -> float | None:
    """Cores that the smallest quota of this process's control group and those above it allows; None without one."""
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        group = top / path.lstrip("/")
        # within a container the path may be the host's, and the files lie at the top
        for folder in (group, *(above for above in group.parents if above.is_relative_to(top)), top):
            quotas += _quota_of(folder)
    return min(quotas, default=None)


def _quota_of(folder: Path) -> list[float]:
    try:
        if (folder / "cpu.max").is_file():  # version 2: "max 100000" or "150000 100000"
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()  # -1 is none
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
        return [int(quota) / int(period)] if quota != "max" and int(quota) > 0 else []
    except (OSError, ValueError):
        return []
