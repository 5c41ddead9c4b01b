"""The golden machine: every check, what an instruction must not touch, and the exponents it leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from golden.machine import product
from shiftgrad.isa import Flag, Memory, Status, encode
from tests.machine_bench import BWD, FWD, GRAD, HALT, LOSS, SMALL, Bench

SEED = 77


@pytest.fixture
def bench(rng: np.random.Generator) -> Bench:
    """A 3 x 6 -> 5 layer: 0 x, 1 y, 2 w, 3 bias, 4 e, 5 dx, 6 m, 7 bias momentum, 8 mask, 9 labels, 10 loss."""
    bench = Bench(SMALL, rng)
    for memory, rows, cols, exponent in (
        (Memory.ACT, 3, 6, -7), (Memory.ACT, 3, 5, -7), (Memory.WGT, 6, 5, -8), (Memory.VEC, 1, 5, -14),
        (Memory.ERR, 3, 5, -7), (Memory.ERR, 3, 6, -7), (Memory.MOM, 6, 5, -9), (Memory.MOM, 1, 5, -9),
        (Memory.ACT, 3, 6, -7), (Memory.VEC, 1, 3, 0), (Memory.ERR, 3, 5, 0),
    ):
        bench.fill(bench.tensor(memory, rows, cols, exponent))
    return bench


GOOD: dict[str, dict[str, Any]] = {
    "fwd": dict(opcode=FWD, dst=1, a=0, b=2, c=3, flags=Flag.BIAS),
    "bwd": dict(opcode=BWD, dst=5, a=4, b=2, c=8, flags=Flag.MASK),
    "grad": dict(opcode=GRAD, dst=2, a=0, b=4, c=6, imm=4),
    "ones": dict(opcode=GRAD, dst=3, b=4, c=7, flags=Flag.ONES),
    "loss": dict(opcode=LOSS, dst=10, a=1, b=9),
}


BAD: list[tuple[str, dict[str, Any], dict[str, Any], Status]] = [  # base, changed fields, changed descriptor, status
    ("fwd", dict(flags=Flag.MASK), {}, Status.ILLEGAL_FLAGS),
    ("fwd", dict(flags=Flag.PAIR), {}, Status.ILLEGAL_FLAGS),
    ("bwd", dict(flags=Flag.FREEZE), {}, Status.ILLEGAL_FLAGS),
    ("bwd", dict(flags=Flag.SCALAR), {}, Status.ILLEGAL_FLAGS),
    ("grad", dict(flags=Flag.FREEZE), {}, Status.ILLEGAL_FLAGS),
    ("loss", dict(flags=Flag.DELAYED), {}, Status.ILLEGAL_FLAGS),
    ("fwd", dict(dst=24), {}, Status.BAD_TENSOR),
    ("fwd", dict(a=255), {}, Status.BAD_TENSOR),
    ("fwd", dict(b=1), {}, Status.BAD_TENSOR),
    ("fwd", dict(c=0), {}, Status.BAD_TENSOR),
    ("fwd", {}, dict(index=0, memory=7), Status.BAD_TENSOR),
    ("bwd", dict(dst=0), {}, Status.BAD_TENSOR),
    ("bwd", dict(c=5), {}, Status.BAD_TENSOR),
    ("grad", dict(dst=6), {}, Status.BAD_TENSOR),
    ("ones", dict(dst=7), {}, Status.BAD_TENSOR),
    ("loss", dict(b=1), {}, Status.BAD_TENSOR),
    ("fwd", {}, dict(index=0, planes=0), Status.BAD_SHAPE),
    ("fwd", {}, dict(index=0, cols=0, stride=0), Status.BAD_SHAPE),
    ("fwd", {}, dict(index=0, stride=3), Status.BAD_SHAPE),
    ("fwd", {}, dict(index=2, planes=7), Status.BAD_SHAPE),
    ("fwd", {}, dict(index=1, planes=2), Status.BAD_SHAPE),
    ("fwd", {}, dict(index=1, cols=6), Status.BAD_SHAPE),
    ("fwd", {}, dict(index=3, planes=2), Status.BAD_SHAPE),
    ("fwd", {}, dict(index=3, cols=6), Status.BAD_SHAPE),
    ("bwd", {}, dict(index=4, cols=6), Status.BAD_SHAPE),
    ("bwd", {}, dict(index=8, planes=2), Status.BAD_SHAPE),
    ("bwd", {}, dict(index=5, cols=7), Status.BAD_SHAPE),
    ("grad", {}, dict(index=6, cols=7), Status.BAD_SHAPE),
    ("grad", {}, dict(index=0, planes=4), Status.BAD_SHAPE),
    ("grad", {}, dict(index=2, planes=5), Status.BAD_SHAPE),
    ("ones", {}, dict(index=7, planes=2), Status.BAD_SHAPE),
    ("ones", {}, dict(index=3, cols=7), Status.BAD_SHAPE),
    ("loss", {}, dict(index=9, cols=4), Status.BAD_SHAPE),
    ("loss", {}, dict(index=9, planes=2), Status.BAD_SHAPE),
    ("loss", {}, dict(index=10, cols=6), Status.BAD_SHAPE),
    ("fwd", {}, dict(index=0, base=251), Status.OUT_OF_RANGE),
    ("fwd", {}, dict(index=2, base=65535), Status.OUT_OF_RANGE),
    ("loss", {}, dict(index=9, base=64), Status.OUT_OF_RANGE),
    ("fwd", {}, dict(index=1, exponent=61), Status.OVERFLOW),
    ("fwd", {}, dict(index=3, exponent=-61), Status.OVERFLOW),
    ("loss", {}, dict(index=10, exponent=127), Status.OVERFLOW),
    ("fwd", {}, dict(index=0, count=9), Status.OVERFLOW),
    ("grad", dict(imm=64), {}, Status.OVERFLOW),
    ("grad", dict(imm=-1), {}, Status.OVERFLOW),
    ("ones", dict(imm=-128), {}, Status.OVERFLOW),
    ("fwd", {}, dict(index=1, base=5), Status.OVERLAP),
    ("fwd", {}, dict(index=1, base=0), Status.OVERLAP),
    ("bwd", {}, dict(index=5, base=5), Status.OVERLAP),
    # the first failed check decides
    ("fwd", dict(flags=0x80, dst=99), {}, Status.ILLEGAL_FLAGS),
    ("fwd", dict(a=99), dict(index=1, planes=0), Status.BAD_SHAPE),
    ("fwd", {}, dict(index=0, stride=3, base=65535), Status.BAD_SHAPE),
    ("fwd", {}, dict(index=0, base=65535, exponent=100), Status.OUT_OF_RANGE),
    ("fwd", {}, dict(index=1, base=0, cols=7), Status.BAD_SHAPE),
    ("grad", dict(imm=64), dict(index=6, planes=5), Status.BAD_SHAPE),
]


@pytest.mark.parametrize("name", GOOD)
def test_good_instructions_run(name: str, bench: Bench) -> None:
    assert bench.step(encode(**GOOD[name])) is None
    assert (bench.machine.pc, bench.machine.retired) == (1, 1)


@pytest.mark.parametrize(("name", "fields", "entry", "status"), BAD)
def test_errors_write_nothing(
    name: str, fields: dict[str, Any], entry: dict[str, Any], status: Status, bench: Bench,
) -> None:
    if entry:
        bench.describe(**entry)
    before = bench.machine.snapshot()
    assert bench.step(encode(**{**GOOD[name], **fields})) == bench.machine.status == status
    assert bench.machine.compare(before) == []
    assert (bench.machine.pc, bench.machine.retired) == (0, 0)


@pytest.mark.parametrize("opcode", [0, 2, 0x0F, 0x13, 0x21, 0x2F, 0x37, 0xFF])
def test_illegal_opcode(opcode: int, bench: Bench) -> None:
    assert bench.step(opcode | 0xFF00) == Status.ILLEGAL_OPCODE


def test_halt_and_pc_range(bench: Bench) -> None:
    assert bench.step(encode(HALT)) == Status.HALTED
    assert bench.step(encode(HALT, flags=1)) == Status.ILLEGAL_FLAGS
    bench.machine.program[:] = encode(**GOOD["fwd"])
    assert bench.machine.run(30) == Status.PC_RANGE
    assert (bench.machine.pc, bench.machine.retired) == (32, 2)
    assert bench.machine.run(32) == Status.PC_RANGE
    assert (bench.machine.pc, bench.machine.retired) == (32, 0)


def test_edges_that_are_legal(bench: Bench) -> None:
    bench.describe(1, base=6)  # right behind x
    assert bench.step(encode(**GOOD["fwd"])) is None
    bench.describe(1, base=256 - 6, count=8, exponent=60)
    assert bench.step(encode(**GOOD["fwd"])) is None
    bench.machine.lr_shift = 63
    for imm, status in ((0, None), (1, Status.OVERFLOW), (-63, None), (-64, Status.OVERFLOW)):
        assert bench.step(encode(**{**GOOD["grad"], "imm": imm})) == status


def test_too_many_classes(rng: np.random.Generator) -> None:
    bench = Bench(replace(SMALL, classes=4), rng)
    z, labels, e = bench.tensor(Memory.ACT, 2, 5), bench.tensor(Memory.VEC, 1, 2), bench.tensor(Memory.ERR, 2, 5)
    assert bench.step(encode(LOSS, dst=e, a=z, b=labels)) == Status.BAD_SHAPE
    z, e = bench.tensor(Memory.ACT, 2, 4), bench.tensor(Memory.ERR, 2, 4)
    assert bench.step(encode(LOSS, dst=e, a=z, b=labels)) is None


def test_unused_operands_are_not_checked(bench: Bench) -> None:
    assert bench.step(encode(FWD, dst=1, a=0, b=2, c=200)) is None
    assert bench.step(encode(GRAD, dst=3, a=200, b=4, c=7, flags=Flag.ONES)) is None


@pytest.mark.parametrize("name", GOOD)
def test_padding_and_neighbours(name: str, bench: Bench) -> None:
    """Lanes beyond the last column never matter, are written 0, and nothing outside a destination changes."""
    machine, word = bench.machine, encode(**GOOD[name])
    before = machine.snapshot()
    bench.step(word)
    after = machine.snapshot()
    written: dict[str, list[Any]] = {}
    for index in {GOOD[name]["dst"]} | ({GOOD[name]["c"]} if name in ("grad", "ones") else set()):
        t = machine.tensor(index)
        written.setdefault(Memory(t.memory).name.lower(), []).append(t)
        rows = machine.memories[Memory(t.memory).name.lower()][t.base:t.end].reshape(t.rows, -1)
        assert not rows[:, t.cols:].any()
    for memory, array in machine.memories.items():
        outside = np.ones(len(array), bool)
        for t in written.get(memory, []):
            outside[t.base:t.end] = False
        assert np.array_equal(array[outside], before[memory][outside])

    for array in machine.memories.values():  # the same again with other rubbish beside the operands
        array[:] = bench.rng.integers(-128, 128, array.shape)
    machine.table[:], machine.lfsr[:] = before["table"], before["lfsr"]
    for index in range(bench.count):
        t = machine.tensor(index)
        source = before[Memory(t.memory).name.lower()][t.base:t.end].reshape(t.rows, -1)[:, :t.cols]
        machine.values(t)[:] = source
    bench.step(word)
    for tensors in written.values():
        for t in tensors:
            memory = Memory(t.memory).name.lower()
            assert np.array_equal(machine.memories[memory][t.base:t.end], after[memory][t.base:t.end])


@pytest.mark.parametrize("terms", [1, 1023, 1024, 1025, 1999, 4001])
def test_products_are_exact(terms: int, rng: np.random.Generator) -> None:
    a = rng.integers(-128, 128, (5, terms)).astype(np.int8)
    b = rng.integers(-128, 128, (terms, 6)).astype(np.int8)
    a[0], b[:, 0], a[1], b[:, 1] = -128, -128, 127, 127
    assert np.array_equal(product(a, b), a.astype(np.int64) @ b.astype(np.int64))


def test_compare_sees_a_difference(bench: Bench) -> None:
    before = bench.machine.snapshot()
    assert list(before) == ["act", "err", "wgt", "mom", "vec", "table", "lfsr"]
    bench.machine.memories["wgt"][3, 1] += 1
    bench.machine.lfsr[0] += 1
    assert bench.machine.compare(before) == ["wgt", "lfsr"]


# --- exponents ------------------------------------------------------------------------------------

def test_history(bench: Bench) -> None:
    machine = bench.machine
    owns = []
    for step in range(11):
        bench.describe(0, exponent=-7 - step % 3)
        assert bench.step(encode(FWD, dst=1, a=0, b=2)) is None
        owns.append(machine.tensor(1).exponent)
        assert machine.tensor(1).history == tuple(owns[:-9:-1])
    bench.describe(0, exponent=-30)
    before = machine.tensor(1)
    bench.step(encode(FWD, dst=1, a=0, b=2, flags=Flag.DELAYED | Flag.FREEZE))
    assert machine.tensor(1) == replace(before, exponent=max(before.history))
    assert not bench.values(1).any()
    bench.step(encode(FWD, dst=1, a=0, b=2, flags=Flag.DELAYED))
    assert machine.tensor(1).exponent == max(before.history) and machine.tensor(1).history[0] < -23
    bench.step(encode(FWD, dst=1, a=0, b=2, flags=Flag.FREEZE))
    assert machine.tensor(1).exponent == machine.tensor(1).history[0] and bench.values(1).any()


def test_zeros_keep_the_exponent(bench: Bench) -> None:
    bench.values(0)[:] = 0
    bench.describe(1, exponent=-23)
    for flags in (0, Flag.DELAYED):
        bench.step(encode(FWD, dst=1, a=0, b=2, flags=flags))
        assert (bench.machine.tensor(1).exponent, bench.machine.tensor(1).count) == (-23, 0)
        assert not bench.values(1).any()
    bench.describe(1, count=2, history0=-9, history1=-5)
    bench.step(encode(FWD, dst=1, a=0, b=2, flags=Flag.DELAYED))
    assert (bench.machine.tensor(1).exponent, bench.machine.tensor(1).history) == (-5, (-9, -5))


def test_wild_history_is_clamped(bench: Bench) -> None:
    bench.describe(1, count=1, history0=127, history1=-128)
    bench.step(encode(FWD, dst=1, a=0, b=2, flags=Flag.DELAYED))
    assert bench.machine.tensor(1).exponent == 60 and not bench.values(1).any()
    bench.describe(1, count=1, history0=-128)
    bench.step(encode(FWD, dst=1, a=0, b=2, flags=Flag.DELAYED))
    assert bench.machine.tensor(1).exponent == -60
    assert bench.machine.saturated == np.count_nonzero(bench.values(1)) == np.count_nonzero(abs(bench.values(1)) == 127)
