"""A study's page in a browser: offline, no request, no wider than the window, strangers' text as text."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from chromium import Chromium, NoBrowser, find_chromium
from test_study_report import HOSTILE, evaluated, made_study, outcome, replace_figure

WIDTHS = (400, 1600)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    from dataclasses import replace

    from mithridate.studies.render import page as module
    from mithridate.studies.spec.study import Experiment, ShowFigure, ShowTable

    folder = tmp_path_factory.mktemp("study")
    outcomes = evaluated(folder / "e")
    study = replace_figure(made_study(outcomes, HOSTILE), "map")
    classes = [f"class {i}" for i in range(12)]
    matrix = [
        outcome({"source": a, "target": b}, experiment="matrix", rank=np.arange(8) + i)
        for i, (a, b) in enumerate((a, b) for a in classes for b in classes if a != b)
    ]
    shows = (
        ShowFigure(kind="heat", x="target", y="source", z="MinRank"),
        ShowTable(rows=("source",), measures=(*(f"a measure of a long name {i}" for i in range(9)), "MinRank")),
    )
    cells = tuple(o.cell for o in matrix)
    experiment = Experiment(name="matrix", title="W" * 120, asks="a" * 200, cells=cells, shows=shows)
    study = replace(study, experiments=(*study.experiments, experiment))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "save_figure", lambda figure, *paths, style=None: None)  # the page has its own
        return module.write_study(study, [*outcomes, *matrix], folder / "out")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine; apt-get install chromium, or name it in CHROMIUM")
    try:
        found = Chromium(program, tmp_path_factory.mktemp("profile"))
    except NoBrowser as error:
        pytest.skip(str(error))
    yield found
    found.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_its_window_and_asks_nobody(page, browser, width, tmp_path):
    browser.requests.clear()
    browser.open(page, width=width)
    asked = [url for url in browser.requests if not url.startswith("data:")]
    assert asked == [page.resolve().as_uri()]
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.body.scrollWidth") <= width
    # whatever is wider than its place scrolls in a box of its own
    wide = browser.value(
        "JSON.stringify([...document.querySelectorAll('h1, h2, h3, p, li, figure, .judged, .scroll, details')]"
        ".filter(node => node.getBoundingClientRect().right > innerWidth + 1).map(node => node.outerHTML.slice(0, 80)))"
    )
    assert json.loads(wide) == []
    assert browser.value("document.scripts.length") == 0
    assert (
        browser.value("document.querySelectorAll('[onload], iframe, object, embed, link[rel=stylesheet]').length") == 0
    )

    picture = Image.open(io.BytesIO(browser.picture())).convert("L")
    assert picture.width == width
    assert picture.height > 2000
    assert len(set(picture.resize((64, 64)).tobytes())) > 20  # something is on it


def test_strangers_text_is_text(page, browser):
    browser.open(page, width=1600)
    assert browser.value("document.title").startswith("<script>alert(1)</script>")
    assert browser.value("document.querySelector('h1').textContent").startswith("<script>alert(1)</script>")
    assert browser.value("document.querySelector('h1 script')") is None


def test_figures_scale_and_wide_ones_scroll(page, browser):
    browser.open(page, width=400)
    widths = browser.value("JSON.stringify([...document.querySelectorAll('figure')].map(f => f.clientWidth))")
    assert max(json.loads(widths)) <= 400
    inner = browser.value("document.querySelector('figure.wide .scroll').scrollWidth")
    assert inner > 700  # numbers of a matrix stay readable
    browser.open(page, width=1600)
    assert browser.value("document.body.clientWidth") > 1500
    # two columns where there is room
    tops = browser.value(
        "JSON.stringify([...document.querySelectorAll('figure')].map(f => f.getBoundingClientRect().left))"
    )
    assert len(set(json.loads(tops))) > 1
