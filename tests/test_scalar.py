"""hw.scalar against golden.numerics: every distance, values at the corners."""

import random
from itertools import product

import numpy as np
import pytest
from amaranth.sim import Simulator

from golden.numerics import BOUND8, UNSIGNED8, align, saturate
from golden.vector import scalar_term
from hw.scalar import ScalarUnit

SEED = 99
CORNERS = (-32768, -32767, -16384, -129, -128, -127, -3, -2, -1, 0, 1, 2, 3, 127, 128, 16384, 32767)
CORNERS9 = (*CORNERS, -513, -512, -257, -256, -255, -254, 254, 255, 256, 257, 511, 512)


@pytest.mark.parametrize("uint8", [False, True])
def test_every_distance(uint8):
    """The value, its mantissa and the cycles they take; the result stays until the next start."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = ScalarUnit(uint8=uint8)

    async def bench(ctx):
        for d in range(-31, 32):
            ties = [(2 * n + 1) << -d - 1 for n in (-2, -1, 0, 1)] if -15 <= d < 0 else []
            values = (*(CORNERS9 if uint8 else CORNERS), *(v for v in ties if -32768 <= v < 32768),
                      *(rng.randint(-32768, 32767) for _ in range(6)))
            for value, unsigned in product(values, (1, 0) if uint8 else (0,)):
                bound = UNSIGNED8 if unsigned else BOUND8
                for name, given in (("start", 1), ("value", value), ("d", d), *[("unsigned", unsigned)] * uint8):
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
                assert ctx.get(dut.small) == saturate(align(np.array(value), d), bound), (value, d, unsigned)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
