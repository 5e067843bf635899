"""The engine on a Ray cluster of two nodes on this machine, whose workers, nodes and driver are killed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine_calls import Note, fails, write_name
from mithridate.engine.calls import Engine
from mithridate.engine.run import gather, map_shards, run_graph
from mithridate.errors import DataError

pytest.importorskip("ray", reason="ray is not installed: pip install 'mithridate[ray]'")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    # sockets and processes that ray leaves to the end of the process
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

# a lost node is noticed after a second, not after half a minute
NOTICE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}
STORE = 80 * 2**20


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with one CPU each; workers find this folder's modules."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        here = str(Path(__file__).parent)
        patch.setenv("PYTHONPATH", os.pathsep.join([here, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        head = {"num_cpus": 1, "object_store_memory": STORE, "_system_config": NOTICE, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(num_cpus=1, object_store_memory=STORE)
        made.wait_for_nodes()
        yield made
        import ray

        ray.shutdown()
        made.shutdown()


def workers(cluster):
    """The processes on the cluster that have a call or wait for one."""
    raylets = {process.process.pid for node in cluster.list_all_nodes() for process in node.all_processes["raylet"]}
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
            name = path.with_name("cmdline").read_text(errors="replace")
            if parent in raylets and name.startswith("ray::_"):
                found.append(int(path.parent.name))
    return found


def shard_names(count):
    return [f"slow-{number}" for number in range(count)]


def whole(folder, names):
    """Whether each shard has left its file, and nothing else is there."""
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert all((folder / name).read_text().startswith(f"{name} by ") for name in names)


def test_shards_and_graphs_on_a_cluster(cluster, tmp_path):
    engine = Engine(ray=cluster.address)
    found = map_shards(write_name, ["a", "bad", "b", "lazy"], out=lambda s: tmp_path / s, engine=engine)
    assert found.done == 2 and {failure.item for failure in found.failed} == {"bad", "lazy"}
    assert "DataError" in next(failure.trace for failure in found.failed if failure.item == "bad")
    failed = run_graph(Note(tmp_path / "log"), {"c": ["b"], "b": ["a"], "a": [], "bad": []}, engine=engine)
    assert [failure.item for failure in failed] == ["bad"]
    assert (tmp_path / "log").read_text().split() == ["a", "b", "c"]
    assert gather(fails, [5, 1], engine=engine) == [-5, -1]
    with pytest.raises(DataError, match="two"):
        gather(fails, [2], engine=engine)


@pytest.mark.parametrize("seed", range(5))
def test_a_worker_and_then_a_node_are_killed(cluster, tmp_path, seed):
    """Shards that sleep, so that the run lasts some seconds; the moments are drawn."""
    rng, names = random.Random(seed), shard_names(16)
    done = threading.Event()

    def kill():
        time.sleep(rng.uniform(0.2, 1.5))
        for pid in rng.sample(workers(cluster), min(1, len(workers(cluster)))):
            os.kill(pid, signal.SIGKILL)
        time.sleep(rng.uniform(0.2, 1.0))
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        done.set()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        found = map_shards(write_name, names, out=lambda s: tmp_path / s, engine=Engine(ray=cluster.address))
    finally:
        killer.join()
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
        cluster.wait_for_nodes()
    assert done.is_set() and not found.failed
    assert found.done == len(names)
    whole(tmp_path, names)


DRIVER = """
import sys
from pathlib import Path
from engine_calls import write_name
from mithridate.engine.calls import Engine
from mithridate.engine.run import map_shards

folder = Path(sys.argv[2])
names = [f"slow-{number}" for number in range(16)]
found = map_shards(write_name, names, out=lambda s: folder / s, engine=Engine(ray=sys.argv[1]))
print(found.done, found.there, len(found.failed))
"""


def test_a_killed_driver_goes_on_when_it_is_started_again(cluster, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", DRIVER, cluster.address, str(out)]
    first = subprocess.Popen(command, start_new_session=True)
    end = time.monotonic() + 120
    while len(list(out.iterdir())) < 3:
        assert time.monotonic() < end and first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    done, there, failed = map(int, again.stdout.split()[-3:])
    assert there >= 3 and done + there == 16 and not failed
    whole(out, shard_names(16))


@pytest.mark.parametrize(("command", "files"), [("embed", 61), ("audit", None)])
def test_twenty_shards_give_byte_for_byte_the_files_of_one_process(cluster, toy_world, tmp_path, command, files):
    from mithridate.data.read import read_pairs
    from test_embed_shards import digests, run, write_shards

    pairs = read_pairs(toy_world, split="train")
    shards = write_shards(pairs.where(pairs.image_index < 20), tmp_path / "shards", 20)
    for name, options in (("one", ()), ("ray", ("--ray", cluster.address))):
        assert run(shards, tmp_path / name, *options, command=command) == 0
    one = digests(tmp_path / "one")
    assert len(one) == files or {"scores.parquet", "keep.txt", "audit.json", "report.html"} <= one.keys()
    assert one == digests(tmp_path / "ray")


def test_a_study_has_the_numbers_of_one_process(cluster, tmp_path):
    from mithridate.studies.analysis.outcomes import read_outcomes
    from mithridate.studies.run import run_study
    from test_studies import HEAD, same, study

    text = HEAD.replace("train: 40, test: 20", "train: 24, test: 12") + (
        "experiments: [{name: one, attack: [null, {attack: backdoor, target: bird, count: 20}]}]\n"
    )
    for name, engine in (("one", Engine()), ("ray", Engine(ray=cluster.address))):
        assert run_study(study(text), tmp_path / name, engine=engine).failed == ()
    first, second = (read_outcomes(study(text), tmp_path / name) for name in ("one", "ray"))
    assert len(first) == 2
    same([replace(outcome) for outcome in first], second)
    assert all(np.isfinite(array).all() for array in first[0].values.values())
