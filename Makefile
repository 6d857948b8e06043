# Everything a reader needs: make demo, make test, make lint. Each sets itself up.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help demo test fuzz soak lint format clean
help:            ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(STAMP) need-ip  ## the whole story on this machine: a wrong neighbour, seen and cured
	@$(BIN)/arp-reconciler demo

test: $(STAMP) need-ip need-mosquitto  ## unit, property, kernel and HTTP tests
	@$(BIN)/python -m pytest

fuzz: $(STAMP)   ## the long run of the fuzz tests: netlink bytes and EC2 answers
	@FUZZ_CASES=100000 $(BIN)/python -m pytest tests/fuzz --timeout=0

soak: $(STAMP) need-ip need-mosquitto  ## a real MQTT broker under repairs: two times three minutes
	@$(BIN)/python -m soak --seconds 180

lint: $(STAMP)   ## formatter, linter, strict types, layers
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP) ## let the formatter and the linter mend what they can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:           ## remove everything make has made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed; this is '"`$(PYTHON) --version`"'. Name another one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo 'Python cannot make virtual environments here. Install: apt-get install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: need-ip need-mosquitto
need-mosquitto:
	@PATH="$$PATH:/usr/sbin" command -v mosquitto >/dev/null || { echo 'The soak needs a real message broker. Install: apt-get install mosquitto' >&2; exit 1; }

need-ip:
	@command -v ip >/dev/null || { echo 'The lab needs ip and bridge. Install: apt-get install iproute2' >&2; exit 1; }
