# The README's two commands are `make demo` and `make test`; each sets up .venv on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PYTHONDONTWRITEBYTECODE :=  # every worker and every process of a test would compile all of it again

.PHONY: demo test test-extras test-slow lint clean help

help:
	@echo "make demo        attack two shipped models: one fails, one passes"
	@echo "make test        all tests but the slow ones"
	@echo "make test-extras what needs packages beside redan's own"
	@echo "make test-slow   published facts, beside independent implementations"
	@echo "make lint        ruff, mypy, import layers"
	@echo "make bench-NAME  run benchmarks/NAME.py and write benchmarks/results/NAME.json"
	@echo "make clean       remove what the others made"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/pip install --quiet -c constraints.txt torch numpy
	$(BIN)/pip install --quiet -c constraints.txt -e . --group dev
	@touch $@

demo: $(STAMP)
	@$(BIN)/python examples/fashion/demo.py

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not extras" -n auto --dist worksteal

test-extras: $(STAMP)
	bash tools/extras.sh
	OMP_NUM_THREADS=1 .envs/extras/bin/python -m pytest -m "extras and not interop" -n auto --dist worksteal
	bash tools/interop.sh
	OMP_NUM_THREADS=1 .envs/interop/bin/python -m pytest -m interop tests/interop -n auto --dist worksteal

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not extras" -n auto --dist worksteal --timeout 480

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-%: $(STAMP)
	bash benchmarks/peers/install.sh
	$(BIN)/python benchmarks/$*.py $(ARGS)

clean:
	rm -rf $(VENV) .envs runs build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
