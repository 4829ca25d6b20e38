# SPDX-License-Identifier: Apache-2.0
# Everything works from a fresh Debian 12 or later with make, python3 and python3-venv: packages
# that are missing are named, with why, and installed where that is possible (.ci/system-packages).
#
#   make test                    lint, types, unit tests, live tests in guests with four kernels
#   make test KERNELS="6.12"     the same with one kernel
#   make test PYTEST="-k name"   further arguments for pytest
#   make lint                    ruff and mypy only
#   make bench                   the benchmarks (docs/performance.md); GUEST=7.2 adds kcap and
#                                bpftrace in turn in a guest
#   make demo                    the whole way from a refused script to a capture, in a guest
PYTHON ?= python3
KERNELS ?=
GUEST ?=
PYTEST ?=
VENV := .venv
BIN := $(VENV)/bin

export KERNELS

.PHONY: help test lint bench demo clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

$(VENV)/.complete: pyproject.toml
	@.ci/python-version $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

lint: $(VENV)/.complete
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Lint and tests both run, whatever the other says; pytest's closing line comes last.
test: $(VENV)/.complete
	@.ci/system-packages test
	@status=0; \
	$(MAKE) --no-print-directory lint || status=$$?; \
	$(BIN)/pytest $(PYTEST) || status=$$?; \
	exit $$status

bench: $(VENV)/.complete
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/reader.py
	$(BIN)/python benchmarks/code_size.py
	$(BIN)/python benchmarks/packet_writer.py
	$(if $(GUEST),$(BIN)/python -m benchmarks.guest --kernel $(GUEST))
	$(if $(GUEST),$(BIN)/python -m benchmarks.capture --kernel $(GUEST))

demo: $(VENV)/.complete
	@.ci/system-packages
	@$(BIN)/python demo/run.py

clean:
	rm -rf $(VENV) demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
