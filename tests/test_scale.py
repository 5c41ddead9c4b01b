"""hw.scale against golden.numerics: every shift, corner numbers and corner rounding words."""

import gc
import random

import numpy as np
import pytest

from golden import numerics
from hw.lane import Lane, LaneValue
from hw.scale import Scale, Shifter
from tests.rtl_bench import simulate

SEED = 20240611
HALF, TOP = 1 << 23, (1 << 24) - 1


def numbers(rng, width, count):
    """Corners of a signed ``width``-bit number, then random ones of every magnitude."""
    low, high = -(1 << width - 1), (1 << width - 1) - 1
    corners = [0, low, low + 1, high]
    corners += [sign * (1 << k) + more for k in range(width - 1) for sign in (1, -1) for more in (-1, 0, 1)]
    corners += [sign * value for value in (127, 128, 180, 181, 182, 255) for sign in (1, -1)]
    wide = [rng.randint(low, high) >> rng.randrange(width) for _ in range(count)]
    return [x for x in corners if low <= x <= high] + wide


@pytest.mark.parametrize(("kind", "narrow", "even"), [
    (Lane.SCALE, 0, 0), (Lane.SCALE, 0, 1), (Lane.STEP, 0, 0), (Lane.STEP, 1, 0),
    (Lane.UINT8_SCALE, 0, 1), (Lane.UINT8_SCALE, 1, 0), (Lane.UINT8_SCALE, 1, 1)])
def test_scale(kind, narrow, even):
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = Scale(**kind)
    bound = 127 if narrow else (1 << dut.out_width - 1) - 1

    async def bench(ctx):
        ctx.set(dut.narrow, narrow)
        ctx.set(dut.even, even)
        for s in range(dut.least, 33):
            ctx.set(dut.s, s)
            await ctx.tick().repeat(3)
            x = numbers(rng, dut.width, 20)
            x += [(2 * k + 1 << s) >> 1 for k in (-3, -2, -1, 0, 1, 2) if 0 < s < dut.width - 3]  # ties
            r = [HALF if even else rng.choice([HALF, HALF, 0, TOP, rng.randint(0, TOP)]) for _ in x]
            rounded = (numerics.nearest(np.array(x), s, least=dut.least) if even
                       else numerics.stochastic(np.array(x), s, np.array(r), least=dut.least))
            wanted = numerics.saturate(rounded, bound)
            got = []
            for cycle in range(len(x) + dut.latency):
                if cycle >= dut.latency:
                    got.append((ctx.get(dut.q), ctx.get(dut.clipped)))
                ctx.set(dut.x, x[cycle] if cycle < len(x) else 0)
                ctx.set(dut.r, r[cycle - dut.r_delay] if 0 <= cycle - dut.r_delay < len(r) else 0)
                await ctx.tick()
            np.testing.assert_array_equal(got, np.stack([wanted, wanted != rounded], 1), err_msg=f"s = {s}")

    simulate(dut, bench)


SHIFTERS = [
    {"width": 16, "steps": LaneValue.ALIGN_STEPS, "low": 31, "high": 64},
    {"width": 32, "steps": LaneValue.GUARD_STEPS, "low": 0, "high": 32},
    {"width": 8, "steps": ((2, 1),), "low": 1, "high": 9},
    {"width": 8, "steps": ((1, 2), (4,)), "low": 3, "high": 12},
]


@pytest.mark.parametrize("kind", SHIFTERS)
def test_shifter(kind):
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = Shifter(**kind)
    low, high = kind["low"], kind["high"]

    async def bench(ctx):
        for n in range(dut.reach + 1):
            ctx.set(dut.n, n)
            await ctx.tick()
            x = numbers(rng, dut.width, 10)
            for cycle in range(len(x) + dut.latency):
                if cycle >= dut.latency:
                    number = x[cycle - dut.latency]
                    full = number << n
                    over = not -(1 << high - 1) <= full < 1 << high - 1
                    assert ctx.get(dut.overflow) == over, (n, number)
                    assert ctx.get(dut.negative) == (number < 0)
                    if not over:
                        assert ctx.get(dut.y) == full >> low, (n, number)
                ctx.set(dut.x, x[cycle] if cycle < len(x) else 0)
                await ctx.tick()

    simulate(dut, bench)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_errors_say_what_was_wanted():
    with pytest.raises(ValueError, match="at most high, 8, got 9"):
        Shifter(width=9, steps=((1,),), low=0, high=8)
    with pytest.raises(ValueError, match="at least 39, got 31"):
        Scale(width=32, least=-7, out_width=8, steps=((16, 8), (4, 2, 1)))
    gc.collect()  # what was refused is unused, here and not in a later test
