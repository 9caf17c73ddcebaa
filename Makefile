# make setup | demo | docs | test | test-fast | test-docs | test-package | test-slow | golden | results-docs | lint | clean
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready

.PHONY: setup demo docs test test-fast test-docs test-package test-slow golden results-docs lint clean

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "planil_jax needs Python 3.11 or newer; $(PYTHON) is older. Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: setup
	$(PY) -m experiments.demo --logdir=runs/demo

docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet
	@echo "wrote site/index.html; open it in a browser"

test: setup
	$(PY) -m pytest -n 2 --dist loadfile

test-fast: setup
	$(PY) -m pytest -n 2 --dist loadfile -m fast $$(grep -rl --include="test_*.py" mark.fast tests)

test-docs: setup
	$(PY) -m pytest tests/docs/test_pages.py -s

test-package: setup
	bash tests/package/check.sh $(abspath $(PY))

test-slow: setup
	$(PY) -m pytest tests/slow

golden: setup
	$(PY) -m tests.golden.golden --of=HEAD~1

results-docs: setup
	$(PY) -c 'from planil_jax.reporting import results_pages as pages; pages.write("results", "docs/results")'

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build site *.egg-info
