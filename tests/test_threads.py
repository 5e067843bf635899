"""How many threads a command takes when other work keeps the cores busy."""

import os

import pytest

STAT = """cpu  100 0 100 {total} 0 0 0 0 0 0
cpu0 50 0 50 {first} 10 0 0 0 0 0
cpu1 50 0 50 {second} 0 0 0 0 0 0
intr 12345
"""


@pytest.fixture
def threads(monkeypatch):
    from mithridate.cli import threads

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return threads


def test_idle_seconds_of_the_cores_this_process_may_use(threads, tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    stat.write_text(STAT.format(total=400, first=300, second=100))
    tick = os.sysconf("SC_CLK_TCK")
    assert threads.idle_seconds(stat) == {0: 310 / tick, 1: 100 / tick}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1})
    assert threads.idle_seconds(stat) == {1: 100 / tick}
    assert threads.idle_seconds(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("idle", "expected"), [((0.2, 0.2), 2), ((0.2, 0.0), 1), ((0.0, 0.0), 1), ((0.19, 0.17), 2), ((0.4, 0.4), 2)]
)
def test_free_cores_are_those_idle_for_most_of_the_time(threads, idle, expected):
    assert threads.free_cores({0: 5.0, 1: 7.0}, {0: 5.0 + idle[0], 1: 7.0 + idle[1]}, 0.2) == expected


@pytest.mark.parametrize(("idle", "expected"), [(0.0, "1"), (1.0, None)])
def test_busy_cores_are_left_alone_and_told(threads, monkeypatch, capsys, idle, expected):
    readings = iter([{0: 1.0, 1: 1.0}, {0: 1.0 + idle, 1: 1.0 + idle}])
    monkeypatch.setattr(threads, "idle_seconds", lambda: next(readings))
    monkeypatch.setattr(threads, "_LOOK", 0.001)
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # restored afterwards, whatever is set here
    threads.settle_threads()
    assert (os.environ.get("OMP_NUM_THREADS") or None) == expected
    assert ("OMP_NUM_THREADS" in capsys.readouterr().err) == (expected is not None)


def test_a_number_of_the_users_own_stays(threads, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(threads, "idle_seconds", lambda: pytest.fail("looked although the number is given"))
    threads.settle_threads()
    assert os.environ["OMP_NUM_THREADS"] == "7" and capsys.readouterr().err == ""
