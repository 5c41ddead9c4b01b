"""hw.memory: every lane one cycle after its neighbour, host bytes, old data on a simultaneous write, then new."""

import gc
import random
from itertools import pairwise

import pytest

from hw.memory import READ_LATENCY, WRITE_DELAY, SkewedMemory
from tests.rtl_bench import simulate

SEED = 88


def number(rng, width):
    return rng.randint(-(1 << width - 1), (1 << width - 1) - 1)


@pytest.mark.parametrize(("lanes", "depth", "width"), [(4, 13, 8), (8, 16, 8), (12, 37, 8), (4, 5, 16), (12, 21, 16)])
def test_random_traffic(lanes, depth, width):
    """A model of one array a lane, delayed by the lane: reads, machine writes and host writes in every cycle."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = SkewedMemory(lanes=lanes, depth=depth, width=width)
    per_word = 32 // width
    cycles = 400
    roots = [
        {"r_en": rng.random() < 0.7, "r_addr": rng.randrange(depth), "w_en": rng.random() < 0.7,
         "w_addr": rng.randrange(depth), "h_en": rng.random() < 0.3, "data": rng.getrandbits(32),
         "strobe": rng.choice([0, 1, 2, 4, 8, 3, 12, 15]), "select": rng.randrange(-(-lanes // per_word))}
        for _ in range(cycles)]
    for root in rng.sample(roots, cycles // 4):  # the same word at once
        root["r_addr"] = root["w_addr"]
    for before, root in pairwise(roots):  # what was written just before
        if before["w_en"] and root["r_addr"] == before["w_addr"]:
            root["r_en"] = False
    values = [[number(rng, width) for _ in range(lanes)] for _ in range(cycles)]
    banks = [[0] * depth for _ in range(lanes)]
    out = [[0] * (READ_LATENCY + 1) for _ in range(lanes)]  # the last read, newest first

    landing = []

    def model(cycle):
        for n, address, value in landing:
            banks[n][address] = value
        landing.clear()
        for n in range(lanes):
            latest = out[n][0]
            if 0 <= (t := cycle - WRITE_DELAY - n) and roots[t]["r_en"]:
                latest = banks[n][roots[t]["r_addr"]]
            out[n] = [latest, *out[n][:-1]]
            if t < 0 or not (root := roots[t])["w_en"]:
                continue
            value = values[cycle][n]
            if root["h_en"]:
                part = n % per_word
                value = root["data"] >> width * part & ((1 << width) - 1)
                value -= (value >> width - 1) << width
                if root["select"] != n // per_word or not root["strobe"] >> part * (width // 8) & 1:
                    continue
            landing.append((n, root["w_addr"], value))

    async def bench(ctx):
        for cycle, root in enumerate(roots):
            for name in ("r_en", "r_addr", "w_en", "w_addr", "h_en"):
                ctx.set(getattr(dut, name), int(root[name]))
            for n in range(lanes):
                ctx.set(dut.w_data[n], values[cycle][n])
                if (t := cycle - WRITE_DELAY - n) >= 0:
                    word = {name: roots[t][name] for name in ("data", "strobe", "select")}
                    ctx.set(dut.h_word[n], word)
            model(cycle)
            await ctx.tick()
            for n in range(lanes):
                assert ctx.get(dut.r_data[n]) == out[n][READ_LATENCY - 1 - WRITE_DELAY], (cycle, n)

    simulate(dut, bench)
    assert sum(root["h_en"] and root["w_en"] for root in roots) > 50


def test_a_lane_keeps_its_value_until_its_next_read():
    dut = SkewedMemory(lanes=4, depth=6, width=8)

    async def bench(ctx):
        for address in (1, 2):
            for name, value in (("w_en", 1), ("w_addr", address)):
                ctx.set(getattr(dut, name), value)
            for n in range(4):
                ctx.set(dut.w_data[n], 10 + n)
            await ctx.tick()
        ctx.set(dut.w_en, 0)
        await ctx.tick().repeat(5)
        ctx.set(dut.r_en, 1)
        ctx.set(dut.r_addr, 1)
        await ctx.tick()
        ctx.set(dut.r_en, 0)
        ctx.set(dut.r_addr, 3)
        await ctx.tick().repeat(READ_LATENCY - 1)
        for cycle in range(8):
            assert [ctx.get(dut.r_data[n]) for n in range(4)] == [10 + n if n <= cycle else 0 for n in range(4)]
            await ctx.tick()

    simulate(dut, bench)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_write_beyond_the_memory_breaks_an_assertion():
    dut = SkewedMemory(lanes=4, depth=13, width=8)

    async def bench(ctx):
        ctx.set(dut.w_en, 1)
        ctx.set(dut.w_addr, 13)
        await ctx.tick().repeat(2)

    with pytest.raises(AssertionError, match="write beyond 13 words"):
        simulate(dut, bench)
    gc.collect()  # the unfinished bench is complained about here, not in a later test


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_read_just_after_a_write_breaks_an_assertion():
    dut = SkewedMemory(lanes=4, depth=13, width=8)

    async def bench(ctx):
        for write, read in ((1, 0), (0, 1), (0, 0)):
            for name, value in (("w_en", write), ("w_addr", 12 * write), ("r_en", read), ("r_addr", 12 * read)):
                ctx.set(getattr(dut, name), value)
            await ctx.tick()
        await ctx.tick()

    with pytest.raises(AssertionError, match="in the cycle after its write"):
        simulate(dut, bench)
    gc.collect()  # as above
