# Each target sets up what it needs. PYTHON chooses the interpreter of a new .venv (3.10 to 3.14).
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
SEEDS ?= 1000
BENCH ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo check check-format check-lint check-types check-imports format test bench docs simulate coverage ec2-lab clean

help:
	@echo 'make setup              create $(VENV) and install cloudsend in it'
	@echo 'make demo               run examples/quickstart.yml on this machine'
	@echo 'make check              format, lint, types and import layers'
	@echo 'make format             write what check asks of the format'
	@echo 'make test               all tests; the last lines name what was skipped, and what was played in part'
	@echo 'make simulate SEEDS=n   the crash world, longer'
	@echo 'make coverage           every branch of core/ is tested'
	@echo 'make bench              time against peers, side by side'
	@echo 'make ec2-lab            a cloud of AWS on this machine, by hand, until Ctrl-C (root)'
	@echo 'make docs               write the generated pages anew'

# Bytecode is compiled here, as PYTHONDONTWRITEBYTECODE in the environment would make each start slow. Half of all code
# is LATER: most of it is never loaded, and what the tests load of it they compile.
LATER := /(moto|mypy|mypyc|pygments|setuptools)/
setup: $(STAMP)
	@$(BIN)/python -m compileall -q cloudsend_cli

$(STAMP): setup.cfg pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	    echo 'python3 -m venv failed; on Debian: apt-get install python3-venv' >&2; rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --no-compile --editable '.[dev]'
	@$(BIN)/python -m compileall -q -x '$(LATER)' $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

demo: setup
	$(BIN)/cloudsend --state-dir "$$(mktemp -d)" run examples/quickstart.yml

# Four targets, so that `make -k check` tells everything at once.
check: check-format check-lint check-types check-imports
check-format: setup
	$(BIN)/ruff format --check .
check-lint: setup
	$(BIN)/ruff check .
check-types: setup
	$(BIN)/mypy
check-imports: setup
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup
	@scripts/install-debian-packages test
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

coverage: setup
	$(BIN)/pytest tests/core tests/simulation -q --timeout 0 --cov=cloudsend_cli/core --cov-branch \
	    --cov-report=term-missing:skip-covered --cov-fail-under=100

simulate: setup
	CLOUDSEND_CAMPAIGN=full CLOUDSEND_SIMULATION_SEEDS=$(SEEDS) $(BIN)/pytest tests/simulation -q -s --timeout 0

bench: setup
	@scripts/install-debian-packages bench
	$(BIN)/python -m bench $(BENCH)

docs: setup
	$(BIN)/python scripts/generate_docs.py

ec2-lab: setup
	@scripts/install-debian-packages test
	@cd tests && exec ../$(BIN)/python -m ec2lab

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
