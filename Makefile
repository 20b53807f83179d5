# Two commands: `make demo` and `make test`. Both set themselves up in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Tests start many Python processes: without bytecode each of them compiles the whole suite again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo site reports test test-all lint format docs bench gpu-check clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

setup: $(STAMP)  ## a virtual environment in .venv with the pinned versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; this is $$($(PYTHON) --version). Say which: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv is missing. On Debian or Ubuntu: sudo apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,browser]'
	@touch $@

demo: setup  ## the demo study and its report: a few minutes on two cores, nothing to download
	$(BIN)/dfkd run studies/demo.yaml --results runs/demo
	$(BIN)/dfkd report --results runs/demo --out runs/demo/report
	@echo
	@echo "The report: $(CURDIR)/runs/demo/report/index.html"

site: setup  ## all published studies as one site in site/; what has not changed is not rendered again
	$(BIN)/dfkd site results --out site

reports: setup  ## the summaries in reports/, after a study was published or has changed
	$(BIN)/dfkd site results --out reports --summary

test: setup  ## the quick tests, all but those marked slow: minutes on two cores
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not slow" $(PYTEST)

test-all: setup  ## every test, slow ones too: what continuous integration runs
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(PYTEST)

lint: setup  ## formatting, linting, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs  ## the documentation as a site in build/docs; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build  # not --quiet: it counts no warnings
	@echo "The documentation: $(CURDIR)/build/docs/index.html"

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

bench: setup  ## measure speed (pytest-benchmark); ratios belong in docs/performance.md
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-columns=min,median,max,rounds $(PYTEST)

gpu-check: setup  ## on a machine with a GPU, nine minutes: its tests, the steps' table, the demo; one archive
	$(BIN)/python tests/support/gpu_check.py $(GPU_CHECK)

clean:  ## remove the environment and all caches; runs/ is kept
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
