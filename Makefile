# kdumpy: everything from a fresh clone. Each target installs what it needs and says so.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= auto
# Whole files to each process, in their order: the guests' come first.
PARALLEL := -n $(JOBS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Where it is set, kdumpy compiles itself at every start: tests and benchmarks start it thousands of times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-all check bench fuzz lab man score clean

help:                  ## show the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(BIN)/kdumpy ## make .venv/bin/kdumpy, with all extras

$(BIN)/kdumpy: pyproject.toml
	@tools/system-packages python
	@echo "==> making $(VENV) with kdumpy and its libraries (about a minute, from PyPI)"
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "kdumpy needs Python 3.11 or newer; this is %d.%d: set PYTHON=" % v[:2])'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
	@echo "==> done: $(BIN)/kdumpy --help"

demo: install          ## a real panic in a VM, its dump, and the verdict
	@$(BIN)/python tools/demo.py

check: install         ## linters and types, in seconds
	$(BIN)/ruff check src tests bench tools
	$(BIN)/mypy

test: check            ## everything: linters, unit tests, real dumps made in VMs
	@tools/system-packages lab bench tests web packages
	-@$(BIN)/python tests/lab.py
	$(BIN)/pytest $(PARALLEL)

test-all: check        ## the same over every kernel and every fault (takes long)
	@tools/system-packages lab bench tests web packages
	-@KDUMPY_MATRIX=full $(BIN)/python tests/lab.py
	KDUMPY_MATRIX=full $(BIN)/pytest $(PARALLEL)

bench: install         ## time kdumpy against crash and drgn on one dump
	@tools/system-packages lab bench
	@$(BIN)/python -m bench

score: install         ## hold every verdict and signature against what is known of its fault
	@tools/system-packages lab
	@$(BIN)/python -m bench.score

fuzz: install          ## fuzz every reader, SECONDS=60 each, with atheris where it installs
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3.0' || echo "==> no atheris for this Python: hypothesis makes up the inputs"
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60)

lab: install           ## make the dumps that the tests want, ahead of them
	@tools/system-packages lab
	@$(BIN)/python tests/lab.py

man: install           ## make the man pages, build/man/kdumpy.1 and kdumpy.toml.5
	@$(BIN)/python -m tools.packages.pages build/man
	@echo "==> man -l build/man/kdumpy.1"

packages: install      ## make the .deb and the .rpm for servers, in build/packages
	@tools/system-packages packages
	@$(BIN)/python -m tools.packages $(KINDS)

clean:                 ## remove the virtual environment and caches of the checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
