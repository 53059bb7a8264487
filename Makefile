# make demo    the main job on real input: results against NumPy, cycle report, timeline picture in out/
# make test    every test, the examples and the notebooks
# make check   ruff and mypy
# Needs python3 (3.10 or newer) and make; everything else goes into .venv beside this file.

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
READY  := $(VENV)/.ready

.PHONY: demo test check clean

demo: $(READY)
	$(PY) examples/demo.py

test: $(READY)
	$(PY) -m pytest -n auto $(ARGS)

check: $(READY)
	$(PY) -m ruff check .
	$(PY) -m mypy

# Made again only when pyproject.toml changes.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "pto_wsp needs Python 3.10 or newer; choose one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "python3 has no venv module here; on Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PY) -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) out build dist
