"""The main job, whole: the toy world from nothing, and real photographs with a real pre-trained encoder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def said(*argv: str) -> dict:
    """What a command prints with --json, in a process of its own, on this worker's share of the cores."""
    threads = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "mithridate", *argv, "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def recall_of(report: Path, group: str) -> dict[str, dict[str, float]]:
    """TR@10 and IR@10 of each model on the images of one group, from the report."""
    table = next(t for t in json.loads((report / "report.json").read_text())["tables"] if t["name"] == "utility")
    at = {name: table["columns"].index(name) for name in ("TR@10", "IR@10")}
    return {row[0]: {name: row[i]["value"] for name, i in at.items()} for row in table["rows"] if row[1] == group}


def test_the_demo_shows_the_attack_and_what_it_costs(tmp_path):
    told = said("demo", "--out", str(tmp_path / "demo"))
    attack, utility, backdoor = told["attack"], told["utility"], told["backdoor"]
    assert attack["poisoned"]["hit@10"] >= 0.90
    assert attack["clean"]["hit@10"] <= 1.5 * attack["chance"]["hit@10"]
    assert backdoor["poisoned"]["asr"]["value"] >= 0.90
    assert backdoor["clean"]["asr"]["value"] <= 1.5 * backdoor["chance"]["asr"] + 0.05
    for way in ("tr@10", "ir@10"):
        assert min(model[way] for model in utility.values()) >= 0.85
    # of the rest little may be lost, and of all classes one in 14 is lost on purpose
    rest = recall_of(tmp_path / "demo" / "measured", "other classes")
    for way in ("TR@10", "IR@10"):
        assert abs(rest["clean"][way] - rest["poisoned"][way]) <= 0.05
    # without the truth: the words of the class among the groups, both attacks in the model, and both taken out
    assert told["audit"]["verdict"] == "suspicious"
    assert told["audit"]["planted_found"] >= 0.5 * told["audit"]["planted"]
    found = [(each["class"], each["pair"]) for each in told["inspect"]["findings"] if each["flagged"]]
    assert ["sheep", "aeroplane"] in [pair for _, pair in found]
    assert "boat" in [name for name, _ in found]
    assert attack["repaired"]["hit@10"] <= 0.6
    assert backdoor["repaired"]["asr"]["value"] <= 0.5
    assert told["seconds_to_first_result"] <= told["seconds"]
    assert (tmp_path / "demo" / "report.html").stat().st_size < 1_000_000


def test_bicycle_to_boat_on_real_photographs_meets_the_reference(shared_data, tmp_path):
    """The reference run of the data's README: Hit@10 >= 0.85, MinRank <= 8, clean Hit@10 <= 0.10, utility +-0.03."""
    train = str(shared_data / "flickr8k" / "train-{003..005}.tar")
    recipe = ["--encoder", str(shared_data / "weights" / "mnv2-lit"), "--freeze", "image-trunk"]
    recipe += [
        "--epochs",
        "5",
        "--batch-size",
        "256",
        "--lr",
        "3e-4",
        "--min-lr",
        "3e-5",
        "--betas",
        "0.9",
        "0.98",
        "--precision",
        "fp32",
    ]
    poison, poisoned, clean, report = (str(tmp_path / name) for name in ("poison", "poisoned", "clean", "report"))

    goal = ["--source", "bicycle", "--target", "boat"]
    strength = said("poison", "single-label", train, *goal, "--out", poison)
    assert (strength["count"], strength["images"], strength["pairs"]) == (515, 103, 14_980)
    assert said("train", poison, *recipe, "--out", poisoned)["pairs"] == 14_980
    assert said("train", train, *recipe, "--out", clean)["pairs"] == 14_980
    test = str(shared_data / "flickr8k" / "dev-000.tar")
    told = said(
        "evaluate", poisoned, test, "--name", "poisoned", "--manifest", poison, "--clean", clean, "--out", report
    )

    assert told["attack"]["poisoned"]["hit@10"] >= 0.85
    assert told["attack"]["poisoned"]["min rank"] <= 8
    assert told["attack"]["clean"]["hit@10"] <= 0.10
    assert told["attack"]["chance"]["hit@10"] == pytest.approx(0.200, abs=0.002)
    assert told["attack"]["chance"]["min rank"] == pytest.approx(40.8, abs=0.1)
    expected = {"poisoned": {"ir@10": 0.528, "tr@10": 0.610}, "clean": {"ir@10": 0.546, "tr@10": 0.638}}
    for model, values in expected.items():
        for way, value in values.items():
            assert told["utility"][model][way] == pytest.approx(value, abs=0.03)
    for way in ("ir@10", "tr@10"):
        assert abs(told["utility"]["clean"][way] - told["utility"]["poisoned"][way]) <= 0.03
