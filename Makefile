# Needs make, Python 3.11 or newer and pip; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet

# TORCH=1 adds the tests that compare with PyTorch; CI leaves out nothing.
TORCH ?=
ifeq ($(CI),true)
  TORCH := 1
endif
TEST_TOOLS := $(VENV)/.dev $(if $(TORCH),$(VENV)/.torch)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test fuzz check format peers bench bench-avx2 reliability interchange comparisons clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

SEED ?= 0
demo: $(VENV)/.user  ## train on real digits, judge the model, write runs/demo (under a minute)
	rm -rf runs/demo
	$(BIN)/pellucid train digits --seed $(SEED) --out runs/demo
	@echo "pictures  runs/demo/curves.png, confusion.png, samples.png"

# One thread per worker, so that the workers do not fight for the cores.
test: export OMP_NUM_THREADS := 1
test: export OPENBLAS_NUM_THREADS := 1
test: export MKL_NUM_THREADS := 1
test: $(TEST_TOOLS)  ## run all tests; TORCH=1 adds those against PyTorch
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadgroup
	@$(if $(TORCH),:,echo "Not run: the parity tests against PyTorch. To add them: make test TORCH=1")

fuzz: $(VENV)/.dev  ## each parser for FUZZ_SECONDS (60); new random networks, compiled engine against its definition
	-[ "$$(uname)" != Linux ] || $(PIP) atheris
	$(BIN)/python tests/fuzz/run.py --seconds $(or $(FUZZ_SECONDS),60)
	PELLUCID_HYPOTHESIS=fuzz $(BIN)/python -m pytest -q tests/compiled/test_parity.py -k random_networks

check: $(VENV)/.dev  ## format, lint, types, capabilities page
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python scripts/capabilities.py --check

format: $(VENV)/.dev  ## format, sort imports, write the capabilities page
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/python scripts/capabilities.py

peers:  ## environments for what the benchmark compares with: PyTorch, Keras, JAX, ONNX Runtime (3 GB)
	PYTHON="$(PYTHON)" scripts/peers.sh

bench: $(VENV)/.dev  ## time and memory beside the peers that are there (a quarter of an hour): writes docs/benchmarks.md
	$(BIN)/python scripts/fast_paths.py
	$(BIN)/python scripts/benchmarks.py

bench-avx2: $(VENV)/.dev  ## the same with everybody held to AVX2
	$(BIN)/python scripts/benchmarks.py --instructions avx2

reliability: $(VENV)/.dev  ## errors, digests, hundreds of killed runs: writes docs/reliability.md
	$(BIN)/python scripts/reliability

interchange: $(VENV)/.dev $(VENV)/.torch  ## each model to PyTorch and ONNX and back: writes docs/interchange.md
	$(BIN)/python scripts/interchange.py

comparisons: $(VENV)/.dev  ## plain and convolutional networks side by side on MNIST: writes docs/comparisons.md
	$(BIN)/python scripts/comparisons.py

clean:  ## remove the environment, caches, builds and the demo's run
	rm -rf $(VENV) .peers build dist runs/demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: .python an environment, .user the package, .dev the tools too, .torch PyTorch and its exporter too.
$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "$(PYTHON) not found; install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "pellucid needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.user: pyproject.toml | $(VENV)/.python
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.python
	$(PIP) -e ".[dev,lessons,onnx]"
	@touch $(VENV)/.user $@

$(VENV)/.torch: pyproject.toml | $(VENV)/.python
	$(PIP) torch==2.13.0 onnxscript==0.7.2 captum==0.9.0
	@touch $@
