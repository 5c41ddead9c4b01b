"""hw.lfsr against the golden generator."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from golden.generator import xorshift_step
from hw.lfsr import Lfsr


def states(seed, count):
    """``seed`` and the ``count`` states after it."""
    found = [np.uint32(seed)]
    for _ in range(count):
        found.append(xorshift_step(found[-1]))
    return [int(state) for state in found]


def run(bench):
    dut = Lfsr()
    sim = Simulator(dut)
    sim.add_clock(1e-8)

    async def testbench(ctx):
        await bench(ctx, dut)

    sim.add_testbench(testbench)
    sim.run()


async def load(ctx, dut, seed):
    ctx.set(dut.load, 1)
    ctx.set(dut.load_data, seed)
    await ctx.tick()
    ctx.set(dut.load, 0)


@pytest.mark.parametrize("seed", [0, 1, 2, 1 << 31, 0xFFFFFFFF, 0x9E3779B9])
def test_two_steps_an_advance(seed):
    async def bench(ctx, dut):
        await load(ctx, dut, seed)
        wanted = states(seed or 1, 200)
        ctx.set(dut.advance, 1)
        for i in range(100):
            assert ctx.get(dut.state) == wanted[2 * i]
            assert ctx.get(dut.r1) == wanted[2 * i + 1] >> 8
            assert ctx.get(dut.r2) == wanted[2 * i + 2] >> 8
            await ctx.tick()

    run(bench)


def test_reset_hold_and_load_wins():
    async def bench(ctx, dut):
        assert ctx.get(dut.state) == 1
        await ctx.tick().repeat(3)
        assert ctx.get(dut.state) == 1
        ctx.set(dut.advance, 1)
        await load(ctx, dut, 77)
        assert ctx.get(dut.state) == 77
        await ctx.tick()
        assert ctx.get(dut.state) == states(77, 2)[2]

    run(bench)


def test_every_state_bit_moves_as_the_model_does():
    """The step is linear over GF(2): agreeing on a basis (and on 0) is agreeing everywhere, so on the whole period."""
    async def bench(ctx, dut):
        ctx.set(dut.advance, 1)
        for bit in range(32):
            await load(ctx, dut, 1 << bit)
            assert ctx.get(dut.state) == 1 << bit
            await ctx.tick()
            assert ctx.get(dut.state) == states(1 << bit, 2)[2]

    run(bench)
