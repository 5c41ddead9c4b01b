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


async def scan(ctx, dut, rng, largest):
    """Clear, magnitudes up to ``late`` cycles after ``start``; ``done`` at the latency promised, and results hold."""
    count = rng.randint(max(1, dut.late(dut.lanes) + 1), 3 * dut.lanes)
    magnitudes = [rng.choice([0, rng.randint(0, largest)]) for _ in range(count)]
    magnitudes[rng.choice([0, count - 1, rng.randrange(count)])] = largest
    clips = [rng.randint(0, dut.lanes) for _ in magnitudes]
    start = count - 1 - dut.late(dut.lanes)
    held = ctx.get(dut.log2), ctx.get(dut.amax_zero)
    ctx.set(dut.clear, 1)
    await ctx.tick()
    ctx.set(dut.clear, 0)
    for cycle in range(start + dut.latency + 4):
        assert ctx.get(dut.done) == (cycle == start + dut.latency)
        if cycle < start + dut.latency:
            assert (ctx.get(dut.log2), ctx.get(dut.amax_zero)) == held
        else:
            assert ctx.get(dut.amax_zero) == (largest == 0)
            assert ctx.get(dut.log2) == (round_log2(largest) if largest else 0), largest
            assert ctx.get(dut.saturated) == sum(clips)
        ctx.set(dut.start, cycle == start)
        ctx.set(dut.largest, magnitudes[cycle] if cycle < count else 0)
        ctx.set(dut.clips, clips[cycle] if cycle < count else 0)
        await ctx.tick()


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
        for largest in maxima:
            await scan(ctx, dut, rng, largest)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(bench)
    sim.run()
