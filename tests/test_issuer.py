"""hw.issuer and hw.drain: address sequences, tile boundaries and row offsets against their definitions."""

import gc
import random

import pytest
from amaranth.sim import Simulator

from hw.drain import DrainController
from hw.issuer import Issuer

SEED = 66
PHASES = {"forward": (1, 0), "backward": (1, 1), "gradient": (0, 0)}


def simulate(dut, bench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def address(base, stride, rotated, tile, k, size):
    """As in the docstring of AddressGenerator."""
    if rotated:
        return base + (tile * size + k % size) * stride + k // size
    return base + k * stride + tile


def tiles(rows, cols, size):
    """(column tile, row tile) in the machine's order."""
    return [(col, row) for col in range(-(-cols // size)) for row in range(-(-rows // size))]


def steps(size, rows, cols, depth, rotated):
    """Slots of a pass: (column tile, row tile, k, rows, cols of the tile)."""
    period = -(-depth // size) * size if any(rotated) else max(depth, size)
    return [(col, row, k, min(size, rows - row * size), min(size, cols - col * size))
            for col, row in tiles(rows, cols, size) for k in range(period)]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("size", [4, 8, 12])
def test_slots_and_addresses(size, phase):
    print("seed", SEED)
    rng = random.Random(SEED)
    rotated = PHASES[phase]
    dut = Issuer(size=size)
    edges = [1, size - 1, size, size + 1, 2 * size, 2 * size + 1]
    shapes = [(1, 1, 1), (size, size, size), (size + 1, size + 1, size + 1), (3 * size, 1, 2), (1, 3 * size, 2)]
    shapes += [tuple(rng.choice([*edges, rng.randint(1, 3 * size)]) for _ in range(3)) for _ in range(12)]

    async def bench(ctx):
        for rows, cols, depth in shapes:
            bases, strides = [rng.randint(0, 5000) for _ in "ab"], [rng.randint(1, 9) for _ in "ab"]
            for i, name in enumerate("ab"):
                ctx.set(getattr(dut, f"{name}_base"), bases[i])
                ctx.set(getattr(dut, f"{name}_stride"), strides[i])
                ctx.set(getattr(dut, f"{name}_rotated"), rotated[i])
            for name, value in (("rows", rows), ("cols", cols), ("depth", depth), ("start", 1)):
                ctx.set(getattr(dut, name), value)
            assert not ctx.get(dut.busy)
            await ctx.tick()
            ctx.set(dut.start, 0)
            macs, fed = 0, False
            for col, row, k, tile_rows, tile_cols in steps(size, rows, cols, depth, rotated):
                where = (rows, cols, depth, col, row, k)
                assert ctx.get(dut.busy) and ctx.get(dut.read), where
                slot = ctx.get(dut.slot)
                assert (slot.valid, slot.first, slot.index) == (k < depth, k == 0, k % size), where
                assert (slot.rows, slot.cols) == (tile_rows, tile_cols), where
                assert ctx.get(dut.boundary) == (k == 0 and fed), where
                assert ctx.get(dut.waiting) == (k >= depth and not any(rotated)), where
                if k < depth:
                    assert ctx.get(dut.a_addr) == address(bases[0], strides[0], rotated[0], row, k, size), where
                    assert ctx.get(dut.b_addr) == address(bases[1], strides[1], rotated[1], col, k, size), where
                macs += ctx.get(dut.macs)
                fed = True
                await ctx.tick()
            macs += ctx.get(dut.macs)
            assert ctx.get(dut.busy) and ctx.get(dut.boundary) and not ctx.get(dut.read), "the closing slot"
            await ctx.tick()
            assert not ctx.get(dut.busy)
            assert macs == rows * cols * depth
            for _ in range(rng.randint(0, 3)):
                await ctx.tick()

    simulate(dut, bench)


def test_abort_stops_at_once_and_the_next_pass_is_whole():
    dut = Issuer(size=4)

    async def bench(ctx):
        for name, value in (("rows", 9), ("cols", 5), ("depth", 6), ("a_stride", 2), ("b_stride", 2), ("a_rotated", 1)):
            ctx.set(getattr(dut, name), value)
        length = len(steps(4, 9, 5, 6, (1, 0)))
        for cycles in range(length + 2):
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for _ in range(cycles):
                await ctx.tick()
            ctx.set(dut.abort, 1)
            await ctx.tick()
            ctx.set(dut.abort, 0)
            assert not ctx.get(dut.busy)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for _ in range(length + 1):
            assert ctx.get(dut.busy)
            await ctx.tick()
        assert not ctx.get(dut.busy)

    simulate(dut, bench)


@pytest.mark.parametrize("size", [4, 12])
@pytest.mark.parametrize("delay", [2, 15])
def test_drain_tokens(size, delay):
    """Tiles T cycles apart or more: rows from last to first, offsets, lanes, shifts and ``done``."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = DrainController(size=size, delay=delay)
    shapes = [(1, 1), (size, size), (size + 1, size + 1), (3 * size, 1), (1, 3 * size), (2 * size - 1, 2 * size + 1)]

    async def bench(ctx):
        for rows, cols in shapes:
            for gap in (size, size + 1, 3 * size):
                stride = -(-cols // size) + rng.randint(0, 2)
                for name, value in (("rows", rows), ("cols", cols), ("stride", stride)):
                    ctx.set(getattr(dut, name), value)
                await ctx.tick().repeat(2)
                ctx.set(dut.start, 1)
                await ctx.tick()
                ctx.set(dut.start, 0)
                order = tiles(rows, cols, size)
                wanted = {i * gap + delay + size - 1 - r: (col, row, r)
                          for i, (col, row) in enumerate(order) for r in range(size)}
                for cycle in range(max(wanted) + 2):
                    ctx.set(dut.boundary, cycle % gap == 0 and cycle // gap < len(order))
                    where = (rows, cols, gap, cycle)
                    inside = False
                    shift = 0
                    if cycle in wanted:
                        col, row, r = wanted[cycle]
                        inside = row * size + r < rows
                        shift = sum(1 << line for line in range(size) if r > size - 1 - line)
                        if inside:
                            assert ctx.get(dut.offset) == (row * size + r) * stride + col, where
                            assert ctx.get(dut.tile) == col
                            assert ctx.get(dut.lanes) == min(size, cols - col * size)
                    assert ctx.get(dut.token) == inside, where
                    assert ctx.get(dut.shift) == shift, where
                    assert ctx.get(dut.done) == (cycle == max(wanted)), where
                    await ctx.tick()

    simulate(dut, bench)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tiles_too_close_break_an_assertion():
    dut = DrainController(size=4, delay=2)

    async def bench(ctx):
        for name, value in (("rows", 9), ("cols", 4), ("stride", 1), ("start", 1)):
            ctx.set(getattr(dut, name), value)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for cycle in range(12):
            ctx.set(dut.boundary, cycle in (0, 3))
            await ctx.tick()

    with pytest.raises(AssertionError, match="before the one before has left"):
        simulate(dut, bench)
    gc.collect()  # the unfinished bench is complained about here, not in a later test
