"""hw.lane against golden.numerics: all phases, every latency to the cycle, with and without gaps between rows."""

import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from golden import numerics
from golden.generator import default_seeds, xorshift_step
from hw.lane import Lane, LaneControl

SEED = 721
INT32 = (-(1 << 31), (1 << 31) - 1)
ACC = [0, 1, -1, 127, 128, -127, -128, 180, 181, 182, 255, *INT32, INT32[0] + 1]
ACC_UINT8 = [*ACC, 254, 256, -255, -256, 361, 362, 363, 510, 511]
OP16 = [0, 1, -1, 32767, -32768, -32767]
OP8 = [0, 1, -1, 127, -127]
WAIT = Lane.W_LATENCY + 1
FORMS = pytest.mark.parametrize("unsigned", [None, 0, 1], ids=["int8", "signed", "unsigned"])  # None: there is no port
UINT8 = pytest.mark.parametrize("uint8", [False, True])


class Bench:
    """Drives one lane row by row and remembers what it should and did answer."""

    def __init__(self, ctx, dut, rng):
        self.ctx, self.dut, self.rng = ctx, dut, rng
        self.state = default_seeds(dut.index + 1)[-1]
        self.saturated = 0
        self.unsigned = 0

    def draw(self):
        self.state = xorshift_step(self.state)
        return np.array([int(self.state) >> 8])

    def expect(self, ctl, keep, acc, op2, w, gate):
        """Golden (|v|, q, clipped, w_new) of one row; None for what nobody writes."""
        acc, op2, w = (np.array([x], np.int64) for x in (acc, op2, w))
        draws = (self.draw(), self.draw()) if ctl["grad"] and not ctl["range_pass"] else None
        if ctl["grad"]:
            v = numerics.gradient_value(acc, ctl["guard"], op2, ctl["align"] + 3, 0)
        elif ctl["add"]:
            v = numerics.forward_value(acc, 0, bias=op2, e_bias=ctl["align"], relu=ctl["relu"])
        else:
            v = numerics.forward_value(acc, 0, relu=ctl["relu"])
        v = numerics.backward_value(v, np.array([gate]) if ctl["mask"] else None)
        if not keep:
            return 0, 0, 0, 0
        q, clipped = numerics.requantise(v, ctl["shift"], draws and draws[0], unsigned=bool(self.unsigned))
        bound = numerics.BOUND16 if ctl["wide"] else numerics.BOUND8
        w_new = numerics.update(w, q.astype(np.int64), ctl["step"], draws[1], bound=bound) if draws else None
        if ctl["grad"] and ctl["range_pass"]:
            return numerics.amax(v), None, clipped, None
        return numerics.amax(v), int(q[0]), clipped, None if w_new is None else int(w_new[0])

    def expect_largest(self, cycle, magnitudes, others):
        """Of this cycle's row and of what the lane before said, the larger."""
        row, other = cycle - Lane.LARGEST_LATENCY, cycle - Lane.LARGEST_DELAY
        wanted = max(magnitudes[row] if 0 <= row < len(magnitudes) else 0, others[other] if other >= 0 else 0)
        assert self.ctx.get(self.dut.largest) == wanted or other < 0

    def expect_clips(self, cycle, clips, before):
        """This cycle's saturated mantissa and those of the lanes before."""
        row = cycle - Lane.Q_LATENCY - 1
        own = clips[row] if 0 <= row < len(clips) else 0
        assert self.ctx.get(self.dut.clips) == own + before[cycle - 1] or not cycle
        self.saturated += own

    async def rows(self, ctl, rows):
        """Present ``rows`` (None: a gap; else keep, acc, op2, w[, gate]) one a cycle, check each answer in its cycle"""
        ctx, dut, rng = self.ctx, self.dut, self.rng
        ctx.set(dut.ctl, ctl)
        if dut.uint8:
            ctx.set(dut.unsigned, self.unsigned)
        await ctx.tick().repeat(Lane.CTL_SETUP)
        rows = [row and (*row[:4], row[4] if len(row) > 4 else rng.getrandbits(1)) for row in rows]
        answers = [row and self.expect(ctl, *row) for row in rows]
        magnitudes = [answer[0] if answer else 0 for answer in answers]
        clips = [int(answer[2] and not ctl["range_pass"]) if answer else 0 for answer in answers]
        others = [rng.choice([0, 1 << rng.randrange(32), *magnitudes[:1]]) for _ in range(len(rows) + WAIT)]
        before = [rng.randrange(dut.index + 1) for _ in others]
        for cycle in range(len(rows) + WAIT):
            ctx.set(dut.largest_in, others[cycle])
            ctx.set(dut.clips_in, before[cycle])
            def at(items, cycle=cycle):
                return lambda latency: items[cycle - latency] if 0 <= cycle - latency < len(items) else None

            answer, row = at(answers), at(rows)
            if (mantissa := answer(Lane.Q_LATENCY)) is not None and mantissa[1] is not None:
                assert ctx.get(dut.q) == mantissa[1], (ctl, row(Lane.Q_LATENCY))
            if (weight := answer(Lane.W_LATENCY)) is not None and weight[3] is not None:
                assert ctx.get(dut.w_new) == weight[3], (ctl, row(Lane.W_LATENCY))
            self.expect_largest(cycle, magnitudes, others)
            self.expect_clips(cycle, clips, before)
            keep, acc, op2, _, gate = row(0) or (rng.getrandbits(1), rng.choice(INT32), rng.choice(OP16), 0, 1)
            ctx.set(dut.valid, row(0) is not None)
            ctx.set(dut.keep, keep)
            ctx.set(dut.acc, acc if row(0) else 0)
            ctx.set(dut.op2, op2)
            ctx.set(dut.gate, gate)
            ctx.set(dut.w, (row(Lane.W_DELAY) or (0, 0, 0, rng.choice(OP16)))[3])
            await ctx.tick()
        assert ctx.get(dut.seed_state) == int(self.state)


def simulate(bench, *, uint8=False):
    print("seed", SEED)
    dut = Lane(index=3, uint8=uint8)

    async def testbench(ctx):
        await bench(Bench(ctx, dut, random.Random(SEED)))

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()


def control(**fields):
    return {name: fields.get(name, 0) for name, _ in LaneControl.as_shape()}


def accumulator(rng, bits=32):
    """Signed, every magnitude below 2^(bits-1) as likely."""
    return rng.randint(-(1 << bits - 1), (1 << bits - 1) - 1) >> rng.randrange(bits)


def forward_rows(rng, count, gaps, accumulators=ACC):
    corners = [(1, acc, op2, 0) for acc in accumulators for op2 in OP16]
    found = [(rng.random() < 0.9, accumulator(rng), accumulator(rng, 16), 0) for _ in range(count)]
    return spread(rng, rng.sample(corners, 12) + found, gaps)


def gradient_rows(rng, count, gaps, wide, guard):
    bits = 32 - guard
    corners = [-(1 << bits - 1), (1 << bits - 1) - 1, 0]
    weights = OP16[:-2] + [-32767] if wide else OP8
    return spread(rng, [(rng.random() < 0.9, rng.choice([accumulator(rng, bits), *corners]),
                         rng.choice([rng.randint(-127, 127), *OP8, -128]),
                         rng.choice([rng.randint(-32767, 32767) if wide else rng.randint(-127, 127), *weights]))
                        for _ in range(count)], gaps)


def spread(rng, rows, gaps):
    return [row for item in rows for row in ([None] * rng.choice([0, 0, 1, 3]) * gaps + [item])]


@pytest.mark.parametrize("gaps", [0, 1])
@FORMS
def test_forward_and_backward(unsigned, gaps):
    """Unsigned results are those of ReLU."""
    uint8 = unsigned is not None
    least, accumulators = (-8, ACC_UINT8) if uint8 else (-7, ACC)
    relu = {"relu": 1} if unsigned else {}

    async def bench(b):
        rng, b.unsigned = b.rng, unsigned
        for align in range(-31, 32):
            await b.rows(control(add=1, align=align, shift=rng.randint(least, 32), **relu),
                         forward_rows(rng, 10, gaps, accumulators))
        for shift in range(least, 33):
            added = {"add": 1, "align": rng.randint(-20, 20)}
            kind = rng.choice([{"relu": 1}, {"mask": 1}, {}, {"relu": 1, **added}, {"mask": 1, **added}])
            await b.rows(control(shift=shift, guard=rng.randrange(17), **kind | relu),
                         forward_rows(rng, 10, gaps, accumulators))

    simulate(bench, uint8=uint8)


# shift: accumulators after ReLU and what they are rounded to
BOUNDS = {
    -8: {0: 0, 1: 256, 2: 512, -1: 0, INT32[1]: INT32[1] << 8},
    -7: {0: 0, 1: 128, 2: 256, -2: 0},
    0: {-1: 0, 0: 0, 1: 1, 127: 127, 128: 128, 254: 254, 255: 255, 256: 256, INT32[0]: 0, INT32[1]: INT32[1]},
    1: {1: 0, 3: 2, 253: 126, 254: 127, 255: 128, 507: 254, 508: 254, 509: 254, 510: 255, 511: 256, 512: 256},
    24: {INT32[0]: 0, INT32[1]: 128, (127 << 24) - 1: 127, 1 << 23: 0, 3 << 22: 1},
    32: {INT32[1]: 0},
}


@pytest.mark.parametrize("shift", BOUNDS)
def test_bounds_of_both_kinds(shift):
    """In one lane, int8 after uint8 and the reverse; a range pass counts nothing."""
    async def bench(b):
        ctl, rows = control(relu=1, shift=shift), [(1, acc, 0, 0) for acc in BOUNDS[shift]]
        for b.unsigned, bound in ((1, 255), (0, 127), (1, 255)):
            b.saturated, rounded = 0, BOUNDS[shift].values()
            assert [b.expect(ctl, *row, 0)[1] for row in rows] == [min(value, bound) for value in rounded]
            await b.rows(ctl | {"range_pass": 1}, rows)
            assert b.saturated == 0
            await b.rows(ctl, rows)
            assert b.saturated == sum(value > bound for value in rounded)

    simulate(bench, uint8=True)


def test_an_unsigned_mantissa_below_zero_is_an_error():
    async def bench(b):
        b.unsigned = 1
        await b.rows(control(), [(1, -1, 0, 0)])

    with pytest.raises(AssertionError, match="lane 3: mantissa"):
        simulate(bench, uint8=True)


@pytest.mark.parametrize("gaps", [0, 1])
@UINT8
def test_gradient(uint8, gaps):
    async def bench(b):
        rng = b.rng
        for i in range(70):
            guard, wide = i % 17, rng.getrandbits(1)
            align = rng.choice([rng.randint(-31, 31), rng.randint(-8, 20)])
            ctl = control(grad=1, add=1, wide=wide, guard=guard, align=align, shift=rng.randint(-7 - uint8, 32),
                          step=rng.randint(-15, 32), range_pass=rng.random() < 0.2)
            await b.rows(ctl, gradient_rows(rng, 20, gaps, wide, guard))

    simulate(bench, uint8=uint8)


@pytest.mark.parametrize("wide", [0, 1])
@UINT8
def test_every_step(uint8, wide):
    """Every s2, with mantissas that are not saturated and with weights at their bounds."""
    async def bench(b):
        rng = b.rng
        for step in range(-15, 33):
            rows = [(1, rng.randint(-127, 127) << 8, 0, w) for w in OP8 for _ in range(3)]
            await b.rows(control(grad=1, add=1, wide=wide, shift=8, step=step), rows)

    simulate(bench, uint8=uint8)


def test_most_negative_value():
    """|-2^31| is 2^31, also when the sum only saturates there, and ReLU hides it."""
    async def bench(b):
        for ctl, row, wanted in (
            (control(shift=24), (1, INT32[0], 0, 0), 1 << 31),
            (control(add=1, align=31, shift=24), (1, -5, -32768, 0), 1 << 31),
            (control(relu=1, shift=24), (1, INT32[0], 0, 0), 0),
        ):
            assert b.expect(ctl, *row, 1)[0] == wanted
            await b.rows(ctl, [row])

    simulate(bench)


def test_gate_masks_a_sum():
    """Both the second operand and the mask count, and the gate counts for nothing without ``mask``."""
    async def bench(b):
        rows = [(1, 100, op2, 0, gate) for op2 in (-7, 0, 7) for gate in (0, 1)]
        for ctl, wanted in ((control(mask=1, add=1), [0, 93, 0, 100, 0, 107]),
                            (control(add=1), [93, 93, 100, 100, 107, 107])):
            assert [b.expect(ctl, *row)[0] for row in rows] == wanted
            await b.rows(ctl, rows)

    simulate(bench)


def test_range_pass_counts_and_draws_nothing():
    async def bench(b):
        rows = [(1, 1 << 20, 5, 0)] * 9
        await b.rows(control(grad=1, add=1, shift=-7, range_pass=1), rows)
        assert b.saturated == 0 and b.ctx.get(b.dut.seed_state) == int(default_seeds(4)[3])
        await b.rows(control(grad=1, add=1, shift=-7), [(0, *row[1:]) for row in rows])
        assert b.saturated == 0 and b.ctx.get(b.dut.seed_state) != int(default_seeds(4)[3])
        await b.rows(control(grad=1, add=1, shift=-7), rows)
        assert b.saturated == 9

    simulate(bench)


def test_seed():
    async def bench(b):
        for seed in (0, 1, 0xDEADBEEF):
            b.ctx.set(b.dut.seed_load, 1)
            b.ctx.set(b.dut.seed_data, seed)
            await b.ctx.tick()
            b.ctx.set(b.dut.seed_load, 0)
            b.state = np.uint32(seed or 1)
            assert b.ctx.get(b.dut.seed_state) == (seed or 1)
            await b.rows(control(grad=1, add=1, shift=12, step=2), gradient_rows(b.rng, 20, 1, 0, 0))

    simulate(bench)
