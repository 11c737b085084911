# Everything a person or CI types. Each target sets up what it needs: on a fresh clone nothing else has to be typed.
#
#   make demo    the main job, on real input, with no key and no network
#   make check   formatting, lint, types and the fast tests: under a minute
#   make test    everything CI runs; ends with pytest's closing line
#   make bench   the benchmarks, as tables; the last run is kept in .cairn/bench/
#   make lock    pin the newest allowed versions of all dependencies
#   make console build the chat page from console/ (needs Node; the built files are in the repository)
#
# The environment is .venv, made from requirements-dev.lock (every file checked by hash) and made again when the lock
# changes. PYTHON chooses the interpreter it is made with.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# One test process per core, at most four: the suite is sized for two, and system tests run one after the other anyway.
WORKERS := $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))

.PHONY: help setup demo check fast lint test bench lock console clean

help:
	@sed -n 's/^#   //p' Makefile

setup: .venv/installed

.venv/lock: requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "cairn needs Python 3.11 or newer; $(PYTHON) is older. Run: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "setting up .venv (about a minute, once)"
	@rm -rf .venv
	@$(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "could not make .venv; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@cp requirements-dev.lock $@

.venv/installed: .venv/lock pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

demo: .venv/installed
	@$(BIN)/cairn demo

lint: .venv/installed
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

# The type checker keeps one core busy and the tests the others: side by side, each shown whole when it is done.
check: .venv/installed
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint fast

fast: .venv/installed
	@$(PYTEST) -q -n $(WORKERS) --dist loadgroup -m "not slow"

test: lint
	@$(PYTEST) -n $(WORKERS) --dist loadgroup --budget

bench: .venv/installed
	@mkdir -p .cairn/bench
	@for file in benchmarks/bench_*.py; do \
	  echo; echo "== $$file"; \
	  $(BIN)/python "$$file" 2>&1 | tee ".cairn/bench/$$(basename "$$file" .py).txt"; \
	done

UV_COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header

lock: .venv/installed
	@$(BIN)/python -m pip install -qq --disable-pip-version-check uv
	@$(UV_COMPILE) --extra all -o requirements.lock
	@$(UV_COMPILE) --extra all --group dev -o requirements-dev.lock

console:
	@cd console && npm ci --no-audit --no-fund && npm run build

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
