"""FP32 adder and multiplier against NumPy's float32, bit for bit."""

import itertools

import numpy as np
import pytest
from amaranth.sim import Simulator

from experiments.batchnorm import model
from experiments.batchnorm.fp32 import Adder, Multiplier

CORNERS = [0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x00800000, 0x80800001, 0x00FFFFFF, 0x01000000, 0x3F800000,
           0xBF800000, 0x3F800001, 0x3F7FFFFF, 0xBF7FFFFF, 0x33800000, 0x34000000, 0x33800001, 0x3FFFFFFF, 0x20000000,
           0x1FFFFFFF, 0x5F800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFF800001,
           0x4B800000, 0x4B7FFFFF, 0xCB800001, 0x4C000000]
UNITS = {"sum": (Adder, model.add), "product": (Multiplier, model.multiply)}


def vectors(seed, count):
    """Corners in pairs, random words, random normal numbers with near exponents and near mantissas."""
    rng = np.random.default_rng(seed)
    pairs = np.array(list(itertools.product(CORNERS, repeat=2)), np.uint64)
    anything = rng.integers(0, 1 << 32, (count, 2), np.uint64)
    exponent = rng.integers(1, 255, count)
    near = np.stack([exponent, np.clip(exponent + rng.integers(-28, 29, count), 0, 255)], 1).astype(np.uint64)
    fractions = rng.integers(0, 1 << 23, (count, 2), np.uint64) & np.uint64(0x7FFFFF) << rng.integers(
        0, 24, (count, 2)).astype(np.uint64) & np.uint64(0x7FFFFF)
    close = rng.integers(0, 2, (count, 2), np.uint64) << np.uint64(31) | near << np.uint64(23) | fractions
    # products at the lower end of the range
    low = np.stack([exponent, np.clip(127 - exponent + rng.integers(-2, 3, count), 0, 254)], 1).astype(np.uint64)
    low = low << np.uint64(23) | fractions
    return np.concatenate([pairs, anything, close, low]).astype(np.uint32)


def run(unit, output, words):
    got = []

    async def bench(ctx):
        for i in range(len(words) + unit.latency):
            if i < len(words):
                ctx.set(unit.a, int(words[i, 0]))
                ctx.set(unit.b, int(words[i, 1]))
            if i >= unit.latency:
                got.append(ctx.get(getattr(unit, output)))
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(got, np.uint32)


@pytest.mark.parametrize("output", UNITS)
def test_bit_for_bit(output):
    unit, rule = UNITS[output]
    words = vectors(seed=1, count=1500)
    got, wanted = run(unit(), output, words), model.bits(rule(*model.floats(words).T))
    wrong = np.flatnonzero(got != wanted)
    assert not wrong.size, [f"{words[i, 0]:08x} {words[i, 1]:08x}: wanted {wanted[i]:08x}, got {got[i]:08x}"
                            for i in wrong[:8]]
    finite = np.isfinite(model.floats(wanted)) & (wanted << 1 != 0)
    assert 0.3 < finite.mean() < 0.99  # specials and zeros are there, and do not prevail


def test_the_rules_are_numpys_but_for_subnormal_numbers():
    a, b = model.floats(vectors(seed=2, count=5000)).T
    with np.errstate(all="ignore"):
        for rule, plain in ((model.add, a + b), (model.multiply, a * b)):
            normal = (np.abs(a) >= model.SMALLEST) & (np.abs(b) >= model.SMALLEST)
            normal &= (np.abs(plain) > model.SMALLEST) | (plain == 0)
            same = model.bits(rule(a, b))[normal] == model.bits(plain)[normal]
            assert normal.mean() > 0.4
            assert np.all(same | (plain[normal] == 0))  # a product too small for a subnormal number keeps its sign
            assert same.mean() == 1
