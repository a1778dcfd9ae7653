# Everything a developer runs. Each target makes .venv by itself when it is missing or out of date.
PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)
STATE ?=
JOBS ?= 4
FUZZ_S ?= 600
SOAK_S ?= 3600
# Each test file is compiled in each process, and each program at each start, where nothing compiled may be kept.
export PYTHONDONTWRITEBYTECODE :=

# Each takes a virtual environment. A lock is complete, so it is installed as it is: no resolver runs, and the
# day makes no difference; then what is there is checked. Through uv where it is on PATH, else by the environment's pip.
venv = test -x $(1)/bin/python || $(if $(UV),$(UV) venv -q -p $(PYTHON) $(1),$(PYTHON) -m venv $(1)); \
	$(if $(UV),true,$(1)/bin/python -m pip --version >/dev/null 2>&1 || $(1)/bin/python -m ensurepip >/dev/null)
pip = $(if $(UV),$(UV) pip $(2) -p $(1)/bin/python,$(1)/bin/python -m pip $(2))
check = $(call pip,$(1),check) || { echo "What is in $(1) does not fit together: run make clean, then this again." >&2; false; }

# An environment is of one Python. Asked for another, say so: else the wrong one would be tested in silence.
ifneq ($(origin PYTHON),file)
ifneq ($(MAKECMDGOALS),clean)
THERE := $(shell $(BIN)/python -V 2>/dev/null)
ASKED := $(shell $(PYTHON) -V)
ifneq ($(or $(THERE),$(ASKED)),$(ASKED))
$(error .venv is of $(THERE) and PYTHON=$(PYTHON) is $(ASKED): run make clean first)
endif
endif
endif

.PHONY: setup run demo test test-faults fuzz soak screenshots check format lock clean compose-demo sbom bench bench-quick

setup: .venv/.dev

# The project itself is linked, not copied; the client after the registry, which had the command's script once.
.venv/.runtime: requirements.lock requirements-build.lock pyproject.toml client/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "plugin-registry needs Python 3.11 or later; set PYTHON=")'
	@$(call venv,.venv)
	@echo "installing the runtime packages into .venv"
	@$(call pip,.venv,install) -q --no-deps --require-hashes -r requirements.lock
	@$(call pip,.venv,install) -q --no-deps --require-hashes -r requirements-build.lock
	@$(call pip,.venv,install) -q --no-deps --no-build-isolation -e .
	@$(call pip,.venv,install) -q --no-deps --no-build-isolation -e ./client
	@$(call check,.venv)
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@echo "installing the development packages into .venv"
	@$(call pip,.venv,install) -q --no-deps --require-hashes -r requirements-dev.lock
	@$(call check,.venv)
	@touch $@

run: .venv/.runtime
	@$(BIN)/plugin-registry up $(if $(STATE),--state $(STATE))

demo: .venv/.runtime
	@$(BIN)/plugin-registry demo

# All of it, or TESTS="FILE …"; in JOBS processes, 0 for none beside this one.
test: .venv/.dev
	@$(BIN)/python -m pytest $(if $(filter-out 0,$(JOBS)),-n $(JOBS)) $(TESTS)

# Every fault, the long tests too: twenty minutes.
test-faults: .venv/.dev
	@REGISTRY_TEST_LONG=1 $(BIN)/python -m pytest tests/faults --verbose --durations=10

# What strangers might send, for so many seconds in all. FUZZ="--seed 7 --target answers" has an earlier run's inputs again.
fuzz: .venv/.dev
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_S) $(FUZZ)

# Mixed traffic against one worker, for so many seconds: its memory and descriptors must stay where they are.
soak: .venv/.dev
	@$(BIN)/python -m tests.soak --seconds $(SOAK_S)

# The pictures of the pages that docs/ shows; needs Chromium and its driver.
screenshots: .venv/.dev
	@$(BIN)/python -m tests.screenshots

# The many-machine shape, for real: needs a Docker engine, or podman with podman-compose.
compose-demo:
	@$(PYTHON) deploy/compose_demo.py

# What the image depends on, from its lock, as CycloneDX: to be published beside the image.
sbom: $(BIN)/uv
	@mkdir -p dist
	@$(BIN)/uv tool run -q --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible -o dist/sbom.cdx.json requirements.lock
	@echo dist/sbom.cdx.json

# The alerts once more, as the Prometheus operator wants them. Never edited.
deploy/kubernetes/prometheus/alerts.yaml: deploy/alerts.yml Makefile
	@{ printf '%s\n' '# Made of $< by `make $@`.' 'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata:' \
		'  name: plugin-registry' '  labels:' '    app.kubernetes.io/name: plugin-registry' 'spec:' && \
		sed -e '/^#/d' -e 's/./  &/' $<; } > $@

# Ours beside what one would put in its place. The report goes into docs/ (half an hour); bench-quick takes two minutes and only tells.
bench: .venv/.dev .venv-bench/.installed
	@$(BIN)/python -m bench $(BENCH)

bench-quick: .venv/.dev .venv-bench/.installed
	@$(BIN)/python -m bench --quick $(BENCH)

.venv-bench/.installed: bench/requirements.lock
	@$(call venv,.venv-bench)
	@echo "installing what ours is measured against into .venv-bench"
	@$(call pip,.venv-bench,install) -q --no-deps --require-hashes -r $<
	@$(call check,.venv-bench)
	@touch $@

check: .venv/.dev
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy && $(BIN)/lint-imports

format: .venv/.dev
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

# Locks hold hashes and no URL. What stands in one stays, unless you say otherwise: LOCK=--upgrade, or "--upgrade-package NAME".
lock: $(BIN)/uv
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) -c requirements.lock --group build -o requirements-build.lock
	$(COMPILE) -c requirements.lock --group build --group dev pyproject.toml -o requirements-dev.lock
	$(COMPILE) -c requirements.lock --group ops pyproject.toml -o requirements-ops.lock
	$(COMPILE) -c requirements.lock --extra otel pyproject.toml -o requirements-otel.lock
	$(COMPILE) -c requirements.lock bench/requirements.in -o bench/requirements.lock

COMPILE = $(BIN)/uv pip compile -q --universal -p 3.11 --generate-hashes --no-header --no-annotate --no-emit-package plugin-registry-client $(LOCK)

# Only where it is missing: a package that is new in pyproject.toml has no place in the lock yet, and so fails a set-up.
$(BIN)/uv:
	@$(MAKE) setup

clean:
	rm -rf .venv .venv-bench
