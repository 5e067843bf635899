"""The documentation as a site: it builds, its links lead somewhere, and it names every public function."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mithridate

ROOT = Path(__file__).parents[1]
# not functions and classes: what they are is said at the top of the page
REGISTRIES = {
    "ATTACKS",
    "DETECTORS",
    "OBJECTIVES",
    "PROBES",
    "REPAIRS",
    "SCORES",
    "TRIGGERS",
    "SCRATCH",
    "AttackGoal",
    "__version__",
}


def test_the_reference_has_every_public_name():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    parts = [path.rpartition(".") for path in re.findall(r"^::: (\S+)$", page, flags=re.MULTILINE)]
    named = {name: where for where, _, name in parts}
    assert named == {name: where for name, where in vars(mithridate)["_WHERE"].items() if name not in REGISTRIES}
    assert all(f"`{name}`" in page for name in REGISTRIES - {"__version__"})


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: pip install '.[docs]'")
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pages = {path: path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "api/index.html", "how-to/owner/index.html"} <= {
        path.relative_to(tmp_path / "site").as_posix() for path in pages
    }
    fetched = r"<(?:link|script|img|iframe)[^>]+(?:src|href)=[\"']?https?://"
    assert not {path for path, text in pages.items() if "example-" not in path.name and re.search(fetched, text)}
