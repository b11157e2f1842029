# One command per wish. Everything runs in .venv, which the first of them creates.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TYPES := build/tree
SEEDS ?= 2000
ROUNDS ?= 100

.DEFAULT_GOAL := help
.PHONY: help install test lint types contracts unit long sim chaos siege failover calm bench demo docs reference proto clean

help:
	@echo "make test     lint, types, import contracts and tests (creates the environment first)"
	@echo "make long     the tests that take long: attacks on all ports, alerts in a real Prometheus, all certificates changed, ..."
	@echo "make demo     three node processes: publish, kill the leader, recover"
	@echo "make bench    benchmarks beside their baselines"
	@echo "make sim      the deterministic simulator (SEEDS=2000)"
	@echo "make chaos    faults of processes and of the network under load, on real nodes (ROUNDS=100)"
	@echo "make failover how long no write is taken when a leader dies or stands still, beside hashicorp/raft"
	@echo "make calm     ten minutes of full load, and no election"
	@echo "make siege    records of all sizes, and hostile clients on every port, on real nodes"
	@echo "make docs     the documentation as pages, in build/site"
	@echo "make reference  regenerate the pages that are made from the code"
	@echo "make proto    regenerate the protobuf code"

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "coterie needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Remedy: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

install: $(VENV)/.installed

# mypy and import-linter want the packages where their names say; links show them the tree that way.
.PHONY: tree
tree: install
	@mkdir -p $(TYPES)/coterie
	@ln -sfn $(CURDIR)/actors $(CURDIR)/transport $(CURDIR)/proto $(TYPES)/coterie/
	@for f in $(CURDIR)/coterie/*; do ln -sfn $$f $(TYPES)/coterie/; done
	@find $(TYPES)/coterie -maxdepth 1 -xtype l -delete

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: tree
	cd $(TYPES) && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml -p coterie
	MYPYPATH=$(TYPES) $(BIN)/mypy --config-file pyproject.toml --explicit-package-bases examples

contracts: tree
	cd $(TYPES) && PYTHONPATH=. ../../$(BIN)/lint-imports --config ../../pyproject.toml --no-cache

unit: install
	$(BIN)/python -m pytest

test: lint types contracts unit

long: install
	$(BIN)/python -m pytest -m long

sim: install
	$(BIN)/python -m tests.sim --seeds $(SEEDS)

chaos: install
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS)

failover: install
	$(BIN)/python -m tests.chaos.failover

calm: install
	$(BIN)/python -m tests.chaos.calm

siege: install
	$(BIN)/python -m tests.product.chaos

bench: install
	$(BIN)/python -m benchmarks

demo: install
	$(BIN)/python -m examples.demo

reference: install
	$(BIN)/python -m tools.generate_configuration
	$(BIN)/python -m tools.generate_cli_reference
	$(BIN)/python -m tools.generate_screenshots

docs: tree
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

proto: install
	$(BIN)/python -m tools.generate_proto

clean:
	rm -rf build .venv *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
