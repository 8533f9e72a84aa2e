# Each target sets up what it needs in .venv (or .venv-bench) and runs; a second call reuses it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(sort $(wildcard plugins/*/*/pyproject.toml))
DEMO_PLUGINS := plugins/observers/progress plugins/loggers/tensorboard
EDITABLE = $(foreach folder,$(1),-e $(folder))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-slow torture lint format bench docs clean

help:
	@echo "make demo       train a classifier of handwritten digits"
	@echo "make test       run the tests (make test-slow: the long ones)"
	@echo "make torture    kill and resume a training more than a hundred times"
	@echo "make lint       check style and types (make format: mend the style)"
	@echo "make bench      measure the overhead beside other trainers"
	@echo "make docs       write the generated pages"
	@echo "make clean      remove the environments"

demo: $(VENV)/installed-demo
	$(BIN)/trainbus demo

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow"

test-slow: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow

torture: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/state/torture.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .venv-bench/installed
	.venv-bench/bin/python benchmarks/overhead.py --peers
	.venv-bench/bin/python benchmarks/startup.py --peers
	.venv-bench/bin/python benchmarks/checkpoint.py
	.venv-bench/bin/python benchmarks/builtin.py
	.venv-bench/bin/python benchmarks/records.py --peers

docs: $(VENV)/installed-demo
	$(BIN)/trainbus hooks --markdown > docs/hooks.md

clean:
	rm -rf .venv .venv-bench

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-demo: $(VENV)/bin/python pyproject.toml constraints.txt $(PLUGINS)
	@echo "Installing into $(VENV) (about two minutes; torch alone is 5 GB)"
	$(BIN)/pip install -q -c constraints.txt -e '.[demo]' $(call EDITABLE,$(DEMO_PLUGINS))
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed-demo
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]' $(call EDITABLE,$(dir $(PLUGINS)))
	@touch $@

.venv-bench/installed: pyproject.toml constraints.txt benchmarks/peers.txt $(PLUGINS)
	@echo "Installing trainbus and its peers into .venv-bench"
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install -q -c constraints.txt -e '.[dev]' -r benchmarks/peers.txt \
		$(call EDITABLE,$(dir $(PLUGINS)))
	@touch $@
