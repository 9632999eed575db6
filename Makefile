# Every target works on a bare clone: it makes .venv first when that is missing or out of date.
.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow coverage lint types docs clean

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# the first interpreter that is new enough; PYTHON=... chooses another
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

help:
	@echo "make demo       simulate a small head, invert it with every method, write ./demo"
	@echo "make test       the tests, without the slow ones"
	@echo "make test-slow  only the slow ones: wheel, training"
	@echo "make coverage   the tests and how much of qsmnet they ran"
	@echo "make lint       ruff;   make types   mypy --strict"
	@echo "make docs       docs/ as HTML in build/docs, warnings are errors"
	@echo "make venv       .venv with qsmnet, editable, and what the tests need"
	@echo "make clean      remove what the other targets made, .venv too"

venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "qsmnet needs Python 3.11 or newer on the PATH, or make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "qsmnet needs Python 3.11 or newer; $(PYTHON) is older. Fix: make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) \
		|| { echo "$(PYTHON) cannot make a virtual environment. Fix: install its venv module (Debian: apt install python3-venv)"; exit 1; }
	@echo "installing qsmnet and its dependencies into $(VENV) (minutes the first time)"
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	@$(PIP) install --editable '.[docs]'
	@touch $@

demo: venv
	$(BIN)/qsmnet demo --out demo --overwrite

test: venv
	$(BIN)/python -m pytest

test-slow: venv
	$(BIN)/python -m pytest -m 'slow and not gpu'

coverage: venv
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

docs: $(VENV)/.docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs
	@echo "build/docs/index.html"

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
