"""hw.issuer: slots, addresses, padding and rows of products of every kind, against their definition."""

import random

import pytest

from golden.convolution import Window
from hw.issuer import Issuer
from tests.products import PHASES, Product, Row, Step, random_product
from tests.rtl_bench import simulate

SEED = 66


def seen(ctx, dut):
    """The outputs of this cycle as a Step; the addresses as they are."""
    slot, row = ctx.get(dut.slot), ctx.get(dut.row)
    named = Row(bool(row.new), row.index, row.offset, row.rows, row.cols, row.tile) if row.valid else None
    return Step(bool(slot.valid), bool(slot.first), slot.index, slot.rows, slot.cols,
                -1 if ctx.get(dut.pad) else ctx.get(dut.a_addr), ctx.get(dut.b_addr), named, bool(ctx.get(dut.waiting)))


async def begin(ctx, dut, loops):
    """Start a pass; afterwards it is the cycle of its first slot."""
    ctx.set(dut.loops, loops)
    assert not ctx.get(dut.busy)
    ctx.set(dut.start, 1)
    await ctx.tick()
    ctx.set(dut.start, 0)
    for _ in range(dut.DELAY):
        assert ctx.get(dut.busy) and not ctx.get(dut.read) and not ctx.get(dut.slot.valid)
        await ctx.tick()


async def check(ctx, dut, product, odd):
    """One part of a pass, slot for slot."""
    wanted = list(product.slots(odd))
    await begin(ctx, dut, product.loops(odd))
    macs = 0
    for n, step in enumerate(wanted):
        got, where = seen(ctx, dut), (product, odd, n)
        addresses = {name: getattr(got, name) for name in "ab" if getattr(step, name) is None}
        assert got == step._replace(**addresses), where
        assert ctx.get(dut.busy) and ctx.get(dut.read), where
        assert ctx.get(dut.boundary) == (step.first and n > 0), where
        assert not ctx.get(dut.closing), where
        macs += ctx.get(dut.macs)
        await ctx.tick()
    macs += ctx.get(dut.macs)
    closing = seen(ctx, dut)
    assert closing.first and not closing.valid and not closing.row and not closing.waiting, "the closing slot"
    assert ctx.get(dut.busy) and ctx.get(dut.boundary) and ctx.get(dut.closing) and not ctx.get(dut.read)
    await ctx.tick()
    assert not ctx.get(dut.busy) and not ctx.get(dut.boundary) and not ctx.get(dut.slot.first)
    assert macs == sum(step.rows * step.cols for step in wanted if step.valid)


def corners(phase, size):
    """Dense ones around T, the largest kernel with the most padding, both steps, and a step without taps."""
    yield from (Product(phase, size, rows, (1, 1), cin, cout) for rows, cin, cout in (
        (1, 1, 1), (size, size, size), (size + 1, size + 1, size + 1), (3 * size, 1, 2), (1, 3 * size, 2),
        (2, 2, 3 * size + 1), (2, 3 * size + 1, 2)))
    yield Product(phase, size, 1, (2, 1), 1, 2, Window(7, 7, 1, 1, 6, 6), (3, 1, 4))
    yield Product(phase, size, 2, (5, 4), 2, 3, Window(3, 3, 2, 2, 1, 1), (9, 8, 7))
    yield Product(phase, size, 2, (4, 5), 3, 2, Window(3, 2, 1, 2, 2, 0), (9, 8, 7))
    yield Product(phase, size, 1, (3, 4), size + 1, 2, Window(1, 1, 2, 2), (5, 6, 7))
    yield Product(phase, size, 1, (3, 4), 2, 2, Window(1, 3, 2, 1, 0, 1), (5, 6, 7))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("size", [4, 8, 12])
def test_every_slot(size, phase):
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = Issuer(size=size)
    cases = [*corners(phase, size), *(random_product(rng, phase, size, cycles=500) for _ in range(12))]

    async def bench(ctx):
        for product in cases:
            for odd in product.parities:
                await check(ctx, dut, product, odd)
                await ctx.tick().repeat(rng.randint(1, 3))

    simulate(dut, bench)


def test_a_pass_starts_in_the_cycle_after_the_one_before():
    """Nothing of a pass is left behind in the next, of another kind."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = Issuer(size=4)

    async def bench(ctx):
        for _ in range(30):
            product = random_product(rng, rng.choice(PHASES), 4, cycles=100)
            await check(ctx, dut, product, rng.choice(product.parities))

    simulate(dut, bench)


@pytest.mark.parametrize("phase", PHASES)
def test_abort_clears_everything_and_the_next_pass_is_whole(phase):
    dut = Issuer(size=4)
    product = Product(phase, 4, 1, (3, 3), 3, 5, Window(3, 2, 2, 1, 1, 1), (5, 6, 7))
    length = len(list(product.slots())) + dut.DELAY + 1

    async def quiet(ctx, cycles):
        for _ in range(cycles):
            assert not any(ctx.get(signal) for signal in (dut.busy, dut.read, dut.boundary, dut.closing, dut.waiting))
            assert not any(ctx.get(signal) for signal in (dut.slot.valid, dut.slot.first, dut.row.valid, dut.row.new))
            await ctx.tick()
            assert not ctx.get(dut.macs)

    async def bench(ctx):
        ctx.set(dut.loops, product.loops())
        for cycles in [*range(12), *range(12, length - 4, 7), *range(length - 4, length + 1)]:
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for _ in range(cycles):
                await ctx.tick()
            ctx.set(dut.abort, 1)
            await ctx.tick()
            ctx.set(dut.abort, 0)
            await quiet(ctx, dut.DELAY + 2)
            await check(ctx, dut, product, (0, 0))

    simulate(dut, bench)


def test_abort_wins_over_start():
    dut = Issuer(size=4)

    async def bench(ctx):
        ctx.set(dut.loops, Product("forward", 4, 1, (1, 1), 1, 1).loops())
        for name in ("start", "abort"):
            ctx.set(getattr(dut, name), 1)
        await ctx.tick()
        assert not ctx.get(dut.busy)

    simulate(dut, bench)
