"""hw.feeder: rotation, gating and the skew of lanes, against the definition."""

import random

import pytest
from amaranth.sim import Simulator

from hw.feeder import Feeder
from hw.memory import READ_LATENCY

SEED = 55


@pytest.mark.parametrize("rows", [True, False], ids=["a", "b"])
@pytest.mark.parametrize("size", [4, 12])
def test_lanes(size, rows):
    """Lane m shows bank m, or the bank its slot's index names, of READ_LATENCY + m cycles after its slot."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = Feeder(size=size, rows=rows)
    latency = Feeder.latency

    async def bench(ctx):
        for rotated in (0, 1):
            for ones in (0, 1) if rows else (0,):
                ctx.set(dut.rotated, rotated)
                ctx.set(dut.ones, ones)
                cycles = 120
                slots = [{"valid": int(rng.random() < 0.8), "first": int(rng.random() < 0.2), "index": t % size,
                          "rows": rng.randint(1, size), "cols": rng.randint(1, size)} for t in range(cycles)]
                banks = [[rng.randint(-128, 127) for _ in range(size)] for _ in range(cycles)]
                for cycle in range(cycles):
                    ctx.set(dut.slot, slots[cycle])
                    for n in range(size):
                        ctx.set(dut.banks[n], banks[cycle][n])
                    await ctx.tick()
                    for lane in range(size):
                        t = cycle + 1 - latency - lane  # the slot this lane shows after the edge
                        if t < 0:
                            continue
                        slot = slots[t]
                        inside = lane < (slot["rows"] if rows else slot["cols"]) and (slot["valid"] or not rows)
                        value = banks[t + READ_LATENCY + lane][slot["index"] if rotated else lane]
                        wanted = (1 if ones else value) if inside else 0
                        assert ctx.get(dut.lanes[lane]) == wanted, (rotated, ones, cycle, lane)
                        assert ctx.get(dut.first) >> lane & 1 == slot["first"]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
