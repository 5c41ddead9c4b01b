"""The golden machine: every check, the host port, and training steps against slow plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from golden.machine import BusError, GoldenMachine, product
from shiftgrad.config import Config
from shiftgrad.device import Device, DeviceError, GoldenDevice
from shiftgrad.isa import COUNTERS, DESCRIPTOR, LFSR_BASE, Flag, Memory, Opcode, Region, Status, encode, pack

SEED = 77
SMALL = Config(name="small", size=4, act_words=256, err_words=128, wgt_words=512, mom_words=512, vec_words=64,
               program_words=32, tensors=24, classes=16)
FWD, BWD, GRAD, LOSS, HALT = Opcode.FWD, Opcode.BWD, Opcode.GRAD, Opcode.LOSS, Opcode.HALT


@pytest.fixture
def rng() -> np.random.Generator:
    print("seed", SEED)
    return np.random.default_rng(SEED)


class Bench:
    """A machine, tensors laid out one after the other, and memories full of rubbish."""

    def __init__(self, config: Config, rng: np.random.Generator) -> None:
        self.config, self.rng, self.machine = config, rng, GoldenMachine(config)
        self.free = dict.fromkeys(Memory, 0)
        self.count = 0
        for memory in self.machine.memories.values():
            memory[:] = rng.integers(-128, 128, memory.shape)

    def tensor(self, memory: Memory, rows: int, cols: int, exponent: int = 0) -> int:
        stride = self.config.stride(cols)
        index, self.count = self.count, self.count + 1
        self.describe(index, base=self.free[memory], stride=stride, planes=rows, cols=cols, memory=memory,
                      exponent=exponent)
        self.free[memory] += rows * stride
        return index

    def describe(self, index: int, **values: int) -> None:
        """Set fields of a tensor table entry, the others stay."""
        old = self.machine.table[index].tolist()
        for word, fields in enumerate(DESCRIPTOR):
            mine = {f.name: values[f.name] for f in fields if f.name in values}
            mask = sum(((1 << f.width) - 1) << f.low for f in fields if f.name in mine)
            self.machine.table[index, word] = old[word] & ~mask | pack(fields, mine)

    def fill(self, index: int, bound: int = 127) -> np.ndarray:
        values = self.values(index)
        values[:] = self.rng.integers(-bound, bound + 1, values.shape)
        return values.copy()

    def values(self, index: int) -> np.ndarray:
        return self.machine.values(self.machine.tensor(index))

    def load(self, *words: int) -> None:
        self.machine.program[:len(words)] = words

    def step(self, word: int) -> Status | None:
        self.load(word)
        self.machine.pc = 0
        return self.machine.step()


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


@pytest.mark.parametrize("terms", [1, 1023, 1024, 1025, 1999, 4001])
def test_products_are_exact(terms: int, rng: np.random.Generator) -> None:
    a = rng.integers(-128, 128, (5, terms)).astype(np.int8)
    b = rng.integers(-128, 128, (terms, 6)).astype(np.int8)
    a[0], b[:, 0], a[1], b[:, 1] = -128, -128, 127, 127
    assert np.array_equal(product(a, b), a.astype(np.int64) @ b.astype(np.int64))


# --- a slow machine -------------------------------------------------------------------------------

class Slow:
    """Tensors as lists of lists of Python integers; docs/numerics.md once more, in fractions."""

    def __init__(self, bench: Bench) -> None:
        self.lanes = bench.config.size
        self.lfsr = bench.machine.lfsr.tolist()
        self.q = {i: bench.values(i).tolist() for i in range(bench.count)}
        self.e = {i: bench.machine.tensor(i).exponent for i in range(bench.count)}
        self.history: dict[int, list[int]] = {i: [] for i in range(bench.count)}

    @staticmethod
    def scaled(x: int, s: int, extra: Fraction) -> int:
        return math.floor(x / Fraction(2) ** s + extra)

    @staticmethod
    def clip(x: int, bound: int = 127) -> int:
        return max(-bound, min(bound, x))

    @staticmethod
    def clip32(x: int) -> int:
        return max(-(2**31), min(2**31 - 1, x))

    def aligned(self, x: int, d: int) -> int:
        d = max(-31, min(31, d))
        return self.clip32(self.scaled(x, -d, Fraction(d < 0, 2)))

    def random(self) -> list[Fraction]:
        for lane, x in enumerate(self.lfsr):
            x ^= x << 13 & 0xFFFFFFFF
            x ^= x >> 17
            self.lfsr[lane] = x ^ (x << 5 & 0xFFFFFFFF)
        return [Fraction(x >> 8, 2**24) for x in self.lfsr]

    def exponent(self, index: int, v: list[list[int]], e_v: int, delayed: bool) -> int:
        largest = max(abs(x) for row in v for x in row)
        own, previous = self.e[index], self.history[index][-8:]
        if largest:
            k = 0
            while largest**2 >= 2 ** (2 * k + 1):
                k += 1
            own = max(-60, min(60, e_v + k - 7))
            self.history[index].append(own)
        self.e[index] = max(previous) if delayed and previous else own
        return self.e[index]

    def nearest(self, index: int, v: list[list[int]], e_v: int, delayed: bool) -> None:
        s = self.exponent(index, v, e_v, delayed) - e_v
        fixed = [[self.scaled(x, s - 24, Fraction(0)) for x in row] for row in v]
        self.q[index] = [[self.clip(round(Fraction(x, 2**24))) for x in row] for row in fixed]

    def fwd(self, dst: int, x: int, w: int, bias: int, relu: bool, delayed: bool) -> None:
        e_v = self.e[x] + self.e[w]
        v: list[list[int]] = []
        for row in self.q[x]:
            v.append([])
            for n, b in enumerate(self.q[bias][0]):
                total = sum(value * weights[n] for value, weights in zip(row, self.q[w], strict=True))
                total = self.clip32(total + self.aligned(b, self.e[bias] - e_v))
                v[-1].append(max(total, 0) if relu else total)
        self.nearest(dst, v, e_v, delayed)

    def bwd(self, dst: int, e: int, w: int, mask: int, delayed: bool) -> None:
        v = [[sum(a * b for a, b in zip(row, weights, strict=True)) if keep > 0 else 0
              for weights, keep in zip(self.q[w], kept, strict=True)]
             for row, kept in zip(self.q[e], self.q[mask], strict=True)]
        self.nearest(dst, v, self.e[e] + self.e[w], delayed)

    def grad(self, dst: int, x: int | None, e: int, m: int, n: int, delayed: bool, bound: int) -> None:
        left = self.q[x] if x is not None else [[1] for _ in self.q[e]]
        e_acc = (self.e[x] if x is not None else 0) + self.e[e]
        room = max(0, 16 - math.ceil(math.log2(len(left))))
        g = max(0, min(room, e_acc - (self.e[m] - 3)))
        e_v = e_acc - g
        v = [[self.clip32(2**g * sum(a[i] * b[j] for a, b in zip(left, self.q[e], strict=True))
                          + self.aligned(7 * self.q[m][i][j], self.e[m] - 3 - e_v))
              for j in range(len(self.q[dst][0]))] for i in range(len(self.q[dst]))]
        s = self.exponent(m, v, e_v, delayed) - e_v
        step = self.e[dst] + n - self.e[m]
        for i, first in self.drained(len(v), len(v[0])):
            r1, r2 = self.random(), self.random()
            for j in range(first, min(first + self.lanes, len(v[0]))):
                lane = j - first
                self.q[m][i][j] = momentum = self.clip(self.rounded(v[i][j], max(s, -7), r1[lane]))
                u = self.clip(self.rounded(momentum, max(step, -15), r2[lane]), bound)
                self.q[dst][i][j] = self.clip(self.q[dst][i][j] - u, bound)

    def rounded(self, x: int, s: int, r: Fraction) -> int:
        return 0 if s >= 32 else math.floor(Fraction(math.floor(x * Fraction(2) ** (24 - s)), 2**24) + r)

    def drained(self, rows: int, cols: int) -> Iterator[tuple[int, int]]:
        for first in range(0, cols, self.lanes):
            for top in range(0, rows, self.lanes):
                yield from ((i, first) for i in reversed(range(top, min(rows, top + self.lanes))))

    def loss(self, dst: int, z: int, labels: int) -> tuple[int, int, int]:
        self.e[dst], total, correct, samples = -7, 0, 0, 0
        for i, (row, y) in enumerate(zip(self.q[z], self.q[labels][0], strict=True)):
            w = [min(65535, self.scaled((max(row) - x) * 23637, 6 - self.e[z], Fraction(0))) for x in row]
            p = [round(2 ** (16 - (x % 256) / 256)) >> x // 256 for x in w]
            r = (2**34 - 1) // sum(p)
            valid = 0 <= y < len(row)
            self.q[dst][i] = [valid * self.clip((x * r + 2**26 >> 27) - 128 * (c == y)) for c, x in enumerate(p)]
            if valid:
                k = sum(p).bit_length() - 1
                index = sum(p) * 256 // 2**k % 256
                total += 256 * (k - 16) + round(256 * math.log2(1 + index / 256)) + w[y]
                correct += row.index(max(row)) == y
                samples += 1
        return total, correct, samples


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("size", [4, 12])
def test_training_steps_equal_the_slow_machine(size: int, delayed: bool, rng: np.random.Generator) -> None:
    bench = Bench(replace(SMALL, size=size), rng)
    batch, inputs, hidden, classes = 6, 13, 9, 5
    x, h, z = (bench.tensor(Memory.ACT, batch, n, -7) for n in (inputs, hidden, classes))
    w1, w2 = bench.tensor(Memory.WGT, inputs, hidden, -8), bench.tensor(Memory.WGT, hidden, classes, -7)
    m1, m2 = bench.tensor(Memory.MOM, inputs, hidden, -9), bench.tensor(Memory.MOM, hidden, classes, -9)
    b1, b2 = bench.tensor(Memory.VEC, 1, hidden, -14), bench.tensor(Memory.VEC, 1, classes, -14)
    mb1, mb2 = bench.tensor(Memory.MOM, 1, hidden, -9), bench.tensor(Memory.MOM, 1, classes, -9)
    labels = bench.tensor(Memory.VEC, 1, batch)
    e2, e1 = bench.tensor(Memory.ERR, batch, classes), bench.tensor(Memory.ERR, batch, hidden)
    for index in range(bench.count):
        bench.fill(index, 127 if index in (x, w1, w2) else 20)
    f, n = Flag.DELAYED if delayed else Flag(0), 5
    bench.load(
        encode(FWD, flags=f | Flag.RELU | Flag.BIAS, dst=h, a=x, b=w1, c=b1),
        encode(FWD, flags=f | Flag.BIAS, dst=z, a=h, b=w2, c=b2),
        encode(LOSS, dst=e2, a=z, b=labels),
        encode(BWD, flags=f | Flag.MASK, dst=e1, a=e2, b=w2, c=h),
        encode(GRAD, flags=f, dst=w2, a=h, b=e2, c=m2, imm=n - 2),
        encode(GRAD, flags=f | Flag.ONES, dst=b2, b=e2, c=mb2, imm=n - 2),
        encode(GRAD, flags=f, dst=w1, a=x, b=e1, c=m1, imm=n - 2),
        encode(GRAD, flags=f | Flag.ONES, dst=b1, b=e1, c=mb1, imm=n - 2),
        encode(HALT),
    )
    machine, slow = bench.machine, Slow(bench)
    machine.lr_shift = 2
    for _ in range(4):
        slow.q[labels] = bench.values(labels).tolist()
        assert machine.run() == Status.HALTED
        slow.fwd(h, x, w1, b1, True, delayed)
        slow.fwd(z, h, w2, b2, False, delayed)
        assert slow.loss(e2, z, labels) == (machine.loss, machine.correct, machine.samples)
        slow.bwd(e1, e2, w2, h, delayed)
        slow.grad(w2, h, e2, m2, n, delayed, 127)
        slow.grad(b2, None, e2, mb2, n, delayed, 32767)
        slow.grad(w1, x, e1, m1, n, delayed, 127)
        slow.grad(b1, None, e1, mb1, n, delayed, 32767)
        for index in range(bench.count):
            tensor = machine.tensor(index)
            assert machine.values(tensor).tolist() == slow.q[index], index
            assert tensor.exponent == slow.e[index], index
            assert list(tensor.history) == slow.history[index][:-9:-1], index
        assert machine.lfsr.tolist() == slow.lfsr
        bench.values(labels)[:] = rng.integers(0, classes, (1, batch))
    assert machine.counters["FWD_MACS"] == 4 * batch * hidden * (inputs + classes)
    assert machine.counters["BWD_MACS"] == 4 * batch * hidden * classes
    assert machine.counters["GRAD_MACS"] == 4 * batch * (hidden * (inputs + classes) + hidden + classes)


# --- the host port --------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [4, 8, 12, 16])
@pytest.mark.parametrize("memory", list(Memory))
def test_windows(size: int, memory: Memory, rng: np.random.Generator) -> None:
    config = replace(SMALL, size=size)
    machine, name = GoldenMachine(config), memory.name.lower()
    region, pitch, lane_bytes = Region[memory.name], config.pitch(name), config.lane_bytes(name)
    total = config.words(name) * pitch // 4
    image = rng.integers(0, 2**32, total, dtype=np.uint32)
    machine.write(region.address, image)
    raw = image.tobytes()
    for word in (0, 1, config.words(name) - 1):
        for lane in range(size):
            start = word * pitch + lane * lane_bytes
            expected = int.from_bytes(raw[start:start + lane_bytes], "little", signed=True)
            assert machine.memories[name][word, lane] == expected
    mask = (np.arange(4 * total) % pitch < size * lane_bytes).reshape(-1, 4)
    expected_words = np.where(mask, image.view(np.uint8).reshape(-1, 4), 0).astype(np.uint8).reshape(-1).view(np.uint32)
    assert np.array_equal(machine.read(region.address, total), expected_words)
    machine.write(region.address + 20, [0x04030201, 0x08070605])
    expected_words[5:7] = [0x04030201, 0x08070605]
    expected_words &= np.where(mask, 0xFF, 0).astype(np.uint8).reshape(-1).view(np.uint32)
    assert np.array_equal(machine.read(region.address, total), expected_words)
    assert np.array_equal(machine.read(region.address + 12, 7), expected_words[3:10])


def test_table_and_program_windows() -> None:
    machine = GoldenMachine(SMALL)
    machine.write(Region.TABLE.address + 32, np.full(16, 0xFFFFFFFF, np.uint32))
    stored = [0xFFFFF, 0xFFFFFFFF, 0xFFFF0007, 0xFFFFFF, 0xFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0]
    assert machine.read(Region.TABLE.address, 32).tolist() == [0] * 8 + stored * 2 + [0] * 8
    machine.write(Region.PROGRAM.address + 4, [1, 2])
    assert machine.program[:2].tolist() == [1 << 32, 2]
    assert machine.read(Region.PROGRAM.address, 4).tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(("address", "count", "bad"), [
    (0x000002, 1, 0x000002), (0x0000FC, 1, 0x0000FC), (0x000030, 1, 0x000030), (0x00002C, 2, 0x000030),
    (LFSR_BASE + 12, 2, LFSR_BASE + 16), (0x000008, 1, 0x000008), (0x100000 + 32 * 8 - 4, 2, 0x100000 + 32 * 8),
    (0x200000 + 24 * 32, 1, 0x200000 + 24 * 32), (0x300000, 1, 0x300000), (0x400000 + 256 * 4, 1, 0x400000 + 256 * 4),
    (0x800000 + 64 * 8, 1, 0x800000 + 64 * 8), (0x900000, 1, 0x900000), (0xF00000, 1, 0xF00000),
    (0x1000000, 1, 0x1000000), (-4, 1, -4),
])
def test_bus_errors_name_the_address(address: int, count: int, bad: int) -> None:
    machine = GoldenMachine(SMALL)
    with pytest.raises(BusError, match="bus error at") as error:
        machine.read(address, count)
    assert error.value.address == bad
    if address != 0x000008:  # CTRL is write only
        before = machine.snapshot()
        with pytest.raises(BusError):
            machine.write(address, np.ones(count, np.uint32))
        assert machine.compare(before) == []


def test_compare_sees_a_difference(bench: Bench) -> None:
    before = bench.machine.snapshot()
    assert list(before) == ["act", "err", "wgt", "mom", "vec", "table", "lfsr"]
    bench.machine.memories["wgt"][3, 1] += 1
    bench.machine.lfsr[0] += 1
    assert bench.machine.compare(before) == ["wgt", "lfsr"]


# --- the device -----------------------------------------------------------------------------------

def test_golden_device(rng: np.random.Generator) -> None:
    device = GoldenDevice(SMALL)
    assert isinstance(device, Device)
    assert (device.compared_instructions, device.mismatches) == (0, 0)
    assert device.read_register("MAGIC") == 0x53475231
    assert device.read_register("CONFIG") == 4 | 5 << 8 | 1 << 16
    assert GoldenDevice(replace(SMALL, tensors=32)).read_register("CONFIG") == 4 | 5 << 8 | 1 << 16
    assert device.status() == (False, Status.RESET)
    device.write(Region.PROGRAM.address + 8 * 7, np.array([encode(HALT)], np.uint64).view(np.uint32))
    assert device.run(7) == Status.HALTED
    assert (device.read_register("PC"), device.read_register("START_PC")) == (7, 7)
    assert device.run(0) == Status.ILLEGAL_OPCODE
    assert device.status() == (False, Status.ILLEGAL_OPCODE)
    device.machine.counters["FWD_MACS"] = 5
    device.write_register("CTRL", 3)
    assert device.counters()["FWD_MACS"] == 5, "only bit 2 clears them"
    assert device.status() == (False, Status.ILLEGAL_OPCODE)
    device.write_register("LR_SHIFT", 0xFFFF)
    assert device.read_register("LR_SHIFT") == 63
    device.seed([0, 5, 0xFFFFFFFF, 7])
    assert device.read(LFSR_BASE, 4).tolist() == [1, 5, 0xFFFFFFFF, 7]
    device.machine.counters["FWD_MACS"] = 5 << 32 | 6
    assert device.counters()["FWD_MACS"] == 5 << 32 | 6
    assert set(device.counters()) == {*COUNTERS, "RETIRED", "LOSS", "CORRECT", "SAMPLES", "SATURATED"}
    device.clear_counters()
    assert not any(device.counters().values())
    device.close()


def test_device_errors() -> None:
    device = GoldenDevice(SMALL)
    with pytest.raises(DeviceError, match="0x300000: no such region"):
        device.read(0x300000)
    with pytest.raises(DeviceError, match="register PC is ro"):
        device.write_register("PC", 1)
    with pytest.raises(DeviceError, match="register CTRL is wo"):
        device.read_register("CTRL")
    with pytest.raises(DeviceError, match="no register 'SPEED'; there are: MAGIC, "):
        device.read_register("SPEED")
    with pytest.raises(DeviceError, match=r"takes 0 to 2\^32 - 1, got -1"):
        device.write_register("LR_SHIFT", -1)
