# `make demo` and `make test` do everything on a fresh machine with Python 3.11 or later.
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
VENV ?= .venv
BIN := $(VENV)/bin
GPU_OUT ?= benchmarks/results/gpu
# One thread a test process: two processes with two threads each wait for each other.
TEST_ENV := OMP_NUM_THREADS=1 MPLBACKEND=Agg

.PHONY: demo test lint docs test-slow test-ranks test-gpu gpu-check format clean

# The main job on the embedded default genome, about a minute; DEMO=genome.fa for one of yours.
demo: $(VENV)/.ready
	$(BIN)/hyenadna demo $(DEMO)

test: $(VENV)/.ready lint
	$(TEST_ENV) $(BIN)/python -m pytest -n 2

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slow: $(VENV)/.ready
	$(TEST_ENV) $(BIN)/python -m pytest -m slow

# Three and four processes, processes that are killed, Ray: some ten minutes.
test-ranks: $(VENV)/.ready
	$(TEST_ENV) $(BIN)/python -m pytest -m slow tests/parallel tests/train/test_ranks.py tests/cli/test_ray_engine.py

test-gpu: $(VENV)/.ready
	$(BIN)/python -m pytest -m gpu

# The tests that need a GPU, then its benchmark: a quarter of an hour by its plan; the same command goes on.
gpu-check: $(VENV)/.ready
	$(BIN)/python -m benchmarks.gpu $(GPU_OUT) --only suite
	$(BIN)/python -m benchmarks.gpu $(GPU_OUT) --budget 1200
	$(BIN)/python -m benchmarks.gpu.page $(GPU_OUT) docs/benchmarks/gpu.md

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.ready: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit("hyenadna needs Python 3.11 or later: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test,transformers,tensorboard]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Pages that are generated.
docs: $(VENV)/.ready
	$(BIN)/python -c 'from pathlib import Path; from hyenadna.cli.app import app; Path("docs/cli.md").write_text(app.generate_docs(output_format="markdown"))'
