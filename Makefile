# Everything a developer runs. Each target makes .venv by itself when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)
PIP = $(if $(UV),$(UV) pip $(1) -q -p $(BIN)/python,$(BIN)/python -m pip -q $(1))
# A lock is complete, so it is installed as it is: no resolver runs, and so the day makes no difference.
INSTALL = $(call PIP,install) --no-deps
STATE ?=

.PHONY: setup run demo test test-faults check format lock clean compose-demo bench bench-quick

setup: .venv/.dev

# Hashed locks only, through uv where it is on PATH, else pip. The project itself is linked, not copied.
.venv/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "plugin-registry needs Python 3.11 or later; set PYTHON=")'
	@test -x $(BIN)/python || $(if $(UV),$(UV) venv -q -p $(PYTHON) .venv,$(PYTHON) -m venv .venv)
	@$(if $(UV),true,$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null)
	@echo "installing the runtime packages into .venv"
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-build-isolation -e .
	@$(call PIP,check)
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@echo "installing the development packages into .venv"
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@$(call PIP,check)
	@touch $@

run: .venv/.runtime
	@$(BIN)/plugin-registry up $(if $(STATE),--state $(STATE))

demo: .venv/.runtime
	@$(BIN)/plugin-registry demo

test: .venv/.dev
	@$(BIN)/python -m pytest

# Every fault, the long tests too: twenty minutes.
test-faults: .venv/.dev
	@REGISTRY_TEST_LONG=1 $(BIN)/python -m pytest tests/faults --verbose --durations=10

# The many-machine shape, for real: needs a Docker engine, or podman with podman-compose.
compose-demo:
	@$(PYTHON) deploy/compose_demo.py

# Ours beside what one would put in its place. The report goes into docs/ (half an hour); bench-quick takes two minutes and only tells.
bench: .venv/.dev .venv-bench/.installed
	@$(BIN)/python -m bench $(BENCH)

bench-quick: .venv/.dev .venv-bench/.installed
	@$(BIN)/python -m bench --quick $(BENCH)

.venv-bench/.installed: bench/requirements.lock
	@test -x .venv-bench/bin/python || $(if $(UV),$(UV) venv -q -p $(PYTHON) .venv-bench,$(PYTHON) -m venv .venv-bench)
	@echo "installing what ours is measured against into .venv-bench"
	@$(if $(UV),$(UV) pip install -q -p,.venv-bench/bin/python -m pip --python) .venv-bench/bin/python $(if $(UV),,install -q) --require-hashes -r $<
	@touch $@

check: .venv/.dev
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy && $(BIN)/lint-imports

format: .venv/.dev
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

# Locks hold hashes and no URL.
lock:
	uv pip compile -q --universal -p 3.11 --generate-hashes --no-header --no-annotate --group build pyproject.toml -o requirements.lock
	uv pip compile -q --universal -p 3.11 --generate-hashes --no-header --no-annotate -c requirements.lock --group build --group dev pyproject.toml -o requirements-dev.lock
	uv pip compile -q --universal -p 3.11 --generate-hashes --no-header --no-annotate -c requirements.lock bench/requirements.in -o bench/requirements.lock

clean:
	rm -rf .venv .venv-bench
