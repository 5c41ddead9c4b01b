"""Issuer, memories, feeders, array and drain together: the int32 product of every shape, in all three phases."""

import numpy as np
import pytest
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.sim import Simulator

from hw.array import SystolicArray
from hw.drain import DrainController
from hw.feeder import Feeder
from hw.issuer import Issuer
from hw.memory import READ_LATENCY, SkewedMemory

ACC_DELAY = 1 + READ_LATENCY


class Datapath(Elaboratable):
    """Two operand memories feeding the array; ``ones`` replaces operand a."""

    def __init__(self, size: int, depth: int) -> None:
        self.size = size
        self.memories = [SkewedMemory(lanes=size, depth=depth, width=8) for _ in range(2)]
        self.issuer = Issuer(size=size)
        self.feeders = [Feeder(size=size, rows=True), Feeder(size=size, rows=False)]
        self.array = SystolicArray(size=size)
        self.drain = DrainController(size=size, delay=Feeder.latency + self.array.drain_delay - ACC_DELAY)

    def elaborate(self, _platform):
        m = Module()
        issuer, (a, b), (feed_a, feed_b) = self.issuer, self.memories, self.feeders
        m.submodules += [issuer, a, b, feed_a, feed_b, self.array, self.drain]
        m.d.comb += [
            a.r_en.eq(issuer.read), a.r_addr.eq(issuer.a_addr), b.r_en.eq(issuer.read), b.r_addr.eq(issuer.b_addr),
            feed_a.slot.eq(issuer.slot), feed_b.slot.eq(issuer.slot),
            feed_a.rotated.eq(issuer.a_rotated), feed_b.rotated.eq(issuer.b_rotated),
            feed_a.banks.eq(a.r_data), feed_b.banks.eq(b.r_data),
            self.array.a.eq(feed_a.lanes), self.array.first.eq(feed_a.first), self.array.b.eq(feed_b.lanes),
            self.drain.start.eq(issuer.start), self.drain.rows.eq(issuer.rows), self.drain.cols.eq(issuer.cols),
            self.drain.boundary.eq(issuer.boundary),
        ]
        shift = self.drain.shift
        for _ in range(ACC_DELAY):
            delayed = Signal(self.size)
            m.d.sync += delayed.eq(shift)
            shift = delayed
        m.d.comb += self.array.shift.eq(shift)
        return m


async def store(ctx, memory, base, matrix, size):
    """Write a matrix with junk in its padding lanes; the skewed write port takes lane n's value n cycles later."""
    rows, cols = matrix.shape
    stride = -(-cols // size)
    padded = np.full((rows, stride * size), 99)
    padded[:, :cols] = matrix
    words = padded.reshape(-1, size)
    for step in range(len(words) + size):
        ctx.set(memory.w_en, step < len(words))
        ctx.set(memory.w_addr, base + min(step, len(words) - 1))
        for lane in range(size):
            word = step - lane
            ctx.set(memory.w_data[lane], int(words[word, lane]) if 0 <= word < len(words) else 0)
        await ctx.tick()
    return stride


def product(size, a, b, a_rotated, b_rotated, rows, cols, depth):
    """Run one pass; returns the product gathered from the drain and the cycles the issuer was busy."""
    dut = Datapath(size, 512)
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    result = np.full((rows, cols), 2**40)
    seen = []

    async def bench(ctx):
        strides = [await store(ctx, memory, base, matrix, size)
                   for memory, base, matrix in zip(dut.memories, (3, 5), (a, b), strict=True)]
        stride = -(-cols // size)
        settings = {"a_base": 3, "b_base": 5, "a_stride": strides[0], "b_stride": strides[1], "a_rotated": a_rotated,
                    "b_rotated": b_rotated, "rows": rows, "cols": cols, "depth": depth}
        for name, value in settings.items():
            ctx.set(getattr(dut.issuer, name), int(value))
        ctx.set(dut.drain.stride, stride)
        ctx.set(dut.issuer.start, 1)
        await ctx.tick()
        ctx.set(dut.issuer.start, 0)
        pending, cycles, after_done = [], 0, None
        while after_done != 0:
            cycles += ctx.get(dut.issuer.busy)
            if ctx.get(dut.drain.token):
                seen.append(ctx.get(dut.drain.offset))
                row, tile = divmod(seen[-1], stride)
                for lane in range(ctx.get(dut.drain.lanes)):
                    pending.append([ACC_DELAY + lane, row, tile * size + lane, lane])
            for item in pending:
                if item[0] == 0:
                    result[item[1], item[2]] = ctx.get(dut.array.acc[item[3]])
                item[0] -= 1
            if after_done is not None:
                after_done -= 1
            if ctx.get(dut.drain.done):
                after_done = ACC_DELAY + size + 1
            await ctx.tick()
        cycles_seen.append(cycles)

    cycles_seen: list[int] = []
    simulator.add_testbench(bench)
    simulator.run()
    assert len(seen) == rows * -(-cols // size) == len(set(seen))
    return result, cycles_seen[0]


PHASES = {"forward": (True, False), "backward": (True, True), "gradient": (False, False)}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("size", [4, 8, 12])
def test_products(phase, size):
    a_rotated, b_rotated = PHASES[phase]
    seed = 1000 + size
    rng = np.random.default_rng(seed)
    print(f"seed {seed}")
    shapes = [(1, 1, 1), (size, size, size), (size + 1, size - 1, 2 * size + 1), (3, 2 * size + 1, 2)]
    shapes += [tuple(int(x) for x in rng.integers(1, 2 * size + 3, 3)) for _ in range(2)]
    for rows, cols, depth in shapes:
        a = rng.integers(-127, 128, (rows, depth))
        b = rng.integers(-127, 128, (depth, cols))
        a.flat[0], b.flat[0] = -127, 127
        result, cycles = product(size, a if a_rotated else a.T, b.T if b_rotated else b, a_rotated, b_rotated,
                                 rows, cols, depth)
        np.testing.assert_array_equal(result, a @ b, err_msg=f"{phase} {rows}x{cols}x{depth}")
        tiles = -(-rows // size) * -(-cols // size)
        period = -(-depth // size) * size if a_rotated or b_rotated else max(depth, size)
        assert cycles == tiles * period + 1, "a tile takes its period, the pass one closing slot"
