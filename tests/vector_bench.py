"""A vector unit between memories in Python: random passes, what they must give, and the cycles they take."""

from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from golden import vector
from hw.memory import READ_LATENCY
from hw.vector import VectorControl, VectorUnit

__all__ = ["SEED", "Make", "simulate"]

SEED = 4711


@dataclass
class Image:
    """A tensor [planes, height, width, cols] at ``base`` of ``memory`` ([words, T] of int8), whatever that holds."""

    memory: np.ndarray
    shape: tuple
    base: int
    unsigned: bool = False

    @property
    def stride(self):
        return -(-self.shape[3] // self.memory.shape[1])

    @property
    def values(self):
        planes, height, width, cols = self.shape
        words = self.memory[self.base:self.base + planes * height * width * self.stride]
        words = words.view(np.uint8) if self.unsigned else words
        return words.reshape(planes, height, width, -1)[..., :cols].astype(np.int64)

    @property
    def operand(self):
        planes, height, width, cols = self.shape
        return {"base": self.base, "stride": self.stride, "planes": planes, "height_1": height - 1, "cols": cols,
                "width_1": width - 1, "line": width * self.stride, "image": height * width * self.stride}


@dataclass
class Pass:
    """One run of the unit: ``acc`` and ``op2`` are [rows, cols] as in ``dst``, ``order`` is that of the tokens."""

    control: dict
    operands: dict
    x: np.ndarray  # memories of the two streams
    y: np.ndarray
    acc: np.ndarray
    op2: np.ndarray | None = None
    order: list | None = None
    reads: int = 0  # cycles from the first to the last
    wait: int = 0  # from the last read's cycle to ``done``
    abort: int | None = None  # cycles from ``start``
    tokens: list = field(default_factory=list)

    def expect(self, size):
        """List (offset, lanes, acc, op2) of every token."""
        rows, cols = self.acc.shape
        stride = -(-cols // size)
        op2 = np.zeros_like(self.acc) if self.op2 is None else self.op2
        self.tokens = []
        for offset in self.order or range(rows * stride):
            row, first = offset // stride, offset % stride * size
            self.tokens.append((offset, min(size, cols - first), self.acc[row, first:first + size].tolist(),
                                op2[row, first:first + size].tolist()))


def flat(values):
    """[rows, cols] of images."""
    return values.reshape(-1, values.shape[-1])


class Source:
    """Python's skewed memory: lane n shows in cycle t + READ_LATENCY + n what the root asked in t, until the next.

    Lanes of 9 bits go on with a zero when ``unsigned``, else with the sign.
    """

    def __init__(self, size, bits):
        self.asked = [None] * (READ_LATENCY + size)
        self.lanes = [0] * size
        self.bits, self.unsigned = bits, False

    def cycle(self, word):
        """``word`` is what the root asks for in this cycle, or None; returns the lanes of this cycle, packed."""
        self.asked = [word, *self.asked[:-1]]
        for n in range(len(self.lanes)):
            if (seen := self.asked[READ_LATENCY + n]) is not None:
                self.lanes[n] = int(seen[n])
        mask = 0xFF if self.unsigned else (1 << self.bits) - 1
        return sum((value & mask) << self.bits * n for n, value in enumerate(self.lanes))


def split(packed, bits, count):
    """Signed lanes of a packed value."""
    half = 1 << bits - 1
    return [((packed >> bits * n & (2 * half - 1)) ^ half) - half for n in range(count)]


class Bench:
    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.size = ctx, dut, dut.size
        self.first, self.second = Source(dut.size, dut.bits), Source(dut.size, dut.bits)
        self.due = {}  # cycle -> lane -> acc and op2
        self.now = 0

    async def run(self, job):
        ctx, dut = self.ctx, self.dut
        job.expect(self.size)
        ctx.set(dut.control, {name: job.control.get(name, 0) for name, _ in VectorControl.as_shape()})
        for name, image in job.operands.items():
            ctx.set(getattr(dut, name), image.operand)
        streams = "ba" if job.control.get("total", "route" in job.control) else "ab"
        for stream, name in zip((self.first, self.second), streams, strict=True):
            stream.unsigned = name in job.operands and job.operands[name].unsigned
        for _ in range(3):
            await self.cycle(job, None)
        ctx.set(dut.start, 1)
        start, token, done, abort = self.now, 0, None, job.abort
        while True:
            at = self.now - start
            ctx.set(dut.abort, at == abort)
            quiet = abort is not None and at > abort
            expected = job.tokens[token] if token < len(job.tokens) and not quiet else None
            assert ctx.get(dut.busy) == (0 < at <= job.reads and not quiet), at
            if quiet:
                self.due.clear()  # what is under way is undefined
                assert not ctx.get(dut.x_en) | ctx.get(dut.y_en) | ctx.get(dut.done), at
            elif ctx.get(dut.done):
                assert (at, token) == (job.reads + job.wait, len(job.tokens) - 1), "done comes with the last token"
                done = at
            token += await self.cycle(job, expected)
            ctx.set(dut.start, 0)
            if done is not None and at == done + VectorUnit.ACC_DELAY + self.size - 1:
                break  # the control may change
            if quiet and at == abort + 18 + self.size:
                break
            assert at < job.reads + job.wait + 100, "never done"

    async def cycle(self, job, expected):
        """One cycle: memories, token, lanes; whether there was a token."""
        ctx, dut = self.ctx, self.dut
        x = job.x[ctx.get(dut.x_addr)] if ctx.get(dut.x_en) else None
        y = job.y[ctx.get(dut.y_addr)] if ctx.get(dut.y_en) else None
        assert y is None or job.control.get("pair", "route" in job.control), "a read for nothing"
        if job.x is job.y:
            assert x is None or y is None, "one root, two reads"
            x = y = y if x is None else x
        ctx.set(dut.x.as_value(), self.first.cycle(x))
        ctx.set(dut.y.as_value(), self.second.cycle(y))
        if token := ctx.get(dut.token):
            assert expected, "a token too many"
            assert (ctx.get(dut.offset), ctx.get(dut.lanes)) == expected[:2]
            for n in range(expected[1]):
                self.due.setdefault(self.now + VectorUnit.ACC_DELAY + n, {})[n] = (expected[2][n], expected[3][n])
        if due := self.due.pop(self.now, None):
            acc = split(ctx.get(dut.acc.as_value()), 32, self.size)
            op2 = split(ctx.get(dut.op2.as_value()), dut.bits, self.size)
            assert {n: (acc[n], op2[n]) for n in due} == due, self.now
        await ctx.tick()
        self.now += 1
        return token


def simulate(size, jobs, *, bits=8):
    dut = VectorUnit(size=size, bits=bits)

    async def testbench(ctx):
        bench = Bench(ctx, dut)
        for job in jobs:
            await bench.run(job)
        assert not bench.due

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(testbench)
    simulator.run()


class Make:
    """Passes over random memories; every value occurs, also in the lanes beyond a tensor's columns.

    With ``bits`` 9 activations are ``unsigned``, or one half of them.
    """

    def __init__(self, size, low=-128, high=127, *, seed=SEED, depth=4096, bits=8, unsigned=None):
        print("seed", seed)
        self.rng, self.size, self.bits, self.unsigned = np.random.default_rng(seed), size, bits, unsigned
        self.act, self.err = (self.rng.integers(low, high + 1, (depth, size)).astype(np.int8) for _ in range(2))

    def image(self, memory, *shape):
        base = int(self.rng.integers(0, len(memory) - self.words(shape) + 1))
        if self.bits == 8 or memory is self.err:
            return Image(memory, shape, base)
        return Image(memory, shape, base, bool(self.rng.integers(2)) if self.unsigned is None else self.unsigned)

    def words(self, shape):
        return int(np.prod(shape[:3])) * -(-shape[3] // self.size)

    def add(self, shape, other=None, *, factor=vector.ONE, term=0, backward=False, column=False):
        """Operand a is one column of pixels with ``column``."""
        memory = self.err if backward else self.act
        planes, height, width, cols = shape
        dst, a = self.image(memory, *shape), self.image(memory, *shape)
        if column:
            a = self.image(memory, planes * height * width, 1, 1, cols)
        operands, op2, cycles = {"dst": dst, "a": a}, None, self.words(shape)
        if other:
            operands["b"] = b = self.image(memory, *other)
            op2 = flat((vector.shortcut_backward if backward else vector.shortcut)(b.values, shape))
            cycles = 2 * cycles - 1
        control = {"add": 1, "pair": bool(other), "factor": factor, "term": term}
        return Pass(control, operands, memory, memory, flat(a.values) * factor + term, op2, None, cycles,
                    VectorUnit.TOKEN_DELAY)

    def sum(self, shape, *, pair=False, drop=0, factor=1):
        a = self.image(self.act, shape[0] * shape[1] * shape[2], 1, 1, shape[3])
        b = self.image(self.err, *shape)
        acc = (flat(b.values) * (flat(a.values) if pair else factor)).sum(keepdims=True) >> drop
        control = {"total": 1, "pair": pair, "drop": drop, "factor": factor}
        operands = {"a": a, "b": b, "dst": self.image(self.act, 1, 1, 1, 1)}
        return Pass(control, operands, self.err, self.act, acc, None, None, self.words(shape),
                    VectorUnit.TOTAL_DELAY + self.size + drop)

    def average(self, shape):
        a, dst = self.image(self.act, *shape), self.image(self.act, shape[0], 1, 1, shape[3])
        return Pass({"average": 1, "factor": 1}, {"a": a, "dst": dst}, self.act, self.act, vector.average(a.values),
                    None, None, self.words(shape), VectorUnit.TOKEN_DELAY)

    def spread(self, shape):
        a, dst = self.image(self.err, shape[0], 1, 1, shape[3]), self.image(self.err, *shape)
        acc = vector.average_backward(a.values[:, 0, 0], shape)
        return Pass({"spread": 1, "factor": 1}, {"a": a, "dst": dst}, self.err, self.err, flat(acc),
                    None, None, self.words(shape), VectorUnit.TOKEN_DELAY)

    def largest(self, planes, height, width, cols):
        a = self.image(self.act, planes, 2 * height, 2 * width, cols)
        dst = self.image(self.act, planes, height, width, cols)
        return Pass({"largest": 1, "factor": 1}, {"a": a, "dst": dst}, self.act, self.act,
                    flat(vector.largest(a.values)), None, None, self.words(a.shape), VectorUnit.TOKEN_DELAY)

    def route(self, planes, height, width, cols, *, mask=False):
        b = self.image(self.act, planes, 2 * height, 2 * width, cols)
        a, dst = self.image(self.err, planes, height, width, cols), self.image(self.err, *b.shape)
        acc = vector.largest_backward(a.values, b.values, mask=mask)
        offsets = np.arange(self.words(b.shape)).reshape(planes, height, 2, width, 2, -1)
        return Pass({"route": 1, "factor": 1, "mask": mask}, {"a": a, "b": b, "dst": dst}, self.act, self.err,
                    flat(acc), None, offsets.transpose(0, 1, 3, 5, 2, 4).ravel().tolist(), self.words(b.shape),
                    VectorUnit.ROUTE_DELAY)
