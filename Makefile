# The same commands that CI uses. Two environments: .venv runs the package as a user has it (no torch); .venv-dev has everything.
PYTHON ?= python3
PIP_FLAGS := --disable-pip-version-check --quiet
RUN := .venv/bin
DEV := .venv-dev/bin

.PHONY: run test lint types check pytest bench bench-server schema clean

## run: score the sample conversations with the shipped model
run: .venv/.installed
	$(RUN)/lastresort score data/sample/dialogues.jsonl -o out/sample.scored.jsonl --table
	@echo "machine-readable output: out/sample.scored.jsonl (one line a conversation)"

## test: lint, types and tests, as CI runs them
test: lint types pytest

lint: .venv-dev/.installed
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/lint-imports

types: .venv-dev/.installed
	$(DEV)/mypy src/lastresort training data

pytest: .venv-dev/.installed
	$(DEV)/pytest

## bench: everything side by side, on an idle machine; BENCH_FLAGS=--quick to see that it works, --full for a million turns
bench: .venv-dev/.installed
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false $(DEV)/python tests/benchmarks/compare.py $(BENCH_FLAGS)

## schema: data/schema.json from the types
schema: .venv-dev/.installed
	$(DEV)/python -m lastresort_data.schema > data/schema.json

## bench-server: load, a full queue, kills and a soak of the HTTP service; about an hour
bench-server: .venv-dev/.installed
	$(DEV)/python tests/benchmarks/server all

clean:
	rm -rf .venv .venv-dev build dist out src/*.egg-info

.venv/.installed: pyproject.toml constraints.txt $(shell find src models -type f -not -path '*.egg-info*' -not -name '*.pyc')
	$(PYTHON) -m venv .venv
	$(RUN)/python -m pip install $(PIP_FLAGS) -c constraints.txt --force-reinstall --no-deps .
	$(RUN)/python -m pip install $(PIP_FLAGS) -c constraints.txt .
	@touch $@

.venv-dev/.installed: pyproject.toml constraints.txt tests/node/package-lock.json
	$(PYTHON) -m venv .venv-dev
	$(DEV)/python -m pip install $(PIP_FLAGS) -c constraints.txt torch
	$(DEV)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[train,data,batch,ray,serve,postgres,dev]"
	@if command -v npm >/dev/null && (cd tests/node && npm ci --silent); then :; else echo "no npm, or its packages cannot be had: tests/test_node.py will be skipped"; fi
	@touch $@
