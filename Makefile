# make demo   installs into .venv and runs both stages on the data in the package
# make test   installs into .venv and runs the linters and the tests

PYTHON ?= python3
# DALI has wheels for Linux only; elsewhere torchvision draws the pixels.
EXTRAS ?= dev,timm,tensorboard$(if $(filter Linux,$(shell uname -s)),$(comma)cuda13)
comma := ,
BIN := .venv/bin

.PHONY: demo test lint
demo: .venv/installed
	$(BIN)/skd-cache run demo

test: .venv/installed lint
	$(BIN)/pytest

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.venv/installed: pyproject.toml setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@
