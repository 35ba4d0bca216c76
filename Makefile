# `make` lists what can be made. Everything below works from a fresh clone with Python 3.11
# and make; nothing is installed outside .venv except by `make test-system` as root.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit test-faults test-system sim kill-matrix chaos cluster-test \
  container-test mutants wheel check format docs bench bench-report bench-peers requirements clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

# demo: how long, which data folder (fresh and removed afterwards when empty), more arguments
DURATION ?= 60s
DATA ?=
KEEP ?=
ARGS ?=

# Debian packages that tests of today need; see tests/system
SYSTEM_PACKAGES := redis-server prometheus prometheus-alertmanager postgresql-15 \
	postgresql-server-dev-15 libkrb5-dev build-essential cmake

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  demo takes DURATION=60s, DATA=folder, KEEP=1 and ARGS=\"--preset calibrated\""

setup: ## make .venv with pinned requirements and the project in it
	@want="$$(cat requirements/dev.txt pyproject.toml | sha256sum | cut -d' ' -f1) $(CURDIR)"; \
	if [ "$$(cat $(STAMP) 2>/dev/null || true)" = "$$want" ] && $(BIN)/python -c '' 2>/dev/null; \
	then exit 0; fi; \
	found=; \
	for python in "$(PYTHON)" python3.11 python3; do \
	  if [ -n "$$python" ] && "$$python" -c \
	    'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "Python 3.11 was not found. On Debian 12: apt-get install python3 python3-venv;" \
	    "elsewhere install it, or name it with make setup PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then \
	  echo "$$found lacks the venv module. On Debian: apt-get install python3-venv" >&2; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -c '' 2>/dev/null; then \
	  echo "Making $(VENV) with $$("$$found" --version)"; \
	  rm -rf $(VENV); \
	  "$$found" -m venv $(VENV); \
	fi; \
	rm -f $(STAMP); \
	echo "Installing $$(grep -c '==' requirements/dev.txt) pinned packages; one or two minutes"; \
	$(PIP) install -qq --requirement requirements/dev.txt; \
	$(PIP) install -qq --no-deps --no-build-isolation --editable .; \
	echo "$$want" > $(STAMP); \
	echo "Installed: $$($(BIN)/python -c 'import arb_ray; print("arb_ray", arb_ray.__version__)')"

demo: setup ## simulated exchanges, real everything else: watch it trade on paper
	@data="$(DATA)"; \
	if [ -z "$$data" ]; then \
	  data="$$(mktemp -d "$${TMPDIR:-/tmp}/arb_ray_demo.XXXXXX")"; \
	  if [ -z "$(KEEP)" ]; then trap 'rm -rf "$$data"' EXIT; \
	  else echo "The data stay in $$data"; fi; \
	fi; \
	trap : INT TERM; \
	status=0; \
	$(BIN)/python -m arb_ray.submit --env dev --duration "$(DURATION)" --data-dir "$$data" $(ARGS) \
	  || status=$$?; \
	exit $$status

test: setup ## unit, property, integration and end-to-end tests: wheels only, no root
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/unit tests/property $(ARGS)
	$(BIN)/python -m pytest -m "not system" tests/integration tests/e2e $(ARGS)

test-faults: setup ## kills, a short run of make chaos, a cluster's whole life: wheels only, no root
	$(BIN)/python -m pytest tests/faults $(ARGS)

test-unit: setup ## only what needs no socket and no Ray
	$(BIN)/python -m pytest tests/unit tests/property $(ARGS)

test-system: setup ## tests that need Debian packages; as root it installs them
	@missing=; \
	for package in $(SYSTEM_PACKAGES); do \
	  dpkg-query --show --showformat='$${db:Status-Status}\n' "$$package" 2>/dev/null \
	    | grep -qx installed || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing$$missing"; \
	  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	  if apt-get -qq update && apt-get -qq install --yes --no-install-recommends $$missing \
	    >/dev/null; then missing=; fi; \
	fi; \
	if [ -n "$$missing" ]; then \
	  echo "LEFT OUT: tests that need$$missing. Run make test-system as root on Debian, or" \
	    "apt-get install$$missing"; \
	fi; \
	status=0; \
	$(BIN)/python -m pytest -m system tests/system $(ARGS) || status=$$?; \
	if [ "$$status" = 5 ]; then echo "There are no system tests"; status=0; fi; \
	exit $$status

# A real cluster of three hosts, made of namespaces; see tests/cluster
CLUSTER_PACKAGES := openssh-server openssh-client rsync iproute2 util-linux procps

cluster-test: setup ## three hosts, `ray up`, trading, a host dies, `ray down`; needs root
	@missing=; \
	for package in $(CLUSTER_PACKAGES); do \
	  dpkg-query --show --showformat='$${db:Status-Status}\n' "$$package" 2>/dev/null \
	    | grep -qx installed || missing="$$missing $$package"; \
	done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing$$missing"; \
	  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1; \
	  apt-get -qq update && apt-get -qq install --yes --no-install-recommends $$missing >/dev/null; \
	fi
	@$(BIN)/python -m tests.cluster $(ARGS)

wheel: setup ## dist/: this version, as nodes and images install it
	@rm -rf dist
	@$(PIP) wheel -qq --no-deps --no-build-isolation --no-index --wheel-dir dist .
	@ls dist

SEEDS ?= 1000
FIRST_SEED ?= 0

sim: setup ## the engine lives SEEDS=1000 lives from FIRST_SEED=0, with faults everywhere
	$(BIN)/python -m tests.sim --seeds $(SEEDS) --first $(FIRST_SEED) $(ARGS)

kill-matrix: setup ## every state of a trade x every actor, every journal write: killed there; minutes
	@$(BIN)/python -m tests.kill_matrix $(ARGS)

MINUTES ?= 10
SEED ?= 1
SYMBOLS ?= 8

chaos: setup ## the whole system for MINUTES=10 against an adversary with a SEED=1
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED) --symbols $(SYMBOLS) $(ARGS)

COUNT ?= 60
MODULE ?=

mutants: setup ## COUNT=60 bugs, by lot of SEED=1, planted in engine and domain: tests must notice
	$(BIN)/python -m tests.mutants --count $(COUNT) --seed $(SEED) \
	  $(if $(MODULE),--module '$(MODULE)') $(ARGS)

container-test: setup ## the image and the compose stack on a Docker engine; needs root
	@$(BIN)/python -m tests.containers $(ARGS)

YAML := .yamllint.yaml .pre-commit-config.yaml .github config docker-compose.prod.yml ray-cluster.yaml \
  deploy/*.yaml deploy/alertmanager deploy/grafana deploy/prometheus/*.yml deploy/prometheus/rules

check: setup ## lint, format, types, imports, generated pages, container files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m arb_ray.app.config_docs --check
	$(BIN)/python -m deploy.grafana.build --check
	$(BIN)/python -m benchmarks.report --check
	$(BIN)/python -m pytest -q tests/unit/test_cluster_files.py
	$(BIN)/hadolint Dockerfile tests/containers/standins.Dockerfile
	$(BIN)/yamllint --strict $(YAML)
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.prod.yml

format: setup ## put the source into the one form, and mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## write the generated pages of docs/ and Grafana's dashboards anew
	$(BIN)/python -m arb_ray.app.config_docs
	$(BIN)/python -m deploy.grafana.build

bench: setup ## run every benchmark with its peers where they install, or BENCH=name
	@$(BIN)/python -m benchmarks $(BENCH) $(ARGS)

RESULTS ?=

bench-report: setup ## measure RESULTS="decode risk" (all when empty), write docs/BENCHMARKS.md with plots
	@$(BIN)/python -m benchmarks.report --run $(RESULTS) $(ARGS)

bench-peers: setup ## install what the benchmarks compare with; nothing else needs it
	$(PIP) install -qq --requirement requirements/bench.txt

COMPILE := CUSTOM_COMPILE_COMMAND="make requirements" $(BIN)/pip-compile --quiet --strip-extras \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

requirements: setup ## pin anew from pyproject.toml; ARGS=--upgrade takes newer versions
	$(COMPILE) --extra embedded --output-file requirements/base.txt $(ARGS) pyproject.toml
	$(COMPILE) --extra embedded --extra dev --output-file requirements/dev.txt $(ARGS) pyproject.toml
	$(COMPILE) --extra bench --constraint requirements/dev.txt --output-file requirements/bench.txt \
	  $(ARGS) pyproject.toml
	$(COMPILE) --generate-hashes --constraint requirements/base.txt \
	  --output-file requirements/image.txt $(ARGS) pyproject.toml
	$(COMPILE) --generate-hashes --constraint requirements/dev.txt --only-build-deps \
	  --build-deps-for wheel --output-file requirements/build.txt $(ARGS) pyproject.toml

clean: ## remove caches and built files; .venv and data stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -print0 | xargs -0 rm -rf
