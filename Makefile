# Two commands do all the set-up: `make demo` and `make test`. Each goes through `make install` first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
PEERS_NEED := experiments/benchmarks/peers/requirements.txt
PEERS_ARGS ?=
PEERS_MAP := .venv-peers-map
PEERS_MAP_NEED := experiments/benchmarks/peers/map_requirements.txt
STAMP := $(VENV)/.installed
EXPERIMENT ?= experiments/configs/demo.toml
MODELS ?= demo_churn@champion demo_conversion@champion demo_churn_segments@champion

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow soak lint docs ui serve package bench bench-peers bench-peers-map clean

help:  ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

install: $(STAMP)  ## a virtual environment in .venv with everything, pinned

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 install"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench,team,spark]'
	$(BIN)/python -m experiments.warm_up
	@touch $@

demo: install  ## simulated journeys -> features -> tuned models -> MLflow -> champion -> bento -> one scored customer
	@$(BIN)/python -m experiments.demo

test: install  ## lint, types, import layers, unit and property tests, doctests, the end-to-end path
	$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations 15

test-slow: install  ## killed searches, served bentos, clusters, browsers, notebooks, load
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not load" -n 2 --dist loadfile --durations 15
	$(BIN)/python -m pytest -m load --durations 5

soak: install  ## the long counts of what the suite samples: fuzzing, kills; about an hour
	SCHEMATHESIS_CASES=800 $(BIN)/python -m pytest -m slow tests/serving/requests/test_bad_requests.py
	$(BIN)/python experiments/benchmarks/kill_fit.py
	$(BIN)/python experiments/benchmarks/kill_search.py
	$(BIN)/python experiments/benchmarks/bulk_speed.py --customers 200000 --kills 5
	$(BIN)/python experiments/benchmarks/spark_cluster.py --kill

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install  ## the pages that are made from docstrings
	$(BIN)/python -m experiments.docs

ui: install  ## the MLflow pages, on loopback
	$(BIN)/journeylab ui

package: install  ## a bento of the champions: MODELS="churn@champion ..."
	$(BIN)/journeylab package $(MODELS)

serve: install  ## the newest bento, on loopback
	$(BIN)/journeylab serve

bench: install  ## every figure of the README, measured here
	@for script in experiments/benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-peers: install $(PEERS)/.installed  ## pytorch-lifestream, in .venv-peers, beside our encoders: PEERS_ARGS="--test"
	$(BIN)/python -m experiments.benchmarks.peers.coles $(PEERS_ARGS)

$(PEERS)/.installed: $(PEERS_NEED)
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $(PEERS_NEED)
	@touch $@

bench-peers-map: install $(PEERS_MAP)/.installed  ## Retentioneering, in .venv-peers-map, beside our journey map
	$(BIN)/python -m experiments.benchmarks.peers.retentioneering_map $(PEERS_ARGS)

$(PEERS_MAP)/.installed: $(PEERS_MAP_NEED)
	test -x $(PEERS_MAP)/bin/python || $(PYTHON) -m venv $(PEERS_MAP)
	$(PEERS_MAP)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $(PEERS_MAP_NEED)
	@touch $@

clean:  ## what runs left behind; not the environment
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -not -path './$(PEERS)/*' -not -path './$(PEERS_MAP)/*' -prune -exec rm -rf {} +
