"""hw.post against golden.numerics: which values are positive, and what every lane makes of its own, to the cycle."""

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module, Signal, signed
from amaranth.lib import data
from amaranth.sim import Simulator

from golden import numerics
from hw.lane import LaneControl
from hw.memory import WRITE_DELAY
from hw.post import Gate, PostProcessor
from tests.rtl_bench import simulate

SEED = 88
SIZE = 4
ROWS = 40
DELAY = PostProcessor.ACC_DELAY
INT32 = (-(1 << 31), (1 << 31) - 1)
CORNERS = [*INT32, -256, -1, 0, 1, 126, 127, 128, 129, 254, 255, 256, 257]


class Gated(Elaboratable):
    """A post-processor and the mask's bytes, which may be ``unsigned``."""

    def __init__(self, *, uint8: bool) -> None:
        self.post, self.uint8 = PostProcessor(size=SIZE, uint8=uint8), uint8
        self.mask, self.unsigned = Signal(data.ArrayLayout(signed(8), SIZE)), Signal()

    def elaborate(self, _platform):
        m = Module()
        m.submodules.post = self.post
        unsigned = [self.unsigned] * self.uint8
        m.d.comb += [self.post.gate[n].eq(Gate.of(self.mask[n], *unsigned)) for n in range(SIZE)]
        return m


def test_positive_bytes():
    """Every int8, also where there may be a uint8; every uint8."""
    m, value, unsigned = Module(), Signal(signed(8)), Signal()
    plain, either = Signal(), Signal()
    for positive, gate in ((plain, Gate.of(value)), (either, Gate.of(value, unsigned))):
        m.d.comb += positive.eq(Gate(gate).positive)

    async def bench(ctx):
        for byte in range(256):
            ctx.set(value, byte - 256 if byte > 127 else byte)
            for as_uint8 in (0, 1):
                ctx.set(unsigned, as_uint8)
                assert ctx.get(plain) == (0 < byte < 128), byte
                assert ctx.get(either) == (byte > 0 if as_uint8 else 0 < byte < 128), (byte, as_uint8)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


class Pass:
    """Rows of one pass, their golden results, and how it is presented."""

    def __init__(self, rng, control, *, unsigned=False, mask_unsigned=False):
        self.control, self.unsigned, self.mask_unsigned = control, unsigned, mask_unsigned
        shape = (ROWS, SIZE)
        self.acc = np.where(rng.random(shape) < 0.5, rng.choice(CORNERS, shape),
                            rng.integers(*INT32, shape) >> rng.integers(32, size=shape))
        self.aux, self.mask = rng.integers(-3, 4, shape), rng.integers(-128, 128, shape).astype(np.int8)
        self.lanes, self.offsets = rng.integers(1, SIZE + 1, ROWS), rng.integers(1000, size=ROWS)
        self.gaps = rng.choice([0, 0, 0, 1, 2], ROWS)  # before each row
        v = numerics.forward_value(self.acc, 0, bias=self.aux if control.get("add") else None, relu="relu" in control)
        mask = self.mask.view(np.uint8) if mask_unsigned else self.mask
        v = numerics.backward_value(v, mask if control.get("mask") else None)
        v = np.where(np.arange(SIZE) < self.lanes[:, None], v, 0)
        self.q, self.saturated = numerics.requantise(v, control["shift"], unsigned=unsigned)
        self.largest = numerics.amax(v)


async def run(ctx, dut, job):
    """Mantissas come in the order of the tokens, lane n's n cycles late, at their addresses; then what is summed up."""
    post, start = dut.post, np.cumsum(job.gaps + 1)  # cycles of the tokens
    rows = {int(cycle): row for row, cycle in enumerate(start)}
    for name, value in (("control", {name: job.control.get(name, 0) for name, _ in LaneControl.as_shape()}),
                        ("q_base", 5), *[("unsigned", job.unsigned)] * dut.uint8):
        ctx.set(getattr(post, name), value)
    ctx.set(dut.unsigned, job.mask_unsigned)
    due, written, saturated, largest = {}, 0, 0, 0
    for cycle in range(int(start[-1]) + PostProcessor.LARGEST_DELAY + 2 * SIZE + 8):
        row = rows.get(cycle)
        ctx.set(post.token, row is not None)
        if row is not None:
            ctx.set(post.offset, int(job.offsets[row]))
            ctx.set(post.lanes, int(job.lanes[row]))
        for n in range(SIZE):
            if (row := rows.get(cycle - DELAY - n)) is not None:
                for signal, values in ((post.acc, job.acc), (post.aux, job.aux), (dut.mask, job.mask)):
                    ctx.set(signal[n], int(values[row, n]))
        if ctx.get(post.q_en):
            assert ctx.get(post.q_addr) == 5 + job.offsets[written]
            due |= {(cycle + WRITE_DELAY + n, n): int(job.q[written, n]) for n in range(SIZE)}
            written += 1
        for n in range(SIZE):
            if (wanted := due.pop((cycle, n), None)) is not None:
                assert ctx.get(post.q[n]) == wanted, (job.control, job.unsigned, cycle, n)
        saturated += ctx.get(post.clips)
        largest = max(largest, ctx.get(post.largest))
        await ctx.tick()
    assert (written, saturated, largest, due) == (ROWS, job.saturated, job.largest, {})


@pytest.mark.parametrize("uint8", [False, True])
def test_passes(rng, uint8):
    """Forward ones, into either kind of tensor by turns, and masked ones, by either kind."""
    dut = Gated(uint8=uint8)

    async def bench(ctx):
        for shift in (-8, -7, -1, 0, 1, 9, 24, 32) if uint8 else (-7, -1, 0, 1, 9, 24, 32):
            for unsigned in (True, False) if uint8 else (False,):
                ctl = {"shift": shift, "add": int(rng.integers(2))}
                await run(ctx, dut, Pass(rng, ctl | {"relu": 1}, unsigned=unsigned))
                await run(ctx, dut, Pass(rng, ctl | {"mask": 1}, mask_unsigned=unsigned))

    simulate(dut, bench)
