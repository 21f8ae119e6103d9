# Two commands are all a newcomer needs: `make demo` and `make test`. Each sets up what
# it needs in .venv; only Python 3.11 or later with venv and pip must be there.
PYTHON ?= python3
VENV   ?= .venv
# Two test workers on two cores: more threads inside each only get in the way.
export OPENBLAS_NUM_THREADS = 1
BIN    := $(VENV)/bin

.PHONY: help demo test unit lint types contracts wheel bench campaign-wire campaign-kill \
  campaign-cuts campaign-lanes campaign-machine campaign-soak campaign-stores \
  campaign-technician docs clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "PPU needs Python 3.11 or later; say make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "no venv module: install it (Debian: apt-get install python3-venv)"; exit 1; }

$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "installing PPU into $(VENV) ..."
	@$(BIN)/python -m pip uninstall --quiet --yes ppu 2>/dev/null  # its former name
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing PPU and its development tools into $(VENV) ..."
	@$(BIN)/python -m pip uninstall --quiet --yes ppu 2>/dev/null  # its former name
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(VENV)/.run $@

demo: $(VENV)/.run  ## Make barium titanate on the simulated lab and open nothing but a report
	@$(BIN)/ppu run solid_state_synthesis

# loadfile: the tests of one file share what they computed (loadgroup does nothing with
# pytest 9.2 and xdist 3.8).
# COVERAGE=1 also measures which lines ran in the tests that look at one thing each, an
# instrument for one, and in those that start processes, child processes too, and fails
# below the floor of pyproject.toml. Measuring doubles what a test takes, so whole labs
# run without it.
RUN_TESTS   := pytest -n 2 --dist loadfile -q
INSTRUMENTS := alicat eurotherm furnace_faults hands gate_rules labman lines mettler \
  operator panalytical played_person scales
MEASURED    := tests/contract tests/system tests/transcripts tests/unit ppu drivers simulators \
  protocols $(wildcard $(INSTRUMENTS:%=tests/integration/test_%*.py))
test: $(VENV)/.dev  ## Run all tests
ifdef COVERAGE
	@rm -rf build/coverage
	@$(BIN)/python -m coverage run -m $(RUN_TESTS) $(MEASURED)
	@$(BIN)/python -m coverage combine -q
	@$(BIN)/python -m coverage report
	@$(BIN)/python -m $(RUN_TESTS) tests $(addprefix --ignore=,$(filter tests/%,$(MEASURED)))
else
	@$(BIN)/python -m $(RUN_TESTS)
endif

unit: $(VENV)/.dev  ## Run the unit tests only
	@$(BIN)/python -m pytest -n 2 -q tests/unit ppu drivers simulators protocols

lint: $(VENV)/.dev  ## Check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## Check types
	@$(BIN)/mypy

contracts: $(VENV)/.dev  ## Check who may import whom
	@$(BIN)/lint-imports

wheel: $(VENV)/.dev  ## Build sdist and wheel, and try the wheel in a fresh environment
	@$(BIN)/python tests/wheel/check_wheel.py

bench: $(VENV)/.dev  ## Measure, and write docs/performance.md
	@PYTHONPATH=tests $(BIN)/python tests/bench/bench.py docs/performance.md

# SHARE=0.01 is what CI runs.
SHARE ?= 1
campaign-wire: $(VENV)/.dev  ## Ask hundreds of thousands of times while wires fail (15 min)
	@PYTHONPATH=tests $(BIN)/python tests/campaign/wire.py --share $(SHARE) \
	  $(if $(filter 1,$(SHARE)),--page docs/performance.md)

# KILLS=6 is what CI runs.
KILLS ?= 150
campaign-kill: $(VENV)/.dev  ## Kill cells and guards of a busy lab at random (30 min)
	@PYTHONPATH=tests $(BIN)/python tests/campaign/kill.py --kills $(KILLS) \
	  $(if $(filter 150,$(KILLS)),--page docs/performance.md)

campaign-cuts: $(VENV)/.dev  ## Let a process die at each of thousands of commits (15 min)
	@PYTHONPATH=tests $(BIN)/python tests/campaign/cuts.py --page docs/performance.md

campaign-lanes: $(VENV)/.dev  ## Make 24 samples at once, and one alone (2 min)
	@PYTHONPATH=tests $(BIN)/python tests/campaign/lanes.py --page docs/performance.md

# The tests play 50 sequences.
campaign-machine: $(VENV)/.dev  ## A thousand sequences of requests, faults and deaths (20 min)
	@PPU_MACHINE_SEQUENCES=1000 $(BIN)/python -m pytest -q -s \
	  tests/integration/test_cell_machine.py

# DAYS=1 is what CI runs. Few malloc arenas: the same as deploy/ppu-guard@.service has.
DAYS ?= 30
campaign-soak: $(VENV)/.dev  ## Run jobs for a month, with a fault every hour (20 min)
	@PYTHONPATH=tests MALLOC_ARENA_MAX=2 $(BIN)/python tests/campaign/soak.py --days $(DAYS) \
	  $(if $(filter 30,$(DAYS)),--page docs/performance.md)

# STORE_KILLS=4 is quick.
STORE_KILLS ?= 40
campaign-stores: $(VENV)/.dev  ## Lose, fill, stop and roll back the store of a hot lab (40 min, as root)
	@PYTHONPATH=tests $(BIN)/python tests/campaign/stores.py --kills $(STORE_KILLS) \
	  $(if $(filter 40,$(STORE_KILLS)),--page docs/performance.md)

# The tests run eight of a gentler kind.
JOBS ?= 300
campaign-technician: $(VENV)/.dev  ## Three hundred jobs with a technician beside (40 min)
	@PYTHONPATH=tests $(BIN)/python tests/campaign/technician.py --jobs $(JOBS) \
	  $(if $(filter 300,$(JOBS)),--page docs/performance.md)

docs: $(VENV)/.dev  ## Write the pages that are made from code
	@$(BIN)/ppu instruments --markdown > docs/reference/instruments.md
	@PYTHONPATH=tests $(BIN)/python tests/rooms.py

clean:  ## Remove everything that was built or installed here
	rm -rf $(VENV) build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis \
	  .import_linter_cache
