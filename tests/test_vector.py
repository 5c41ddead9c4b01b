"""hw.vector against golden.vector: order, offsets, lanes, accumulators and second operands, each to the cycle."""

from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from golden import vector
from hw.memory import READ_LATENCY
from hw.vector import VectorControl, VectorUnit

SEED = 4711
DEPTH = 4096
KINDS = ("add", "total", "average", "spread", "largest", "route")
GAP = VectorUnit.ACC_DELAY + 2  # and T: cycles from ``done`` to the next ``start`` at the least


@dataclass
class Image:
    """A tensor [planes, height, width, cols] at ``base`` of ``memory`` ([words, T]), whatever that holds."""

    memory: np.ndarray
    shape: tuple
    base: int

    @property
    def stride(self):
        return -(-self.shape[3] // self.memory.shape[1])

    @property
    def values(self):
        planes, height, width, cols = self.shape
        words = self.memory[self.base:self.base + planes * height * width * self.stride]
        return words.reshape(planes, height, width, -1)[..., :cols].astype(np.int64)

    @property
    def operand(self):
        planes, height, width, cols = self.shape
        return {"base": self.base, "stride": self.stride, "planes": planes, "height_1": height - 1,
                "width_1": width - 1, "cols": cols, "line": width * self.stride,
                "image": height * width * self.stride}


@dataclass
class Pass:
    """One run of the unit: ``acc`` and ``op2`` are [rows, cols] in ``dst``'s order, ``order`` the tokens'."""

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
        """(offset, lanes, acc, op2) of every token."""
        rows, cols = self.acc.shape
        stride = -(-cols // size)
        op2 = np.zeros_like(self.acc) if self.op2 is None else self.op2
        for offset in self.order or range(rows * stride):
            row, first = offset // stride, offset % stride * size
            self.tokens.append((offset, min(size, cols - first), self.acc[row, first:first + size].tolist(),
                                op2[row, first:first + size].tolist()))


class Source:
    """Python's skewed memory: lane n shows in cycle t + READ_LATENCY + n what the root asked in t, until the next."""

    def __init__(self, size):
        self.asked = [None] * (READ_LATENCY + size)
        self.lanes = [0] * size

    def cycle(self, word):
        """``word`` is what the root asks for in this cycle, or None; returns the lanes of this cycle, packed."""
        self.asked = [word, *self.asked[:-1]]
        for n in range(len(self.lanes)):
            if (seen := self.asked[READ_LATENCY + n]) is not None:
                self.lanes[n] = int(seen[n])
        return sum((value & 0xFF) << 8 * n for n, value in enumerate(self.lanes))


def split(packed, bits, count):
    """Signed lanes of a packed value."""
    half = 1 << bits - 1
    return [((packed >> bits * n & (2 * half - 1)) ^ half) - half for n in range(count)]


class Bench:
    def __init__(self, ctx, dut):
        self.ctx, self.dut, self.size = ctx, dut, dut.size
        self.shared, self.first, self.second = (Source(dut.size) for _ in range(3))
        self.due = {}  # cycle -> lane -> what it must show
        self.now = 0

    async def run(self, job):
        ctx, dut = self.ctx, self.dut
        job.expect(self.size)
        ctx.set(dut.control, {name: job.control.get(name, 0) for name, _ in VectorControl.as_shape()})
        for name in ("dst", "a", "b"):
            if name in job.operands:
                ctx.set(getattr(dut, name), job.operands[name].operand)
        for _ in range(2):
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
                assert not ctx.get(dut.x_en) and not ctx.get(dut.y_en)
            if finished := ctx.get(dut.done):
                assert (at, token) == (job.reads + job.wait, len(job.tokens) - 1), "done comes with the last token"
                done = at
            token += await self.cycle(job, expected)
            ctx.set(dut.start, 0)
            if (done is not None and at == done + GAP + self.size - 2) or (quiet and at == abort + GAP + 2 * self.size):
                break
            assert not (quiet and finished) and at < job.reads + job.wait + 100, "never done"
        ctx.set(dut.abort, 0)
        assert abort is not None or token == len(job.tokens)

    async def cycle(self, job, expected):
        """One cycle: memories, token, lanes; whether there was a token."""
        ctx, dut = self.ctx, self.dut
        x = job.x[ctx.get(dut.x_addr)] if ctx.get(dut.x_en) else None
        y = job.y[ctx.get(dut.y_addr)] if ctx.get(dut.y_en) else None
        if job.x is job.y:
            assert x is None or y is None, "one root, two reads"
            lanes = self.shared.cycle(y if x is None else x)
            self.first.lanes, self.second.lanes = self.shared.lanes, self.shared.lanes
            both = lanes, lanes
        else:
            both = self.first.cycle(x), self.second.cycle(y)
        ctx.set(dut.x.as_value(), both[0])
        ctx.set(dut.y.as_value(), both[1])
        if token := ctx.get(dut.token):
            assert expected, "a token too many"
            assert (ctx.get(dut.offset), ctx.get(dut.lanes)) == expected[:2]
            for n in range(expected[1]):
                self.due.setdefault(self.now + VectorUnit.ACC_DELAY + n, {})[n] = (expected[2][n], expected[3][n])
        if due := self.due.pop(self.now, None):
            acc = split(ctx.get(dut.acc.as_value()), 32, self.size)
            op2 = split(ctx.get(dut.op2.as_value()), 8, self.size)
            assert {n: (acc[n], op2[n]) for n in due} == due, self.now
        await ctx.tick()
        self.now += 1
        return token


def simulate(size, jobs):
    dut = VectorUnit(size=size)

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
    """Passes over random memories; every value occurs, also in the lanes beyond a tensor's columns."""

    def __init__(self, size, low=-128, high=127, seed=SEED):
        print("seed", seed)
        self.rng, self.size = np.random.default_rng(seed), size
        self.act, self.err = (self.rng.integers(low, high + 1, (DEPTH, size)).astype(np.int8) for _ in range(2))

    def image(self, memory, *shape):
        words = int(np.prod(shape[:3])) * -(-shape[3] // self.size)
        return Image(memory, shape, int(self.rng.integers(0, DEPTH - words + 1)))

    def flat(self, values):
        return values.reshape(-1, values.shape[-1])

    def words(self, shape):
        return int(np.prod(shape[:3])) * -(-shape[3] // self.size)

    def add(self, shape, other=None, *, factor=vector.ONE, term=0, backward=False):
        memory = self.err if backward else self.act
        dst, a = self.image(memory, *shape), self.image(memory, *shape)
        operands, op2, cycles = {"dst": dst, "a": a}, None, self.words(shape)
        if other:
            operands["b"] = b = self.image(memory, *other)
            op2 = self.flat((vector.shortcut_backward if backward else vector.shortcut)(b.values, shape))
            cycles = 2 * cycles - 1
        control = {"add": 1, "pair": bool(other), "factor": factor, "term": term}
        return Pass(control, operands, memory, memory, self.flat(a.values) * factor + term, op2, None, cycles, 3)

    def sum(self, shape, *, pair=False, drop=0):
        a, b = self.image(self.act, *shape), self.image(self.err, *shape)
        acc = (b.values * (a.values if pair else 1)).sum(keepdims=True).reshape(1, 1) >> drop
        control = {"total": 1, "pair": pair, "drop": drop, "factor": 1}
        return Pass(control, {"a": a, "b": b, "dst": self.image(self.act, 1, 1, 1, 1)}, self.err, self.act, acc,
                    None, None, self.words(shape), 8 + self.size + drop)

    def average(self, shape):
        a, dst = self.image(self.act, *shape), self.image(self.act, shape[0], 1, 1, shape[3])
        return Pass({"average": 1, "factor": 1}, {"a": a, "dst": dst}, self.act, self.act, vector.average(a.values),
                    None, None, self.words(shape), 3)

    def spread(self, shape):
        a, dst = self.image(self.err, shape[0], 1, 1, shape[3]), self.image(self.err, *shape)
        acc = vector.average_backward(a.values[:, 0, 0], shape)
        return Pass({"spread": 1, "factor": 1}, {"a": a, "dst": dst}, self.err, self.err, self.flat(acc),
                    None, None, self.words(shape), 3)

    def largest(self, planes, height, width, cols):
        """Of twice this height and width."""
        a, dst = self.image(self.act, planes, 2 * height, 2 * width, cols), self.image(self.act, planes, height, width,
                                                                                       cols)
        return Pass({"largest": 1, "factor": 1}, {"a": a, "dst": dst}, self.act, self.act,
                    self.flat(vector.largest(a.values)), None, None, self.words(a.shape), 3)

    def route(self, planes, height, width, cols, *, mask=False):
        b = self.image(self.act, planes, 2 * height, 2 * width, cols)
        a, dst = self.image(self.err, planes, height, width, cols), self.image(self.err, *b.shape)
        acc = vector.largest_backward(a.values, b.values, mask=mask)
        offsets = np.arange(self.words(b.shape)).reshape(planes, height, 2, width, 2, -1)
        return Pass({"route": 1, "factor": 1, "mask": mask}, {"a": a, "b": b, "dst": dst}, self.act, self.err,
                    self.flat(acc), None, offsets.transpose(0, 1, 3, 5, 2, 4).ravel().tolist(), self.words(b.shape), 7)
