"""hw.decoder against the golden machine's checks: all opcodes and flags, shapes that nearly fit, overlaps, rates."""

import random
from dataclasses import replace

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from golden.convolution import Window
from golden.tensor import Tensor, fit
from hw.decoder import Decoder
from shiftgrad.config import Config
from shiftgrad.isa import (
    INSTRUCTION,
    LEGAL_FLAGS,
    OPERAND_NAMES,
    OPERANDS,
    SUM_BITS_MAX,
    Flag,
    Opcode,
    Status,
    decode,
    pack,
)

SEED = 404
CONFIG = Config(name="small", size=4, classes=20)
WORKING = [opcode for opcode in Opcode if opcode != Opcode.HALT]


def simulate(bench):
    m = Module()
    m.submodules.dut = dut = Decoder(config=CONFIG)
    simulator = Simulator(m)
    simulator.add_clock(1e-6)

    async def run(ctx):
        await bench(ctx, dut)

    simulator.add_testbench(run)
    simulator.run()


def legal_flags(opcode):
    return [flags for flags in range(256) if not flags & ~int(LEGAL_FLAGS[opcode])]


def set_word(ctx, dut, opcode, flags, imm=0):
    ctx.set(dut.word, decode(opcode | flags << 8) | {"imm": imm & 0xFF})


def test_every_opcode_and_flag():
    """Legality, operands and their memories, for every pair that has an operation, and samples of the others."""
    async def bench(ctx, dut):
        for opcode in range(256):
            for flags in range(256) if opcode in LEGAL_FLAGS else (0, 1, 255):
                set_word(ctx, dut, opcode, flags)
                if opcode not in LEGAL_FLAGS:
                    wanted = Status.ILLEGAL_OPCODE
                else:
                    wanted = Status.ILLEGAL_FLAGS if flags & ~int(LEGAL_FLAGS[Opcode(opcode)]) else Status.RESET
                await ctx.tick().repeat(dut.WORD_LATENCY)
                assert ctx.get(dut.status) == wanted, (opcode, flags)
                if wanted == Status.RESET:
                    used = OPERANDS(Opcode(opcode), flags)
                    assert ctx.get(dut.used) == sum(1 << i for i, name in enumerate(OPERAND_NAMES) if name in used)
                    got = {name: ctx.get(dut.memories[i]) for i, name in enumerate(OPERAND_NAMES) if name in used}
                    assert got == used, (opcode, flags)

    simulate(bench)


# --- shapes ---------------------------------------------------------------------------------------

def tensor(planes, height, width, cols, window=None):
    """A tensor of this shape; what its pads and steps are does not matter when it is no kernel."""
    window = window or Window(height, width)
    return Tensor(0, 0, 0, 1, planes, height, width, cols, window, 0, 0, ())


def images(rng):
    return rng.randint(1, 3), rng.choice([1, 2, rng.randint(1, 9)]), rng.choice([1, 2, rng.randint(1, 9)])


def product_shapes(rng, opcode):
    """dst, a, b of a convolution; its output has no pixel when the kernel is larger than the padded image."""
    planes, height, width = images(rng)
    kernel = [rng.choice([1, 3, 6, 7, 7, 8, rng.randint(1, 9)]) for _ in range(2)]
    pads = [rng.choice([0, k - 1, k, k // 2, rng.randrange(k)]) % 8 for k in kernel]
    window = Window(*kernel, rng.randint(1, 2), rng.randint(1, 2), *pads)
    cin, cout = rng.randint(1, 5), rng.randint(1, 5)
    x, weights = tensor(planes, height, width, cin), tensor(cin, *kernel, cout, window)
    y = tensor(planes, *(max(1, n) for n in window.output(height, width)), cout)
    return {Opcode.FWD: (y, x, weights), Opcode.BWD: (x, y, weights), Opcode.GRAD: (weights, x, y)}[opcode]


def good_shapes(rng, opcode, flags):
    """Operands that fit together, or nearly."""
    planes, height, width = images(rng)
    cols = rng.randint(1, 6)
    same, one = tensor(planes, height, width, cols), tensor(1, 1, 1, 1)
    if opcode == Opcode.LOSS:
        logits = tensor(rng.choice([1, 7, 300]), 1, 1, rng.choice([1, CONFIG.classes, CONFIG.classes + 1]))
        return {"dst": logits, "a": logits, "b": tensor(1, 1, 1, logits.rows), "c": one, "d": one}
    if opcode == Opcode.GRAD and flags & Flag.ONES:
        line = tensor(1, 1, 1, cols)
        return {"dst": line, "a": same, "b": same, "c": line, "d": one}
    if opcode in (Opcode.FWD, Opcode.BWD, Opcode.GRAD):
        dst, a, b = product_shapes(rng, opcode)
        c = {Opcode.FWD: tensor(1, 1, 1, rng.choice([1, b.cols]))}.get(opcode, dst)
        return {"dst": dst, "a": a, "b": b, "c": c, "d": one}
    if opcode == Opcode.SUM:
        rows = rng.choice([1, 255, 256, 257, 65535, rng.randint(1, 65535)])
        bits = (rows - 1).bit_length()
        cols = rng.choice([1, 7, 256, 1 << SUM_BITS_MAX - bits, (1 << SUM_BITS_MAX - bits) + 1])
        b = tensor(rows, 1, 1, min(cols, 65535))
        return {"dst": one, "a": b, "b": b, "c": one, "d": one}
    large = same
    if opcode in (Opcode.ADD, Opcode.ADDB):
        size = rng.choice([(height, width), (-(-height // 2), -(-width // 2)), (-(-height // 2), width)])
        small = tensor(planes, *size, cols + rng.randint(-1, 2) or 1)
        dst, b = (small, large) if opcode == Opcode.ADD else (large, small)
        return {"dst": dst, "a": dst, "b": b, "c": one if opcode == Opcode.ADD else dst, "d": one}
    if opcode in (Opcode.MAX, Opcode.MAXB):
        large = tensor(planes, 2 * height, 2 * width, cols)
        small = same
    else:
        small = tensor(planes, 1, 1, cols)
    dst, a = (small, large) if opcode in (Opcode.AVG, Opcode.MAX) else (large, small)
    return {"dst": dst, "a": a, "b": dst, "c": dst, "d": one}


def near_misses(rng, good):
    """``good``, and each operand with one size changed by one, by a power of two or by factors that keep the rows."""
    yield good
    for name in OPERAND_NAMES:
        old = good[name]
        changed = [{field: getattr(old, field) + change} for field in ("planes", "height", "width", "cols")
                   for change in (1, -1)]
        changed += [{"planes": old.planes + 256}, {"cols": old.cols + 4096}, {"cols": old.cols ^ 1 << 15},
                    {"height": old.height * 2}, {"width": old.width * 2},
                    {"height": old.width, "width": old.height}, {"planes": old.planes * old.height, "height": 1},
                    {"height": old.height * 2 + 1, "width": old.width * 2 + 1}]
        for fields in changed:
            new = replace(old, **fields)
            window = replace(old.window, height=new.height, width=new.width)
            if min(new.planes, new.height, new.width, new.cols) > 0 and max(new.height, new.width) <= 256:
                if max(new.rows, new.cols) < 1 << 16:
                    yield good | {name: replace(new, window=window)}
        for field in ("step_y", "step_x", "pad_y", "pad_x"):
            value = rng.randint(1, 2) if field.startswith("step") else rng.randrange(8)
            yield good | {name: replace(old, window=replace(old.window, **{field: value}))}


def operand(t, end=0):
    """As ``hw.operand`` hands it over."""
    window = t.window
    entry = {"base": t.base, "planes": t.planes, "cols": t.cols, "height": t.height - 1, "width": t.width - 1,
             "pad_y": window.pad_y, "pad_x": window.pad_x, "step_y": window.step_y - 1, "step_x": window.step_x - 1}
    return {"entry": entry, "rows": t.rows, "pixels": t.height * t.width, "end": end}


@pytest.mark.parametrize("opcode", WORKING, ids=lambda opcode: opcode.name)
def test_shapes(opcode):
    """Whether shapes fit, LATENCY cycles after the last of the operands changed."""
    print("seed", SEED)
    rng = random.Random(SEED)
    seen = {flags: set() for flags in legal_flags(opcode) if not flags & int(Flag.RELU | Flag.DELAYED | Flag.FREEZE)}

    async def bench(ctx, dut):
        for flags in list(seen) * (48 // len(seen) + 2):
            set_word(ctx, dut, opcode, flags)
            shown = {}
            for shapes in near_misses(rng, good_shapes(rng, opcode, flags)):
                for i, name in enumerate(OPERAND_NAMES):
                    if shown.get(name) != shapes[name]:
                        ctx.set(dut.operands[i], operand(shapes[name]))
                shown = shapes
                await ctx.tick().repeat(dut.LATENCY)
                used = {name: shapes[name] for name in OPERANDS(opcode, flags)}
                wanted = fit(opcode, used, CONFIG.classes)
                assert ctx.get(dut.shape_error) == (not wanted), (flags, used)
                rows, cols = ((n - 1).bit_length() for n in shapes["b"].shape)
                assert (ctx.get(dut.sum_bits), ctx.get(dut.row_bits)) == (rows + cols, rows)
                seen[flags].add(wanted)

    simulate(bench)
    assert all(found == {True, False} for found in seen.values())


def test_logarithms():
    """ceil(log2) at every power of two and its neighbours."""
    async def bench(ctx, dut):
        set_word(ctx, dut, Opcode.SUM, 0)
        for rows in sorted({n for k in range(17) for n in (2**k - 1, 2**k, 2**k + 1) if 0 < n < 65536}):
            ctx.set(dut.operands[2], operand(tensor(rows, 1, 1, 65536 - rows)))
            await ctx.tick().repeat(dut.LATENCY)
            bits = (rows - 1).bit_length()
            assert (ctx.get(dut.row_bits), ctx.get(dut.sum_bits)) == (bits, bits + (65535 - rows).bit_length())

    simulate(bench)


# --- overlaps and rates ---------------------------------------------------------------------------

@pytest.mark.parametrize("opcode", WORKING, ids=lambda opcode: opcode.name)
def test_overlaps(opcode):
    """dst and each operand in its memory: apart, touching, sharing a word, one in the other; up to 2^17 words."""
    print("seed", SEED)
    rng = random.Random(SEED)

    async def bench(ctx, dut):
        for flags in legal_flags(opcode):
            set_word(ctx, dut, opcode, flags)
            memories = OPERANDS(opcode, flags)
            for _ in range(12):
                start = rng.choice([0, 40, (1 << 17) - 40])
                spans = {name: (start + base, start + base + rng.choice([1, 2, 10, 20]))
                         for name in OPERAND_NAMES for base in [rng.choice([0, 1, 10, 12, 20])]}
                for i, name in enumerate(OPERAND_NAMES):
                    ctx.set(dut.operands[i], {"entry": {"base": spans[name][0]}, "end": spans[name][1]})
                await ctx.tick().repeat(dut.LATENCY)
                dst = set(range(*spans["dst"]))
                wanted = any(memory == memories["dst"] and dst & set(range(*spans[name]))
                             for name, memory in memories.items() if name != "dst")
                assert ctx.get(dut.overlap_error) == wanted, (flags, spans)

    simulate(bench)


def test_rates():
    """n = imm + LR_SHIFT, for GRAD and SUM an error outside 0 to 63."""
    async def bench(ctx, dut):
        for opcode in WORKING:
            for lr_shift in (0, 1, 31, 63):
                for imm in (-128, -64, -63, -32, -31, -1, 0, 1, 32, 33, 62, 63, 64, 127):
                    set_word(ctx, dut, opcode, 0, imm)
                    ctx.set(dut.lr_shift, lr_shift)
                    await ctx.tick().repeat(dut.WORD_LATENCY)
                    wrong = not 0 <= imm + lr_shift <= 63
                    assert ctx.get(dut.rate_error) == (wrong and opcode in (Opcode.GRAD, Opcode.SUM))
                    assert wrong or ctx.get(dut.rate) == imm + lr_shift

    simulate(bench)


def test_instruction_fields_are_those_of_the_isa():
    values = {"opcode": 0x12, "flags": 3, "dst": 4, "a": 5, "b": 6, "c": 7, "d": 8, "imm": -2}

    async def bench(ctx, dut):
        ctx.set(dut.word.as_value(), pack(INSTRUCTION, values))
        assert {name: getattr(ctx.get(dut.word), name) for name in values} == values | {"imm": 0xFE}

    simulate(bench)
