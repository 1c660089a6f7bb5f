# Every target sets up what it needs: a virtual environment in .venv, installed from hash-locked requirements.
# Needs Python 3.11 or newer with venv, and make. PYTHON=… chooses the interpreter, ARGS=… is passed on.

PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
BIN := .venv/bin
READY := .venv/.ready
PEERS := $(basename $(notdir $(wildcard requirements/peers/*.txt)))
PACKAGES := taskd protocol/taskd_protocol dashboard/taskd_dashboard
SOURCES := $(shell find $(PACKAGES) scripts -type f -not -name '*.pyc' 2>/dev/null)

.DELETE_ON_ERROR:
.PHONY: help demo test check format prove simulate bench bench-curves bench-peers profile binary wheel lock debian clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## watch a workflow go through taskd: server, two agents, one of them killed halfway
	@$(BIN)/taskd demo $(ARGS)

test: $(READY) debian ## run the whole test suite
	@$(BIN)/pytest $(ARGS)

check: $(READY) ## what each commit passes: format, lint, types, layers, and the quick tests
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest tests/unit tests/property tests/store $(ARGS)

format: $(READY) ## put the code into its one format
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix-only --quiet

prove: $(READY) ## play the campaigns of TIER=pr|nightly|release that no report has yet; CAMPAIGN= FROM= TO= MINUTES=
	@PYTHONPATH=tests $(BIN)/python scripts/prove.py --tier $(or $(TIER),pr) $(if $(CAMPAIGN),--campaign $(CAMPAIGN)) \
	    $(if $(FROM),--from $(FROM)) $(if $(TO),--to $(TO)) $(if $(MINUTES),--minutes $(MINUTES))

simulate: $(READY) ## play SEED=n, or SEEDS=first-last, of the whole cluster with all that goes wrong; MODE=safety|liveness|both
	@PYTHONPATH=tests $(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) --mode $(MODE) $(ARGS)

SEEDS := 1-50
MODE := both

bench: $(READY) build/peers/huey/.ready ## measure taskd against its floor, a peer and its promises
	@$(BIN)/python bench/run.py $(ARGS)

bench-curves: $(READY) ## measure throughput and latency against agents, clients, payload, queues, classes, backlog: 15 minutes at most
	@$(BIN)/python bench/curves.py $(ARGS)

bench-peers: $(READY) $(PEERS:%=build/peers/%/.ready) ## measure taskd beside what people would pick instead: an hour at most
	@scripts/debian.sh requirements/debian-peers.txt
	@PYTHONPATH=bench $(BIN)/python -m peers.run $(ARGS)

# Each in an environment of its own: they want different versions of the same things.
build/peers/%/.ready: requirements/peers/%.txt | $(READY)
	@echo "setting up build/peers/$*, once"
	@$(BIN)/python -m venv --clear build/peers/$*
	@build/peers/$*/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@touch $@

profile: $(READY) ## draw flame graphs of server, agent, worker and client under load into build/profile/
	@$(BIN)/python bench/flames.py $(ARGS)

binary: debian dist/taskd ## build dist/taskd, one file that needs no Python, and prove that it works
	@$(BIN)/pytest -m binary tests/e2e/test_binary.py $(ARGS)

dist/taskd: $(READY) $(SOURCES)
	$(BIN)/python scripts/build_binary.py

wheel: $(READY) ## build the wheel into dist/
	@rm -f dist/*.whl
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

lock: build/lock/bin/uv ## resolve the newest dependencies, for every platform, into requirements/
	build/lock/bin/uv pip compile $(LOCK) --output-file requirements/runtime.txt pyproject.toml
	build/lock/bin/uv pip compile $(LOCK) --output-file requirements/dev.txt --all-extras \
	    --constraint requirements/runtime.txt pyproject.toml
	for peer in $(PEERS); do \
	    build/lock/bin/uv pip compile $(LOCK) --output-file requirements/peers/$$peer.txt requirements/peers/$$peer.in || exit 1; \
	done

LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links

build/lock/bin/uv: $(READY)
	$(BIN)/python -m venv build/lock
	build/lock/bin/pip install --quiet uv

debian: ## install the Debian packages of requirements/debian.txt that are missing
	@scripts/debian.sh requirements/debian.txt

clean: ## remove everything that was built, the environment too
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first of the PYTHON candidates that is new enough makes the environment.
$(READY): requirements/dev.txt pyproject.toml
	@for python in $(PYTHON); do \
	    $$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    python=; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "taskd needs Python 3.11 or newer with venv: none among $(PYTHON). Install one (Debian: apt install python3-venv), or name it: make PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	fi; \
	[ -x $(BIN)/pip ] || { echo "setting up .venv with $$($$python --version), once"; $$python -m venv .venv; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q $(PACKAGES) # also where Python is told to write no bytecode: a third of a start
	@touch $@
