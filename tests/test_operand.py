"""hw.operand against the golden machine: products of a descriptor, and its checks one by one and together."""

import random
from dataclasses import replace

import pytest

from golden.issue import Issuer, Stop
from golden.machine import GoldenMachine
from hw.operand import OperandCheck
from shiftgrad.config import Config
from shiftgrad.isa import HISTORY, UNSIGNED, Memory, Status
from sim.programs import descriptor
from tests.rtl_bench import simulate

SEED = 404
CONFIG = Config(name="small", size=12, act_words=500, err_words=499, wgt_words=1 << 16, mom_words=1 << 16, vec_words=40,
                program_words=16, tensors=50, classes=20)
CONFIGS = pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, unsigned=True)], ids=["int8", "uint8"])
DEEP = Config(name="deep", size=4, act_words=1 << 17, err_words=(1 << 17) - 1, tensors=256)


def entry_of(tensor):
    """A golden Tensor as a Descriptor."""
    names = ("base", "stride", "planes", "cols", "memory")
    history = [*tensor.history, *[0] * HISTORY][:HISTORY]
    return {name: getattr(tensor, name) for name in names} | ({"memory": UNSIGNED} if tensor.unsigned else {}) | {
        "height": tensor.height - 1, "width": tensor.width - 1,
        "scale": {"exponent": tensor.exponent, "count": tensor.count, "history": history}}


def golden_status(machine, index, memory, unsigned):
    try:
        Issuer(machine.config).operand(index, memory, machine.table, unsigned=unsigned)
    except Stop as stop:
        return stop.status
    return Status.RESET


def fitting(rng, config, memory):
    """A legal descriptor."""
    words = config.words(memory.name.lower())
    while True:
        cols = rng.randint(1, 40)
        stride = config.stride(cols)
        height, width = (rng.choice([1, rng.randint(1, 9)]) for _ in range(2))
        most = words // (stride * height * width)
        if most:
            planes = rng.randint(1, min(most, 65535 // (height * width)))
            end = planes * height * width * stride
            return {"memory": memory, "planes": planes, "height": height - 1, "width": width - 1, "cols": cols,
                    "stride": stride, "exponent": rng.randint(-60, 60), "count": rng.randint(0, 8),
                    "base": rng.choice([0, words - end, rng.randint(0, words - end)])}


def changes(config, good):
    """Values of each field at and beyond its limits."""
    words, stride, size = config.words(Memory(good["memory"]).name.lower()), good["stride"], config.size
    pixels = (good["height"] + 1) * (good["width"] + 1)
    end = good["planes"] * pixels * stride
    fields = {
        "memory": range(8),
        "planes": (0, 1, 65535 // pixels, 65535 // pixels + 1, words // (stride * pixels), words // (stride * pixels)
                   + 1, 65535),
        "height": (0, good["height"] + 1, 255),
        "width": (0, good["width"] + 1, 255),
        "cols": (0, 1, size * stride, size * stride + 1, size * (stride - 1), size * (stride - 1) + 1, 65535),
        "stride": (0, stride - 1, stride + 1, stride + 4096, 5462 + stride, 21846, 43691, 65535),
        "base": (0, words - end, words - end + 1, words, 65535, 131072, (1 << 20) - 1),
        "exponent": (-128, -61, -60, 60, 61, 127),
        "count": range(16),
    }
    for name, values in fields.items():
        yield from ({name: value} for value in values if 0 <= value < 1 << 16 or name in ("exponent", "base"))


def cases(rng, config, memory):
    """Legal descriptors, each with one field changed and with several; products that pass 16, 17 and 32 bits."""
    for _ in range(5):
        good = fitting(rng, config, memory)
        yield good
        single = list(changes(config, good))
        yield from (good | change for change in single)
        for _ in range(25):
            several = {}
            for change in rng.sample(single, 3):
                several |= change
            yield good | several
    blank = {"memory": memory, "stride": 1, "cols": 1}
    for planes, height, width in ((65535, 1, 1), (1, 255, 256), (1, 256, 256), (257, 255, 1), (2, 128, 256),
                                  (257, 1, 255), (65535, 256, 256), (32768, 2, 1), (32768, 1, 2), (43691, 3, 1),
                                  (256, 16, 16)):
        yield blank | {"planes": planes, "height": height - 1, "width": width - 1}
        yield blank | {"planes": planes, "height": height - 1, "width": width - 1, "stride": 2,
                       "cols": config.size + 1}
    yield blank | {"planes": 65535, "cols": 65535, "stride": config.stride(65535), "base": (1 << 20) - 1}
    yield blank | {"planes": 65535, "height": 255, "width": 255, "cols": 65535, "stride": 65535}


async def check(ctx, dut, machine, fields, memory, index, *, unsigned=False):
    """The answer LATENCY cycles after ``start``; returns the status."""
    machine.table[index] = descriptor(**fields)
    tensor = machine.tensor(index)
    for name, value in (("memory", memory), ("id", index), ("entry", entry_of(tensor)), ("start", 1)):
        ctx.set(getattr(dut, name), value)
    if machine.config.unsigned:
        ctx.set(dut.unsigned, unsigned)
    await ctx.tick()
    ctx.set(dut.start, 0)
    await ctx.tick().repeat(dut.LATENCY - 1)
    wanted = golden_status(machine, index, memory, unsigned)
    assert ctx.get(dut.status) == wanted, fields
    if wanted == Status.RESET:
        operand, line = ctx.get(dut.operand), tensor.width * tensor.stride
        got = (operand.pixels, operand.rows, operand.line, operand.image, operand.end)
        assert got == (tensor.height * tensor.width, tensor.rows, line, tensor.height * line % (1 << 17), tensor.end)
        assert operand.entry.base == tensor.base and operand.entry.scale.exponent == tensor.exponent
    return wanted


@CONFIGS
def test_checks_and_products(config):
    """On machines that know unsigned tensors, each descriptor where those may be, and unsigned or not at random."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut, machine = OperandCheck(config=config), GoldenMachine(config)
    seen = {False: set(), True: set()}

    async def bench(ctx):
        for memory in Memory:
            for fields in cases(rng, config, memory):
                unsigned = config.unsigned and rng.random() < 0.5
                if unsigned and rng.random() < 0.5:
                    fields = fields | {"memory": UNSIGNED}
                status = await check(ctx, dut, machine, fields, memory, rng.randrange(CONFIG.tensors),
                                     unsigned=unsigned)
                seen[fields["memory"] == UNSIGNED].add(status)

    simulate(dut, bench)
    every = {Status.RESET, Status.BAD_TENSOR, Status.BAD_SHAPE, Status.OUT_OF_RANGE, Status.OVERFLOW}
    assert seen == {False: every, True: every if config.unsigned else {Status.BAD_TENSOR}}


@CONFIGS
@pytest.mark.parametrize("memory", Memory)
def test_unsigned_is_activations_that_may_be(config, memory):
    """Code 5 is right for ACT, when it may be unsigned, and then so is ACT's own; no other code ever is."""
    dut, machine = OperandCheck(config=config), GoldenMachine(config)

    async def bench(ctx):
        for unsigned in (False, True)[:1 + config.unsigned]:
            for code in range(8):
                right = code == memory or (code == UNSIGNED and memory == Memory.ACT and unsigned)
                fields = {"memory": code, "planes": 3, "cols": 5, "stride": 1}
                status = await check(ctx, dut, machine, fields, memory, 7, unsigned=unsigned)
                assert status == (Status.RESET if right else Status.BAD_TENSOR), (code, unsigned)

    simulate(dut, bench)


def test_the_deepest_memory():
    """An image that fills 2^17 words, and one word less."""
    dut, machine = OperandCheck(config=DEEP), GoldenMachine(DEEP)
    seen = []

    async def bench(ctx):
        for memory, height, base in ((Memory.ACT, 128, 0), (Memory.ACT, 128, 1), (Memory.ERR, 128, 0),
                                     (Memory.ERR, 127, 1023), (Memory.ERR, 127, 1024)):
            fields = {"memory": memory, "planes": 1, "height": height - 1, "width": 255, "cols": 16, "stride": 4,
                      "base": base}
            seen.append(await check(ctx, dut, machine, fields, memory, 255))

    simulate(dut, bench)
    assert seen == [Status.RESET, Status.OUT_OF_RANGE, Status.OUT_OF_RANGE, Status.RESET, Status.OUT_OF_RANGE]


def test_ids_beyond_the_table():
    dut = OperandCheck(config=CONFIG)
    entry = {"memory": Memory.MOM, "planes": 1, "cols": 1, "stride": 1}

    async def bench(ctx):
        for name, value in (("memory", Memory.MOM), ("entry", entry)):
            ctx.set(getattr(dut, name), value)
        for index in (0, CONFIG.tensors - 1, CONFIG.tensors, 255):
            for start in (1, 0):
                ctx.set(dut.id, index)
                ctx.set(dut.start, start)
                await ctx.tick()
            await ctx.tick().repeat(dut.LATENCY - 2)
            wanted = Status.BAD_TENSOR if index >= CONFIG.tensors else Status.RESET
            assert ctx.get(dut.status) == wanted, index

    simulate(dut, bench)
