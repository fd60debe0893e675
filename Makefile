# `make demo` and `make test` need Python 3.10+, make and a C++ compiler. They install the rest into
# .venv, at the versions of constraints.txt. Each step leaves a stamp, so a second run is quick.
PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt
INSTALL := $(BIN)/python tools/install.py  # by the hashes of requirements.lock
STAMPS := $(VENV)/stamps
NATIVE := CMakeLists.txt pyproject.toml $(shell find csrc cmake -type f)
RESULTS := benchmarks/results

# Kernels for seven architectures take nvcc minutes. By default they are built only if there is a GPU.
export FR_CUDA ?= $(if $(shell nvidia-smi -L 2>/dev/null),AUTO,OFF)

EXTRAS_demo := serve,pretrained,text
EXTRAS_test := test,bench,plot,pretrained,text,video,parquet
EXTRAS_bench := bench,plot,pretrained
EXTRAS_dev := $(EXTRAS_test),dev
EXTRAS_wheel := wheel

.DEFAULT_GOAL := help
.PHONY: help build demo test bench bench-life bench-screen bench-recall bench-gallery bench-suite lint format wheels clean FORCE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

build: $(STAMPS)/build ## build the package into .venv

demo: $(STAMPS)/demo $(STAMPS)/faiss ## train a small encoder on real pictures, search with it, draw the results
	@$(BIN)/python -m fastretrieve.data.fashion_mnist --quiet || $(INSTALL) scikit-learn
	@$(BIN)/fastretrieve demo --no-download $(ARGS)

test: $(STAMPS)/test ## run the tests; ARGS="-k name" chooses
	$(BIN)/python -m pytest $(ARGS)

bench: $(STAMPS)/bench ## measure beside the peers, judge the bars, keep the figures and the picture
	$(BIN)/fastretrieve bench --peers --json $(RESULTS)/cpu.json --plot docs/images/latency.png $(ARGS)

bench-life: $(STAMPS)/bench ## measure filters, changes, files and self-joins beside FAISS, judge their bars
	$(BIN)/python benchmarks/bench_life.py $(ARGS)
	$(BIN)/python benchmarks/bench_graph.py $(ARGS)

bench-screen: $(STAMPS)/bench ## measure searches through a screen beside the ordinary scan
	$(BIN)/python benchmarks/bench_screen.py $(ARGS)

bench-recall: $(STAMPS)/bench ## draw recall against queries a second beside libraries for approximate search
	$(BIN)/python benchmarks/bench_recall.py $(ARGS)

bench-gallery: $(STAMPS)/test ## measure a gallery and its page in a quarter of an hour, judge their bars
	$(BIN)/python benchmarks/bench_gallery.py $(ARGS)

bench-suite: $(STAMPS)/bench ## the same cases under pytest-benchmark, to compare two commits
	$(BIN)/python -m pytest benchmarks/bench_*.py --benchmark-autosave $(ARGS)

lint: $(STAMPS)/dev ## formatting, lint and types; changes nothing
	$(BIN)/pre-commit run --all-files

format: $(STAMPS)/dev ## let the formatters change the files
	$(BIN)/ruff check --fix python tests benchmarks examples tools
	$(BIN)/ruff format python tests benchmarks examples tools
	git ls-files 'csrc/*' 'tests/*.cpp' 'tests/*.hpp' | grep -E '\.(cpp|hpp|cu|cuh)$$' | xargs -r $(BIN)/clang-format -i

wheels: $(STAMPS)/wheel ## build wheels for Linux with an old glibc; ARGS=aarch64 for ARM alone
	$(BIN)/python tools/wheels.py build/wheels $(ARGS)

clean: ## remove the files that make made
	rm -rf $(VENV) build dist out .benchmarks .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(STAMPS)/venv: constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "fastretrieve needs Python 3.10 or newer; say which: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "this Python cannot make a virtual environment; on Debian: apt install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; sys.exit(not os.path.exists(s.get_path("include") + "/Python.h"))' || \
	  { echo "this Python came without its headers; on Debian: apt install python3-dev"; exit 1; }
	@$(CXX) --version >/dev/null || { echo "no C++ compiler: $(CXX); on Debian: apt install g++"; exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --no-deps pip
	@mkdir -p $(STAMPS) && touch $@

# scikit-build-core knows whether this machine's cmake and ninja will do, or pip must bring them.
$(STAMPS)/build-tools: $(STAMPS)/venv
	@echo "installing the build tools"
	@$(INSTALL) scikit-build-core pybind11
	@$(BIN)/python -c 'from scikit_build_core.build import get_requires_for_build_editable as r; print(*r())' | xargs -r $(INSTALL)
	@touch $@

# Editable: a change in Python is live at once, and the next `make` compiles a change in C++. The
# installation remembers the place of each module, so it is repeated when a module comes or goes.
$(STAMPS)/build: $(STAMPS)/build-tools $(STAMPS)/modules $(NATIVE)
	@echo "building fastretrieve (FR_CUDA=$(FR_CUDA))"
	@$(PIP) --no-deps --no-build-isolation --config-settings=build-dir=build/dev --editable .
	@touch $@

$(STAMPS)/modules: FORCE | $(STAMPS)/venv
	@find python -name '*.py' | LC_ALL=C sort | cmp -s - $@ || find python -name '*.py' | LC_ALL=C sort >$@

# fastretrieve itself is installed by now, so pip only adds the packages of an extra.
$(STAMPS)/demo $(STAMPS)/test $(STAMPS)/bench $(STAMPS)/dev $(STAMPS)/wheel: $(STAMPS)/build
	@echo "installing the requirements of fastretrieve[$(EXTRAS_$(@F))]"
	@$(INSTALL) 'fastretrieve[$(EXTRAS_$(@F))]'
	@touch $@

# The demo only compares with FAISS, so it is no error if there is no wheel.
$(STAMPS)/faiss: $(STAMPS)/venv
	@$(INSTALL) faiss-cpu || echo "no faiss-cpu for this Python: the demo goes without the comparison"
	@touch $@
