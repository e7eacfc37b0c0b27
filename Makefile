# Everything in .venv, from an exact list; needs Python 3.11+ and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint docs claims speed robustness clean

demo: $(READY)
	$(BIN)/selftaught demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 8 --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/mkdocs build --strict --site-dir site

claims: $(READY)
	$(BIN)/selftaught benchmark claims

speed: $(READY)
	$(BIN)/python benchmarks/speed/run.py

robustness: $(READY)
	$(BIN)/python benchmarks/robustness/run.py

clean:
	rm -rf .venv site build dist

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "selftaught needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --disable-pip-version-check --no-build-isolation --editable .
	touch $(READY)
