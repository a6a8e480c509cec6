# Two commands matter: `make run` and `make test`. Both do all the set-up on a machine that has Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SEED ?= 7
ARGS ?=

.PHONY: run test conformance stack lint bench install clean
.DEFAULT_GOAL := run

run: install ## simulate one seed with faults and judge it; SEED=7 ARGS='--orders 2000'
	$(BIN)/exchange-sim run --seed $(SEED) $(ARGS)

test: install ## all tests that need no server
	$(BIN)/python -m pytest -n auto $(ARGS)

conformance: install ## the doubles held to real servers, and the services on them; needs Java 17 and Maven
	$(BIN)/exchange-sim stack run -- $(BIN)/python -m pytest tests/conformance tests/live $(ARGS)

stack: install ## start real Kafka and Cassandra on loopback; needs Java 17 and Maven; ARGS='--brokers 3'
	$(BIN)/exchange-sim stack up $(ARGS)

lint: install ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install ## the figures of design section 11
	$(BIN)/exchange-sim bench $(ARGS)

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "exchange-sim needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean: ## remove the virtual environment and everything that runs left behind
	rm -rf $(VENV) runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
