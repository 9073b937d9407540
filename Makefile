# make run and make test set up everything that they need in .venv; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv reads no pip configuration for local wheels: a CPU build of torch that lies there is found this way.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Two heavy libraries that both spin on all cores would starve each other.
export OMP_NUM_THREADS ?= $(shell nproc)
export HF_HUB_DISABLE_TELEMETRY := 1
# Each step and each server of a test is a process that imports Feast or torch: without bytecode that takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
RUN_ARGS ?=

.PHONY: run test test-fast test-chart test-cluster lint lint-chart bench evidence clean environment lock images images-save

run: environment
	$(BIN)/conf-profile run $(RUN_ARGS)

# One process for each core, four at most: each of them imports torch and Feast. One thread in each, or they would
# starve each other.
TESTS := env -u KUBECONFIG OMP_NUM_THREADS=1 $(BIN)/pytest -n $(shell nproc) --maxprocesses 4
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
EXPERIMENT := $(BIN)/conf-profile experiment --first-seed 100 --jobs $(shell nproc)
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

# torch first, with its own dependencies: PyPI's build needs CUDA libraries that the lock, made where a CPU
# build was at hand, does not name. Then everything else exactly as locked.
$(VENV)/.installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --python $(BIN)/python "torch==2.13.0"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

# Made from the environment that the tests passed in; torch's local build tag and its own index stay out.
lock:
	$(BIN)/uv pip freeze --exclude-editable --python $(BIN)/python | sed 's/+cpu$$//' \
		| grep -v -E '^(uv|pip|py-spy|nvidia-.*|cuda-.*)==' > requirements.lock
	$(MAKE) lock-serving lock-training lock-predictor

# The part of it that an image holds: what pyproject.toml names for it, and what that asks for on any Python 3.11
# (Debian's is older than the last one).
lock-%:
	mkdir -p build
	$(BIN)/uv pip compile --quiet --no-header --no-annotate --python-version 3.11 --group image-$* \
		--constraint requirements.lock --override requirements-overrides.txt > build/$*.lock
	sed 's/+cpu$$//' build/$*.lock | grep -v -E '^(nvidia-.*|cuda-.*)==' > requirements-$*.lock

# ENGINE, ENGINE_ARGS, BASE_IMAGE, IMAGE_REGISTRY, TORCH_INDEX, TRAINING_PACKAGES: docs/operations.md.
export WHEELS ?= $(wildcard $(PIP_FIND_LINKS))
images:
	$(PYTHON) -m charts.images build $(IMAGES)

images-save:
	$(PYTHON) -m charts.images build --save build/images $(IMAGES)

clean:
	rm -rf $(VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache
