# The two commands that a newcomer needs:
#   make demo   set up, then phantom radiographs → corpus → pre-training → downstream tasks → runs/demo/report/report.html
#   make test   set up with the development tools, then every test with coverage
# Both need Python ≥ 3.11 and nothing else; set-up happens once, and again when pyproject.toml or constraints.txt change.

SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
# `make demo CONSTRAINTS=` installs the newest versions instead of the tested ones.
CONSTRAINTS ?= constraints.txt
JOBS ?= 2
DEMO ?= runs/demo

# Asked for by running them, since a name on the path need not work (version managers leave such shims).
find_python = for name in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$name; break; fi; done
PYTHON ?= $(shell $(find_python))
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.PHONY: help demo test gates format clean
.DEFAULT_GOAL := help

help:
	@sed -n '2,5s/^# \{0,1\}//p' Makefile
	@echo "  make gates  lint, format, types, import order"
	@echo "  make format rewrite the sources in the house's format"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python ≥ 3.11 found. Install one, or name it: make demo PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 2; }

$(VENV)/.installed: pyproject.toml $(wildcard $(CONSTRAINTS)) | $(BIN)/python
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(wildcard $(CONSTRAINTS)) | $(BIN)/python
	$(PIP_INSTALL) -e '.[dev]'
	@touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	$(BIN)/umif demo --out $(DEMO)

gates: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# One thread a process: the suite runs JOBS processes, and more threads than cores slow one another down.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --cov --cov-report=term:skip-covered --cov-fail-under=90

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage coverage.xml
