# pip and venv; nothing else needs to be there but Python >= 3.11, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install pipeline pipeline-tiny pipeline-all test check lint format typecheck bench settings schema results readme zoo families clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

install: $(INSTALLED) ## Create .venv and install the package with all that tests and checks need

pipeline: $(INSTALLED) ## The whole job on the embedded MNIST images, on PyTorch eager: train, build, measure, report
	$(BIN)/quant-explorer pipeline --data mnist5k --runtime eager

pipeline-tiny: $(INSTALLED) ## The same on 200 images and 1 epoch, to see that it runs
	$(BIN)/quant-explorer pipeline --tiny --runtime eager

pipeline-all: $(INSTALLED) ## The whole job on every runtime
	$(BIN)/quant-explorer pipeline --data mnist5k --run-dir runs/mnist5k-small_cnn-all

test: $(INSTALLED) ## Every test
	$(BIN)/pytest --numprocesses auto --dist loadscope --no-loadscope-reorder

check: lint typecheck ## ruff, mypy --strict and import-linter

lint: $(INSTALLED) ## ruff and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

typecheck: $(INSTALLED) ## mypy --strict
	$(BIN)/mypy

format: $(INSTALLED) ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## Training beside a plain loop, resolution, session overhead, the page, the gate (quiet machine!)
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/resolution.py
	$(BIN)/python benchmarks/session_overhead.py
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/gate.py

settings: $(INSTALLED) ## Write docs/settings.md from the declared settings
	$(BIN)/python tools/settings_page.py

schema: $(INSTALLED) ## Write the JSON Schema of the results documents
	$(BIN)/python tools/results_schema.py

results: $(INSTALLED) ## Derive the committed reports from the committed observations
	$(BIN)/python tools/results.py

readme: $(INSTALLED) ## Write the tables of committed results into README.md
	$(BIN)/python tools/readme_tables.py README.md results/cifar10-jpeg/full_results.json results/cifar10-sweep/seed-0/full_results.json

zoo: $(INSTALLED) ## Lower every model of the zoo on every runtime, and write docs/models.md: an hour or two
	$(BIN)/python tools/zoo.py --publish

families: $(INSTALLED) ## The same for ten families of torchvision with random weights
	$(BIN)/python tools/zoo.py --families --publish

clean: ## Remove the virtual environment, caches and runs (data stays)
	rm -rf $(VENV) runs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
