# On a machine with Python (3.11 or newer), pip and make, `make figures` and `make test` do all the set-up themselves.
# The environment lives in .venv, which this file owns: changed pins build it anew. Each stamp is written last, so that
# an interrupted set-up starts again instead of half existing.

PYTHON ?= python3
PROFILE ?= full
# Test processes. Most of a test is one compilation, which one core does.
WORKERS ?= 2

BIN := .venv/bin
OLDEST := .venv-oldest/bin

# --no-deps: the pins are complete, so nothing is resolved and nothing unpinned slips in.
# --no-compile: modules compile when first imported, which is a third of compiling all of them.
INSTALL := $(PYTHON) -m pip --disable-pip-version-check --python
FLAGS := install --quiet --no-deps --no-compile
PROJECT := --no-build-isolation --editable .
PARALLEL := --numprocesses $(WORKERS) --dist worksteal

# A shell that forbids byte-code would compile jax again at every start.
unexport PYTHONDONTWRITEBYTECODE
# Otherwise pyright asks the network for newer versions of itself.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.DEFAULT_GOAL := help
.PHONY: help figures test test-oldest test-deep lint faults clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

figures: .venv/project.stamp  ## simulate what is missing, draw the figures and the report (PROFILE=smoke: small and quick)
	$(BIN)/python -m paper_figures --profile $(PROFILE)

test: lint  ## linters, types, import contracts, then the tests
	$(BIN)/python -m pytest $(PARALLEL)

test-deep: .venv/test.stamp  ## the same tests with many more examples, and the slow ones
	HIMOE_DEEP=1 $(BIN)/python -m pytest $(PARALLEL) -m "deep or not deep"

test-oldest: .venv-oldest/test.stamp  ## the tests with the oldest versions that pyproject.toml allows
	$(OLDEST)/python -m pytest $(PARALLEL)

lint: .venv/test.stamp  ## ruff, import contracts, pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python

faults: .venv/test.stamp  ## plant deliberate faults and show that the tests catch each
	$(BIN)/python tests/plant_faults.py

clean:  ## remove the environments and what was built; results and figures stay
	rm -rf .venv .venv-oldest build *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call environment,FOLDER): a bare environment. The pip that comes with $(PYTHON) installs into it, so that neither a
# second pip nor ensurepip is needed.
define environment
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"Python 3.11 or newer is needed; $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12" if v < (3, 11) else 0)'
	@echo "Setting up $(1) (once; see README.md for how long it takes)"
	@$(PYTHON) -m venv --clear --without-pip $(1)
endef

.venv/run.stamp: requirements/run.txt
	$(call environment,.venv)
	@$(INSTALL) $(BIN)/python $(FLAGS) -r requirements/run.txt
	@touch $@

.venv/project.stamp: pyproject.toml .venv/run.stamp
	@$(INSTALL) $(BIN)/python $(FLAGS) $(PROJECT)
	@touch $@

# The first stamp goes away meanwhile: an interruption leaves half a package, which pip would take for a whole one.
.venv/test.stamp: requirements/test.txt .venv/project.stamp
	@rm -f .venv/run.stamp
	@$(INSTALL) $(BIN)/python $(FLAGS) -r requirements/test.txt
	@touch .venv/run.stamp .venv/project.stamp $@

.venv-oldest/test.stamp: requirements/oldest.txt pyproject.toml
	$(call environment,.venv-oldest)
	@$(INSTALL) $(OLDEST)/python $(FLAGS) -r requirements/oldest.txt
	@$(INSTALL) $(OLDEST)/python $(FLAGS) $(PROJECT)
	@touch $@
