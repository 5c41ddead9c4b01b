"""hw.geometry: the addresses its loops give to every pixel, tap and row are those of the tensors."""

import itertools
import random

import pytest
from amaranth.sim import Simulator

from golden.convolution import Window
from hw.geometry import Geometry
from shiftgrad.config import WORD_BITS
from tests.products import PHASES, Product, random_product

SEED = 88
WORDS = 1 << WORD_BITS
BOUNDS = ("rows", "cols", "depth", "grad", "b_rotated", "empty", "last_y", "last_x", "taps_y", "taps_x", "step_y",
          "step_x", "lattice")


def sample(rng, count):
    """All of a few numbers below ``count``, or the first, the last and some others."""
    return range(count) if count <= 6 else sorted({0, 1, count - 1, *(rng.randrange(count) for _ in range(3))})


def at(steps, plane, y, x):
    return steps.start + plane * steps.image + y * steps.line + x * steps.pixel


def junk(rng, operand):
    """An operand that is no kernel: its padding and steps mean nothing."""
    form = {"pad_y": rng.randrange(8), "pad_x": rng.randrange(8), "step_y": rng.randint(0, 1),
            "step_x": rng.randint(0, 1)}
    return operand | {"entry": operand["entry"] | form}


def check_a(rng, product, odd, loops):
    """Every lattice pixel through every tap: its word, or that it is padding."""
    a = product.images[1]
    taps_y, taps_x = (product.axis(i, odd[i])[0] for i in range(2))
    lattice = itertools.product(*(sample(rng, n) for n in (product.planes, loops.last_y + 1, loops.last_x + 1)))
    for place in lattice:
        for (i, ty), (j, tx) in itertools.product(enumerate(taps_y), enumerate(taps_x)):
            y = loops.y + place[1] * (loops.step_y + 1) + i
            x = loops.x + place[2] * (loops.step_x + 1) + j
            wanted = product._tap(a, place, (ty, tx), odd)
            where = (product, odd, place, ty, tx)
            assert (0 <= y <= loops.high and 0 <= x <= loops.wide) == (wanted >= 0), where
            if wanted >= 0:
                word = at(loops.a, *place) + i * loops.tap_y + j * loops.tap_x
                assert word % WORDS == wanted == a.word(place[0], y, x), where


def check_b(rng, product, odd, loops):
    """Rows of operand b: of weights, tap by tap, or of the errors."""
    b = product.images[2]
    tiles = sample(rng, -(-loops.cols // product.size))
    if loops.grad:
        for row, tile in itertools.product(sample(rng, loops.depth), tiles):
            assert (loops.b_start + row * loops.b_row + tile * loops.b_tile) % WORDS == b.base + row * b.stride + tile
        return
    taps_y, taps_x = (product.axis(i, odd[i])[0] for i in range(2))
    for (i, ty), (j, tx), tile in itertools.product(enumerate(taps_y), enumerate(taps_x), tiles):
        lanes = min(product.size, loops.cols - tile * product.size)
        for channel in sample(rng, lanes if loops.b_rotated else loops.depth):
            tap = (ty * product.window.width + tx) * product.cin
            if loops.b_rotated:
                word = loops.b_start - i * loops.b_tap_y - j * loops.b_tap_x
                row, block = tap + tile * product.size + channel, 0
            else:
                word = loops.b_start + tap * loops.b_row
                row, block = tap + channel, tile
            word += channel * loops.b_row + tile * loops.b_tile
            assert word % WORDS == b.base + row * b.stride + block, (product, odd, ty, tx, tile, channel)


def check_dst(rng, product, odd, loops):
    """Offsets of the result's rows."""
    dst = product.images[0]
    if not loops.lattice:
        assert (loops.dst.start, loops.dst.pixel) == (0, dst.stride)
        return
    gap_y, gap_x = product.window.step_y, product.window.step_x
    for plane, y, x in itertools.product(*(sample(rng, n) for n in (product.planes, loops.last_y + 1,
                                                                   loops.last_x + 1))):
        wanted = dst.word(plane, y * gap_y + odd[0], x * gap_x + odd[1]) - dst.base
        assert at(loops.dst, plane, y, x) % WORDS == wanted, (product, odd, plane, y, x)


async def loops_of(ctx, dut, rng, product, odd):
    """All inputs change with ``start``; the loops are read LATENCY cycles later."""
    kernel = "dst" if product.phase in ("gradient", "ones") else "b"
    for name, images in zip(("dst", "a", "b"), product.images, strict=True):
        operand = images.operand()
        keep = name == kernel and product.phase != "ones"
        ctx.set(getattr(dut, name), operand if keep else junk(rng, operand))
    for name, value in {"is_bwd": product.phase == "backward", "is_grad": kernel == "dst",
                        "ones": product.phase == "ones", "odd_y": odd[0], "odd_x": odd[1], "start": 1}.items():
        ctx.set(getattr(dut, name), value)
    await ctx.tick()
    ctx.set(dut.start, 0)
    await ctx.tick().repeat(dut.LATENCY - 1)
    return ctx.get(dut.loops)


def corners(phase, size):
    """The largest images, strides, kernels and reductions, and a step whose odd lines see no tap."""
    yield Product(phase, size, 1, (255, 256), 3, 2, Window(7, 7, 1, 1, 3, 3), (1, 2, 3))
    yield Product(phase, size, 1, (256, 255), 3, size, Window(7, 7, 2, 2, 6, 6), (60000, 1, 2))
    yield Product(phase, size, 1, (256, 255), 1, 1, Window(7, 1, 2, 1, 3, 0), (5, 60000, 9))
    yield Product(phase, size, 2, (7, 6), 300, 5 * size, Window(7, 7, 2, 2, 3, 3), (3, 5, 7))
    yield Product(phase, size, 65535, (1, 1), 1, size, Window(), (65536, 0, 65530))
    yield Product(phase, size, 2, (1, 1), 65535, 2 * size, Window(), (0, 3, 1))
    yield Product(phase, size, 3, (4, 5), 2, 3, Window(1, 1, 2, 2), (3, 5, 7))
    yield Product(phase, size, 3, (4, 5), 2, 3, Window(2, 1, 1, 2, 1, 0), (3, 5, 7))
    yield Product(phase, size, 2, (1, 1), 5, 3, Window(3, 3, 2, 2, 1, 1), (3, 5, 7))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("size", [4, 8, 12])
def test_loops(size, phase):
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = Geometry(size=size)
    cases = [*corners(phase, size), *(random_product(rng, phase, size, cycles=20000) for _ in range(40))]

    async def bench(ctx):
        for product in cases:
            for odd in product.parities:
                loops, wanted = await loops_of(ctx, dut, rng, product, odd), product.loops(odd)
                assert {name: getattr(loops, name) for name in BOUNDS} == {
                    name: wanted[name] if phase != "ones" or not name.startswith("step") else getattr(loops, name)
                    for name in BOUNDS}, (product, odd)
                check_dst(rng, product, odd, loops)
                if not loops.empty:
                    check_b(rng, product, odd, loops)
                    if phase != "ones":
                        check_a(rng, product, odd, loops)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
