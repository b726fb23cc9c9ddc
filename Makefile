# `make` alone lists the targets. PYTHON names the interpreter that .venv is made with:
#     make install PYTHON=python3.12
# Every path below is relative and quoted, so that the checkout may lie in a folder with spaces.

PYTHON ?= python3
ARGS ?=
RUN := .venv/bin/python -m
STAMP := .venv/.installed
BENCH := benchmarks/.venv/.installed

.PHONY: help install demo test check docs bench clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /make \1:/p' Makefile | \
		while IFS=: read -r target purpose; do printf '  %-14s%s\n' "$$target" "$$purpose"; done

install: $(STAMP) ## make .venv with everything in it; nothing to do the second time

demo: install ## train on real English for two minutes, then score and write text
	@.venv/bin/lstmlm demo

test: install ## run every test, the examples in docstrings included, on all cores (ARGS="-k state" selects)
	@$(RUN) pytest --numprocesses=logical --dist=worksteal $(ARGS)

check: install ## lint, format, types, import floors
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) pytest --quiet tests/contract/test_floors.py

docs: install ## build the documentation into docs/_build/html, warnings being errors
	@$(RUN) sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(BENCH) ## set up the benchmarks and their peers; see benchmarks/README.md
	@echo "ready: benchmarks/.venv/bin/python benchmarks/NAME.py --data FOLDER; benchmarks/README.md says which"

clean: ## remove .venv and all that was built
	rm -rf .venv benchmarks/.venv build dist docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find lstmlm plugins tests docs -type d -name __pycache__ -prune -exec rm -rf {} +

# The stamp is written last: an install that was broken off is taken up again by the next one.
# A Python without ensurepip (Debian's, say) can't put pip into .venv; its own pip does from outside.
# $(1): the environment's folder, $(2): what pip installs there.
define environment
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "lstmlm needs Python 3.11 or newer, and PYTHON=$(PYTHON) is not:" \
			"name one with 'make install PYTHON=/path/to/python3'." >&2; exit 1; }
	@rm -f $(1)/.installed
	@set -e; \
	if "$(PYTHON)" -c 'import ensurepip' 2>/dev/null; then \
		"$(PYTHON)" -m venv $(1); \
		set -- $(1)/bin/python -m pip; \
	else \
		"$(PYTHON)" -m venv --without-pip $(1); \
		set -- "$(PYTHON)" -m pip --python $(1); \
		"$$@" --version >/dev/null 2>&1 || { \
			echo "$(PYTHON) has neither ensurepip nor pip 22.3 or newer:" \
				"install one of them (on Debian: apt install python3-venv)." >&2; exit 1; }; \
	fi; \
	"$$@" install --disable-pip-version-check --constraint constraints.txt $(2)
	@touch $(1)/.installed
endef

$(STAMP): pyproject.toml constraints.txt
	$(call environment,.venv,--editable '.[all]')

$(BENCH): pyproject.toml constraints.txt benchmarks/requirements.txt
	$(call environment,benchmarks/.venv,--editable . --requirement benchmarks/requirements.txt)
