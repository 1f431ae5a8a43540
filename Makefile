# Everything below stays inside the checkout: a virtual environment in .venv, CK's own home in .ck.
PYTHON ?= python3
HERE := $(CURDIR)
BIN := $(HERE)/.venv/bin
LOGS := $(HERE)/.ck/log
# CK's hooks and what packages run. Several have the same name, so mypy takes them one by one.
SCRIPTS := $(wildcard script/*/*.py soft/*/*.py package/*/*.py module/*/*.py program/*/*.py)
PROGRAM := program:image-classification-tensorrt-loadgen-py
SRC := $(HERE)/src
TMP := program/image-classification-tensorrt-loadgen-py/tmp

# CK takes its folders from the environment; PIP_*, XDG_* keep pip's and pooch's caches here too.
export CK_REPOS := $(HERE)/.ck/repos
export CK_TOOLS := $(HERE)/.ck/tools
export PIP_CACHE_DIR := $(HERE)/.ck/cache/pip
export XDG_CACHE_HOME := $(HERE)/.ck/cache
export PATH := $(BIN):$(PATH)
unexport CK_LOCAL_REPO CK_ROOT CK_CFG PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help run test test-long test-faults test-gpu test-all test-containers docs sbom lock audit setup ck-env lint clean bench-gpu bench-tensorrt bench-ck
.DEFAULT_GOAL := run

help: ## this list
	@sed -n 's/^\([a-z%-]*\):.* ## /\1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

run: setup ## the program twice on a CPU, from nothing: the first result
	@sh .ci/first-run.sh

test: setup .ck/test-installed ## what every change must pass
	@$(BIN)/python tools/generate.py --check
	@$(BIN)/python tools/lock.py --check
	@$(MAKE) -s lint
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not long'

test-long: setup .ck/test-installed ## the tests of half a minute and more
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m long

# Kills, failing disks, two of everything at once, hostile files: docs/reliability.md.
FAULTS_SEED ?= 1
FAULTS_MINUTES ?= 10
test-faults: setup .ck/test-installed ## kills, failing disks, two of everything at once; FAULTS_MINUTES=10
	@$(BIN)/python test/faults --seed=$(FAULTS_SEED) --minutes=$(FAULTS_MINUTES) $(ARGS)

test-gpu: setup .ck/test-installed ## on a machine with an NVIDIA GPU and TensorRT
	@$(BIN)/python -m pytest test -m gpu -v

test-all: setup .ck/test-installed ## on every supported Python that is there
	@$(BIN)/nox $(SESSIONS) -- $(ARGS)

# Builds images and runs them, on Docker or on podman, which root gets installed on Debian.
test-containers: setup .ck/test-installed ## build the images and run them
	@sh .ci/with-docker.sh $(BIN)/python -m pytest test/docker -m containers

# The pages of docs/ as a site, .ck/site/index.html, which needs no network to be read.
docs: setup .ck/test-installed ## the pages as a site, .ck/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

sbom: setup ## what an image holds; IMAGE=NAME
	@sh .ci/with-docker.sh $(BIN)/python tools/sbom.py ctuning/$(IMAGE) .ck/sbom/$(IMAGE).cdx.json

# Writes locks/ again after a change of ranges; ARGS=--upgrade takes the newest versions.
lock: .ck/lock-tools/installed ## write locks/ again
	@.ck/lock-tools/bin/python tools/lock.py $(ARGS)

# Known vulnerabilities of all that locks/ pins, by pip-audit, whose database is on the network.
audit: .ck/lock-tools/installed ## known vulnerabilities of what is locked
	@.ck/lock-tools/bin/python tools/lock.py --audit

.ck/lock-tools/installed: locks/tools.txt
	@$(PYTHON) -m venv --clear .ck/lock-tools
	@.ck/lock-tools/bin/python -m pip --disable-pip-version-check -q install --require-hashes -r locks/tools.txt
	@touch $@

lint: ## ruff, mypy, import-linter, hadolint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	@for script in $(SCRIPTS); do $(BIN)/mypy --no-error-summary $$script || exit 1; done
	PYTHONPATH=$(SRC) $(BIN)/lint-imports --no-logo --cache-dir .ck/import-linter
	$(BIN)/hadolint docker/*/Dockerfile

setup: .ck/registered ## the virtual environment and CK

ck-env: setup ## for eval: a shell with this checkout's CK
	@echo 'export CK_REPOS="$(CK_REPOS)" CK_TOOLS="$(CK_TOOLS)" PATH="$(BIN):$$PATH"; unset CK_LOCAL_REPO CK_ROOT CK_CFG PYTHONPATH PYTHONHOME'

.ck/installed: locks/run.txt locks/ck.txt pyproject.toml .ci/setup.sh
	@PYTHON="$(PYTHON)" sh .ci/setup.sh install
.ck/registered: .ck/installed .ckr.json
	@sh .ci/setup.sh register
.ck/test-installed: .ck/installed locks/test.txt locks/stubs.txt
	@sh .ci/setup.sh install-test

# These files cannot be called tensorrt.py and ck.py: Python would import them in place of what
# they measure.
bench-tensorrt: setup
	@PYTHONPATH=$(SRC) $(BIN)/python bench/tensorrt_engine.py $(ARGS)
bench-ck: setup
	@PYTHONPATH=$(SRC) $(BIN)/python bench/ck_overhead.py $(ARGS)

bench-%: setup ## measure: harness, run, ck, analyze, preprocess, tensorrt, yardstick ...
	@PYTHONPATH=$(SRC) $(BIN)/python bench/$*.py $(ARGS)

docs/report.png: docs/analysis-records.zip .ck/test-installed
	@PYTHONPATH=$(SRC) $(BIN)/python bench/picture.py

# On PYTHONPATH, ONNX Runtime's GPU build goes before the CPU's, which has the same name.
bench-gpu: setup .ck/gpu
	@PYTHONPATH=$(HERE)/.ck/gpu:$(SRC) $(BIN)/python bench/gpu.py
.ck/gpu: locks/gpu.txt
	@$(BIN)/python -m pip install --upgrade --target .ck/gpu --no-build-isolation --require-hashes -r locks/gpu.txt
	@touch .ck/gpu

clean: ## remove all that make has made, experiments too
	rm -rf .venv .ck $(TMP)
