"""Small worlds that several rooms test on. The package is imported in fixtures: what instruments it comes first."""

import gc
import os
from pathlib import Path

import pytest

# read when torch is first imported: for models this small a second thread costs more than it brings
os.environ.setdefault("OMP_NUM_THREADS", "1")

CLASSES = ("sheep", "aeroplane", "bird", "sofa", "dog", "cat", "boat", "bus", "person")


# minutes each: they decide how long a run takes
LONGEST = ("bicycle_to_boat", "the_demo_shows")


def pytest_collection_modifyitems(items):
    """Slow tests first, the longest before all, dealt out: each worker begins with one that keeps others waiting."""

    def turn(item):
        longest = next((i for i, name in enumerate(LONGEST) if name in item.name), len(LONGEST))
        return longest, item.get_closest_marker("slow") is None

    ordered = sorted(items, key=turn)
    # every worker is given as many in a row as the next, and takes from others when it has done its own
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = [item for first in range(workers) for item in ordered[first::workers]]


def pytest_collection_finish():
    """What was imported stays: without it each full collection looks through a million objects."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()


@pytest.fixture
def blank_figures(monkeypatch):
    """Pages without drawings, which take most of the time of a command that writes one."""
    monkeypatch.setattr("mithridate.report.html.figure_svg", lambda figure, *, prefix: "<svg/>")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """The folder that everything is cached in for the session; nothing is written to the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MITHRIDATE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def shared_data():
    """Real photographs and a real encoder, beside the repository."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here; it holds the real photographs")
    return folder


@pytest.fixture(scope="session")
def bases(tmp_path_factory):
    """Small whole files of every kind, which the harnesses damage copies of; made once for all processes of a run."""
    import fcntl

    from fuzz_cases import write_bases

    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder, whole = root / "bases", root / "bases.whole"
    with (root / "bases.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            folder.mkdir()
            write_bases(folder)
            whole.touch()
    return folder


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory):
    """54 pictures to train on and 27 to test with, of nine classes in turn, each with five captions."""
    from mithridate.toy.world import write_toy_world

    return write_toy_world(tmp_path_factory.mktemp("toy") / "world", train=54, test=27, classes=CLASSES)


@pytest.fixture(scope="session")
def train_pairs(toy_world):
    from mithridate.data.read import read_pairs

    return read_pairs(toy_world, split="train")


@pytest.fixture(scope="session")
def test_pairs(toy_world):
    from mithridate.data.read import read_pairs

    return read_pairs(toy_world, split="test")


@pytest.fixture(scope="session")
def tiny():
    """A narrow encoder of 32-pixel images as it is drawn from seed 0. Tests that change it take a copy.

    By its name, `test-tiny`, it is known to every test that takes this fixture.
    """
    import open_clip

    from mithridate.encoder.encoder import load_encoder

    open_clip.add_model_config(Path(__file__).with_name("configs"))
    return load_encoder("test-tiny", seed=0)
