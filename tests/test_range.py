"""hw.range against golden.numerics.round_log2."""

import math
import random

import pytest
from amaranth.sim import Simulator

from golden.numerics import round_log2
from hw.range import RangeUnit

SEED = 41
CORNERS = [0, 1, 2, 3, 127, 128, 180, 181, 182, 255, 1 << 31, (1 << 31) - 1]


def ceil_sqrt2(k):
    """Smallest integer from sqrt(2) * 2^k up."""
    return math.isqrt((1 << 2 * k + 1) - 1) + 1


async def scan(ctx, dut, amax, saturated):
    """Start, wait, and check ``done`` at the latency promised, and that results hold."""
    for lane in range(dut.lanes):
        ctx.set(dut.amax[lane], amax[lane])
        ctx.set(dut.saturated_lanes[lane], saturated[lane])
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    for cycle in range(1, dut.latency + 1):
        if cycle == dut.lanes:  # read already
            for lane in range(dut.lanes):
                ctx.set(dut.amax[lane], 0xFFFFFFFF)
        assert ctx.get(dut.done) == (cycle == dut.latency)
        if cycle < dut.latency:
            await ctx.tick()
    for _ in range(3):
        assert ctx.get(dut.amax_zero) == (max(amax) == 0)
        assert ctx.get(dut.log2) == (round_log2(max(amax)) if max(amax) else 0), max(amax)
        assert ctx.get(dut.saturated) == sum(saturated)
        await ctx.tick()
        assert not ctx.get(dut.done)


@pytest.mark.parametrize("lanes", [4, 8, 12, 16])
def test_range(lanes):
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = RangeUnit(lanes=lanes)
    assert dut.latency <= lanes + 8
    maxima = CORNERS + [rng.randrange(1, 1 << rng.randint(1, 31)) for _ in range(20)]
    for k in range(1, 31):
        maxima += [1 << k, ceil_sqrt2(k), ceil_sqrt2(k) - 1]

    async def bench(ctx):
        for i, largest in enumerate(maxima):
            amax = [rng.randint(0, largest) for _ in range(lanes)]
            amax[i % lanes] = largest
            await scan(ctx, dut, amax, [rng.choice([0, (1 << 20) - 1, rng.randrange(1 << 20)]) for _ in range(lanes)])

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
