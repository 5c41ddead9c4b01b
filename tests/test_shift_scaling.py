"""The lane's scaling alone against golden.numerics."""

import numpy as np
from amaranth.sim import Simulator

from experiments.batchnorm.shift import ShiftScaling
from golden import numerics


def test_mantissas_and_range():
    rng = np.random.default_rng(3)
    unit = ShiftScaling()

    async def bench(ctx):
        for shift in (-7, 0, 5, 20, 31):
            x = (rng.integers(-(1 << 31), 1 << 31, 60) >> rng.integers(0, 32, 60)).astype(np.int32)
            wanted, saturated = numerics.requantise(x, shift)
            ctx.set(unit.shift, shift)
            ctx.set(unit.clear, 1)
            await ctx.tick().repeat(2)
            ctx.set(unit.clear, 0)
            q, clipped = [], 0
            for i in range(len(x) + max(unit.latency, unit.RANGE_DELAY)):
                ctx.set(unit.valid, i < len(x))
                ctx.set(unit.x, int(x[i]) if i < len(x) else -(1 << 31))  # not valid: must not matter
                ctx.set(unit.close, i == len(x) - 1 + unit.RANGE_DELAY)
                clipped += ctx.get(unit.clipped)
                if unit.latency <= i < len(x) + unit.latency:
                    q.append(ctx.get(unit.q))
                await ctx.tick()
            assert q == wanted.tolist() and clipped == saturated
            ctx.set(unit.close, 0)
            waited = max(unit.latency - unit.RANGE_DELAY, 0) + 1  # since close
            while not ctx.get(unit.done):
                await ctx.tick()
                waited += 1
            assert waited == unit.range_latency
            largest = numerics.amax(x.astype(np.int64))
            assert ctx.get(unit.log2) == numerics.round_log2(largest) and not ctx.get(unit.zero)

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
