# Two commands: `make demo` and `make test`. Both install into .venv first; a second run reinstalls nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all lint types docs docs-full audit fuzz oldest clean

demo: $(VENV)/.installed
	$(BIN)/icgn demo -o out

# On all cores; a worker that has nothing left takes tests from the others.
# What is long by nature, marked slow, is left out: several processes, kills, wheels, demos, a browser.
test: $(VENV)/.installed-test
	$(BIN)/pytest -n auto --dist worksteal -m "not slow"

# Everything, as in continuous integration.
test-all: $(VENV)/.installed-test
	$(BIN)/pytest -n auto --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy must see the parts of the package under the package's name: a tree of links.
types: $(VENV)/.installed-dev
	rm -rf build/types && mkdir -p build/types/icgn
	for part in __init__.py __main__.py py.typed app cli compat datasets evaluation functionals pictures regularizers \
	    scanners solvers storage training transport uncertainty; do \
	    ln -s ../../../$$part build/types/icgn/$$part; done
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p icgn

# Warnings are errors. Everything is built beside a copy of the pages: pages are generated, and name places.
docs: $(VENV)/.installed-docs
	rm -rf build/site && mkdir -p build/site/figures
	cp -r docs build/site/docs
	cp -r demos recipes RESULTS.md CONTRIBUTING.md CITATION.cff build/site/
	ln -s ../../benchmarks build/site/benchmarks
	$(BIN)/sphinx-build -W --keep-going -b html -d build/site/doctrees build/site/docs build/site/html

docs-full: export ICGN_DOCS_FULL = 1
docs-full: docs

# Static analysis of the package for unsafe code, and the installed packages against the known vulnerabilities.
audit: $(VENV)/.installed-dev
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive \
	    __init__.py app cli compat datasets evaluation functionals pictures regularizers scanners solvers storage training \
	    transport uncertainty
	$(BIN)/pip-audit --skip-editable --progress-spinner off

# 200 bad inputs of each kind, 20 kills of each kind, and 1,000 certificates against the truth.
fuzz: $(VENV)/.installed-test
	FUZZ_EXAMPLES=200 FAULT_KILLS=20 $(BIN)/pytest tests/test_fuzz.py tests/cli/test_kinds_command.py tests/test_faults.py --timeout 1200
	$(BIN)/python benchmarks/certificates.py --problems 1000

# The suite with the oldest torch and deepinv that are supported; PYTHON must be one that this torch has, 3.10 to 3.12.
oldest:
	rm -rf build/oldest && $(PYTHON) -m venv build/oldest
	build/oldest/bin/python -m pip install --quiet --editable ".[test]" "torch==2.4.*" "deepinv==0.5.*"
	build/oldest/bin/pytest -n auto --dist worksteal

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[train]"
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf build dist out *.egg-info
