"""The wheel: it holds all that the package reads, runs elsewhere, and finds plugins of other packages."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

import mithridate

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mithridate"
NEEDED = ("build", "pip", "setuptools")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

PLUGIN = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "one-class-off"
version = "1"
[project.entry-points."mithridate.plugins"]
one-class-off = "one_class_off"
[tool.setuptools]
py-modules = ["one_class_off"]
""",
    "one_class_off.py": """
from dataclasses import dataclass
from typing import ClassVar

@dataclass(frozen=True, kw_only=True)
class OneClassOff:
    '''Every caption of a class meets the class after it.'''
    name: ClassVar[str] = "one-class-off"
    needs_surrogate = False
    needs_gallery = False
    target: str

    def plan(self, pairs, rng, *, gallery=None, surrogate=None):
        raise NotImplementedError

ATTACKS = {"one-class-off": OneClassOff}
""",
}


def run(*words: object, where: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COLUMNS")}
    done = subprocess.run(
        list(map(str, words)), cwd=where, env=clean | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if MISSING:
        pytest.skip(f"to build a wheel without a network needs {', '.join(MISSING)}, which is not installed")
    out = tmp_path_factory.mktemp("wheel")
    source = out / "source"  # a build leaves files beside its source
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "src" / "mithridate", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source, where=out)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An environment of its own with the wheel in it, which sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder, where=folder.parent)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install(folder, wheel)
    return folder


def install(folder: Path, what: Path) -> None:
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--force-reinstall")
    run(sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", *options, what, where=folder)


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    files = {f"mithridate/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*") if path.is_file()}
    assert not {path for path in files if "__pycache__" not in path} - held
    assert {"configs", "templates", "presets", "published", "py.typed"} <= {
        part for path in held for part in path.split("/")
    }


@pytest.mark.slow
def test_an_installed_wheel_runs_from_another_folder(installed, tmp_path):
    command = installed / "bin" / "mithridate"
    where = "import mithridate; print(mithridate.__file__)"
    assert run(installed / "bin" / "python", "-c", where, where=tmp_path).startswith(str(installed))
    assert run(command, "--version", where=tmp_path).strip() == mithridate.__version__
    assert "usage: mithridate demo" in run(command, "demo", "--help", where=tmp_path)
    assert "mmpoison" in run(command, "study", "list", where=tmp_path)
    run(command, "data", "toy", "--train", "27", "--test", "27", "--out", "toy", where=tmp_path)
    assert (tmp_path / "toy").is_dir()


@pytest.mark.slow
def test_an_installed_plugin_is_found_by_its_entry_point(installed, tmp_path):
    project = tmp_path / "plugin"
    project.mkdir()
    for name, text in PLUGIN.items():
        (project / name).write_text(text)
    install(installed, project)
    listed = run(installed / "bin" / "mithridate", "poison", "--help", where=tmp_path)
    assert "one-class-off" in listed and "the class after it" in listed


def test_the_version_is_one():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == mithridate.__version__
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[:2] == ["Unreleased", mithridate.__version__]


@pytest.mark.slow
def test_a_registry_would_take_the_wheel(wheel):
    pytest.importorskip("twine")
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, where=wheel.parent)
