# `make demo` and `make test` need Python 3.11 or newer, pip and make; everything else goes into .venv.

PYTHON ?= python3
VENV := .venv
STORM := --events 1000000
PYTHONS := python3.11 python3.12 python3.13 python3.14 python3.15
SUITE := tests/unit tests/virtual tests/command
BIN := $(VENV)/bin
READY := $(VENV)/ready
PYTEST := $(BIN)/pytest -n 4 --dist loadgroup

# Four processes also on two cores: half of the time the tests of the command wait for timers and processes. The tests
# of pure functions wait for nothing, and every process collects them all.
# TEST_TIMEOUT_FACTOR=5 gives a slow machine more time; TEST_PROFILE=thorough draws many more examples.
unexport PYTHONDONTWRITEBYTECODE  # a thousand processes of the tests would compile the package anew

.PHONY: demo unit test stress check pythons format docs interop chaos attacks soak storm rotate bench clean

demo: $(BIN)/kraken-feed  ## The real tail against the embedded exchange, for 15 seconds
	@echo "The feed goes live, is cut off after six seconds, and recovers what it missed:"
	@$(BIN)/kraken-feed demo --duration 15

unit: $(READY)  ## The tests of pure functions: seconds
	$(BIN)/pytest -n 2 --dist loadgroup tests/unit

test: $(READY)  ## All tests but those that are long on purpose
	$(PYTEST) $(SUITE)

stress: $(READY)  ## The tests that are long on purpose: chaos, attacks, soak, rotate, storm and full disks, in small
	$(BIN)/pytest -n 2 --dist loadgroup tests/stress
	TEST_PROFILE=full $(PYTEST) tests/unit tests/virtual tests/command -m "hypothesis or seeds"

check: $(READY)  ## Format, lint and types, then what `make test` runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

pythons:  ## `make test` on every supported Python that is on the path, or on those in PYTHONS="python3.14 /opt/bin/python3.15"
	@for python in $(PYTHONS); do \
	  $$python -c "" 2>/dev/null || { echo "$$python: not on the path"; continue; }; \
	  venv=$(VENV)-$${python##*python}; \
	  test -d $$venv || $$python -m venv $$venv && \
	  $$venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev,socks,metrics,watch]' && \
	  echo "$$($$venv/bin/python -V):" && $$venv/bin/pytest -n 4 --dist loadgroup $(SUITE) || exit 1; \
	done

format: $(READY)  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)  ## The tables in docs/ that are generated from the code
	$(BIN)/python -m tests.support.pages

interop: $(READY)  ## Clients that others wrote against the simulator, each in an environment of its own
	$(BIN)/python -m tests.command.interop.run --losses

chaos: $(READY)  ## The installed command under every fault, kills and restarts; its output against the ledger
	$(BIN)/python -m tests.stress.chaos

attacks: $(READY)  ## The installed command with wrong clocks, suspends, slow readers, lost files, power cuts and odd histories
	$(BIN)/python -m tests.stress.attacks

soak: $(READY)  ## The installed command with two accounts under faults for half an hour: nothing lost, nothing grows
	$(BIN)/python -m tests.stress.soak --minutes 30

storm: $(READY)  ## The client, its disk, its clocks and the exchange in one process and in virtual time, from seeds: STORM="--minutes 10"
	$(BIN)/python -m tests.stress.storm $(STORM)

rotate: $(READY)  ## The output is rotated ten times under load; every line is in one of the files, once
	$(BIN)/python -m tests.stress.rotate

bench: $(READY)  ## What a frame costs, against a floor and against others, in a quarter of an hour (BENCH=--quick: in three minutes)
	$(BIN)/python -m bench $(BENCH)

# For the demo alone: the program and nothing for tests. `make test` installs the rest.
$(BIN)/kraken-feed:
	@echo "Installing kraken-feed into $(VENV): about ten seconds ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,socks,metrics,watch]'
	touch $@

clean:
	rm -rf $(VENV) .interop .bench build dist *.egg-info
