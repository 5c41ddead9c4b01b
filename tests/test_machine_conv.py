"""The golden machine on images: every operation with every combination of flags, and what it must not touch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from golden.convolution import Window
from shiftgrad.isa import LEGAL_FLAGS, OPERANDS, Flag, Memory, Opcode, encode
from tests import test_convolution as slow_products
from tests import test_machine_steps
from tests import test_vector_golden as slow_vector
from tests.machine_bench import SMALL, Bench
from tests.test_generator import slow_order

SEED = 90210
ACT, ERR, WGT, MOM, VEC = Memory
CONFIG = replace(SMALL, act_words=12000, err_words=11500, wgt_words=1500, mom_words=1500)
Matrix = list[list[int]]


class Images(Bench):
    """Tensors of images, with the forms they were given, beside rubbish."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        super().__init__(replace(CONFIG, size=size), rng)
        self.forms: dict[int, tuple[int, int, int, int]] = {}
        self.kinds: dict[int, Memory] = {}

    def image(self, memory: Memory, planes: int, height: int, width: int, cols: int, exponent: int | None = None,
              window: Window | None = None) -> int:
        """A tensor of random values, exponent and history; window bits of rubbish where they mean nothing."""
        rng = self.rng
        index = self.tensor(memory, planes * height * width, cols)
        self.forms[index], self.kinds[index] = (planes, height, width, cols), memory
        window = window or Window(1, 1, *rng.integers(1, 3, 2).tolist(), *rng.integers(0, 8, 2).tolist())
        if exponent is None:
            low, high = (-40, 41) if rng.random() < 0.1 else (-30 if memory == MOM else -14, -6)
            exponent = int(rng.integers(low, high))
        history = {f"history{i}": int(e) for i, e in enumerate(exponent + rng.integers(-2, 3, 8))}
        self.describe(index, planes=planes, height=height - 1, width=width - 1, exponent=exponent, pad_y=window.pad_y,
                      pad_x=window.pad_x, step_y=window.step_y - 1, step_x=window.step_x - 1,
                      count=int(rng.choice([0, 1, 8])), **history)
        bound = int(rng.choice([100, 3000, 32767])) if memory == VEC else int(rng.choice([1, 20, 127]))
        self.fill(index, bound)
        if memory != VEC and rng.random() < 0.3:
            self.values(index)[0] = -128  # the host may write it
        return index

    def weights(self, channels: int, cols: int, window: Window) -> int:
        return self.image(WGT, channels, window.height, window.width, cols, window=window)

    def like(self, memory: Memory, index: int) -> int:
        """A tensor with the rows and columns of ``index`` in another form: of what is taken as a matrix."""
        planes, height, width, cols = self.forms[index]
        return self.image(memory, height * planes, 1, width, cols)

    def scalar(self, memory: Memory = VEC) -> int:
        return self.image(memory, 1, 1, 1, 1, exponent=-14 if memory == VEC else None)


class Slow(test_machine_steps.Slow):
    """The slow machine from the histories it finds, with the image operations; ``forms`` are the tensors'."""

    def __init__(self, bench: Images) -> None:
        super().__init__(bench)
        self.forms, self.kinds, self.saturated = bench.forms, bench.kinds, 0
        self.macs = dict.fromkeys(bench.machine.counters, 0)
        self.history = {i: list(bench.machine.tensor(i).history[::-1]) for i in range(bench.count)}

    def requantised(self, dst: int, v: Matrix, e_v: int, flags: int) -> None:
        history = list(self.history[dst])
        s = self.exponent(dst, v, e_v, bool(flags & Flag.DELAYED)) - e_v
        if flags & Flag.FREEZE:
            self.history[dst] = history
        exact = [[round(x * 2.0**-s) for x in row] for row in v]  # float64 is exact: int32, a power of two
        self.q[dst] = [[self.clip(x) for x in row] for row in exact]
        self.saturated = sum(abs(x) > 127 for row in exact for x in row)

    def images(self, index: int) -> np.ndarray[Any, Any]:
        return np.array(self.q[index]).reshape(self.forms[index])

    def shifted(self, a: int, d: int | None) -> Matrix:
        if d is None:
            return self.q[a]
        term = self.clip(self.aligned(self.q[d][0][0], self.e[d] - self.e[a]))
        return [[self.clip(x + term) for x in row] for row in self.q[a]]

    def masked(self, v: Matrix, c: int | None) -> Matrix:
        return v if c is None else [[x if keep > 0 else 0 for x, keep in zip(*rows, strict=True)]
                                    for rows in zip(v, self.q[c], strict=True)]

    def fwd(self, window: Window, flags: int, dst: int, a: int, b: int, c: int | None = None,
             d: int | None = None) -> None:
        e_v = self.e[a] + self.e[b]
        v = slow_products.slow_forward(self.shifted(a, d), self.q[b], self.forms[a][:3], window)
        self.macs["FWD_MACS"] = len(v) * len(v[0]) * len(self.q[b])
        if c is not None:
            bias = self.q[c][0] * (len(v[0]) if len(self.q[c][0]) == 1 else 1)
            v = [[self.clip32(x + self.aligned(y, self.e[c] - e_v)) for x, y in zip(row, bias, strict=True)]
                 for row in v]
        self.requantised(dst, [[max(x, 0) for x in row] for row in v] if flags & Flag.RELU else v, e_v, flags)

    def bwd(self, window: Window, flags: int, dst: int, a: int, b: int, c: int | None = None) -> None:
        shape, channels = self.forms[dst][:3], self.forms[dst][3]
        v = slow_products.slow_backward(self.q[a], self.q[b], shape, window, channels)
        self.macs["BWD_MACS"] = shape[0] * slow_products.slow_macs(shape[1:], window) * channels * self.forms[a][3]
        self.requantised(dst, self.masked(v, c), self.e[a] + self.e[b], flags)

    def grad(self, window: Window, flags: int, n: int, dst: int, b: int, c: int, a: int | None = None,
              d: int | None = None) -> None:
        g = (slow_products.slow_gradient(self.shifted(a, d), self.q[b], self.forms[a][:3], window) if a is not None
             else [[sum(column) for column in zip(*self.q[b], strict=True)]])
        e_g = self.e[b] + (self.e[a] if a is not None else 0)
        self.macs["GRAD_MACS"] = len(g) * len(g[0]) * len(self.q[b])
        self.stepped(flags, n, dst, c, g, e_g, 16 - math.ceil(math.log2(len(self.q[b]))))

    def stepped(self, flags: int, n: int, dst: int, c: int, g: Matrix, e_g: int, most: int) -> None:
        guard = min(most, max(0, e_g - self.e[c] + 3))
        e_v, bound = e_g - guard, 127 if self.kinds[dst] == WGT else 32767
        v = [[self.clip32(math.floor(x * 2.0**guard) + self.aligned(7 * q, self.e[c] - 3 - e_v))
              for x, q in zip(*rows, strict=True)] for rows in zip(g, self.q[c], strict=True)]
        s = self.exponent(c, v, e_v, bool(flags & Flag.DELAYED)) - e_v
        step, self.saturated = self.e[dst] + n - self.e[c], 0
        for i, left in slow_order(self.lanes, len(v), len(v[0]), self.forms[dst][0]):
            r1, r2 = self.random(), self.random()
            for j in range(left, min(left + self.lanes, len(v[0]))):
                exact = self.rounded(v[i][j], max(s, -7), r1[j - left])
                self.q[c][i][j] = momentum = self.clip(exact)
                self.saturated += exact != momentum
                u = self.clip(self.rounded(momentum, max(step, -15), r2[j - left]), bound)
                self.q[dst][i][j] = self.clip(self.q[dst][i][j] - u, bound)

    def scaled_by(self, a: int, d: int | None) -> tuple[Matrix, int]:
        factor, e_d = (self.q[d][0][0], self.e[d]) if d is not None else (16384, -14)
        return [[x * factor for x in row] for row in self.q[a]], self.e[a] + e_d

    def plus(self, v: Matrix, more: Any, d: int) -> Matrix:
        flat = np.array(more).reshape(len(v), -1).tolist()
        return [[self.clip32(x + self.aligned(y, d)) for x, y in zip(*rows, strict=True)]
                for rows in zip(v, flat, strict=True)]

    def add(self, flags: int, dst: int, a: int, b: int | None = None, c: int | None = None,
            d: int | None = None) -> None:
        v, e_v = self.scaled_by(a, d)
        if c is not None:
            term = max(-(2**30), min(2**30 - 1, self.aligned(self.q[c][0][0], self.e[c] - e_v)))
            v = [[x + term for x in row] for row in v]
        if b is not None:
            v = self.plus(v, slow_vector.slow_shortcut(self.images(b), self.forms[dst]), self.e[b] - e_v)
        self.requantised(dst, [[max(x, 0) for x in row] for row in v] if flags & Flag.RELU else v, e_v, flags)

    def addb(self, flags: int, dst: int, a: int, b: int | None = None, c: int | None = None,
             d: int | None = None) -> None:
        v, e_v = self.scaled_by(a, d)
        if b is not None:
            v = self.plus(v, slow_vector.slow_shortcut_backward(self.images(b), self.forms[dst]), self.e[b] - e_v)
        self.requantised(dst, self.masked(v, c), e_v, flags)

    def sum(self, flags: int, n: int, dst: int, b: int, c: int, a: int | None = None) -> None:
        left = self.q[a] if a is not None else [[1] * len(row) for row in self.q[b]]
        total = sum(x * y for rows in zip(left, self.q[b], strict=True) for x, y in zip(*rows, strict=True))
        most = 16 - math.ceil(math.log2(len(left))) - math.ceil(math.log2(len(left[0])))
        self.stepped(flags, n, dst, c, [[total]], self.e[b] + (self.e[a] if a is not None else 0), most)

    def avg(self, flags: int, dst: int, a: int) -> None:
        pixels = self.forms[a][1] * self.forms[a][2]
        self.requantised(dst, self.images(a).sum(axis=(1, 2)).tolist(), self.e[a] - round(math.log2(pixels)), flags)

    def avgb(self, flags: int, dst: int, a: int, c: int | None = None) -> None:
        pixels = self.forms[dst][1] * self.forms[dst][2]
        v = [row for row in self.q[a] for _ in range(pixels)]
        self.requantised(dst, self.masked(v, c), self.e[a] - round(math.log2(pixels)), flags)

    def max(self, flags: int, dst: int, a: int) -> None:
        v = slow_vector.slow_largest(self.images(a)).reshape(-1, self.forms[a][3])
        self.requantised(dst, v.tolist(), self.e[a], flags)

    def maxb(self, flags: int, dst: int, a: int, b: int) -> None:
        v = slow_vector.slow_largest_backward(self.images(a), self.images(b), bool(flags & Flag.MASK))
        self.requantised(dst, v.reshape(-1, self.forms[dst][3]).tolist(), self.e[a], flags)


def check(bench: Images, word: int, expected: Callable[[Slow], None], written: set[int]) -> None:
    """Run ``word`` twice, with other rubbish beside the tensors the second time, and compare all there is."""
    machine, slow = bench.machine, Slow(bench)
    expected(slow)
    tensors = [machine.tensor(i) for i in range(bench.count)]
    before = machine.snapshot()
    for attempt in range(2):
        assert bench.step(word) is None
        outside = {name: np.ones(len(array), bool) for name, array in machine.memories.items()}
        for t in tensors:
            after = machine.tensor(t.id)
            assert machine.values(t).tolist() == slow.q[t.id], (attempt, t)
            assert after.exponent == slow.e[t.id] and list(after.history) == slow.history[t.id][:-9:-1], (attempt, t)
            if t.id in written:
                name = Memory(t.memory).name.lower()
                outside[name][t.base:t.end] = False
                assert not machine.memories[name][t.base:t.end].reshape(t.rows, -1)[:, t.cols:].any()
        for name, array in machine.memories.items():
            assert np.array_equal(array[outside[name]], before[name][outside[name]])
        assert machine.lfsr.tolist() == slow.lfsr and machine.saturated == slow.saturated
        assert machine.counters == slow.macs
        machine.counters = dict.fromkeys(machine.counters, 0)
        values = {t.id: machine.values(t).copy() for t in tensors}
        for name, array in machine.memories.items():
            values |= {t.id: before[name][t.base:t.end].reshape(t.rows, -1)[:, :t.cols] for t in tensors
                       if Memory(t.memory).name.lower() == name}
            array[:] = bench.rng.integers(-128, 128, array.shape)
        for t in tensors:
            machine.values(t)[:] = values[t.id]
        machine.table[:], machine.lfsr[:] = before["table"], before["lfsr"]
        before = machine.snapshot()


def convolution(bench: Images) -> tuple[tuple[int, int, int], tuple[int, int, int], int, int, Window]:
    """Planes, height and width of a convolution's input and output, its channels and its window."""
    largest = int(bench.rng.choice([1, 3, 7]))
    window = slow_products.random_window(bench.rng, largest)
    shape = slow_products.random_shape(bench.rng, window)
    channels = bench.rng.integers(1, bench.rng.choice([2, 10], 2)).tolist()
    return shape, (shape[0], *window.output(*shape[1:])), *channels, window


def fwd(bench: Images, flags: int) -> dict[str, Any]:
    shape, out, cin, cout, window = convolution(bench)
    return dict(dst=bench.image(ACT, *out, cout), a=bench.image(ACT, *shape, cin), b=bench.weights(cin, cout, window),
                c=bench.image(VEC, 1, 1, 1, int(bench.rng.choice([1, cout])), -14), d=bench.scalar(), window=window)


def bwd(bench: Images, flags: int) -> dict[str, Any]:
    shape, out, cin, cout, window = convolution(bench)
    dst = bench.image(ERR, *shape, cin)
    return dict(dst=dst, a=bench.image(ERR, *out, cout), b=bench.weights(cin, cout, window), c=bench.like(ACT, dst),
                window=window)


def grad(bench: Images, flags: int) -> dict[str, Any]:
    shape, out, cin, cout, window = convolution(bench)
    dst = bench.image(VEC, 1, 1, 1, cout, -14) if flags & Flag.ONES else bench.weights(cin, cout, window)
    return dict(dst=dst, a=bench.image(ACT, *shape, cin), b=bench.image(ERR, *out, cout), c=bench.like(MOM, dst),
                d=bench.scalar(), n=5, window=window)


def add(bench: Images, flags: int) -> dict[str, Any]:
    planes, height, width, channels = bench.rng.integers(1, [4, 6, 6, 10]).tolist()
    full, half = (planes, height, width), (planes, (height + 1) // 2, (width + 1) // 2)
    small = (*(half if bench.rng.random() < 0.7 else full), channels + int(bench.rng.integers(6)))
    return dict(dst=bench.image(ACT, *small), a=bench.like(ACT, bench.image(ACT, *small)),
                b=bench.image(ACT, *full, channels), c=bench.scalar(), d=bench.scalar())


def addb(bench: Images, flags: int) -> dict[str, Any]:
    planes, height, width, channels = bench.rng.integers(1, [4, 6, 6, 10]).tolist()
    full, half = (planes, height, width), (planes, (height + 1) // 2, (width + 1) // 2)
    small = (*(half if bench.rng.random() < 0.7 else full), channels + int(bench.rng.integers(6)))
    dst = bench.image(ERR, *full, channels)
    return dict(dst=dst, a=bench.like(ERR, dst), b=bench.image(ERR, *small), c=bench.like(ACT, dst), d=bench.scalar())


def sum_(bench: Images, flags: int) -> dict[str, Any]:
    rows, cols = bench.rng.integers(1, [60, 20]).tolist() if bench.rng.random() < 0.8 else (290, 150)  # limit -1
    b = bench.image(ERR, rows, 1, 1, cols)
    return dict(dst=bench.scalar(), a=bench.like(ACT, b), b=b, c=bench.scalar(MOM), n=5)


def avg(bench: Images, flags: int) -> dict[str, Any]:
    planes, height, width, channels = bench.rng.integers(1, [4, 8, 8, 10]).tolist()
    return dict(dst=bench.image(ACT, planes, 1, 1, channels), a=bench.image(ACT, planes, height, width, channels))


def avgb(bench: Images, flags: int) -> dict[str, Any]:
    planes, height, width, channels = bench.rng.integers(1, [4, 8, 8, 10]).tolist()
    dst = bench.image(ERR, planes, height, width, channels)
    return dict(dst=dst, a=bench.image(ERR, planes, 1, 1, channels), c=bench.like(ACT, dst))


def max_(bench: Images, flags: int) -> dict[str, Any]:
    planes, height, width, channels = bench.rng.integers(1, [4, 4, 4, 10]).tolist()
    return dict(dst=bench.image(ACT, planes, height, width, channels),
                a=bench.image(ACT, planes, 2 * height, 2 * width, channels))


def maxb(bench: Images, flags: int) -> dict[str, Any]:
    planes, height, width, channels = bench.rng.integers(1, [4, 4, 4, 10]).tolist()
    large = planes, 2 * height, 2 * width, channels
    return dict(dst=bench.image(ERR, *large), a=bench.image(ERR, planes, height, width, channels),
                b=bench.image(ACT, *large))


BUILD = {Opcode.FWD: fwd, Opcode.BWD: bwd, Opcode.GRAD: grad, Opcode.ADD: add, Opcode.ADDB: addb, Opcode.SUM: sum_,
         Opcode.AVG: avg, Opcode.AVGB: avgb, Opcode.MAX: max_, Opcode.MAXB: maxb}


@pytest.mark.parametrize("opcode", BUILD, ids=lambda opcode: opcode.name)
def test_every_combination_of_flags(opcode: Opcode) -> None:
    """Random forms and data for each; the operands no flag brings in are garbage."""
    print("seed", SEED)
    rng = np.random.default_rng(SEED + opcode)
    combinations = [flags for flags in range(256) if not flags & ~int(LEGAL_FLAGS[opcode])]
    for flags in combinations * (150 // len(combinations)):
        bench = Images(int(rng.choice([4, 8, 12])), rng)
        fields = BUILD[opcode](bench, flags)
        used = OPERANDS(opcode, flags)
        names = {name: fields[name] if name in used else 255 for name in ("dst", "a", "b", "c", "d")}
        print(opcode.name, Flag(flags), fields, bench.forms)
        given = {name: value for name, value in fields.items() if name in used or name in ("n", "window")}
        bench.machine.lr_shift = 3
        word = encode(opcode, flags=flags, **names, imm=2 if "n" in fields else -128)
        check(bench, word, lambda slow, given=given, flags=flags:  # type: ignore[misc]
              getattr(slow, opcode.name.lower())(flags=flags, **given),
              {fields["dst"], fields["c"]} if "n" in fields else {fields["dst"]})
