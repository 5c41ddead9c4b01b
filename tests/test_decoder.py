"""hw.decoder against the golden machine's checks: all opcodes and flags, descriptors with one field changed."""

import random
from types import SimpleNamespace

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from golden.machine import GoldenMachine, Stop
from hw.decoder import NAMES, Decoder, OperandCheck
from shiftgrad.config import Config
from shiftgrad.isa import (
    HISTORY,
    INSTRUCTION,
    LEGAL_FLAGS,
    OPERANDS,
    Flag,
    Memory,
    Opcode,
    Status,
    decode,
    encode,
    pack,
)
from sim.programs import descriptor

SEED = 404
CONFIG = Config(name="small", size=12, act_words=500, err_words=499, wgt_words=700, mom_words=64, vec_words=40,
                program_words=16, tensors=50, classes=20)


def entry_of(tensor):
    """A golden Tensor as a Descriptor."""
    history = [*tensor.history, *[0] * HISTORY][:HISTORY]
    fields = {name: getattr(tensor, name) for name in ("base", "stride", "rows", "cols", "memory")}
    return fields | {"scale": {"exponent": tensor.exponent, "count": tensor.count, "history": history}}


def golden_operand(machine, index, memory):
    try:
        machine._operand(index, memory)
    except Stop as stop:
        return stop.status
    return Status.RESET


def simulate(dut, bench):
    m = Module()
    m.submodules.dut = dut
    simulator = Simulator(m)
    simulator.add_clock(1e-6, if_exists=True)
    simulator.add_testbench(bench)
    simulator.run()


def faults(rng, memory, words):
    """Legal descriptors of ``memory``, then each field at and beyond its limits."""
    for _ in range(6):
        rows, cols = rng.randint(1, 9), rng.randint(1, 40)
        stride = CONFIG.stride(cols)
        good = {"memory": memory, "rows": rows, "cols": cols, "stride": stride, "exponent": rng.randint(-60, 60),
                "count": rng.randint(0, 8), "base": rng.randint(0, max(0, words - rows * stride))}
        yield good
        for name, values in {
            "memory": range(8),
            "rows": (0, 1, 65535, words // stride, words // stride + 1),
            "cols": (0, 1, 12 * stride, 12 * stride + 1, 12 * (stride - 1), 12 * (stride - 1) + 1, 65535),
            "stride": (0, stride - 1, stride + 1, stride + 4096, 5462 + stride, 21846, 43691, 65535),
            "base": (0, words - rows * stride, words - rows * stride + 1, words, 65535),
            "exponent": (-128, -61, -60, 60, 61, 127),
            "count": range(16),
        }.items():
            for value in values:
                if value >= 0 or name == "exponent":
                    yield good | {name: value}
    yield {"memory": memory, "rows": 65535, "cols": 65535, "stride": CONFIG.stride(65535), "base": 65535}
    yield {"memory": memory, "rows": 32768, "cols": 24, "stride": 2, "base": 0}  # the product passes 16 bits
    yield {"memory": memory, "rows": 65535, "cols": 12, "stride": 1, "base": 10}


def test_operand_check():
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = OperandCheck(config=CONFIG)
    machine = GoldenMachine(CONFIG)
    seen = {}

    async def bench(ctx):
        for memory in Memory:
            ctx.set(dut.memory, memory)
            for fields in faults(rng, memory, CONFIG.words(memory.name.lower())):
                machine.table[7] = descriptor(**fields)
                tensor = machine.tensor(7)
                ctx.set(dut.id, 7)
                ctx.set(dut.entry, entry_of(tensor))
                await ctx.tick().repeat(dut.LATENCY)
                wanted = golden_operand(machine, 7, memory)
                assert ctx.get(dut.status) == wanted, fields
                if wanted == Status.RESET:
                    assert ctx.get(dut.operand.end) == tensor.end
                seen[wanted] = seen.get(wanted, 0) + 1
            for index in (CONFIG.tensors - 1, CONFIG.tensors, 255):
                ctx.set(dut.id, index)
                ctx.set(dut.entry, entry_of(machine.tensor(7)) | {"memory": memory, "base": 0, "rows": 1, "cols": 1,
                                                                  "stride": 1})
                await ctx.tick().repeat(dut.LATENCY)
                assert (ctx.get(dut.status) == Status.BAD_TENSOR) == (index >= CONFIG.tensors)

    simulate(dut, bench)
    print(seen)
    assert set(seen) == {Status.RESET, Status.BAD_TENSOR, Status.BAD_SHAPE, Status.OUT_OF_RANGE, Status.OVERFLOW}


def test_every_opcode_and_flag():
    """Legality, operands and their memories, for all 65,536 pairs that have an operation, and samples of the others."""
    dut = Decoder(config=CONFIG)

    async def bench(ctx):
        for opcode in range(256):
            for flags in range(256) if opcode in LEGAL_FLAGS else (0, 1, 255):
                ctx.set(dut.word, decode(opcode | flags << 8) | {"imm": 0})
                if opcode not in LEGAL_FLAGS:
                    wanted = Status.ILLEGAL_OPCODE
                else:
                    wanted = Status.ILLEGAL_FLAGS if flags & ~int(LEGAL_FLAGS[Opcode(opcode)]) else Status.RESET
                await ctx.delay(1e-9)
                assert ctx.get(dut.status) == wanted, (opcode, flags)
                if wanted == Status.RESET:
                    used = OPERANDS(Opcode(opcode), flags)
                    assert ctx.get(dut.used) == sum(1 << i for i, name in enumerate(NAMES) if name in used)
                    for i, name in enumerate(NAMES):
                        if name in used:
                            assert ctx.get(dut.memories[i]) == used[name]

    simulate(dut, bench)


def golden_agreement(machine, opcode, flags, imm, tensors):
    """Status of the golden machine's checks that follow those of the single operands."""
    operands = {name: tensors[name] for name in OPERANDS(opcode, flags)}
    machine._operand = lambda index, memory: operands[NAMES[index]]
    machine.program[0] = encode(opcode, flags=flags, dst=0, a=1, b=2, c=3, imm=imm)
    machine.pc = 0
    for name in ("_fwd", "_bwd", "_grad", "_loss"):
        setattr(machine, name, lambda *_, **__: None)
    try:
        machine._execute()
    except Stop as stop:
        return stop.status
    return Status.RESET


PRODUCTS = [(opcode, flags) for opcode, flags in (
    (Opcode.FWD, 0), (Opcode.FWD, Flag.BIAS), (Opcode.BWD, 0), (Opcode.BWD, Flag.MASK), (Opcode.GRAD, 0),
    (Opcode.GRAD, Flag.ONES), (Opcode.LOSS, 0))]


def shapes_for(opcode, flags, m, n, k):
    """Operand -> (rows, cols) that fit together."""
    if opcode == Opcode.FWD:
        return {"dst": (m, n), "a": (m, k), "b": (k, n), "c": (1, n)}
    if opcode == Opcode.BWD:
        return {"dst": (m, n), "a": (m, k), "b": (n, k), "c": (m, n)}
    if opcode == Opcode.GRAD and flags:
        return {"dst": (1, n), "a": (3, 3), "b": (k, n), "c": (1, n)}
    if opcode == Opcode.GRAD:
        return {"dst": (m, n), "a": (k, m), "b": (k, n), "c": (m, n)}
    return {"dst": (m, n), "a": (m, n), "b": (1, m), "c": (3, 3)}


@pytest.mark.parametrize(("opcode", "flags"), PRODUCTS, ids=lambda value: getattr(value, "name", str(value)))
def test_agreement(opcode, flags):
    """Shapes that fit, then each dimension of each operand off by one or a power of two; overlaps; M, N, K."""
    print("seed", SEED)
    rng = random.Random(SEED)
    dut = Decoder(config=CONFIG)
    machine = GoldenMachine(CONFIG)
    seen = set()

    async def bench(ctx):
        for _ in range(25):
            m, n, k = (rng.choice([1, 2, 255, 256, 257, 60000, rng.randint(1, 300)]) for _ in range(3))
            if opcode == Opcode.LOSS:
                n = rng.choice([CONFIG.classes - 1, CONFIG.classes, CONFIG.classes + 1])
            good = shapes_for(opcode, flags, m, n, k)
            bad = [good]
            for name in NAMES:
                rows, cols = good[name]
                bad += [good | {name: shape} for shape in ((rows + 1, cols), (rows, cols + 1), (rows ^ 256, cols),
                                                           (rows, cols ^ 0x8000))]
            for shapes in bad:
                base = {name: rng.choice([0, 10, 20, 21]) for name in NAMES}
                size = {name: rng.choice([1, 10, 20]) for name in NAMES}
                tensors = {name: SimpleNamespace(rows=shapes[name][0] & 0xFFFF, cols=shapes[name][1] & 0xFFFF,
                                                 base=base[name], end=base[name] + size[name], exponent=0, count=0)
                           for name in NAMES}
                imm, lr = rng.choice([0, 63, 64, -1, -63, -64, 32767, -32768]), rng.choice([0, 1, 63])
                machine.lr_shift = lr
                wanted = golden_agreement(machine, opcode, flags, imm, tensors)
                ctx.set(dut.word, decode(int(machine.program[0])) | {"imm": imm & 0xFFFF})
                ctx.set(dut.lr_shift, lr)
                for i, name in enumerate(NAMES):
                    tensor = tensors[name]
                    ctx.set(dut.operands[i], {"entry": {"base": tensor.base, "rows": tensor.rows, "cols": tensor.cols},
                                              "end": tensor.end})
                await ctx.delay(1e-9)
                got = Status.RESET
                for signal, status in ((dut.rate_error, Status.OVERFLOW), (dut.overlap_error, Status.OVERLAP),
                                       (dut.shape_error, Status.BAD_SHAPE)):
                    got = status if ctx.get(signal) else got
                assert got == wanted, (shapes, base, size, imm, lr)
                seen.add(got)
                if got == Status.RESET and opcode != Opcode.LOSS:
                    ones = opcode == Opcode.GRAD and flags
                    k = shapes["b"][0] if ones else k  # with no other operand to fit
                    sizes = ctx.get(dut.rows), ctx.get(dut.cols), ctx.get(dut.depth)
                    assert sizes == (1 if ones else m, n, k), shapes
                    if opcode == Opcode.GRAD:
                        assert ctx.get(dut.rate) == imm + lr

    simulate(dut, bench)
    also = {Opcode.FWD: Status.OVERLAP, Opcode.BWD: Status.OVERLAP, Opcode.GRAD: Status.OVERFLOW}
    assert seen == {Status.RESET, Status.BAD_SHAPE, also.get(opcode, Status.RESET)}


def test_instruction_fields_are_those_of_the_isa():
    dut = Decoder(config=CONFIG)
    word = pack(INSTRUCTION, {"opcode": 0x12, "flags": 3, "dst": 4, "a": 5, "b": 6, "c": 7, "imm": -2})

    async def bench(ctx):
        ctx.set(dut.word.as_value(), word)
        for name, value in decode(word).items():
            assert ctx.get(getattr(dut.word, name)) == value & (0xFFFF if name == "imm" else 0xFF)

    simulate(dut, bench)
