"""The small machine: its units against the golden rules, the whole against the golden machine, word by word."""

import random

import numpy as np
import pytest

from golden import numerics as rules
from golden.machine import GoldenMachine
from hw.small import layout
from hw.small.assembler import Assembler, AssemblyError, Op, Port
from hw.small.firmware import Firmware
from hw.small.processor import Processor
from hw.small.shifter import Rounder, SharedShifter
from hw.small.stream import Transposer
from shiftgrad.compiler import CompileError, compile_network
from shiftgrad.config import Config, ConfigError, get_config
from shiftgrad.datasets import load
from shiftgrad.host import Host
from shiftgrad.isa import Flag, Memory, Opcode, Status, encode
from shiftgrad.models import lenet, mlp
from sim.campaign import Campaign
from sim.device import VerilatorDevice
from sim.program_tensors import descriptor
from sim.programs import small_config
from tests.rtl_bench import simulate

CONFIG = get_config("up5k_4x4")
SEED = 3
pytestmark = pytest.mark.xdist_group("small")


# --- units ----------------------------------------------------------------------------------------

def numbers(rng):
    """Corners and numbers of every size, with every shift that a lane asks for."""
    corners = [0, 1, -1, 127, 128, -127, -128, -129, 0x7FFFFFFF, -0x80000000, 1 << 23, -1 << 23]
    values = corners + [rng.randrange(-1 << n, 1 << n) for n in range(1, 32) for _ in range(3)]
    pairs = [(x, s) for x in values for s in range(-31, 33)]
    rng.shuffle(pairs)
    return pairs[:3000]


def test_shifter():
    print("seed", SEED)
    dut, pairs = SharedShifter(), numbers(random.Random(SEED))

    async def bench(ctx):
        for i in range(len(pairs) + dut.LATENCY):
            if i >= dut.LATENCY:
                x, s = pairs[i - dut.LATENCY]
                value = 0 if s >= 32 else x << 24 >> s if s >= 0 else x << 24 << -s
                fits = -1 << 31 <= value >> 24 < 1 << 31
                assert ctx.get(dut.overflow) == (not fits), (x, s)
                assert ctx.get(dut.negative) == (x < 0)
                if fits:
                    assert (ctx.get(dut.whole), ctx.get(dut.fraction)) == (value >> 24, value & 0xFFFFFF), (x, s)
            x, s = pairs[min(i, len(pairs) - 1)]
            ctx.set(dut.x, x)
            ctx.set(dut.s, s)
            await ctx.tick()

    simulate(dut, bench)


@pytest.mark.parametrize("stochastic", [False, True])
def test_rounder(stochastic):
    """Behind the shifter it is ``nearest`` or ``stochastic`` of the contract, saturated."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut, pairs = Rounder(), numbers(rng)

    async def bench(ctx):
        ctx.set(dut.stochastic, stochastic)
        wanted = []
        for x, s in [*pairs, (0, 0), (0, 0)]:
            s = max(s, rules.REQUANTISE_MIN)
            value = int(rules.fixed(np.array(x), s))
            r = rng.randrange(1 << 24)
            ctx.set(dut.whole, (value >> 24) & 0xFFFFFFFF if -1 << 55 <= value < 1 << 55 else 0)
            ctx.set(dut.fraction, value & 0xFFFFFF)
            ctx.set(dut.overflow, not -1 << 55 <= value < 1 << 55)
            ctx.set(dut.negative, x < 0)
            ctx.set(dut.random, r)
            rounded = int(rules.stochastic(np.array(x), s, r) if stochastic else rules.nearest(np.array(x), s))
            wanted.append((max(-127, min(127, rounded)), max(-32767, min(32767, rounded)), abs(rounded) > 127))
            await ctx.tick()
            if len(wanted) >= dut.LATENCY:
                assert (ctx.get(dut.narrow), ctx.get(dut.wide), ctx.get(dut.clipped)) == wanted[-dut.LATENCY], (x, s)

    simulate(dut, bench)


def test_transposer():
    rng, dut = random.Random(SEED), Transposer()
    blocks = [[[rng.randrange(256) for _ in range(4)] for _ in range(4)] for _ in range(9)]

    async def bench(ctx):
        for cycle in range(4 * len(blocks)):
            block, word = divmod(cycle, 4)
            ctx.set(dut.columns, block % 2)
            ctx.set(dut.i, int.from_bytes(bytes(blocks[block][word]), "little"))
            await ctx.delay(1e-9)
            if block:
                wanted = bytes(row[word] for row in blocks[block - 1])
                assert ctx.get(dut.o) == int.from_bytes(wanted, "little"), cycle
            await ctx.tick()

    simulate(dut, bench)


def run_code(code, data):
    """What the code writes to ports until it writes to STATUS."""
    dut, written = Processor(code=code.words(), data=data), []

    async def bench(ctx):
        async for _, _, write, port, value in ctx.tick().sample(dut.write, dut.port, dut.value):
            if write and port == Port.STATUS:
                return
            if write:
                written.append(value)

    simulate(dut, bench)
    return written


def test_instructions():
    """Each operation on a few numbers; the values are those of Python."""
    rng, code, wanted = random.Random(SEED), Assembler(range(100)), []
    data = [0] * 1280
    mask = 0xFFFFFFFF
    operations = {
        Op.LDA: lambda a, b: b, Op.AND: lambda a, b: a & b, Op.OR: lambda a, b: a | b, Op.XOR: lambda a, b: a ^ b,
        Op.ADD: lambda a, b: a + b, Op.SUB: lambda a, b: a - b,
    }
    for i, (op, rule) in enumerate(operations.items()):
        a, b = rng.randrange(1 << 32), rng.randrange(1 << 32)
        data[200 + 2 * i], data[1200 + i] = a, b
        code.emit(Op.LDA, 200 + 2 * i)
        code.emit(op, 1200 + i)
        code.out(Port.WORD)
        wanted.append(rule(a, b) & mask)
    data[300] = a = rng.randrange(1 << 31, 1 << 32)
    for op, value in ((Op.SHR, a >> 1), (Op.SHL, a << 1), (Op.ROR, a >> 8 | a << 24)):
        code.emit(Op.LDA, 300)
        code.emit(op)
        code.out(Port.WORD)
        wanted.append(value & mask)
    for op, value in ((Op.LDI, -5), (Op.ANI, a & -5), (Op.ADI, a - 5)):
        code.emit(Op.LDA, 300)
        code.emit(op, -5)
        code.out(Port.WORD)
        wanted.append(value & mask)
    for multiplier in (0, 1, 0x1ABCD, 1 << 16):
        data[301], data[302] = 0x3FFFF, 0
        code.load(multiplier)
        code.emit(Op.SETP)
        code.load(0)
        for _ in range(17):
            code.emit(Op.MUL, 301)
        code.out(Port.WORD)
        wanted.append(multiplier * 0x3FFFF >> 17)
    code.load(1192)
    code.emit(Op.SETP)
    code.load(77)
    code.emit(Op.STX, 3)
    code.emit(Op.LDA, 1195)
    code.out(Port.WORD)
    code.emit(Op.LDX, 3)
    code.out(Port.WORD)
    wanted += [77, 77]
    code.out(Port.STATUS)
    for value, address in code.constants.items():
        data[address] = value
    assert run_code(code, data) == wanted


def test_jumps():
    code, wanted = Assembler(range(100)), []
    for value, taken in ((0, (Op.JZ, Op.JP)), (1, (Op.JNZ, Op.JP)), (-1, (Op.JNZ, Op.JN))):
        for op in (Op.JMP, Op.JZ, Op.JNZ, Op.JN, Op.JP):
            label = code.local()
            code.load(value)
            code.jump(label, when=op)
            code.load(9)
            code.label(label)
            code.out(Port.WORD)
            wanted.append(value & 0xFFFFFFFF if op == Op.JMP or op in taken else 9)
    end = code.local()
    code.call("outer")
    code.out(Port.WORD, 3)
    code.jump(end)
    code.enter("outer")
    code.out(Port.WORD, 1)
    code.call("inner")
    code.leave("outer")
    code.label("inner")
    code.out(Port.WORD, 2)
    code.emit(Op.RET)
    code.label(end)
    code.out(Port.STATUS)
    assert run_code(code, [0] * 1280) == [*wanted, 1, 2, 3]


def test_assembly_errors():
    code = Assembler(range(1))
    code.variable("one")
    with pytest.raises(AssemblyError, match="no room for another variable"):
        code.variable("two")
    code.jump("nowhere")
    with pytest.raises(AssemblyError, match="no label 'nowhere'"):
        code.words()
    code.label("here")
    with pytest.raises(AssemblyError, match="label here is there already"):
        code.label("here")
    many = Assembler(range(1))
    many.emit(Op.SHL, *[0] * 2049)
    with pytest.raises(AssemblyError, match="wanted at most 2048 instructions, got 2049"):
        many.words()


@pytest.mark.parametrize(("what", "change"), [("T up to 4, got 8", {"size": 8}), ("tensors up to 64, got 65",
                                                                               {"tensors": 65})])
def test_configurations_it_cannot_be(what, change):
    with pytest.raises(ValueError, match=f"the small machine has {what}"):
        Firmware(Config(**{"name": "wrong", "size": 4, "wgt_words": 8192, "mom_words": 8192, "program_words": 128,
                           "classes": 32, "dense": True} | change))


# --- what a dense machine lacks -------------------------------------------------------------------

def test_golden_stops_at_what_it_lacks():
    machine = GoldenMachine(CONFIG)
    for i, memory in enumerate((Memory.ACT, Memory.WGT, Memory.ACT)):
        machine.table[i] = descriptor(memory=int(memory), base=64 * i, planes=4, cols=4, stride=1)
    good = encode(Opcode.FWD, dst=2, a=0, b=1)
    for word, wanted in ((encode(Opcode.ADD, dst=2, a=0), Status.ILLEGAL_OPCODE),
                         (encode(Opcode.FWD, flags=Flag.SCALAR, dst=2, a=0, b=1), Status.ILLEGAL_FLAGS), (good, None)):
        machine.program[0], machine.pc = word, 0
        assert machine.step() == wanted
    machine.table[0, 3] = 1 << 16  # padding
    machine.pc = 0
    assert machine.step() == Status.BAD_SHAPE
    machine.table[0] = descriptor(memory=int(Memory.ACT), planes=4, cols=1024, stride=256)
    machine.table[1] = descriptor(memory=int(Memory.WGT), planes=1024, cols=4, stride=1)
    machine.table[2] = descriptor(memory=int(Memory.ACT), base=2048, planes=4, cols=4, stride=1)
    machine.pc = 0
    assert machine.step() == Status.BAD_SHAPE  # 1,024 terms


@pytest.mark.parametrize(("network", "message"), [
    (lenet((8, 8, 1), 10), "no images and kernels, which FWD needs: dense layers only|no vector unit"),
    (mlp(1024, (8,), 10), "layer fc1: up5k_4x4 adds up at most 1023 products, FWD needs 1024"),
])
def test_the_compiler_rejects_what_it_lacks(network, message):
    with pytest.raises(CompileError, match=message):
        compile_network(network, CONFIG, batch=4, lr_shift=4)


def test_only_dense_machines_have_a_limit_of_terms():
    with pytest.raises(ConfigError, match="terms_end must be an integer from 131072 to 131072, got 1024"):
        Config(name="wrong", terms_end=1024)


# --- the machine ----------------------------------------------------------------------------------

@pytest.mark.parametrize("scale", ["delayed", "current"])
def test_digits(scale):
    """Steps of 64-48-10, every memory word and exponent after every instruction; it learns in 12."""
    device, digits = VerilatorDevice(CONFIG), load("digits", seed=0)
    host = Host(device, compile_network(mlp(64, (48,), 10), CONFIG, batch=32, lr_shift=4, scale=scale))
    host.load(1)
    steps = 12 if scale == "delayed" else 2
    results = []
    for step in range(steps):
        rows = slice(32 * step, 32 * (step + 1))
        host.load_batch(digits.images[rows], digits.labels[rows])
        results.append(host.train_step())
    assert device.compared_instructions == 9 * steps and device.mismatches == 0
    if steps > 2:
        assert results[-1].loss < 0.8 * results[0].loss
    device.close()


def test_random_programs():
    """Sixteen programs, some full of errors, two of them stopped on the way."""
    device = VerilatorDevice(small_config(4, dense=True))
    campaign = Campaign(device)
    for seed in range(16):
        print("seed", seed)
        campaign.run(seed)
    assert device.compared_instructions > 400 and device.mismatches == 0
    assert {Status.HALTED, Status.BAD_SHAPE, Status.OVERFLOW} <= set(campaign.reasons)
    device.close()


def test_where_things_are():
    assert layout.max_terms(CONFIG) == 1023
    code = Firmware(CONFIG).assembler
    assert max(code.variables.values()) < layout.CURVES and len(code.code) <= 2048
