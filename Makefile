# `make up` runs Ringback on this machine, `make test` proves it. Both install what they need into .venv first.
# Python 3.11 or newer and make are all that has to be there.

PYTHON ?= $(shell for v in 3.13 3.12 3.11 3; do command -v python$$v >/dev/null && \
  python$$v -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo python$$v && break; done)
BIN := .venv/bin

.PHONY: help up test test-asterisk fuzz asterisk-up check format docs dist audit chaos bench bench-asterisk bench-speech lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

up: .venv/embedded ## Run Ringback on this machine
	@exec $(BIN)/ringback up

# Every part side by side: unit, integration and acceptance tests, and those on a real Asterisk. With CI=true the checks
# of `make check`, too. Where Debian's Asterisk cannot be had, its tests are left out, and the summary says so. With
# CI=true that is a failure. `make test ARGS="tests/unit -k numbers"` runs pytest with these arguments and nothing else.
test: .venv/dev ## Run all tests side by side, or with ARGS some of them
	@$(BIN)/python -m tests $(ARGS)

# Fetches Asterisk and SIPp (75 MB, once) without installing anything
test-asterisk: .venv/dev ## Run the tests on a real Asterisk with SIPp telephones
	@$(BIN)/python -m tests tests/asterisk -n 3 $(ARGS)

# Several minutes: many more random requests than `make test` sends
fuzz: .venv/dev ## Send many random requests to a running server
	@FUZZ_EXAMPLES=200 $(BIN)/python -m tests tests/acceptance/test_fuzz.py $(ARGS)

# The same Asterisk and telephones, to try calls with
asterisk-up: .venv/dev ## Run that Asterisk with telephones, to try calls
	@exec $(BIN)/python -m lab

check: .venv/dev ## Check format, lint rules, types and migrations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tools.check_migrations

format: .venv/dev ## Format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/dev ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build && echo "Open site/index.html"

# The list is made of the lock alone, so the same lock gives the same file. The tool warns that a lock tells nothing of
# who needs whom.
dist: .venv/dev ## Build the wheel and its list of components (SBOM) into dist/
	$(BIN)/hatchling build --target wheel
	$(BIN)/python -W ignore::UserWarning -m cyclonedx_py requirements requirements/server.txt --pyproject pyproject.toml --mc-type application --output-reproducible --output-format JSON --output-file dist/ringback.cdx.json

# dev.txt has what the other two have. --strict: a requirement that PyPI does not know is a failure, too.
audit: .venv/dev ## Ask PyPI for known vulnerabilities of the locked requirements
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements/dev.txt || \
	  { echo "A vulnerability above: make lock, then make test. An error above, such as a failed connection or 'could not be audited': this machine cannot reach PyPI's list of vulnerabilities, and nothing is known"; exit 1; }

# Several minutes: workers killed and frozen, Valkey flushed and killed, PostgreSQL stopped. ARGS="--calls 500"
chaos: .venv/dev ## Place 500 calls while servers and workers are killed
	$(BIN)/python -m bench.chaos $(ARGS)

# About ten minutes: the figures of docs/benchmarks.md
bench: .venv/dev ## Measure the API (10 minutes; needs wrk)
	$(BIN)/python -m bench.api $(ARGS)

# Four minutes: calls on a real Asterisk
bench-asterisk: .venv/dev ## Measure calls on a real Asterisk (4 minutes)
	$(BIN)/python -m bench.asterisk $(ARGS)

# About ten minutes: crosstalk, echo and one signal on two channels, with and without the choice of channels
bench-speech: .venv/dev ## Measure transcripts of bad lines, and their cost (20 minutes)
	$(BIN)/python -m bench.speech $(ARGS)

# After a change of dependencies in pyproject.toml
lock: .venv/dev ## Lock the requirements after a change in pyproject.toml
	$(BIN)/python tools/lock.py

clean: ## Remove the environment, caches and build results
	rm -rf .venv dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis

# An environment that has the locked requirements of this name. A changed lock file installs again. Without --no-compile,
# pip takes half as long again, to compile modules that are never imported.
.venv/%: requirements/%.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Ringback needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BIN)/python || { echo "Creating .venv with $(PYTHON)"; $(PYTHON) -m venv .venv || \
	  { rm -rf .venv; echo "If venv is missing: on Debian and Ubuntu, install the package python3-venv"; exit 1; }; }
	@echo "Installing the locked requirements of $< (about a minute the first time)"
	@$(BIN)/python -m pip --disable-pip-version-check install --no-compile --require-hashes -r $< || \
	  { echo "Installing failed: see above. It needs a package index; without a network, pip can take a folder of wheels: PIP_NO_INDEX=1 PIP_FIND_LINKS=/path/to/wheels make up"; exit 1; }
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --no-build-isolation --no-deps -e .
	@touch $@
