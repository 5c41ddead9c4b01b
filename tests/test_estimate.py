"""The cycle and resource estimates."""

from __future__ import annotations

import json

import pytest

from shiftgrad.compiler import compile_network
from shiftgrad.config import CONFIGS, Config
from shiftgrad.cycles import HALT, LOOPS, LOSS_END, OPERAND, PASS, SETUP, Cost, tile_cycles
from shiftgrad.estimate import Estimate, estimate, resources
from shiftgrad.isa import Opcode
from shiftgrad.models import mlp


def estimate_of(scale: str = "delayed", first_step: bool = False, name: str = "ulx3s_85f_8x8") -> Estimate:
    plan = compile_network(mlp(784, (128,), 10), CONFIGS[name], batch=32, lr_shift=4, scale=scale)
    return estimate(plan, first_step=first_step)


def cost(result: Estimate, phase: str, layer: str) -> Cost:
    return next(c for c in result.costs if (c.instruction.phase, c.instruction.layer) == (phase, layer))


@pytest.mark.parametrize(("opcode", "reduction", "cycles"), [
    (Opcode.FWD, 1, 8), (Opcode.FWD, 8, 8), (Opcode.FWD, 9, 16), (Opcode.BWD, 10, 16),
    (Opcode.GRAD, 1, 8), (Opcode.GRAD, 8, 8), (Opcode.GRAD, 9, 9), (Opcode.GRAD, 32, 32),
])
def test_tile_cycles(opcode: Opcode, reduction: int, cycles: int) -> None:
    assert tile_cycles(opcode, reduction, 8) == cycles


def test_tiles_and_passes() -> None:
    result, overhead = estimate_of(), PASS[0] * 8 + PASS[1]
    forward = cost(result, "forward", "fc1")
    assert (forward.tiles, forward.tile, forward.passes, forward.macs) == (4 * 16, 784, 1, 32 * 128 * 784)
    assert forward.cycles == SETUP + 4 * OPERAND + 64 * 784 + overhead
    weights = cost(result, "weights", "fc2")
    assert (weights.tiles, weights.tile, weights.macs) == (16 * 2, 32, 128 * 10 * 32)
    bias = cost(result, "bias", "fc2")
    assert (bias.tiles, bias.tile) == (2, 32)
    assert cost(result, "loss", "").cycles == SETUP + 3 * OPERAND + 32 * (16 + 19) + 16 + LOSS_END
    assert cost(result, "halt", "").cycles == HALT


def test_range_passes_double_the_array_time() -> None:
    once, setup = cost(estimate_of(), "forward", "fc1").cycles, SETUP + 4 * OPERAND
    for result in (estimate_of("current"), estimate_of(first_step=True)):
        forward = cost(result, "forward", "fc1")
        assert forward.passes == 2 and forward.cycles - setup == 2 * (once - setup) + LOOPS
        assert forward.macs == 32 * 128 * 784


def test_sums() -> None:
    result = estimate_of()
    for program in ("train", "evaluate"):
        assert sum(result.phases(program).values()) == result.cycles(program)
    macs = sum(c.macs for c in result.costs if c.instruction.program == "train")
    assert macs == 32 * (2 * 784 * 128 + 3 * 128 * 10 + 10 + 128)
    assert result.utilisation() == macs / (result.cycles() * 64) < 1
    assert result.samples_per_second(100) == 32 * 100e6 / result.cycles()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_phase_never_beats_the_peak(name: str) -> None:
    config = CONFIGS[name]
    plan = compile_network(mlp(100, (30, 17), 10), config, batch=5, lr_shift=4)
    assert all(c.macs <= c.cycles * config.macs_per_cycle for c in estimate(plan).costs)


def test_resources() -> None:
    board = resources(CONFIGS["ulx3s_85f_8x8"])
    assert board.dsp == 78
    large = resources(CONFIGS["ulx3s_85f_12x12"])
    assert (large.dsp, large.blocks) == (150, 193)
    assert board.block_ram == {"act": 16, "err": 8, "wgt": 64, "mom": 64, "vec": 8, "program": 2, "table": 7,
                               "loss and link": 4}
    assert board.blocks == 173 <= 208  # as placed
    small = resources(Config(name="c", size=4, act_words=4, err_words=2048, wgt_words=2049))
    assert [small.block_ram[name] for name in ("act", "err", "wgt")] == [4, 4, 8]
    assert small.lut < board.lut and small.ff < board.ff


def test_reports() -> None:
    result = estimate_of()
    data = json.loads(json.dumps(result.to_json()))
    assert data["programs"]["train"]["cycles"] == result.cycles()
    assert len(data["instructions"]) == len(result.plan.instructions)
    assert f"train: {result.cycles()} cycles" in result.table() and "78 multipliers, 173 block RAMs" in result.table()
