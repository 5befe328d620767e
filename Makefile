# Targets create .venv if it is missing, and update it after a change of pyproject.toml or constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal --durations 15
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
SOURCES := pyproject.toml constraints.txt
OLDEST := .venv-oldest
QUICKER := $(addprefix tests/,core components distributions data runs cli/test_app.py integrations/test_sklearn.py)

.DEFAULT_GOAL := help
.PHONY: help demo docs test test-all test-oldest bench check format dist clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/run.stamp ## Train on the digits of scikit-learn, and write runs/demo
	rm -rf runs/demo
	$(BIN)/vae train classic --data digits --set training.epochs=50 --set training.batch_size=64 \
		--set training.learning_rate=2e-3 --set model.network.dense_units=128 \
		--set 'model.objective.schedule={ name = "warm-up", steps = 0.2 }' --out runs/demo
	@echo
	@echo "Look at   runs/demo/figures/grid.png   and open   runs/demo/report.html"

test: $(VENV)/dev.stamp ## Run the default suite and the examples in docstrings, on TensorFlow
	KERAS_BACKEND=none $(PYTEST) -m "not slow"
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not slow" tests src

test-all: $(VENV)/backends.stamp ## Run all tests, including slow ones, on TensorFlow, JAX and PyTorch
	KERAS_BACKEND=none $(PYTEST)
	KERAS_BACKEND=tensorflow $(PYTEST) tests src
	KERAS_BACKEND=jax $(PYTEST)
	KERAS_BACKEND=torch $(PYTEST)

test-oldest: $(OLDEST)/dev.stamp ## Run the quicker tests with the oldest dependencies that pyproject.toml allows
	env -u KERAS_BACKEND $(OLDEST)/bin/python -m pytest -n auto -m "not slow" $(QUICKER)

docs: $(VENV)/docs.stamp ## Execute the tutorials, build the documentation site, and write build/docs/html
	$(BIN)/python -m tools.site

bench: $(VENV)/bench.stamp ## Compare speed with plain Keras, PyTorch and pythae, and write benchmarks/results.md (half an hour)
	$(BIN)/python -m benchmarks

check: $(VENV)/dev.stamp ## Lint, check types, and check imports against the architecture
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

dist: $(VENV)/dev.stamp ## Build the wheel and the source distribution in dist/, and check them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tools/smoke_test.py dist/*.whl

clean: ## Remove .venv and caches
	rm -rf $(VENV) $(OLDEST) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: $(SOURCES) | $(BIN)/python
	$(INSTALL) .
	@touch $@

$(VENV)/docs.stamp: $(SOURCES) | $(BIN)/python
	$(INSTALL) '.[docs]'
	@touch $@ $(VENV)/run.stamp

$(VENV)/dev.stamp: $(SOURCES) | $(BIN)/python
	$(INSTALL) '.[dev]'
	@touch $@ $(VENV)/docs.stamp $(VENV)/run.stamp

$(VENV)/backends.stamp: $(SOURCES) | $(BIN)/python
	$(INSTALL) '.[dev,jax,torch,reference]'
	@touch $@ $(VENV)/dev.stamp $(VENV)/docs.stamp $(VENV)/run.stamp

$(OLDEST)/dev.stamp: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[dev]'
	@touch $@

$(VENV)/bench.stamp: $(SOURCES) | $(BIN)/python
	$(INSTALL) '.[dev,jax,torch,reference,bench]'
	@touch $@ $(VENV)/backends.stamp $(VENV)/dev.stamp $(VENV)/docs.stamp $(VENV)/run.stamp
