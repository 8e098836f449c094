# Each target works on a fresh machine with Python 3.11+ and make: the environment is built first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One test process per core; a file's tests mostly stay together, for the runs that they share.
PARALLEL := -n auto --dist worksteal

.PHONY: help setup train check test test-slow reliability reliability-long mutants bench bench-suites \
	growth growth-peers clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Esper needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 2; }
	@echo "Building $(VENV) (about two minutes, once)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

setup: $(STAMP) ## build the environment

train: setup ## grow a network on the handwritten digits
	$(BIN)/esper train

check: setup ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup ## the test suite (under four minutes)
	$(BIN)/python -m pytest -q $(PARALLEL)

test-slow: setup ## the rest (about ten minutes)
	$(BIN)/python -m pytest -q -m slow $(PARALLEL)

reliability: setup ## every fault that the tests inject, counted by class; five planted bugs (under ten minutes)
	$(BIN)/python -m pytest -q -m 'fault or planted' --fault-totals $(PARALLEL)

mutants: setup ## plant every bug of tests/reliability/mutants: a named test must find each
	$(BIN)/python -m pytest -q -m slow --all-mutants tests/reliability/test_mutants.py $(PARALLEL)

SEEDS ?= 10
reliability-long: setup mutants ## every planted bug, then the faults drawn anew SEEDS times (an hour)
	for rng_seed in $$(seq 1 $(SEEDS)); do \
		$(BIN)/python -m pytest -q -m fault --fault-totals --fault-seed $$rng_seed $(PARALLEL) || exit 1; \
	done

bench: setup ## what Esper costs, against limits and peers (about twelve minutes)
	$(BIN)/python -m bench

bench-suites: setup ## what single calls cost, by pytest-benchmark
	$(BIN)/python -m pytest -q bench/suites

growth: setup ## the evidence that growing pays: goes on where it was stopped (hours)
	$(BIN)/python -m bench.growth

PEERS := bench/growth/.venv-peers
growth-peers: ## the environment of the two packages that make growth compares with
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e . gromo==0.1.0 pandas matplotlib cryptography pyyaml requests
	@# Its torchvision does not fit every torch, and it does without.
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		perforatedai==3.2.9

clean: ## remove the environment and every cache
	rm -rf $(VENV) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist
