# Two commands: `make demo` and `make test`. Both install into .venv first; a second run reinstalls nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types clean

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
	for part in __init__.py cli.py py.typed commands regularizers solvers datasets training; do \
	    ln -s ../../../$$part build/types/icgn/$$part; done
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p icgn

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

clean:
	rm -rf build dist out *.egg-info
