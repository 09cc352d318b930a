# Two commands: `make demo` and `make test`. Both install into .venv first; a second run reinstalls nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types docs docs-full clean

demo: $(VENV)/.installed
	$(BIN)/icgn demo -o out

test: $(VENV)/.installed-test
	$(BIN)/pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy must see the parts of the package under the package's name: a tree of links.
types: $(VENV)/.installed-dev
	rm -rf build/types && mkdir -p build/types/icgn
	for part in __init__.py cli.py py.typed app commands datasets regularizers solvers training transport; do \
	    ln -s ../../../$$part build/types/icgn/$$part; done
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p icgn

# Warnings are errors. Everything is built beside a copy of the pages: pages are generated, and name places.
docs: $(VENV)/.installed-docs
	rm -rf build/site && mkdir -p build/site/figures
	cp -r docs build/site/docs
	for part in demos benchmarks recipes RESULTS.md CONTRIBUTING.md CITATION.cff; do \
	    ln -s ../../$$part build/site/$$part; done
	$(BIN)/sphinx-build -W --keep-going -b html -d build/site/doctrees build/site/docs build/site/html

docs-full: export ICGN_DOCS_FULL = 1
docs-full: docs

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
