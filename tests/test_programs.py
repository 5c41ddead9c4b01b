"""Random programs: legal when they should be, and over a few hundred everything a program can hold occurs."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest

from golden.convolution import Window
from golden.tensor import Tensor
from shiftgrad.device import GoldenDevice
from shiftgrad.isa import KERNEL_MAX, LEGAL_FLAGS, OPERANDS, PRODUCTS, VECTORS, Flag, Memory, Opcode, Status, decode
from sim.programs import OPERATIONS, Case, execute, load, random_case, small_config

CONFIG = small_config(4)
SEEDS = 300
SHAPES = {"length": 20, "largest": 10}


def walk(device: GoldenDevice, case: Case, seen: Counter[object]) -> list[Status]:
    """Run ``case`` like :func:`execute`, counting in ``seen`` what the instructions that were executed hold."""
    load(device, case)
    machine, reasons, pc = device.machine, [], 0
    while pc < len(case.program):
        machine.pc = pc
        found = describe(device, pc)
        while (status := machine.step()) is None:
            seen.update(found)
            found = describe(device, machine.pc)
        reasons.append(status)
        seen[status] += 1
        if status in (Status.BAD_SHAPE, Status.OUT_OF_RANGE):
            seen.update((status, what) for t in culprits(device, machine.pc) for what, yes in (
                ("rows", t.rows > 65535), ("rows beyond 20 bits", t.rows >> 20), ("end", t.rows <= 65535),
                ("end beyond 20 bits", t.rows <= 65535 and t.end >> 20)) if yes)
        pc = machine.pc + 1
    return reasons


def culprits(device: GoldenDevice, pc: int) -> list[Tensor]:
    """The first operand of the instruction at ``pc`` that is larger than its memory, if any."""
    machine, field = device.machine, decode(int(device.machine.program[pc]))
    operands = [machine.tensor(field[name]) for name in OPERANDS(Opcode(field["opcode"]), field["flags"])
                if field[name] < CONFIG.tensors]
    return [t for t in operands if t.memory < len(Memory) and t.planes
            and t.stride == CONFIG.stride(t.cols) and t.end > CONFIG.words(Memory(t.memory).name.lower())][:1]


def describe(device: GoldenDevice, pc: int) -> list[object]:
    """What the instruction at ``pc`` would exercise, before it changes the table."""
    machine = device.machine
    if pc >= CONFIG.program_words:
        return []
    field = decode(int(machine.program[pc]))
    if field["opcode"] not in LEGAL_FLAGS or field["flags"] & ~int(LEGAL_FLAGS[Opcode(field["opcode"])]):
        return []
    opcode, flags = Opcode(field["opcode"]), field["flags"]
    found: list[object] = [(opcode, flag, bool(flags & flag)) for flag in Flag if flag & LEGAL_FLAGS[opcode]]
    used = OPERANDS(opcode, flags)
    if any(field[name] >= CONFIG.tensors for name in used):
        return []
    operands = {name: machine.tensor(field[name]) for name in used}
    if any(t.rows > 65535 for t in operands.values()):
        return []
    dst = operands.get("dst")
    a, b, c = (operands.get(name) for name in "abc")
    if dst and (flags & Flag.DELAYED or opcode in PRODUCTS):
        scaled = operands["c"] if opcode in (Opcode.GRAD, Opcode.SUM) else dst
        found.append((opcode, "history", bool(flags & Flag.DELAYED), min(1, scaled.count)))
    if opcode in PRODUCTS and not flags & Flag.ONES:
        assert a and b and dst
        weights = dst if opcode == Opcode.GRAD else b
        window = weights.window
        steps, pads = (window.step_y, window.step_x), (window.pad_y, window.pad_x)
        found += [(opcode, "steps", steps), (opcode, "kernel y", window.height), (opcode, "kernel x", window.width),
                  *((opcode, axis, pad) for axis, pad in zip(("pad y", "pad x"), pads, strict=True)),
                  (opcode, "dense", window == Window() and a.size == (1, 1)),
                  (opcode, "words of the input", min(3, -(-weights.planes // CONFIG.size))),
                  (opcode, "words of the output", min(3, -(-weights.cols // CONFIG.size))),
                  (opcode, "smaller than the kernel", dst.height < window.height if opcode == Opcode.BWD
                   else a.height < window.height)]
    if opcode == Opcode.FWD and c:
        assert b
        found.append((opcode, "bias", "scalar" if c.cols == 1 < b.cols else "row"))
    if opcode in (Opcode.ADD, Opcode.ADDB) and b:
        assert dst
        found += [(opcode, "halved", b.size != dst.size), (opcode, "fewer channels", b.cols != dst.cols),
                  (opcode, "odd", b.size != dst.size and any(n % 2 for n in max(b.size, dst.size)))]
    if opcode in VECTORS and a and dst:
        found.append((opcode, "words", min(3, -(-a.cols // CONFIG.size))))
    if opcode in (Opcode.AVG, Opcode.AVGB):
        assert a and dst
        pixels = max(a.height * a.width, dst.height * dst.width)
        found.append((opcode, "power of two", pixels & (pixels - 1) == 0))
    found += [("form", t.memory, t.size != (1, 1)) for t in operands.values()]
    return found


def wanted() -> set[object]:
    """Everything that must occur."""
    every: set[object] = {(opcode, flag, on) for opcode, legal in LEGAL_FLAGS.items() for flag in Flag if flag & legal
                          for on in (False, True)}
    for opcode in PRODUCTS:
        every |= {(opcode, "steps", (y, x)) for y in (1, 2) for x in (1, 2)}
        every |= {(opcode, f"kernel {axis}", n) for axis in "yx" for n in range(1, KERNEL_MAX + 1)}
        every |= {(opcode, f"pad {axis}", n) for axis in "yx" for n in range(KERNEL_MAX)}
        every |= {(opcode, what, yes) for what in ("dense", "smaller than the kernel") for yes in (False, True)}
        every |= {(opcode, f"words of the {side}", n) for side in ("input", "output") for n in (1, 2, 3)}
        every |= {(opcode, "history", delayed, n) for delayed in (False, True) for n in (0, 1)}
    every |= {(opcode, "history", True, n) for opcode in VECTORS for n in (0, 1)}
    every |= {(opcode, "words", n) for opcode in VECTORS for n in (1, 2, 3)}
    every |= {(opcode, what, yes) for opcode in (Opcode.ADD, Opcode.ADDB)
              for what in ("halved", "fewer channels", "odd") for yes in (False, True)}
    every |= {(opcode, "power of two", yes) for opcode in (Opcode.AVG, Opcode.AVGB) for yes in (False, True)}
    every |= {(Opcode.FWD, "bias", "row"), (Opcode.FWD, "bias", "scalar")}
    every |= {("form", memory, yes) for memory in Memory for yes in (False, True)} - {("form", Memory.VEC, True)}
    every |= {(Status.BAD_SHAPE, "rows"), (Status.BAD_SHAPE, "rows beyond 20 bits"), (Status.OUT_OF_RANGE, "end"),
              (Status.OUT_OF_RANGE, "end beyond 20 bits")}
    return every | (set(Status) - {Status.RESET, Status.ABORTED})


@cache
def coverage() -> tuple[Counter[object], list[set[Status]]]:
    """What occurred in all programs, and how the legal ones ended."""
    device, seen, legal = GoldenDevice(CONFIG), Counter[object](), []
    for seed in range(SEEDS):
        case = random_case(seed, CONFIG, **SHAPES, palette=seed % 6, fault=4 if seed % 3 == 0 else 0)
        reasons = walk(device, case, seen)
        if seed % 3:
            legal.append(set(reasons))
    return seen, legal


def test_everything_occurs() -> None:
    seen, _ = coverage()
    missing = wanted() - set(seen)
    assert not missing, missing


def test_faultless_programs_are_legal() -> None:
    _, legal = coverage()
    assert all(Status.HALTED in reasons and reasons <= {Status.HALTED, Status.OVERFLOW} for reasons in legal)


def test_dense_programs_stay_a_good_share() -> None:
    seen, _ = coverage()
    for opcode in PRODUCTS:
        dense, images = seen[opcode, "dense", True], seen[opcode, "dense", False]
        assert 0.25 < dense / (dense + images) < 0.75, opcode


@pytest.mark.parametrize("size", [4, 8, 12, 16])
def test_what_a_campaign_runs(size: int) -> None:
    """Long enough programs for every size, with a few dimensions or without bound."""
    config = small_config(size)
    lengths = [len(random_case(seed, config, length=45, largest=2 * size + 2, palette=seed % 7).program)
               for seed in range(30)]
    assert np.mean(lengths) > 30 and min(lengths) > 10


@pytest.mark.parametrize("operations", [(Opcode.FWD,), (Opcode.ADD, Opcode.ADDB), (Opcode.MAXB,), (Opcode.LOSS,),
                                        OPERATIONS])
def test_only_the_operations_asked_for(operations: tuple[Opcode, ...]) -> None:
    device, found = GoldenDevice(CONFIG), set()
    for seed in range(40):
        case = random_case(seed, CONFIG, operations=operations, length=10, palette=3)
        found |= {word & 0xFF for word in case.program}
        assert set(execute(device, case)) <= {Status.HALTED, Status.OVERFLOW}
    assert found == {*operations, Opcode.HALT}


def test_no_images_when_there_should_be_none() -> None:
    device, seen = GoldenDevice(CONFIG), Counter[object]()
    for seed in range(40):
        walk(device, random_case(seed, CONFIG, operations=PRODUCTS, images=0, length=10), seen)
    assert all(not seen[opcode, "dense", False] and seen[opcode, "dense", True] for opcode in PRODUCTS)


def test_a_seed_says_everything() -> None:
    one, other = (random_case(11, CONFIG, fault=3, palette=4) for _ in range(2))
    assert one.program == other.program and one.lr_shift == other.lr_shift
    assert np.array_equal(one.table, other.table) and np.array_equal(one.seeds, other.seeds)
    assert all(np.array_equal(one.memories[name], other.memories[name]) for name in one.memories)
    assert random_case(12, CONFIG, fault=3, palette=4).program != one.program
