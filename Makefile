PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
JOBS ?= 2

CONFIG ?= sim_8x8
BOARD ?= ulx3s_85f
RUN ?= train --config $(CONFIG) --model mlp --dataset digits --device verilator --report build/run --save build/run/checkpoint.npz --resume-if-present
CONVRUN ?= train --model fixup_resnet --dataset digits --device verilator --report build/convrun --save build/convrun/checkpoint.npz --resume-if-present
SMALLRUN ?= train --config up5k_4x4 --model mlp --dataset digits --device verilator --report build/smallrun --save build/smallrun/checkpoint.npz --resume-if-present
PINS ?= train --config up5k_4x4 --model mlp --dataset digits --device board:icebreaker --max-steps 89 --test-samples 64
BENCH ?= bench --out docs/results/bench
SIM ?=
PYTEST ?=
PROGRAMS ?= 2000
SEED ?= 0
UNIT ?=

.DEFAULT_GOAL := help
.PHONY: help install run convrun smallrun test lint verilog sim campaign experiments bitstream timing area scaling-unit silicon bench clean distclean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "variables: CONFIG=$(CONFIG) BOARD=$(BOARD) JOBS=$(JOBS) PYTHON=$(PYTHON) PYTEST='tests/test_x.py -k name'"

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "wanted Python 3.11 or later (make PYTHON=...), got " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

install: $(INSTALLED)  ## the virtual environment with everything in it

run: $(INSTALLED)  ## train a network on the simulated accelerator, every instruction compared with the golden machine
	$(BIN)/shiftgrad $(RUN)

convrun: $(INSTALLED)  ## long: the same for a Fixup ResNet of 3 blocks
	$(BIN)/shiftgrad $(CONVRUN)

smallrun: $(INSTALLED)  ## long: the digits network on the UP5K's machine, then an epoch at the iCEBreaker's serial pins
	$(BIN)/shiftgrad $(SMALLRUN)
	$(BIN)/shiftgrad $(PINS)

test: $(INSTALLED)  ## all tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(PYTEST)

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check
	$(BIN)/mypy

verilog: $(INSTALLED)  ## Verilog, C header and description of every configuration, in build/verilog
	$(BIN)/shiftgrad generate --out build/verilog

sim: $(INSTALLED)  ## the cocotb benches: AXI4-Lite pin by pin, pauses crossed
	$(BIN)/python -m sim.benches $(SIM)

campaign: $(INSTALLED)  ## long: random programs on every size of array, compared after every instruction
	for size in 4 8 12 16; do $(BIN)/python -m sim.campaign --size $$size --programs $(PROGRAMS) --seed $(SEED) || exit 1; done

experiments: $(INSTALLED)  ## days: int8 beside float over batch sizes; MNIST=DIR CIFAR10=DIR HOURS=H TAKE=JSON; goes on where it was
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[torch]'
	$(BIN)/python -m experiments run $(if $(MNIST),--mnist '$(MNIST)') $(if $(CIFAR10),--cifar10 '$(CIFAR10)') \
		$(if $(HOURS),--hours $(HOURS)) $(if $(TAKE),--take '$(TAKE)')
	$(BIN)/python -m experiments report

bitstream: $(INSTALLED)  ## bitstream and timing report for BOARD
	$(BIN)/shiftgrad bitstream --board $(BOARD)

area: $(INSTALLED)  ## LUTs, flip-flops, multipliers and RAMs of BOARD by unit, in docs/results; after make bitstream
	$(BIN)/shiftgrad area --board $(BOARD)

timing: $(INSTALLED)  ## speed and size of every unit of the machine alone on the ECP5 (UNIT=name for one, with its slowest path)
	$(BIN)/python -m shiftgrad.unit_timing $(UNIT) --size 8 --json build/timing.json

scaling-unit: $(INSTALLED)  ## FP32 batch normalisation beside the lane's scaling by shifts, in docs/results
	$(BIN)/python -m experiments scaling-unit

silicon: $(INSTALLED)  ## hours: clock and size of every board, three seeds each, for make bench; goes on where it was; HOURS=H
	$(BIN)/shiftgrad silicon $(if $(HOURS),--hours $(HOURS))

bench: $(INSTALLED)  ## utilisation by phase and layer, scaling, speed beside PyTorch, boards built; in docs/results/bench
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[torch]'
	$(BIN)/shiftgrad $(BENCH)

clean:  ## remove what builds made
	rm -rf build

distclean: clean  ## remove the virtual environment and caches too
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find golden hw shiftgrad sim tests -name __pycache__ -prune -exec rm -rf {} +
