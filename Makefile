# One command each, from nothing but Python 3.11 to 3.13: `make demo` and `make test`.
# Another interpreter: `make test PYTHON=/path/to/python3`.

VENV ?= .venv
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$python && break; done)
RUN = $(VENV)/bin/python

# A shared machine may starve a server for seconds: what failed has one more try, and no third.
AGAIN = --last-failed --last-failed-no-failures none

.PHONY: test matrix demo bench

test: $(VENV)/.installed-test
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	$(RUN) -m pytest || $(RUN) -m pytest $(AGAIN)

matrix: $(VENV)/.installed-test
	$(RUN) -m tools.matrix

demo: $(VENV)/.installed-demo
	$(RUN) -m testproject.demo $(if $(ONCE),--once)

bench: $(VENV)/.installed-bench
	$(RUN) -m tests.benchmarks $(if $(QUICK),--quick)

$(VENV)/.installed-%: pyproject.toml $(VENV)/bin/python
	$(RUN) -m pip install --quiet --editable '.[$*]'
	touch $@

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.13 on PATH: name one, PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || uv venv --clear --seed --python $(PYTHON) $(VENV)
