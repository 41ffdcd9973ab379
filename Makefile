# The two commands: `make demo` and `make test`. Each sets everything up the first time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
READY := $(VENV)/.ready

# A mirror that is configured for pip serves uv too.
PIP_INDEX := $(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null)
ifneq ($(PIP_INDEX),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX)
endif

.PHONY: setup demo test test-long fuzz notebooks lint format bench bench-metrics models images lock clean

setup: $(READY)

demo: $(READY)
	$(BIN)/python -m defectlab demo

# JupyterLab at the project root: training_code/ and inference_code/ are in its file list.
notebooks: $(READY)
	$(BIN)/jupyter lab

# Two processes of one thread each, a test file whole in one of them: half the time on two cores.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-long: $(READY)
	$(BIN)/python -m pytest -m long

# Hostile input for every reader, 50,000 files in half an hour; FUZZ="images --seed 7" takes one target.
fuzz: $(READY)
	$(BIN)/python -m tests.fuzz $(FUZZ)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-metrics: $(READY)
	$(BIN)/python -m benchmarks.bench_metrics

bench: $(READY)
	$(BIN)/python -m benchmarks.run

# Every model on coins and digits, and on bottle where it is: what is not on record is run, docs/models.md's table written.
models: $(READY)
	$(BIN)/python -m benchmarks.every_model

# The README's pictures and its table, from the runs under results/.
images: $(READY)
	$(BIN)/python -m images.make

$(READY): requirements.lock pyproject.toml runtime/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "DefectLab needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Run: make PYTHON=/path/to/newer/python3")'
	@echo "Setting up $(VENV) with the exact versions of requirements.lock: minutes the first time, some 8 GB. Downloads say nothing."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { $(PYTHON) -m pip install --user virtualenv && $(PYTHON) -m virtualenv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable ./runtime --editable .
	@touch $@
	@echo "$(VENV) is ready."

LOCKED := notebooks dev search ray loggers export

# After a change of pyproject.toml: exact versions with hashes for every platform, of all but the runtime beside it.
lock:
	$(BIN)/uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-emit-package defectlab-runtime \
		--python-version 3.11 --quiet $(LOCKED:%=--extra %) pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
