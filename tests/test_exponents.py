"""hw.exponents against golden.numerics, for what every operation feeds it."""

import random

import pytest
from amaranth.sim import Simulator

from golden import numerics
from hw.exponents import ExponentUnit
from shiftgrad.isa import HISTORY, SUM_BITS_MAX

SEED = 31
INPUTS = ("grad", "e_x", "e_y", "e_add", "e_dst", "most", "rate", "delayed", "measured", "zero", "log2", "freeze")
EDGES = (-60, -59, -1, 0, 1, 59, 60)
UINT8 = pytest.mark.parametrize("uint8", [False, True])


def random_inputs(rng):
    """Inputs, and the exponent, count and history of the tensor that is scaled."""
    def exponent():
        return rng.choice([rng.choice(EDGES), rng.randint(-20, 5), rng.randint(-60, 60)])

    values = {name: rng.randint(0, 1) for name in ("grad", "delayed", "zero", "freeze")}
    values |= {name: exponent() for name in ("e_x", "e_y", "e_add", "e_dst")}
    values["e_x"] = rng.choice([0, values["e_x"], values["e_x"]])  # of ones
    values["most"] = 16 - rng.choice([0, 16, 17, SUM_BITS_MAX, rng.randint(0, SUM_BITS_MAX)])
    if rng.random() < 0.3:  # the guard shift is none, or as large as it may be
        values["e_add"] = values["e_x"] + values["e_y"] + 3 - rng.choice([0, values["most"]]) + rng.randint(-1, 1)
        values["e_add"] = max(-60, min(60, values["e_add"]))
    values["rate"] = rng.choice([0, 63, rng.randint(0, 63)])
    values["log2"] = 0 if values["zero"] else rng.randint(0, 31)
    values["measured"] = 1
    history = [exponent() for _ in range(HISTORY)]
    return values, exponent(), rng.choice([0, 1, 7, 8, rng.randint(0, 8)]), history


def expected(values, exponent, count, history, *, unsigned=None):
    """What the golden machine computes for these inputs; and the new history. ``unsigned``: None where there is none"""
    e_acc = values["e_x"] + values["e_y"]
    g = numerics.guard_shift(e_acc, values["e_add"], values["most"]) if values["grad"] else 0
    e_v = e_acc - g
    largest = 0 if values["zero"] else 1 << values["log2"]
    own = numerics.own_exponent(largest, e_v, exponent, unsigned=bool(unsigned))
    used = history[:count] if values["delayed"] else []
    e_t = numerics.target_exponent(own, used)
    kept = history[:count]
    pushed = largest and not values["freeze"]
    return {
        "need_range": int(not used),
        "e_v": e_v,
        "e_t": e_t,
        "guard": max(g, 0),
        "drop": max(-g, 0),
        "align": max(-31, min(31, values["e_add"] - 3 * values["grad"] - e_v)),
        "shift": max(numerics.REQUANTISE_MIN - (unsigned is not None), min(32, e_t - e_v)),
        "step": max(numerics.UPDATE_MIN, min(32, values["e_dst"] + values["rate"] - e_t)),
    }, numerics.push_history(kept, own) if pushed else kept


def simulate(bench, *, uint8=False):
    dut = ExponentUnit(uint8=uint8)
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


@UINT8
def test_against_golden(uint8):
    print("seed", SEED)
    rng = random.Random(SEED)
    drops, unsigned = set(), None

    async def bench(ctx, dut):
        nonlocal unsigned
        for _ in range(2000):
            inputs = random_inputs(rng)
            if uint8:
                unsigned = rng.randint(0, 1)
                ctx.set(dut.unsigned, unsigned)
            wanted, history = expected(*inputs, unsigned=unsigned)
            await apply(ctx, dut, *inputs)
            assert {name: ctx.get(getattr(dut, name)) for name in wanted} == wanted, inputs
            new = ctx.get(dut.new_scale)
            assert new.exponent == wanted["e_t"]
            assert list(new.history)[:new.count] == history, inputs
            drops.add(wanted["drop"])

    simulate(bench, uint8=uint8)
    assert drops == set(range(SUM_BITS_MAX - 16 + 1))


def test_guard_at_every_most():
    """The momentum far below the gradient, at its last bit, and above it."""
    async def bench(ctx, dut):
        for most in range(16 - SUM_BITS_MAX, 17):
            for e_add in (-60, 2 - most, 3 - most, 4 - most, 2, 3, 4, 60):
                values = dict.fromkeys(INPUTS, 0) | {"grad": 1, "e_x": -30, "e_y": 30, "e_add": e_add, "most": most}
                await apply(ctx, dut, values, 0, 0, [0] * HISTORY)
                g = numerics.guard_shift(0, e_add, most)
                assert (ctx.get(dut.guard), ctx.get(dut.drop), ctx.get(dut.e_v)) == (max(g, 0), max(-g, 0), -g)
                assert g <= most and (g >= 0 or g == most)

    simulate(bench)


def test_a_range_pass_is_wanted_without_history_only():
    """Until it has run, the target stays as it was."""
    async def bench(ctx, dut):
        await apply(ctx, dut, dict.fromkeys(INPUTS, 0) | {"measured": 1, "log2": 20}, 0, 0, [0] * HISTORY)
        before = ctx.get(dut.e_t)
        for delayed in (0, 1):
            for count in range(HISTORY + 1):
                values = dict.fromkeys(INPUTS, 0) | {"delayed": delayed}
                await apply(ctx, dut, values, 0, count, [5] * HISTORY)
                wanted = not delayed or count == 0
                assert ctx.get(dut.need_range) == wanted
                assert ctx.get(dut.e_t) == (before if wanted else 5)
        assert before == 13

    simulate(bench)


def test_an_unsigned_result_has_one_less():
    """Of every magnitude: its own exponent, the shift to it, and the one beyond the end of the range."""
    async def bench(ctx, dut):
        for log2 in range(32):
            for unsigned in (1, 0):
                for e_x, wanted in ((5, 5 + log2 - 7 - unsigned), (-60, max(-60, log2 - 67 - unsigned))):
                    ctx.set(dut.unsigned, unsigned)
                    values = dict.fromkeys(INPUTS, 0) | {"e_x": e_x, "measured": 1, "log2": log2}
                    await apply(ctx, dut, values, 0, 0, [0] * HISTORY)
                    new = ctx.get(dut.new_scale)
                    assert (ctx.get(dut.e_t), new.exponent, new.history[0]) == (wanted,) * 3, (log2, unsigned)
                    assert ctx.get(dut.shift) == wanted - e_x

    simulate(bench, uint8=True)


def test_the_least_shift():
    """That of a history far below: -8 where results may be unsigned, whatever they are."""
    async def bench(ctx, dut):
        for unsigned in (0, 1):
            ctx.set(dut.unsigned, unsigned)
            for e_t in (-6, -7, -8, -9, -60):
                await apply(ctx, dut, dict.fromkeys(INPUTS, 0) | {"delayed": 1}, 0, 1, [e_t] * HISTORY)
                assert ctx.get(dut.shift) == max(-8, e_t)

    simulate(bench, uint8=True)
