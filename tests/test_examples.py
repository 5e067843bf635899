"""The examples run as they stand, on little data."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_engineer_sees_a_distance_for_every_pair(toy_world, capsys):
    distance = example("engineer").main(str(toy_world), "mithridate-tiny", shown=3)
    assert distance.shape == (405,) and np.isfinite(distance).all()
    assert len(capsys.readouterr().out.splitlines()) >= 3


def test_the_owner_gets_a_page(toy_world, tmp_path):
    report = example("owner").main("mithridate-tiny", str(toy_world), "sheep:aeroplane", out=tmp_path / "out")
    assert "attack" in report.headline and (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_the_researcher_compares_two_attacks(tmp_path, capsys):
    example("researcher").main(tmp_path, train_images=270, epochs=1)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["single-label", "one-image-many"]


@pytest.mark.slow
def test_the_attack_study_goes_on_where_it_stopped(tmp_path, capsys):
    study = example("attack_study")
    options = {"counts": (2,), "train": 135, "test": 54, "epochs": 1, "targets": 3}
    study.main(tmp_path, attacks=("patch",), seeds=1, **options)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json") if path.parent.name == "cells"}
    report = study.main(tmp_path, attacks=("patch", "targeted", "text-trigger"), seeds=1, **options)
    assert [row[:4] for row in report.tables[0].rows[:-1]] == [
        ("patch", 2, 10, 10 / 675),
        ("targeted", 2, 6, 6 / 681),
        ("text-trigger", 2, 10, 10 / 675),
    ]
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(before) == 1
    assert {"success.png", "report.html"} <= {path.name for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit, match="holds a study of"):
        study.main(tmp_path, attacks=("patch",), seeds=1, **{**options, "epochs": 2})


@pytest.mark.slow
def test_the_adaptive_study_goes_on_where_it_stopped(tmp_path):
    study = example("adaptive_study")
    options = {"train": 135, "test": 54, "epochs": 1, "seeds": 1}
    study.main(tmp_path, variants=("random",), **options)
    (cell,) = (tmp_path / "cells").iterdir()
    before = cell.stat().st_mtime_ns
    report = study.main(tmp_path, variants=("random", "mixed, collage 0.5"), **options)
    assert cell.stat().st_mtime_ns == before
    assert [row[:3] for row in report.tables[0].rows] == [("random", 25, 1), ("mixed, collage 0.5", 25, 1)]
    assert {"tradeoff.png", "tradeoff.svg", "report.html"} <= {path.name for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit, match="holds a study of"):
        study.main(tmp_path, variants=("random",), **{**options, "epochs": 2})
