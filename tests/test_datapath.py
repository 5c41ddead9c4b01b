"""Issuer, memories, feeders, array and drain together: the int32 products of convolutions in all phases."""

import random

import numpy as np
import pytest
from amaranth.hdl import Cat, Elaboratable, Module, Signal
from amaranth.sim import Simulator

from golden import convolution
from golden.convolution import Window
from golden.numerics import with_scalar
from hw.array import SystolicArray
from hw.drain import DrainController
from hw.feeder import Feeder
from hw.issuer import Issuer
from hw.memory import WRITE_DELAY, SkewedMemory
from hw.post import PostProcessor
from tests.products import PHASES, Product, random_product

ACC_DELAY = PostProcessor.ACC_DELAY
NEVER = 2**40  # no sum is this
DEPTH = 1 << 13


class Datapath(Elaboratable):
    """Two operand memories feeding the array, as the core has them; with ``uint8`` operand a may be unsigned."""

    def __init__(self, size: int, *, uint8: bool = False) -> None:
        self.size, self.uint8 = size, uint8
        self.memories = [SkewedMemory(lanes=size, depth=DEPTH, width=8) for _ in range(2)]
        self.issuer = Issuer(size=size)
        self.feeders = [Feeder(size=size, rows=True, bits=8 + uint8), Feeder(size=size, rows=False)]
        self.array = SystolicArray(size=size, a_bits=8 + uint8)
        self.drain = DrainController(size=size, delay=Feeder.latency + self.array.drain_delay - ACC_DELAY)
        self.last = Signal()

    def elaborate(self, _platform):
        m = Module()
        issuer, drain, (a, b), (feed_a, feed_b) = self.issuer, self.drain, self.memories, self.feeders
        m.submodules += [issuer, a, b, feed_a, feed_b, self.array, drain]
        m.d.comb += [
            a.r_en.eq(issuer.read), a.r_addr.eq(issuer.a_addr), b.r_en.eq(issuer.read), b.r_addr.eq(issuer.b_addr),
            feed_a.slot.eq(issuer.slot), feed_b.slot.eq(issuer.slot), feed_a.pad.eq(issuer.pad),
            feed_a.rotated.eq(~issuer.loops.grad), feed_b.rotated.eq(issuer.loops.b_rotated),
            *(bank.eq(Cat(value, value[-1] & ~feed_a.unsigned).as_signed() if self.uint8 else value)
              for bank, value in zip(feed_a.banks, a.r_data, strict=True)),
            feed_b.banks.eq(b.r_data),
            self.array.a.eq(feed_a.lanes), self.array.first.eq(feed_a.first), self.array.b.eq(feed_b.lanes),
            drain.row.eq(issuer.row), drain.boundary.eq(issuer.boundary), drain.last.eq(issuer.closing & self.last),
        ]
        shift = drain.shift
        for _ in range(ACC_DELAY):
            delayed = Signal(self.size)
            m.d.sync += delayed.eq(shift)
            shift = delayed
        m.d.comb += self.array.shift.eq(shift)
        return m


def words(matrix, images):
    """A matrix as memory words, with junk in the lanes beyond its columns."""
    padded = np.full((images.rows, images.stride * images.lanes), 99)
    padded[:, :images.cols] = matrix
    return padded.reshape(-1, images.lanes)


async def store(ctx, memory, base, values):
    """Through the skewed write port: lane n's value WRITE_DELAY + n cycles later."""
    size = memory.lanes
    for step in range(len(values) + WRITE_DELAY + size):
        ctx.set(memory.w_en, step < len(values))
        ctx.set(memory.w_addr, base + min(step, len(values) - 1))
        column = [int(values[t, n]) if 0 <= (t := step - WRITE_DELAY - n) < len(values) else 0 for n in range(size)]
        ctx.set(memory.w_data, column)
        await ctx.tick()


async def run_pass(ctx, dut, product, result):
    """All parts of a pass, their slots T cycles apart; fills ``result`` [words, T] from the drain; cycles busy."""
    waiting, parts, done_in = [], product.parities, None
    cycles = start_in = 0
    while done_in != 0:
        if ctx.get(dut.issuer.closing):  # the first slot of a pass follows its start by 1 + DELAY
            start_in = max(1, dut.size - Issuer.DELAY - 1)
        start_in -= 1
        if parts and start_in == -1:
            odd = parts.pop(0)
            ctx.set(dut.issuer.loops, product.loops(odd))
            ctx.set(dut.issuer.start, 1)
            ctx.set(dut.last, not parts)
        cycles += ctx.get(dut.issuer.busy)
        if ctx.get(dut.drain.token):
            waiting += [[ACC_DELAY + n, ctx.get(dut.drain.offset), n] for n in range(ctx.get(dut.drain.lanes))]
        for item in waiting:
            if item[0] == 0:
                assert result[item[1], item[2]] == NEVER, "an element comes twice"
                result[item[1], item[2]] = ctx.get(dut.array.acc[item[2]])
            item[0] -= 1
        waiting = [item for item in waiting if item[0] >= 0]
        done_in = ACC_DELAY + dut.size if ctx.get(dut.drain.done) else done_in and done_in - 1
        await ctx.tick()
        ctx.set(dut.issuer.start, 0)
    assert not waiting and not parts
    return cycles


def golden(product, x, y, weights):
    """The product's sums, and its operands a and b."""
    pixels = y.reshape(-1, product.cout)
    if product.phase == "forward":
        return convolution.forward(x, weights, product.window), x, weights
    if product.phase == "backward":
        return convolution.backward(y, weights, product.window, product.shape), y, weights
    if product.phase == "gradient":
        return convolution.gradient(x, pixels, product.window), x, pixels
    return pixels.sum(axis=0, keepdims=True), x, pixels


def operands(rng, product, *, unsigned=False):
    """Random x, y and weights with extreme values among them; x may be ``unsigned``."""
    window = product.window
    sizes = ((product.planes, *product.shape, product.cin), (product.planes, *window.output(*product.shape),
             product.cout), (window.height * window.width * product.cin, product.cout))
    x, *others = [rng.choice([-128, -127, 127, *rng.integers(-127, 128, 30)], size).astype(np.int8) for size in sizes]
    if unsigned:
        x = rng.choice([0, 1, 127, 128, 254, 255, *rng.integers(0, 256, 30)], x.shape).astype(np.uint8)
    return x, *others


async def check(ctx, dut, product, seed, scalar=None, *, unsigned=False, given=None):
    """Run ``product`` with the operands ``given``, or random ones; every element comes once, in the tiles' cycles.

    ``unsigned``: operand a is, which must be x then.
    """
    x, y, weights = given or operands(np.random.default_rng(seed), product, unsigned=unsigned)
    wanted, a, b = golden(product, x if scalar is None else with_scalar(x, scalar, 0), y, weights)
    a = x if scalar is not None else a
    dst, *images = product.images
    for memory, image, values in zip(dut.memories, images, (a, b), strict=True):
        await store(ctx, memory, image.base, words(values.view(np.int8).reshape(-1, image.cols), image))
    for name, value in (("ones", product.phase == "ones"), ("add", scalar is not None), ("scalar", scalar or 0),
                        *[("unsigned", unsigned)] * dut.uint8):
        ctx.set(getattr(dut.feeders[0], name), value)
    await ctx.tick()
    result = np.full((dst.rows * dst.stride, dst.lanes), NEVER)
    taken = await run_pass(ctx, dut, product, result)
    got = result.reshape(dst.rows, -1)
    np.testing.assert_array_equal(got[:, :dst.cols], wanted, err_msg=f"{product} seed {seed}")
    assert (got[:, dst.cols:] == NEVER).all()
    closing = 1 + Issuer.DELAY  # cycles a part is busy after its last slot was made
    assert taken == sum(len(list(product.slots(odd))) + closing for odd in product.parities)
    return got[:, :dst.cols]


def simulate(size, bench, *, uint8=False):
    dut = Datapath(size, uint8=uint8)
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    async def run(ctx):
        await bench(ctx, dut)

    simulator.add_testbench(run)
    simulator.run()


def corners(phase, size):
    """Dense; the largest kernel on a small image; both steps; steps with pixels that see no tap."""
    yield Product(phase, size, 1, (1, 1), 1, 1, Window(), (0, 3, 5))
    yield Product(phase, size, size + 1, (1, 1), size + 1, size + 2, Window(), (0, 3, 5))
    yield Product(phase, size, 1, (2, 3), 2, 3, Window(7, 4, 1, 1, 6, 3), (0, 3, 5))
    yield Product(phase, size, 2, (5, 4), size + 1, 3, Window(3, 3, 2, 2, 1, 1), (0, 3, 5))
    yield Product(phase, size, 1, (4, 6), 2, size + 1, Window(1, 1, 2, 2), (0, 3, 5))
    yield Product(phase, size, 2, (3, 4), 3, 2, Window(2, 5, 1, 2, 0, 2), (0, 3, 5))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("size", "uint8"), [(4, False), (4, True), (8, False), (12, False)],
                         ids=["4", "4_uint8", "8", "12"])
def test_products(phase, size, uint8):
    seed = 1000 + size
    print("seed", seed)
    rng = random.Random(seed)
    cases = [*corners(phase, size), *(random_product(rng, phase, size, cycles=150) for _ in range(2))]

    async def bench(ctx, dut):
        for product in cases:
            for unsigned in (False, True) if uint8 and phase in ("forward", "gradient") else (False,):
                await check(ctx, dut, product, seed, unsigned=unsigned)

    simulate(size, bench, uint8=uint8)


@pytest.mark.parametrize("phase", ["forward", "gradient"])
def test_an_added_scalar_leaves_the_padding_zero(phase):
    product = Product(phase, 4, 2, (3, 4), 5, 3, Window(3, 3, 1, 2, 1, 1), (0, 3, 5))

    async def bench(ctx, dut):
        for scalar in (-127, -1, 0, 5, 127):
            await check(ctx, dut, product, 7, scalar)

    simulate(4, bench)


@pytest.mark.parametrize("phase", ["forward", "gradient"])
def test_a_scalar_added_to_unsigned(phase):
    """Of both signs, up to the largest; and to the signed operand of the same datapath, with -128 in it."""
    product = Product(phase, 4, 2, (3, 4), 5, 3, Window(3, 3, 1, 2, 1, 1), (0, 3, 5))

    async def bench(ctx, dut):
        for unsigned, scalars in ((True, (-255, 0, 255)), (False, (-127, 0, 127)), (True, (-1, 128))):
            for scalar in scalars:
                await check(ctx, dut, product, 7, scalar, unsigned=unsigned)

    simulate(4, bench, uint8=True)


@pytest.mark.parametrize("weight", [-128, 127])
def test_the_largest_sums(weight):
    """Beyond the integers of float32: all terms of one sign and as large as they can be."""
    product = Product("forward", 4, 5, (1, 1), 600, 3)
    y, weights = np.zeros((5, 1, 1, 3), np.int8), np.full((600, 3), weight, np.int8)

    async def bench(ctx, dut):
        for pixel in (255, -128):
            x = np.full((5, 1, 1, 600), pixel, np.uint8 if pixel > 0 else np.int8)
            sums = await check(ctx, dut, product, 0, unsigned=pixel > 0, given=(x, y, weights))
            assert (sums == 600 * pixel * weight).all()

    simulate(4, bench, uint8=True)
