SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# Two commands matter: `make demo` and `make test`. Each prepares .venv by itself.
PYTHON ?= python3
PORT ?= 8080
ADMIN_PORT ?= 9090
PROCESSES ?= 60
WORKERS ?= 1
BIN := .venv/bin
# Which tests: without those that need Debian packages. `.ci/run` has the packages and runs all.
SELECT ?= -m 'not debian'

.PHONY: install tools demo test unit lint format docs pictures bench bench-quick lock clean

install: .venv/.installed

.venv/.installed: requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("gateway needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	touch $@

# What `make bench`, `fuzz`, `sbom` and `audit` need beside it.
tools: .venv/.tools

.venv/.tools: requirements/tools.txt .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/tools.txt
	touch $@

demo: install
	@$(BIN)/gateway demo --port $(PORT) --admin-port $(ADMIN_PORT) --processes $(PROCESSES) --workers $(WORKERS)

test: lint unit

unit: install
	$(BIN)/python -m pytest -n auto --dist worksteal $(SELECT) --cov --cov-report=term
	@$(BIN)/coverage report --include='gateway/core/*,gateway/pipeline/*' --fail-under=95 | tail -1 | sed 's/^TOTAL/core and pipeline:/'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The pages and files that are generated from the code; tests hold them to it.
docs: install
	$(BIN)/python -m gateway.settings.document > docs/settings.md
	$(BIN)/python -m gateway.catalogue > docs/metrics.md
	$(BIN)/gateway schema > config/schema.json
	$(BIN)/python -m grafana.generate

# Pictures of the dashboards for the docs; needs Debian's prometheus.
pictures: tools
	$(BIN)/python -m grafana.draw

# Beside nginx, HAProxy, Envoy, FastAPI and bare aiohttp (Debian: nginx-light haproxy wrk); names what is missing.
bench: tools
	$(BIN)/python bench/run.py

bench-quick: tools
	$(BIN)/python bench/run.py --quick

COMPILE = $(BIN)/pip-compile --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url \
	--no-emit-find-links --no-emit-trusted-host pyproject.toml
lock:
	$(COMPILE) -o requirements/runtime.txt
	$(COMPILE) --extra otel --extra dev --constraint requirements/runtime.txt --build-deps-for wheel -o requirements/dev.txt
	$(COMPILE) --extra tools --constraint requirements/dev.txt -o requirements/tools.txt

.PHONY: fuzz soak outage sbom audit

# Every target for so many seconds: what reaches new code is added to fuzz/corpus, what breaks a law ends it.
fuzz: SECONDS ?= 60
fuzz: tools
	for target in $$($(BIN)/python fuzz/run.py); do $(BIN)/python fuzz/run.py $$target $(SECONDS); done
	$(BIN)/python fuzz/api.py $(SECONDS)

# Real processes, real clients, faults, and every answer compared with what was true.
soak: SECONDS ?= 600
soak: tools
	$(BIN)/python soak/run.py --seconds $(SECONDS)

# Gateways under load whose shared store is killed and restarted, twice: requests, writes and limits against the promises.
outage: SECONDS ?= 120
outage: install
	$(BIN)/python soak/outage.py --seconds $(SECONDS)

sbom: tools
	$(BIN)/cyclonedx-py requirements requirements/runtime.txt --pyproject pyproject.toml --output-reproducible \
		--spec-version 1.6 --output-format JSON --output-file sbom.json
	@echo "sbom.json: $$($(BIN)/python -c 'import json; print(len(json.load(open("sbom.json"))["components"]))') components"

# Asks the advisory service about every locked version; a version it does not know about fails, too.
audit: tools
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements/runtime.txt
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements/dev.txt

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
