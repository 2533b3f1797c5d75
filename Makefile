# make serve   the demo and its dashboard      make test      the fast tests
# make lint    ruff, mypy, import rules        make test-all  every test that runs here
# make bench   multiloop beside its peers, in one run; writes docs/benchmarks/ (make bench-quick: three minutes)
# make docs    the documentation as a site, in site/
# make wheels  a wheel for each CPython from 3.11 to 3.14 that is found, in dist/
# make bench-check   instruction counts against the baseline (make bench-check-update writes a new one)
# make faults  the fault matrix, as a table (an hour)
# make test-engines   the tests with a real Ray, Dask, Redis and HAProxy, in an environment of their own (large)
#
# Each makes its own environment in .venv: only Python 3.11 or later and make are needed. PORT=8080, ADMIN_PORT=9090 and
# PYTHON=python3.13 choose other ports or another interpreter; ARGS="-k name" goes to pytest.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start hundreds of processes: each would compile anew what it imports.
unexport PYTHONDONTWRITEBYTECODE

# The first interpreter that is new enough: a plain python3 may be older than one beside it.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do "$$p" -c "$(NEW_ENOUGH)" 2>/dev/null && echo "$$p" && break; done)

# A group of dependencies in pyproject.toml, one a line: old pips cannot read groups.
GROUP = import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"][sys.argv[1]], sep="\n")
# The port that is asked for if nobody has it, else a free one.
FREE_PORT = import socket, sys; wanted = int(sys.argv[1]); busy = not socket.socket().connect_ex(("127.0.0.1", wanted)); \
	print(socket.create_server(("127.0.0.1", 0 if busy else wanted)).getsockname()[1])

.PHONY: help serve test test-all test-engines faults lint docs wheels bench bench-quick bench-check bench-check-update bench-tools clean
.DEFAULT_GOAL := help

help:
	@sed -n '1,11s/^# \{0,1\}//p' Makefile

serve: $(VENV)/installed
	@port=$${PORT:-$$($(BIN)/python -c '$(FREE_PORT)' 8000)}; \
	admin=$${ADMIN_PORT:-$$($(BIN)/python -c '$(FREE_PORT)' 9000)}; \
	token=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(24))'); \
	dashboard="http://127.0.0.1:$$admin/?token=$$token"; \
	echo "the demo:      http://127.0.0.1:$$port/"; \
	echo "its dashboard: $$dashboard"; \
	DEMO_DASHBOARD="$$dashboard" MULTILOOP_ADMIN_TOKEN="$$token" exec $(BIN)/multiloop serve app:app \
		--app-dir examples/demo --host 127.0.0.1 --port "$$port" --workers auto --admin "$$admin" --admin-actions

test: $(VENV)/installed-test
	@$(BIN)/python -m compileall -q src
	@$(BIN)/python -m pytest -q -n 3 -m "not slow and not browser and not faults and not engines" $(ARGS)

test-all: $(VENV)/installed-test
	@$(BIN)/python -m compileall -q src
	@$(BIN)/python -m pytest -q -m "not faults" $(ARGS)

faults: $(VENV)/installed-test
	@$(BIN)/python -m tests.faults $(ARGS)

# Ray and Dask are large: they are in an environment of their own, which sees all that is in the other. What has no wheel for this Python
# is left out, and its tests are skipped.
ENGINES := $(VENV)-engines
test-engines: $(ENGINES)/installed
	@$(ENGINES)/bin/python -m pytest -q -n 2 --dist loadgroup -m engines $(ARGS) tests/engines

$(ENGINES)/installed: $(VENV)/installed-test
	@echo "installing Ray, Dask and Redis' client into $(ENGINES)"
	@rm -rf $(ENGINES) && $(BIN)/python -m venv $(ENGINES)
	@there=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	here=$$($(ENGINES)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	echo "import site; site.addsitedir('$$there')" > "$$here/tests-environment.pth"
	@$(BIN)/python -c '$(GROUP)' engines | while read -r package; do \
		$(ENGINES)/bin/python -m pip install -q --only-binary :all: "$$package" || echo "$$package cannot be installed: its tests are skipped"; \
	done
	@touch $@

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed-docs
	@$(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

wheels: $(VENV)/installed-wheels
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/wheels.py $(ARGS)

# The benchmarks need nothing but Python here: they make environments of their own in .bench.
bench: | $(BIN)/python
	@$(BIN)/python -m bench run $(ARGS)

bench-quick: | $(BIN)/python
	@$(BIN)/python -m bench run --quick $(ARGS)

bench-check: | $(BIN)/python
	@$(BIN)/python -m bench check $(ARGS)

bench-check-update: | $(BIN)/python
	@$(BIN)/python -m bench check --update

# Load generators, the database, counters and profilers, on Debian and Ubuntu.
bench-tools:
	apt-get install -y wrk apache2-utils postgresql npm valgrind gcc linux-perf

clean:
	rm -rf $(VENV) $(ENGINES) .bench build dist site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# Stamps: what is installed is installed again only when pyproject.toml says something new.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python of at least 3.11 found: install one, or say make PYTHON=/path/to/python"; exit 1; }
	@"$(PYTHON)" -c "$(NEW_ENOUGH)" 2>/dev/null || { echo "$(PYTHON) is older than Python 3.11"; exit 1; }
	@echo "making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV) || { echo "python -m venv failed (Debian and Ubuntu: apt install python3-venv)"; rm -rf $(VENV); exit 1; }

$(VENV)/installed: pyproject.toml $(wildcard setup.py) | $(BIN)/python
	@echo "installing multiloop into $(VENV)"
	@$(BIN)/python -m pip install -q -e .
	@touch $@

KINDS := test lint docs wheels
$(KINDS:%=$(VENV)/installed-%): $(VENV)/installed-%: $(VENV)/installed
	@echo "installing what make $* needs"
	@$(BIN)/python -c '$(GROUP)' $* > $(VENV)/$*.txt
	@$(BIN)/python -m pip install -q -r $(VENV)/$*.txt
	@touch $@
