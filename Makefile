# make quickstart   install what is needed, then build a student for a Jetson on embedded defaults
# make test         the same set-up, then the whole test suite
# make check        ruff and mypy
# make docs         docs/cli.md and the pictures in docs/img, from the program itself
# make clean        remove what was built here
#
# RUNTIME=gpu takes onnxruntime-gpu; TORCH_BACKEND=cpu takes torch's small CPU build from its own index.

PYTHON ?= python3
RUNTIME ?= cpu
TORCH_BACKEND ?=
OUT ?= runs/quickstart
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
BACKEND := $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND))
RUN_STAMP := $(VENV)/.run-$(RUNTIME)
DEV_STAMP := $(VENV)/.dev-$(RUNTIME)
UV := $(or $(shell command -v uv 2>/dev/null),$(CURDIR)/.uv/bin/uv)

# Without compiled files every start of torch takes twice as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart test check format docs constraints clean help

help:
	@sed -n '1,8s/^# \{0,1\}//p' Makefile

quickstart: $(RUN_STAMP)
	@HF_HUB_OFFLINE=1 $(BIN)/edgedistill build --device jetson --out $(OUT)

test: $(DEV_STAMP)
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

check: $(DEV_STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(DEV_STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(DEV_STAMP)
	@PYTHONPATH=tests:tests/evidence $(BIN)/python -m cli_reference
	@PYTHONPATH=tests:tests/evidence $(BIN)/python -m report_pictures

# The set-up: uv (by pip when it is missing), a virtual environment, pinned packages.
$(CURDIR)/.uv/bin/uv:
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv uv

$(VENV)/bin/python: | $(UV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "edgedistill needs Python 3.11 or newer; give one: make PYTHON=python3.12 ..."; exit 2; }
	@$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV)

$(RUN_STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing edgedistill into $(VENV) (once; the packages are large)"
	@$(UV) pip install --quiet --python $(BIN)/python $(BACKEND) -c constraints.txt \
	  -e ".[$(RUNTIME),train,sample,rtx]"
	@touch $@

# The last package is there for its axe.min.js alone, so what it needs to run is left out.
$(DEV_STAMP): $(RUN_STAMP) Makefile
	@$(UV) pip install --quiet --python $(BIN)/python $(BACKEND) -c constraints.txt \
	  -e ".[$(RUNTIME),train,hf,sample,data,synth,rtx,dev]"
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps "axe-playwright-python==0.1.8"
	@touch $@

constraints: | $(UV)
	@$(UV) pip compile --quiet --universal --no-emit-index-url --no-header --no-annotate \
	  --python-version 3.11 pyproject.toml --extra cpu --extra train --extra sample \
	  --extra synth --extra hf --extra data --extra rtx --extra dev -o constraints.txt

clean:
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
