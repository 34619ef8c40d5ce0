# Few verbs. `make run` and `make test` set up .venv by themselves; nothing is done twice.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
BIN := .venv/bin
EXTRAS := dev alibi postgres s3
comma := ,
space := $(subst ,, )
READY := .venv/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup run test test-all check ui lock

help:
	@echo "make run       set up, then bring the default example up to date (Prefect flow over DVC stages)"
	@echo "make test      set up, then the tests (under 5 minutes)"
	@echo "make test-all  the slow tests and those that start servers, too"
	@echo "make check     style, types, import contracts, dvc.yaml fresh"
	@echo "make ui        MLflow UI and Prefect server on 127.0.0.1"
	@echo "make lock      renew constraints.txt"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v[:2] <= (3, 12) or sys.exit(f"datamill needs Python 3.11 or 3.12, found {v[0]}.{v[1]}: make PYTHON=python3.11 run")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$(subst $(space),$(comma),$(EXTRAS))]"
	@# alibi-detect brings the OpenCV that draws windows and needs libGL; the one that needs none takes its place
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --force-reinstall --no-deps opencv-python-headless
	@touch $@

run: $(READY)
	@$(BIN)/datamill run

test: $(READY)
	$(BIN)/python -m pytest

test-all: $(READY)
	$(BIN)/python -m pytest -m "slow or services or not slow"

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tasks render --check

ui: $(READY)
	@$(BIN)/datamill ui

lock: $(READY)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 $(addprefix --extra ,$(EXTRAS)) --no-emit-index-url \
		--no-emit-find-links --no-annotate --no-header --upgrade pyproject.toml --output-file constraints.txt
	@sed -i "s/ ; python_full_version < .3.13.$$//; s/python_full_version < .3.13. and //" constraints.txt  # true of all
