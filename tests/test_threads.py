"""How many threads there are: what was chosen, else what affinity and control groups allow, whatever else runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mithridate import threads


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Nothing chosen, four cores, no quota; what a test sets is taken back."""
    before = int(os.environ.get("OMP_NUM_THREADS", "1"))
    for name in threads._VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(threads, "_chosen", None)
    monkeypatch.setattr(threads, "_PROC", Path("/nowhere"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 4, 6}, raising=False)
    yield
    threads.use_threads(before)  # of torch and BLAS, which are loaded


def group(tmp_path, lines, **files):
    """A file of this process's groups, and the tree that they are in."""
    (tmp_path / "cgroup").write_text("".join(f"{line}\n" for line in lines))
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return threads._cgroup_quota(tmp_path / "cgroup", tmp_path / "fs")


def test_affinity_decides_without_a_quota():
    assert threads.available_cores() == threads.thread_count() == 4


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        (["0::/"], {"cpu.max": "150000 100000\n"}, 1.5),
        (["0::/"], {"cpu.max": "max 100000\n"}, None),
        (["0::/a/b"], {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "400000 100000"}, 3),
        (["0::/host/path"], {"cpu.max": "200000 100000\n"}, 2),
        (["4:cpu,cpuacct:/a"], {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 0.5),
        (["4:cpu:/"], {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        (["3:memory:/a"], {"cpu.max": "100000 100000"}, None),
        (["0::/"], {"cpu.max": "no number\n"}, None),
        (["0::/"], {}, None),
    ],
)
def test_quotas_of_control_groups(tmp_path, lines, files, expected):
    assert group(tmp_path, lines, **files) == expected


@pytest.mark.parametrize(("quota", "expected"), [("50000", 1), ("250000", 2), ("900000", 4)])
def test_a_quota_lowers_the_number_to_whole_cores(tmp_path, monkeypatch, quota, expected):
    group(tmp_path, ["0::/"], **{"cpu.max": f"{quota} 100000"})
    monkeypatch.setattr(threads, "_PROC", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "_CGROUPS", tmp_path / "fs")
    assert threads.available_cores() == expected


@pytest.mark.parametrize(("named", "expected"), [("3", 3), ("3,2", 3), ("0", 4), ("many", 4), ("", 4)])
def test_a_number_in_the_environment_holds_where_none_was_chosen(monkeypatch, named, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", named)
    assert threads.thread_count() == expected
    assert threads.use_threads(1) == threads.thread_count() == 1


def test_what_was_chosen_reaches_torch_and_what_is_loaded_later():
    import torch

    assert threads.use_threads(3) == 3
    assert torch.get_num_threads() == 3 == threads.thread_count()
    assert {os.environ[name] for name in threads._VARIABLES} == {"3"}
    assert threads.use_threads() == 3
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        threads.use_threads(0)


CHILD = """
from mithridate.threads import use_threads
use_threads(1)
import json, sys, torch, threadpoolctl
assert "torch" in sys.modules
print(json.dumps([torch.get_num_threads(), *sorted({p["num_threads"] for p in threadpoolctl.threadpool_info()})]))
"""


def test_a_library_that_is_loaded_later_has_the_number_too():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {1}


@pytest.mark.slow
def test_children_have_the_threads_that_they_are_given():
    """Torch takes MKL's variable before OpenMP's: a study's workers once had all cores each."""
    threads.use_threads(2)
    with threads.threads_of_children(1):
        asked = "import torch; print(torch.get_num_threads())"
        found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"
    assert all(os.environ[name] == "2" for name in threads._VARIABLES)
