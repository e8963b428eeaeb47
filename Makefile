# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 4200
COCO ?= ../shared/data
PROOF ?= proof
PYTEST_OPTIONS := -n 3 --dist loadfile --no-loadscope-reorder # integration tests, the longest, come first
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
NEEDED := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo serve env test lint format doors proof clean ALWAYS

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: demo/report/report.html demo/page.html ## the demo world: built, mined, two students trained, judged and compared
	$(BIN)/python -m shards.verify demo/build
	@echo
	@echo "What was built, picture by picture:    $(CURDIR)/demo/page.html"
	@echo "What the student gets wrong:           $(CURDIR)/demo/student/evaluation/failures.html"
	@echo "Open this page in a browser first:     $(CURDIR)/demo/report/report.html"

serve: $(VENV)/.demo ## Prefect on this machine: server, worker and deployments, until Ctrl-C; PORT=4200
	@$(BIN)/python -m flows.serve --port $(PORT)

# Never written over: PostgreSQL keeps the password with which its volume was made.
env: ## passwords and limits for docker-compose.yml, written to .env once; PORT=4200
	@if [ -e .env ] || [ -L .env ]; then echo ".env is there already and stays as it is; see docs/operations.md"; else \
	$(PYTHON) -c "$$write_env" $(PORT) && echo "Wrote .env, for your eyes alone. Next: docker compose up -d"; fi

define write_env
import os, secrets, sys
port = int(sys.argv[1])
memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') * 3 // 4 // 2**20
lines = [
    '# Read by docker compose, and by every prefect command that is typed in this folder.',
    f'POSTGRES_PASSWORD={secrets.token_hex(24)}',
    f'PREFECT_API_AUTH_STRING=admin:{secrets.token_hex(24)}',
    f'PREFECT_API_URL=http://127.0.0.1:{port}/api',
    f'ABSENTIA_PORT={port}',
    f'ABSENTIA_CPUS={os.cpu_count()}',
    f'ABSENTIA_MEMORY={memory}m',
    '# ABSENTIA_DATA=/a/folder/of/this/machine',
]
descriptor = os.open('.env', os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
with os.fdopen(descriptor, 'w') as file:
    file.write('\n'.join(lines) + '\n')
endef
export write_env

test: $(VENV)/.dev ## the environment and every test
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest $(PYTEST_OPTIONS) # two cores are busy with three, as servers are waited for

lint: $(VENV)/.dev ## ruff, mypy and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## let ruff lay out the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

doors: $(VENV)/.dev ## write tests/golden and docs/architecture.md anew; look at the difference before you commit it
	ABSENTIA_UPDATE_DOORS=1 $(BIN)/python -m pytest -q tests/unit/test_architecture.py tests/unit/test_doors.py

proof: $(VENV)/.demo ## students that were shown different absences, on real pictures; COCO=folder, QUICK=1 for one fold in seven minutes
	$(BIN)/python benchmarks/proof.py $(COCO) --out $(PROOF)$(if $(QUICK),-quick --quick)
	$(BIN)/python benchmarks/proof_page.py $(PROOF)$(if $(QUICK),-quick)

clean: ## remove the environment, the demo and all caches
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

demo/page.html: demo/build/manifest.json $(wildcard shards/page.* shards/common.*) shards/sheet.py shards/show.py
	$(BIN)/python -m shards.show demo/build --out $@

demo/report/report.html: demo/student.judged demo/positives.judged
	$(BIN)/python -m student.report demo/student --baseline demo/positives --out demo/report

demo/%.judged: demo/%.trained
	$(BIN)/python -m student.evaluate demo/$* demo/build
	@touch $@

# What was cut short goes on; what was finished from another build or config starts anew.
demo/%.trained: demo/build/manifest.json examples/demo_student.toml
	@if [ -e $@ ]; then rm -rf demo/$*; fi
	$(BIN)/python -m student.train demo/build --out demo/$* --config examples/demo_student.toml $(TRAIN_$*) \
	$$(test ! -e demo/$*/last.safetensors || grep -q '"finished": true' demo/$*/run.json || echo --resume)
	@touch $@

TRAIN_student := --epochs 11
TRAIN_positives := --epochs 3 --positives-only
.PRECIOUS: demo/%.trained demo/%.judged

# Both commands return at once where their work is done, and then leave the manifest as old as it is.
demo/build/manifest.json: $(VENV)/.demo ALWAYS
	$(BIN)/python examples/demo_world.py --out demo/world --images 1800
	$(BIN)/python -m flows.build_shards demo/world/demo.toml --out demo/build

ALWAYS:

# One environment: what the tests need holds all that the demo needs.
$(VENV)/.demo: $(NEEDED) | $(BIN)/pip
	@echo "Installing into $(VENV); the first time takes some minutes and 7 GB"
	@$(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(NEEDED) | $(BIN)/pip
	@echo "Installing into $(VENV); the first time takes some minutes and 7 GB"
	@$(INSTALL) --editable '.[dev]'
	@touch $(VENV)/.demo $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is \
	$$($(PYTHON) --version 2>&1); expected Python 3.11 or newer; run make again with PYTHON=python3.12 or so" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu \
	install the package python3-venv and run make again" >&2; exit 1; }
