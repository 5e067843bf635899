"""The harness that the benchmarks share."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("harness")


def test_both_sides_run_in_turn_and_ratios_are_those_of_each_turn(harness, monkeypatch):
    calls = []
    lengths = {"ours": iter([9, 1, 2, 4]), "theirs": iter([9, 3, 4, 8]), "floor": iter([9, 1, 1, 1])}
    now = [0.0]
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(harness, "processor_seconds", lambda: now[0])

    def side(name):
        def job():
            calls.append(name)
            now[0] += next(lengths[name])

        return job

    row = harness.compare(
        "it", side("ours"), side("theirs"), "the other", floor=side("floor"), floor_name="the least", rounds=3
    )
    assert calls == ["ours", "theirs", "floor"] * 4  # the first of each is warm-up
    assert (row.ours, row.theirs) == (2, 4)
    assert (row.ratio.median, row.ratio.low, row.ratio.high) == (2, 2, 3)
    assert (row.above_floor.median, row.above_floor.low, row.above_floor.high) == (2, 1, 4)
    assert "| it | 2 | the other | 4 | 2.00 (2.00 to 3.00) |" in harness.table([row])


def test_what_is_written_is_read_again(harness, tmp_path):
    row = harness.compare("sleep", lambda: time.sleep(0.001), lambda: time.sleep(0.002), "longer", rounds=2)
    harness.write([row], tmp_path / "out")
    told = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert told["rows"][0]["what"] == "sleep" and told["rows"][0]["above_floor"] is None
    assert told["machine"]["threads"] >= 1
    assert "| sleep |" in (tmp_path / "out" / "bench.md").read_text()


def test_processor_time_of_children_counts(harness):
    before = harness.processor_seconds()
    code = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert harness.processor_seconds() - before > 0.15


def test_the_exponent_is_fitted_where_something_is_done(harness):
    scaling = importlib.import_module("scaling")
    found = [{"n": 10.0**i, "seconds": s, "gib": 0.0} for i, s in ((1, 0.05), (2, 0.2), (3, 2.0), (4, 20.0))]
    assert scaling.exponent(found) == pytest.approx(1)
    assert scaling.exponent(found[:2]) is None
