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
    said = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert said == [[a, m] for a in ("single-label", "one-image-many") for m in ("poisoned", "clean")]
