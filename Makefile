# `make help` lists the targets. Everything is installed into .venv, and nothing outside this folder and the user's cache.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# As recdistill/__main__.py sets it: threads that spin for long make each other slower where cores are shared.
export GOMP_SPINCOUNT ?= 3000
# Options of the entry point, as in: make run ARGS="-P seed=2 -P force=true"
ARGS ?=
# What the teacher of `make run` may spend, for ten minutes on two cores in all; `make run BUDGETS=` has the defaults.
BUDGETS ?= -P token_budget=10000 -P outputs_token_budget=20000 -P ranked_users=100
# What `make store` runs with: both commands share data, teacher and student.
SMALL := --max_users 100 --token_budget 10000 --outputs_token_budget 20000
SMALL += --epochs 8 --batch_size 1024 --learning_rate 0.003
# Files of `make test-slow`.
SLOW := $(sort $(shell grep -rl --include='test_*.py' 'mark.slow' tests))

.PHONY: help install run store test test-slow lint notebooks docs browser ui mlproject
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 12

install: .venv/installed  ## make .venv and install the project into it

.venv/installed: pyproject.toml constraints.txt
	@echo "installing into .venv: some minutes, two gigabytes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

run: install  ## ratings to distilled student: prints the results and how to open the UI
	$(BIN)/mlflow run . -e main --env-manager local --experiment-name recdistill -P new_items=0.1 $(BUDGETS) $(ARGS)

store: install  ## a small store for the notebooks, in a few minutes
	$(BIN)/recdistill main $(SMALL) $(ARGS)
	$(BIN)/recdistill sweep $(SMALL) --trials 8 --final_seeds 3 $(ARGS)

test: install  ## the tests, in two processes
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile -m "not slow" $(ARGS)

test-slow: install  ## the slow tests, in two processes: notebooks, kills, launches, real LLMs
	@if command -v java > /dev/null; then $(BIN)/python -m pip install --quiet --constraint constraints.txt pyspark; \
	  else echo "no Java: the tests of Spark are skipped; install openjdk-17-jre-headless for them"; fi
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --durations 40 -m slow $(ARGS) $(SLOW)

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: install  ## run the notebooks on the store of make store, and keep their outputs
	$(BIN)/python notebooks/execute.py

docs: install  ## the documentation site, strictly built, in build/site/html
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/python website/pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file build/site/mkdocs.yml

browser:  ## axe for the tests of reports in Chromium, in .node; needs npm
	npm install --silent --no-save --prefix .node axe-core@4.14.1 puppeteer-core@24.43.1

ui: install  ## MLflow UI on the default store; prints the address of the runs, best first
	@$(BIN)/python -m recdistill.runs.experiment
	$(BIN)/mlflow ui $(ARGS)

mlproject: install  ## write MLproject from the options in recdistill/config
	$(BIN)/python -m recdistill.config.mlproject
