# `make help` lists the targets. Everything is installed into .venv, and nothing outside this folder and the user's cache.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Threads that wait actively make each other many times slower where cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE
# Options of the entry point, as in: make run ARGS="-P seed=2 -P force=true"
ARGS ?=

.PHONY: help install run test lint ui mlproject
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 12

install: .venv/installed  ## make .venv and install the project into it

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==$$(sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

run: install  ## ratings to distilled student: prints the results and how to open the UI
	$(BIN)/mlflow run . -e main --env-manager local $(ARGS)

test: install  ## all tests
	$(BIN)/pytest $(ARGS)

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: install  ## MLflow UI on the default store
	$(BIN)/mlflow ui $(ARGS)

mlproject: install  ## write MLproject from the options in recdistill/config.py
	$(BIN)/python -m recdistill.mlproject
