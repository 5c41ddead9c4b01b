"""hw.exponents against golden.numerics."""

import random

from amaranth.sim import Simulator

from golden import numerics
from hw.exponents import ExponentUnit
from shiftgrad.isa import HISTORY

SEED = 31
INPUTS = ("grad", "ones", "e_a", "e_b", "e_c", "e_dst", "depth", "rate", "delayed", "measured", "zero", "log2",
          "freeze")
EDGES = (-60, -59, -1, 0, 1, 59, 60)


def random_inputs(rng):
    def exponent():
        return rng.choice([rng.choice(EDGES), rng.randint(-20, 5), rng.randint(-60, 60)])

    values = {name: rng.randint(0, 1) for name in ("grad", "delayed", "zero", "freeze")}
    values |= {name: exponent() for name in ("e_a", "e_b", "e_c", "e_dst")}
    values["ones"] = values["grad"] & rng.randint(0, 1)
    power = 1 << rng.randint(0, 15)
    values["depth"] = rng.choice([1, 65535, power, power + 1, max(power - 1, 1), rng.randint(1, 65535)])
    values["rate"] = rng.choice([0, 63, rng.randint(0, 63)])
    values["log2"] = 0 if values["zero"] else rng.randint(0, 31)
    values["measured"] = 1
    history = [exponent() for _ in range(HISTORY)]
    return values, exponent(), rng.choice([0, 1, 7, 8, rng.randint(0, 8)]), history


def expected(values, exponent, count, history):
    """What the golden machine computes for these inputs."""
    e_a = 0 if values["ones"] else values["e_a"]
    guard = numerics.guard_shift(e_a, values["e_b"], values["e_c"], values["depth"]) if values["grad"] else 0
    e_v = e_a + values["e_b"] - guard
    largest = 0 if values["zero"] else 1 << values["log2"]
    own = numerics.own_exponent(largest, e_v, exponent)
    used = history[:count] if values["delayed"] else []
    e_t = numerics.target_exponent(own, used)
    kept = history[:count]
    pushed = largest and not values["freeze"]
    return {
        "need_range": int(not used),
        "e_t": e_t,
        "guard": guard,
        "align": max(-31, min(31, (values["e_c"] - 3 if values["grad"] else values["e_c"]) - e_v)),
        "shift": max(numerics.REQUANTISE_MIN, min(32, e_t - e_v)),
        "step": max(numerics.UPDATE_MIN, min(32, values["e_dst"] + values["rate"] - e_t)),
    }, numerics.push_history(kept, own) if pushed else kept


def simulate(bench):
    dut = ExponentUnit()
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    async def run(ctx):
        await bench(ctx, dut)

    simulator.add_testbench(run)
    simulator.run()


async def apply(ctx, dut, values, exponent, count, history):
    for name in INPUTS:
        ctx.set(getattr(dut, name), values[name])
    ctx.set(dut.scale, {"exponent": exponent, "count": count, "history": history})
    await ctx.tick().repeat(dut.LATENCY)


def test_against_golden():
    print("seed", SEED)
    rng = random.Random(SEED)

    async def bench(ctx, dut):
        for _ in range(1200):
            inputs = random_inputs(rng)
            wanted, history = expected(*inputs)
            await apply(ctx, dut, *inputs)
            got = {name: ctx.get(getattr(dut, name)) for name in wanted}
            assert got == wanted, inputs
            new = ctx.get(dut.new_scale)
            assert new.exponent == wanted["e_t"]
            assert list(new.history)[:new.count] == history, inputs

    simulate(bench)


def test_guard_leaves_room_for_every_depth():
    """ceil(log2 K) at each power of two and its neighbours."""
    async def bench(ctx, dut):
        values = dict.fromkeys(INPUTS, 0) | {"grad": 1, "e_a": 60, "e_b": 60, "e_c": -60, "measured": 1}
        for power in range(16):
            for depth in {(1 << power) - 1, 1 << power, (1 << power) + 1} - {0}:
                await apply(ctx, dut, values | {"depth": depth}, 0, 0, [0] * HISTORY)
                guard = ctx.get(dut.guard)
                assert guard == 16 - (depth - 1).bit_length()
                assert depth * 127**2 << guard < 1 << 31

    simulate(bench)


def test_a_range_pass_is_wanted_without_history_only():
    async def bench(ctx, dut):
        for delayed in (0, 1):
            for count in range(HISTORY + 1):
                values = dict.fromkeys(INPUTS, 0) | {"depth": 1, "delayed": delayed}
                await apply(ctx, dut, values, 0, count, [5] * HISTORY)
                assert ctx.get(dut.need_range) == (not delayed or count == 0)

    simulate(bench)
