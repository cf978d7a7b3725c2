# make quickstart   a real search on a real backbone and real text, from nothing, in a few minutes
# make test         every test
# make soak         the fault tests for hours: kills, stops, outages, and a table of what was lost (SCALE=0.1)
# make bench        the benchmarks of packed training, AdapterHub's side included: benchmarks/README.md
# make interop      adapters to AdapterHub and PEFT and back, and how far apart they compute: docs/interop.md
# make check        formatting, lint, types, rules between packages, insecure code, generated pages
# make audit        known vulnerabilities of the pinned packages; asks a service on the network

PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
HUB_BIN := .venv-adapterhub/bin
export PYTHONUNBUFFERED := 1
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help quickstart install dev test soak check format docs audit bench bench-adapterhub bench-tasks interop clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(firstword $(MAKEFILE_LIST))

# A venv is made new only where there is none; the stamps are older than what they were made from after an edit.
define need_python
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found as python3.11 or python3; \
	install one, or name it: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/pip || "$(PYTHON)" -m venv $(VENV) || { echo "error: $(PYTHON) cannot make a virtual \
	environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf $(VENV); exit 1; }
endef

# Bytecode is made of what is imported: pip would make it of every file, half of what it takes.
$(VENV)/installed: pyproject.toml constraints.txt
	$(need_python)
	@echo "installing the pinned packages into $(VENV), once"
	@$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[postgres]'
	@$(BIN)/python -c 'import datasets, mlflow, optuna, torch, transformers, sweeper.worker.process'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing what tests and checks need into $(VENV), once"
	@$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(VENV)/installed
dev: $(VENV)/installed-dev

quickstart: $(VENV)/installed
	@$(BIN)/python -m sweeper.quickstart studies/quickstart
	@$(BIN)/sweeper run studies/quickstart.yaml

# One thread a process: the processes share the cores. The settings of a shell that uses sweeper are not the tests'.
test: $(VENV)/installed-dev
	@env -u SWEEPER_HOME -u SWEEPER_STORE -u SWEEPER_ARTIFACTS -u MLFLOW_TRACKING_URI OMP_NUM_THREADS=1 \
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS) tests

SCALE ?= 1
soak: $(VENV)/installed-dev
	@env -u SWEEPER_HOME -u SWEEPER_STORE -u SWEEPER_ARTIFACTS -u MLFLOW_TRACKING_URI OMP_NUM_THREADS=1 \
	$(BIN)/python -m tests.faults.soak --scale $(SCALE) $(ARGS)
	@test -n '$(ARGS)' || OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m long tests

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers $(JOBS)
	$(BIN)/lint-imports
	$(BIN)/pip --disable-pip-version-check check
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive adapters sweeper benchmarks docs
	$(BIN)/python docs/commands.py --check
	$(BIN)/python docs/adapter_tables.py --check

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/installed-dev
	$(BIN)/python docs/commands.py
	$(BIN)/python docs/adapter_tables.py

.venv-audit/installed: Makefile
	$(subst $(VENV),.venv-audit,$(need_python))
	@.venv-audit/bin/pip install --quiet --disable-pip-version-check 'pip-audit==2.10.1'
	@touch $@

# In an environment of its own, so that the tool's packages are not among those that it looks at. Strict: a package
# that could not be asked about is no good news.
audit: .venv-audit/installed
	.venv-audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

.venv-adapterhub/installed: benchmarks/adapterhub/requirements.txt
	$(subst $(VENV),.venv-adapterhub,$(need_python))
	@echo "installing AdapterHub's adapters into .venv-adapterhub, once"
	@$(HUB_BIN)/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

bench: $(VENV)/installed .venv-adapterhub/installed
	@$(BIN)/python -m sweeper.quickstart studies/quickstart
	@$(BIN)/python -m benchmarks $(ARGS)

bench-adapterhub: $(VENV)/installed .venv-adapterhub/installed
	@$(BIN)/python -m sweeper.quickstart studies/quickstart
	@$(BIN)/python -m benchmarks.adapterhub.compare --theirs $(HUB_BIN)/python $(ARGS)

# DATA names a folder with sst2/ and trec/.
bench-tasks: $(VENV)/installed
	@$(BIN)/python -m sweeper.quickstart studies/quickstart
	@$(BIN)/python -m benchmarks.tasks.run --data "$(DATA)" $(ARGS)

# PEFT runs on the pinned packages of this project, in an environment of its own; AdapterHub pins others.
.venv-interop/installed: tests/interop/requirements.txt constraints.txt
	$(subst $(VENV),.venv-interop,$(need_python))
	@echo "installing PEFT into .venv-interop, once"
	@.venv-interop/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r $<
	@touch $@

interop: $(VENV)/installed .venv-adapterhub/installed .venv-interop/installed
	@$(BIN)/python -m sweeper.quickstart studies/quickstart
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.interop --hub $(HUB_BIN)/python --peft .venv-interop/bin/python $(ARGS)

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
