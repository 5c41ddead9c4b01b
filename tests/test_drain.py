"""hw.drain: the rows the issuer named leave reversed, at fixed distances from their tile's boundary."""

import gc
import random

import pytest

from hw.array import ProcessingElement
from hw.drain import DrainController
from hw.feeder import Feeder
from hw.post import PostProcessor
from tests.rtl_bench import simulate

SEED = 67
SIZES = (4, 8, 12)


def core_delay(size):
    """From boundary to token, as the core has it."""
    return Feeder.latency + size - 1 + ProcessingElement.LATENCY - PostProcessor.ACC_DELAY


def random_tiles(rng, size, count, lengths):
    """Tiles: cycles, offsets of the rows named, columns, column tile."""
    return [{"length": rng.choice(lengths), "offsets": [rng.randrange(1 << 17) for _ in range(rng.choice([1, size - 1,
             size, rng.randint(1, size)]))], "cols": rng.randint(1, size), "tile": rng.randrange(1 << 16)}
            for _ in range(count)]


def timeline(tiles, size, delay):
    """Inputs and outputs by cycle: rows named in a tile's first cycles, its boundary with the next one's first."""
    rows, boundaries, tokens, start = {}, {}, {}, 0
    for n, tile in enumerate(tiles):
        offsets = tile["offsets"]
        for i, offset in enumerate(offsets):
            rows[start + i] = {"valid": 1, "new": i == 0, "index": i, "offset": offset, "rows": len(offsets),
                               "cols": tile["cols"], "tile": tile["tile"]}
        start += tile["length"]
        boundaries[start] = n == len(tiles) - 1
        for row in range(size):
            tokens[start + delay + size - 1 - row] = (tile, row, n == len(tiles) - 1)
    return rows, boundaries, tokens


def expected(entry, size):
    """Token, shifts and done of a cycle; offset, column tile and lanes where there is a token."""
    if entry is None:
        return (False, 0, False), None
    tile, row, last = entry
    named = row < len(tile["offsets"])
    shift = sum(1 << line for line in range(size) if row > size - 1 - line)
    return (named, shift, last and row == 0), (tile["offsets"][row], tile["tile"], tile["cols"]) if named else None


def drive(ctx, dut, rows, boundaries, cycle):
    ctx.set(dut.row, rows.get(cycle, dict.fromkeys(("valid", "new"), 0)))
    ctx.set(dut.boundary, cycle in boundaries)
    ctx.set(dut.last, boundaries.get(cycle, False))


async def check(ctx, dut, tiles):
    """A pass of ``tiles``, cycle for cycle, to its last row."""
    rows, boundaries, tokens = timeline(tiles, dut.size, dut.delay)
    for cycle in range(max(tokens) + 2):
        drive(ctx, dut, rows, boundaries, cycle)
        flow, data = expected(tokens.get(cycle), dut.size)
        assert (ctx.get(dut.token), ctx.get(dut.shift), ctx.get(dut.done)) == flow, (tiles, cycle)
        if data:
            assert (ctx.get(dut.offset), ctx.get(dut.tile), ctx.get(dut.lanes)) == data, (tiles, cycle)
        await ctx.tick()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("delay", ["short", "core"])
def test_tokens(size, delay):
    """One tile, tiles back to back at T cycles, and longer ones between them; short tiles among them."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = DrainController(size=size, delay=3 if delay == "short" else core_delay(size))

    async def bench(ctx):
        for count, lengths in ((1, [size]), (1, [3 * size]), (20, [size]), (12, [size, size + 1]),
                               (12, [size, 2 * size - 1, 5 * size])):
            await check(ctx, dut, random_tiles(rng, size, count, lengths))

    simulate(dut, bench)


def test_parts_of_a_pass_are_done_once():
    """Without ``last``, ``done`` does not come; the next part's tiles follow."""
    rng = random.Random(SEED)
    dut = DrainController(size=4, delay=core_delay(4))

    async def bench(ctx):
        tiles = random_tiles(rng, 4, 3, [4])
        rows, boundaries, tokens = timeline(tiles, 4, dut.delay)
        for cycle in range(max(tokens) + 2):
            drive(ctx, dut, rows, dict.fromkeys(boundaries, False), cycle)
            assert not ctx.get(dut.done)
            await ctx.tick()
        await check(ctx, dut, random_tiles(rng, 4, 3, [4]))

    simulate(dut, bench)


@pytest.mark.parametrize("size", [4, 12])
def test_abort_forgets_everything(size):
    """In any cycle, of rows named, of boundaries on their way and of rows leaving; the next pass is whole."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = DrainController(size=size, delay=core_delay(size))

    async def bench(ctx):
        tiles = random_tiles(rng, size, 3, [size])
        rows, boundaries, tokens = timeline(tiles, size, dut.delay)
        for end in range(0, max(tokens) + 1, 1 if size == 4 else 3):
            for cycle in range(end + 1):
                drive(ctx, dut, rows, boundaries, cycle)
                ctx.set(dut.abort, cycle == end)
                await ctx.tick()
            ctx.set(dut.abort, 0)
            drive(ctx, dut, {}, {}, 0)
            for _ in range(dut.delay + size):
                assert not ctx.get(dut.token) and not ctx.get(dut.shift) and not ctx.get(dut.done), end
                await ctx.tick()
            await check(ctx, dut, random_tiles(rng, size, 2, [size]))

    simulate(dut, bench)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("cycles", "named", "message"), [((0, 3), True, "before the one before has left"),
                                                          ((0,), False, "that was not named")])
def test_what_must_not_happen_breaks_an_assertion(cycles, named, message):
    dut = DrainController(size=4, delay=3)

    async def bench(ctx):
        for new in (True, True) if named else ():
            ctx.set(dut.row, {"valid": 1, "new": new, "rows": 1, "cols": 1})
            await ctx.tick()
        ctx.set(dut.row, {"valid": 0, "new": 0})
        for cycle in range(12):
            ctx.set(dut.boundary, cycle in cycles)
            await ctx.tick()

    with pytest.raises(AssertionError, match=message):
        simulate(dut, bench)
    gc.collect()  # the unfinished bench is complained about here, not in a later test
