"""Training steps of the golden machine against slow plain Python."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from shiftgrad.isa import Flag, Memory, Status, encode
from tests.machine_bench import BWD, FWD, GRAD, HALT, LOSS, SMALL, Bench

SEED = 77


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
