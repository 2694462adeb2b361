# `make demo` and `make test` make .venv themselves; nothing else is needed but Python 3.11 or later, and PyPI.

PYTHON ?= python3
BIN := .venv/bin
# what else the demo or pytest should be told: make demo ARGS="--seed 1", make test PYTEST_ARGS="-k memory"
ARGS ?=
PYTEST_ARGS ?=

# what the benchmarks should be told: make bench BENCH_ARGS="--rounds 5"
BENCH_ARGS ?=

# what the benchmark of accuracy should be told: make accuracy ACCURACY_ARGS="--sets GunPoint --seeds 1"
ACCURACY_ARGS ?=

.PHONY: accuracy bench demo test test-frameworks test-ray test-slow lint format clean

# replaces the results that an earlier run left in demo-run
demo: .venv/demo-installed
	$(BIN)/tidegate demo --out demo-run --overwrite $(ARGS)

# the three tables, beside every peer; a quarter of an hour on two quiet cores
bench: .venv/bench-installed
	$(BIN)/python -m benchmarks cpu $(BENCH_ARGS)
	$(BIN)/python -m benchmarks stream $(BENCH_ARGS)
	$(BIN)/python -m benchmarks memory $(BENCH_ARGS)

# training with the defaults beside a plain loop, on public sets, the demo's films and a text; many hours with all seeds,
# so choose: make accuracy ACCURACY_ARGS="--sets GunPoint --variants gru --seeds 2"
accuracy: .venv/dev-installed build/sets
	$(BIN)/python -m benchmarks.accuracy build/sets/aeon/datasets/data $(ACCURACY_ARGS)

build/sets: | .venv/bin/pip
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --dest build/wheels aeon==1.6.0
	$(BIN)/python -m zipfile -e build/wheels/aeon-1.6.0-*.whl build/sets

test: lint
	$(BIN)/python -m pytest -n auto -m "not slow and not frameworks and not ray" $(PYTEST_ARGS)

# the conversions beside Keras, Flax and Equinox themselves
test-frameworks: .venv/dev-installed .venv/frameworks-installed
	$(BIN)/python -m pytest -m frameworks --require-frameworks $(PYTEST_ARGS)

# scoring on a Ray cluster of two nodes, made here
test-ray: .venv/dev-installed .venv/ray-installed
	$(BIN)/python -m pytest -m ray --require-ray $(PYTEST_ARGS)

test-slow: .venv/dev-installed
	$(BIN)/python -m pytest -n auto -m slow $(PYTEST_ARGS)

lint: .venv/dev-installed
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

format: .venv/dev-installed
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

clean:
	rm -rf .venv build demo-run .mypy_cache .pytest_cache .ruff_cache

# pip comes last into a new venv: without it the venv was left half-made, and is made anew
.venv/bin/pip:
	$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }

.venv/demo-installed: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

.venv/dev-installed: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ .venv/demo-installed

.venv/bench-installed: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

.venv/frameworks-installed: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[frameworks]'
	@touch $@

.venv/ray-installed: pyproject.toml constraints.txt | .venv/bin/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	@touch $@
