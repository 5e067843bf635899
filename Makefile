# make demo, make test and make check work from a fresh clone with Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# compiled files are kept: the tests instrument and import the package in several processes
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast check format bench bench-quick dist docs clean

demo: $(READY)  ## toy world, poison, two trainings, runs/demo/report.html
	$(BIN)/mithridate demo --out runs/demo --overwrite

test: $(READY)  ## all tests, with the coverage of the package
	$(BIN)/pytest -n auto --dist worksteal --durations 40 --cov --cov-report=term:skip-covered --cov-fail-under 94

test-fast: $(READY)  ## all but the slow ones
	$(BIN)/pytest -n auto --dist worksteal -m "not slow"

check: $(READY)  ## what CI checks besides the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## what is fast, against what a user would run instead: runs/bench/bench.md, bench.json
	$(BIN)/python benchmarks/bench.py

bench-quick: $(READY)  ## the same at smaller sizes, in under two minutes where nothing else runs
	$(BIN)/python benchmarks/bench.py --quick --out runs/bench-quick

dist: $(READY)  ## wheel and sdist in dist/, checked
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

docs: $(READY)  ## the documentation as a site, site/index.html; a broken link is an error
	$(BIN)/mkdocs build --strict

# Installed anew when what is to be installed changes.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mithridate needs Python >= 3.11, got " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist site src/*.egg-info .pytest_cache .ruff_cache .coverage
