# Every target sets up .venv itself, with the versions in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: install install-browser demo demo-labels test test-all lint format bench lock audit clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# For the tests marked browser, which are skipped without it; only root can install packages.
install-browser:
	@if command -v chromium && command -v chromedriver; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; \
	else echo "chromium and chromedriver are not installed, and cannot be: this takes root and apt-get"; fi

demo: install
	$(BIN)/ecgdist demo --out demo

# Ways to use the demo's model on labels, and a sweep of its fine-tuning.
demo-labels: install
	@test -e demo/run/model/config.json || $(MAKE) demo
	$(BIN)/ecgdist benchmark jobs/configs/benchmark-sample.yaml --out demo/benchmark
	$(BIN)/ecgdist sweep jobs/configs/sweep-sample.yaml --out demo/sweep

test: install
	$(PYTEST) -m "not slow and not long and not gpu"

test-all: install
	$(PYTEST)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install
	$(BIN)/python -m tests.benchmarks.stream
	$(BIN)/python -m tests.benchmarks.codec
	$(BIN)/python -m tests.benchmarks.packing
	$(BIN)/python -m tests.benchmarks.index 1300000
	$(BIN)/python -m tests.benchmarks.order
	$(BIN)/python -m tests.benchmarks.arms
	$(BIN)/python -m tests.benchmarks.augment
	$(BIN)/python -m tests.benchmarks.zero
	$(BIN)/python -m tests.benchmarks.checkpoints
	$(BIN)/python -m tests.benchmarks.gradient_watch
	$(BIN)/python -m tests.benchmarks.rates

lock: install
	{ head -1 constraints.txt; $(BIN)/pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.new
	mv constraints.new constraints.txt

# Known weaknesses of the versions that make installs with; in an environment of its own, so that these do not change.
audit: .venv-audit/.installed
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off --desc off

.venv-audit/.installed: Makefile
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@touch $@

clean:
	rm -rf .venv .venv-audit demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
