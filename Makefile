# Two commands, each doing all its own set-up in .venv:
#   make demo    the whole method on real photographs, ending in a table and a page   (ARGS="--preset tiny" for a quick one)
#   make bench   the solvers against their goals and SPORCO, ten minutes (ARGS="--root DIR" for CIFAR-10 and ImageNet)
#   make test    lint, types and tests, in two processes   (JOBS=8 for eight; ARGS=--cov with coverage)
#   make docs    the documentation as a site, in build/site
#   make fuzz    100,000 damaged inputs, divided among all readers
#   make soak    that, the tests that take minutes, a 4096 x 4096 image, and the service under load
#   make audit   the pinned packages' known vulnerabilities      make sbom    build/sbom.json, what is installed
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
BUILT_FROM := pyproject.toml setup.py constraints.txt $(wildcard src/quasinat/*/_kernels/*.cpp)
ARGS ?=
JOBS ?= 2

.PHONY: demo bench test docs fuzz soak audit sbom install install-dev format clean

demo: install
	$(BIN)/quasinat demo $(ARGS)

bench: install-dev
	$(BIN)/python benchmarks/sparse_coding.py $(ARGS)

test: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

docs: install-dev
	$(BIN)/python tools/commands_page.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

fuzz: install-dev
	$(BIN)/python benchmarks/fuzz.py --cases 100000 --out results/reliability/fuzz.json $(ARGS)
	$(BIN)/python benchmarks/reliability_page.py

soak: install-dev
	QUASINAT_SOAK=1 $(BIN)/python -m pytest tests/hardening
	$(BIN)/python benchmarks/large_image.py
	$(BIN)/python benchmarks/soak.py --minutes 10
	$(BIN)/python benchmarks/service_page.py
	$(MAKE) fuzz

audit: install-dev
	$(BIN)/python tools/audit.py $(ARGS)

sbom: install-dev
	mkdir -p build
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "quasinat needs Python 3.11 or later; name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BUILT_FROM) | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(BUILT_FROM) | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build src/*.egg-info .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
