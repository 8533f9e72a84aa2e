# Each target sets up what it needs in .venv (or .venv-bench) and runs; a second call reuses it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(sort $(wildcard plugins/*/*/pyproject.toml))
DEMO_PLUGINS := plugins/observers/progress plugins/loggers/tensorboard plugins/training/data \
	plugins/training/augment plugins/training/learner plugins/applications/vision
EDITABLE = $(foreach folder,$(1),-e $(folder))

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test test-slow test-gpu test-transformers test-xla torture lint format hooks bench bench-vision docs release clean

help:
	@echo "make demo       train a classifier of handwritten digits"
	@echo "make test       run the tests (make test-slow: the long ones)"
	@echo "make test-gpu   check trainbus on the GPU of this machine (skips where there is none)"
	@echo "make test-transformers  run the tests of texts with transformers, random bodies (1 minute)"
	@echo "make test-xla   run the tests of the plugin xla with torch_xla, on the CPU (7 GB)"
	@echo "make torture    kill and resume a training more than a hundred times"
	@echo "make lint       check style and types (make format: mend the style)"
	@echo "make hooks      check style and types before each commit of yours"
	@echo "make bench      measure the overhead beside other trainers"
	@echo "make bench-vision  measure MNIST, augmentation and photos beside fastai and Lightning"
	@echo "make docs       write the generated pages"
	@echo "make release    build, check and try all distributions; uploads nothing"
	@echo "make clean      remove the environments"

demo: $(VENV)/installed-demo
	$(BIN)/trainbus demo
	$(BIN)/trainbus demo vision

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope -m "not slow"

test-slow: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope -m slow

test-gpu: $(VENV)/installed-dev
	$(BIN)/python tests/gpu/checks.py
	$(BIN)/python -m pytest plugins/accelerators/cuda/tests/test_gpu.py

test-transformers: $(VENV)/installed-dev .venv-transformers/installed
	PYTHONPATH=.venv-transformers OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope \
		plugins/applications/text/tests/test_bodies.py

test-xla: .venv-xla/installed $(VENV)/installed-dev
	PJRT_DEVICE=CPU OMP_NUM_THREADS=1 .venv-xla/bin/python -m pytest plugins/accelerators/xla/tests
	PYTHONPATH=.venv-xla/torch_tpu $(BIN)/python -m pytest plugins/accelerators/xla/tests/test_torch_tpu.py

torture: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/checkpoints/torture.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

hooks:
	git config core.hooksPath .githooks

bench: .venv-bench/installed
	.venv-bench/bin/python benchmarks/overhead.py --peers
	.venv-bench/bin/python benchmarks/startup.py --peers
	.venv-bench/bin/python benchmarks/checkpoint.py
	.venv-bench/bin/python benchmarks/builtin.py
	.venv-bench/bin/python benchmarks/records.py --peers
	.venv-bench/bin/python benchmarks/amp.py
	.venv-bench/bin/python benchmarks/profiler.py

bench-vision: .venv-bench/installed-vision
	.venv-bench/bin/python benchmarks/mnist.py --peers
	.venv-bench/bin/python benchmarks/augment.py
	.venv-bench/bin/python benchmarks/photos.py

docs: $(VENV)/installed-dev
	$(BIN)/trainbus hooks --markdown > docs/hooks.md
	$(BIN)/python docs/notebook.py

release: .venv-release/installed
	.venv-release/bin/python release.py

clean:
	rm -rf .venv .venv-bench .venv-transformers .venv-xla .venv-release .venv-clean dist

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

.venv-release/installed:
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/pip install -q 'hatchling>=1.27' build twine
	@touch $@

# Beside the environment, and not in it: all other tests run without.
.venv-transformers/installed: constraints.txt $(VENV)/installed-dev
	$(BIN)/pip install -q -c constraints.txt --no-deps --target .venv-transformers transformers peft \
		accelerate regex
	@touch $@

.venv-xla/installed: pyproject.toml $(PLUGINS)
	@echo "Installing torch_xla into .venv-xla (about two minutes, 7 GB), and torch_tpu (0.8 GB)"
	$(PYTHON) -m venv .venv-xla
	.venv-xla/bin/pip install -q torch==2.9.0 torch_xla==2.9.0 numpy pytest -e . \
		$(call EDITABLE,plugins/accelerators/xla plugins/accelerators/amp plugins/loggers/tensorboard)
	.venv-xla/bin/pip install -q --no-deps --target .venv-xla/torch_tpu torch_tpu==0.2.0 libtpu \
		absl-py portpicker frozendict immutabledict pyzmq
	@touch $@

.venv-bench/installed: pyproject.toml constraints.txt benchmarks/peers.txt $(PLUGINS)
	@echo "Installing trainbus and its peers into .venv-bench"
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install -q -c constraints.txt -e '.[dev]' -r benchmarks/peers.txt \
		$(call EDITABLE,$(dir $(PLUGINS)))
	@touch $@

.venv-bench/installed-vision: .venv-bench/installed benchmarks/peers-vision.txt
	.venv-bench/bin/pip install -q -c constraints.txt -r benchmarks/peers-vision.txt
	@touch $@
