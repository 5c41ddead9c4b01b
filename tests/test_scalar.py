"""hw.scalar against golden.numerics: every distance, values at the corners."""

import random

import numpy as np
from amaranth.sim import Simulator

from golden.numerics import align, saturate
from golden.vector import scalar_term
from hw.scalar import ScalarUnit

SEED = 99
CORNERS = (-32768, -32767, -16384, -129, -128, -127, -3, -2, -1, 0, 1, 2, 3, 127, 128, 16384, 32767)


def test_every_distance():
    """The value, its int8 and the cycles they take; the result stays until the next start."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = ScalarUnit()

    async def bench(ctx):
        for d in range(-31, 32):
            ties = [(2 * n + 1) << -d - 1 for n in (-2, -1, 0, 1)] if -15 <= d < 0 else []
            for value in (*CORNERS, *(v for v in ties if -32768 <= v < 32768), *(rng.randint(-32768, 32767)
                                                                                for _ in range(6))):
                for name, given in (("start", 1), ("value", value), ("d", d)):
                    ctx.set(getattr(dut, name), given)
                await ctx.tick()
                for name in ("start", "value", "d"):
                    ctx.set(getattr(dut, name), 0)
                cycles = 0
                while ctx.get(dut.busy):
                    cycles += 1
                    await ctx.tick()
                assert cycles == abs(d) + 4
                await ctx.tick()
                assert ctx.get(dut.y) == scalar_term(value, d), (value, d)
                assert ctx.get(dut.small) == saturate(align(np.array(value), d)), (value, d)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
