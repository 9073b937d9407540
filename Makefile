# make run and make test set up everything that they need in .venv; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
UV_VERSION := 0.13.9
BIN := $(VENV)/bin
# uv reads no pip configuration for local wheels: a CPU build of torch that lies there is found this way.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
CORES := $(shell getconf _NPROCESSORS_ONLN)
# Two heavy libraries that both spin on all cores would starve each other.
export OMP_NUM_THREADS ?= $(CORES)
export HF_HUB_DISABLE_TELEMETRY := 1
# Each step and each server of a test is a process that imports Feast or torch: without bytecode that takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
RUN_ARGS ?=

.PHONY: run test test-fast test-pythons test-chart test-cluster lint lint-chart bench evidence clean environment lock images images-save

run: environment
	$(BIN)/conf-profile run $(RUN_ARGS)

# One process for each core, four at most: each of them imports torch and Feast. One thread in each, or they would
# starve each other.
TESTS := env -u KUBECONFIG OMP_NUM_THREADS=1 $(BIN)/pytest -n $(CORES) --maxprocesses 4
UNIT_TESTS := $(TESTS) --dist loadscope tests/unit

# No cluster is touched unawares: see test-cluster.
test: environment lint
	$(UNIT_TESTS)
	$(TESTS) --dist loadfile --no-loadscope-reorder tests/integration -m "not engine"
	$(BIN)/pytest tests/integration -m engine
	env -u KUBECONFIG $(BIN)/pytest tests/cluster

# The pure part: no servers, no training.
test-fast: environment lint
	$(UNIT_TESTS) -m "not slow"

# The pure part under each of these that this machine has, each in an environment of its own.
PYTHONS ?= python3.11 python3.12 python3.13
test-pythons:
	for python in $(PYTHONS); do \
		version=$$($$python -c 'import sys; print("{}.{}".format(*sys.version_info))') \
			|| { echo "$$python: not on this machine"; continue; }; \
		$(MAKE) environment PYTHON=$$python VENV=.venv-$$version \
			&& PYTHONPATH= .venv-$$version/bin/pytest -n $(CORES) --maxprocesses 4 --dist loadscope tests/unit \
				-m "not slow" || exit 1; \
	done

test-chart: environment
	$(BIN)/pytest tests/unit/charts

# On the cluster of KUBECONFIG, else on one that kind makes; needs kubectl and helm.
test-cluster: environment
	$(BIN)/pytest -m cluster tests/cluster

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Needs helm alone.
CHART := charts/conf-profile
CHART_EXAMPLE := --set s3.endpoint=https://s3.example.com --set s3.existingSecret=object-store
lint-chart:
	for preset in values values-cpu values-gpu values-production; do \
		helm lint $(CHART) --strict --values $(CHART)/$$preset.yaml $(CHART_EXAMPLE) || exit 1; \
		helm template conf-profile $(CHART) --values $(CHART)/$$preset.yaml $(CHART_EXAMPLE) > /dev/null || exit 1; \
	done

bench: environment
	$(BIN)/python -m benchmarks.labelling
	$(BIN)/python -m benchmarks.command_line
	$(BIN)/python -m benchmarks.rewards
	$(BIN)/python -m benchmarks.teacher_vllm
	$(BIN)/python -m benchmarks.teachers.endpoint
	$(BIN)/python -m benchmarks.storage

# Hours. Fixed beforehand in docs/evidence-protocol.md; an interrupted call continues.
EVIDENCE := runs/evidence
EXPERIMENT := $(BIN)/conf-profile experiment --first-seed 100 --jobs $(CORES)
evidence: environment
	$(EXPERIMENT) table2 figure3 table1 figure5 table3 table5 --out $(EVIDENCE)/world-tiny
	$(EXPERIMENT) regimes second_stage teachers --out $(EVIDENCE)/world-tiny
	$(EXPERIMENT) second_stage_regimes --seeds 2 --out $(EVIDENCE)/world-tiny
	$(EXPERIMENT) transfer --dataset movielens-100k --out $(EVIDENCE)/movielens-100k-tiny
	$(BIN)/python -m benchmarks.sentiment.build --out $(EVIDENCE)/sentiment-data
	$(EXPERIMENT) transfer --config benchmarks/sentiment/run.yaml --data $(EVIDENCE)/sentiment-data \
		--out $(EVIDENCE)/sentiment-tiny
	$(BIN)/python -m benchmarks.evidence.page.page $(EVIDENCE) docs

environment: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml install.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	UV=$(BIN)/uv UV_PYTHON=$(BIN)/python sh install.sh --requirements pyproject.toml --extra serving --extra dev
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

# One lock for Linux on x86_64 and arm64 and macOS on arm64, for Python 3.11 to 3.13: `[tool.uv]` of pyproject.toml says
# what it departs from. Wheels alone, but for two packages that are pure Python and have none. What is locked stays, so
# remove the line of what is to be renewed, or the file. Wheels of this machine are none of its business.
lock:
	UV_FIND_LINKS= $(BIN)/uv pip compile --quiet --no-header --universal --generate-hashes --python-version 3.11 \
		--only-binary :all: --no-binary kfp --no-binary kfp-server-api --extra serving --extra dev \
		$(addprefix --group image-,serving training predictor) pyproject.toml --output-file requirements.lock

# ENGINE, ENGINE_ARGS, BASE_IMAGE, IMAGE_REGISTRY, TORCH_INDEX, TRAINING_PACKAGES: docs/operations.md.
export WHEELS ?= $(wildcard $(PIP_FIND_LINKS))
images:
	$(PYTHON) -m charts.images build $(IMAGES)

images-save:
	$(PYTHON) -m charts.images build --save build/images $(IMAGES)

clean:
	rm -rf $(VENV) .venv-3.* runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
