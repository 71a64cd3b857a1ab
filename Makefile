# Two commands do everything on a fresh machine: `make demo` and `make test`. Each makes its own environment first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CPUS   := $(shell $(PYTHON) -c 'import os; print(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())')
DEMO   ?= runs/demo

export OMP_NUM_THREADS ?= $(CPUS)
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test check doctest fmt install clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[offline,translate,langid,serve,slurm,dev]' -c constraints.txt
	touch $@

# The main job on a made-up competition: both tasks, every stage, real multilingual-e5 weights, validated submission.
demo: $(STAMP)
	rm -rf $(DEMO)
	$(BIN)/relstack sample $(DEMO)/data --train-rows 3000 --dev-rows 1200 --test-rows 1200
	HF_HUB_OFFLINE=1 $(BIN)/relstack run --data $(DEMO)/data --run $(DEMO)/run --translations $(DEMO)/data/translations.csv --folds 4

# Format, lint and types.
check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n $(CPUS)

fmt: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
