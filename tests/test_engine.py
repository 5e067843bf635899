"""The engine: a function over shards and a graph of stages, in this process and in processes that may be killed."""

import subprocess
import sys

import pytest

from engine_calls import Holds, Note, write_name
from mithridate.engine.calls import KILLED, Engine, Resources
from mithridate.engine.run import map_shards, run_graph
from mithridate.errors import EngineError, OutputError


def names(folder, *shards):
    return [path.name for path in sorted(folder.iterdir()) if path.name in shards]


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_of_shards_are_given_back_and_stop_no_other(tmp_path, jobs):
    told = []
    shards = ["a", "bad", "b", "lazy", "c"]
    found = map_shards(
        write_name, shards, out=lambda s: tmp_path / s, engine=Engine(jobs=jobs), progress=lambda *at: told.append(at)
    )
    assert (found.done, found.there) == (3, 0)
    assert {f.item: f.error for f in found.failed} == {
        "bad": "bad is damaged",
        "lazy": f"lazy left no {tmp_path / 'lazy'}; a function that is mapped over shards writes its path",
    }
    assert any("DataError" in failure.trace for failure in found.failed)
    assert told == [(i, 5) for i in range(1, 6)]
    assert names(tmp_path, *shards) == ["a", "b", "c"]


def test_what_is_there_is_not_made_again(tmp_path):
    (tmp_path / "a").write_text("before")
    found = map_shards(write_name, ["a", "b"], out=lambda s: tmp_path / s)
    assert (found.done, found.there) == (1, 1)
    assert (tmp_path / "a").read_text() == "before"
    assert map_shards(write_name, ["a", "b"], out=lambda s: tmp_path / s, engine=Engine(jobs=2)).there == 2


def test_a_shard_that_a_worker_taken_for_lost_finishes_counts_once(tmp_path):
    def late(shard, path):
        if shard == "b":
            path.touch()  # by the other one
        raise OutputError(f"{path} appeared while this command ran")

    found = map_shards(late, ["a", "b"], out=lambda s: tmp_path / s)
    assert (found.done, [failure.item for failure in found.failed]) == (1, ["a"])


@pytest.mark.parametrize(("most", "done"), [(None, 3), (0, 1), (1, 2)])
def test_nothing_begins_after_more_errors_than_allowed(tmp_path, most, done):
    shards = ["a", "bad", "b", "lazy", "c"]
    found = map_shards(write_name, shards, out=lambda s: tmp_path / s, engine=Engine(max_errors=most))
    assert found.done == done


def test_a_call_whose_worker_is_killed_is_made_again_and_in_the_end_fails(tmp_path):
    shards = ["slow", "deadly", "once", "a"]
    found = map_shards(write_name, shards, out=lambda s: tmp_path / s, engine=Engine(jobs=2, retries=1))
    assert {failure.item: failure.error for failure in found.failed} == {"deadly": KILLED}
    assert found.done == 3
    assert not (tmp_path / "slow.died").exists() and (tmp_path / "once.died").exists()


def test_a_function_begins_once_a_worker_with_its_share_of_the_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("mithridate.threads._chosen", 4)
    shards = [str(i) for i in range(6)]
    found = map_shards(Holds(tmp_path), shards, out=lambda s: tmp_path / s, engine=Engine(jobs=2))
    assert found.done == 6
    assert {(tmp_path / shard).read_text() for shard in shards} == {"2"}
    assert {path.read_text() for path in tmp_path.glob("begun-*")} == {"x"}


def test_a_graph_is_done_in_order_and_what_stands_on_a_failure_is_not(tmp_path):
    needs = {"d": ["b", "c"], "c": ["a"], "b": ["a", "elsewhere"], "a": [], "f": ["bad"], "bad": [], "g": ["f"]}
    begun, ended = [], []
    failed = run_graph(
        Note(tmp_path / "log"),
        needs,
        on_begin=begun.append,
        on_end=lambda key, outcome: ended.append((key, outcome.error)),
    )
    assert (tmp_path / "log").read_text().split() == ["a", "c", "b", "d"]
    assert begun == ["a", "c", "b", "d", "bad"]
    assert ended[-1] == ("bad", "ValueError: bad")
    assert [failure.item for failure in failed] == ["bad"]


def test_a_graph_in_processes_keeps_the_order_of_needs(tmp_path):
    needs = {"c": ["b"], "b": ["a"], "a": []}
    assert run_graph(Note(tmp_path / "log"), needs, engine=Engine(jobs=2)) == ()
    assert (tmp_path / "log").read_text().split() == ["a", "b", "c"]


@pytest.mark.parametrize("options", [{"jobs": 0}, {"max_errors": -1}])
def test_an_engine_that_cannot_work_is_refused(options):
    with pytest.raises(EngineError, match=f"{next(iter(options))} must be at least"):
        Engine(**options)


def test_resources_that_are_none_are_refused():
    with pytest.raises(EngineError, match="more than 0 cpus"):
        Resources(cpus=0)


def test_ray_that_is_not_installed_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'mithridate\[ray\]'"):
        map_shards(write_name, ["a"], out=lambda s: tmp_path / s, engine=Engine(ray="auto"))


def test_the_engine_loads_neither_torch_nor_ray():
    code = "import sys, mithridate.engine.run, mithridate.engine.cluster; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "ray", "pyarrow"} & set(loaded)
