# Everything below works on a machine with Python 3.11+ and nothing else of ours.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
MODELS := .venv/.models
export PYANNOTE_METRICS_ENABLED := 0
export RAY_USAGE_STATS_ENABLED := 0
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo run test test-all simulate check bench openapi

setup: $(READY) $(MODELS)

$(READY): pyproject.toml configs/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
	    --constraints configs/constraints.txt --group dev --editable .
	$(BIN)/python -c "from deployments.prosody import config, registry; registry.create(config.ProsodyConfig())"  # numba's cache
	$(BIN)/python -m compileall -q serve_app deployments ml_server_client
	touch $@

$(MODELS): $(READY) configs/local.yaml configs/models.lock.yaml
	$(BIN)/ml-server models fetch --config configs/local.yaml
	touch $@

demo: setup
	$(BIN)/ml-server demo

run: setup
	$(BIN)/ml-server up

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --no-loadscope-reorder

test-all: setup
	$(BIN)/python -m pytest -m "full or not full" --timeout=3600

SEEDS ?= 10000
simulate: setup
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/oxlint serve_app/console
	$(BIN)/oxfmt --check 'serve_app/console/*.js'

bench: setup
	$(BIN)/python -m tests.benchmarks $(PARTS)

openapi: setup
	$(BIN)/python -m serve_app.api.write_openapi > docs/openapi.json
