"""hw.walker: the n-th pixel of a stack of images, however it is reached."""

import random

import pytest
from amaranth.sim import Simulator

from hw.walker import PixelWalker
from shiftgrad.config import WORD_BITS

SEED = 77
MASK = (1 << WORD_BITS) - 1


def place(setting, n):
    """Pixel ``n`` by definition: address and position; of a flat walk the address."""
    steps = setting["steps"]
    if setting["flat"]:
        return {"pixel": steps["start"] + n * steps["pixel"] & MASK}
    width, height = setting["last_x"] + 1, setting["last_y"] + 1
    line, count_x = divmod(n, width)
    image, count_y = divmod(line, height)
    word = steps["start"] + image * steps["image"] + count_y * steps["line"] + count_x * steps["pixel"]
    return {"pixel": word & MASK, "x": setting["x"] + count_x * (setting["step_x"] + 1),
            "y": setting["y"] + count_y * (setting["step_y"] + 1)}


def random_setting(rng, flat):
    sizes = {name: rng.choice([0, 0, 1, 2, 4]) for name in ("last_x", "last_y")}
    steps = {name: rng.choice([rng.randrange(8), rng.randrange(MASK + 1)]) for name in ("start", "pixel", "line",
                                                                                       "image")}
    return {"flat": flat, "steps": steps, **sizes, "x": rng.randint(-6, 6), "y": rng.randint(-6, 6),
            "step_x": rng.randint(0, 1), "step_y": rng.randint(0, 1)}


async def hold(ctx, dut, setting, n):
    got = ctx.get(dut.place)
    wanted = place(setting, n)
    assert {name: getattr(got, name) for name in wanted} == wanted, (setting, n)


async def settle(ctx, dut):
    """The setting is there a cycle before the walk."""
    for name in ("home", "step"):
        ctx.set(getattr(dut, name), 0)
    await ctx.tick()


def simulate(bench):
    dut = PixelWalker()
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)

    async def run(ctx):
        await bench(ctx, dut)

    simulator.add_testbench(run)
    simulator.run()


@pytest.mark.parametrize("flat", [0, 1])
def test_random_walks(flat):
    """Home, steps, returns and cycles of rest in any order; a pixel is kept with the move that reaches it only."""
    print("seed", SEED)
    rng = random.Random(SEED)

    async def bench(ctx, dut):
        for _ in range(25):
            setting = random_setting(rng, flat)
            for name, value in setting.items():
                ctx.set(getattr(dut, name), value)
            await settle(ctx, dut)
            n = kept = None
            move = {}
            for _ in range(70):
                move = {"home": 3 * (n is None or rng.random() < 0.05), "step": rng.random() < 0.85,
                        "back": kept is not None and not move.get("keep") and rng.random() < 0.15,
                        "keep": rng.random() < 0.2}
                for name, value in move.items():
                    ctx.set(getattr(dut, name), value)
                await ctx.tick()
                if move["home"]:
                    n = 0
                elif move["step"]:
                    n = kept if move["back"] else n + 1
                if move["keep"] and (move["home"] or move["step"]):
                    kept = n
                await hold(ctx, dut, setting, n)

    simulate(bench)


def test_the_largest_image():
    """256 x 256 pixels with a step of 2 reach position 512 - 2 - 6 and come back to the second image."""
    setting = {"flat": 0, "steps": {"start": 5, "pixel": 1, "line": 256, "image": 65536}, "last_x": 255, "last_y": 255,
               "x": -6, "y": -6, "step_x": 1, "step_y": 1}

    async def bench(ctx, dut):
        for name, value in setting.items():
            ctx.set(getattr(dut, name), value)
        await settle(ctx, dut)
        ctx.set(dut.home, 3)
        await ctx.tick()
        ctx.set(dut.home, 0)
        ctx.set(dut.step, 1)
        for n in range(65536 + 257):
            if n < 520 or n >= 65530 or n % 4099 == 0:
                await hold(ctx, dut, setting, n)
            await ctx.tick()

    simulate(bench)
