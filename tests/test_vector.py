"""hw.vector against golden.vector: order, offsets, lanes, accumulators and second operands, each to the cycle."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from golden import vector
from hw.memory import READ_LATENCY
from hw.vector import VectorControl, VectorUnit

SEED = 4711
SIZES = pytest.mark.parametrize("size", [4, 8])
FORMS = pytest.mark.parametrize("bits", [8, 9], ids=["int8", "uint8"])


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


@SIZES
@FORMS
def test_add(bits, size):
    make = Make(size, bits=bits)
    shapes = [(1, 1, 1, 1), (2, 3, 3, size + 1), (1, 2, 1, 3 * size), (3, 1, 1, size - 1), (1, 1, 5, 2 * size + 2)]
    scalars = [(vector.ONE, 0), (-32768, vector.TERM - 1), (-32768, -vector.TERM), (32767, -7), (0, 5)]
    simulate(size, [make.add(shape, factor=factor, term=term, column=factor < 0)
                    for shape, (factor, term) in zip(shapes, scalars, strict=True)], bits=bits)


@pytest.mark.parametrize("unsigned", [False, True])
def test_add_at_the_bounds(unsigned):
    """Every value that an element may have, times the largest scalars of both signs; and as operand b."""
    make = Make(4, bits=9, unsigned=unsigned)
    make.act[:64] = np.arange(256).reshape(64, 4).astype(np.uint8).view(np.int8)
    jobs = [make.add((64, 1, 1, 4), (64, 1, 1, 4), factor=factor, term=term)
            for factor, term in ((-32768, -vector.TERM), (32767, vector.TERM - 1), (1, 0))]
    for job in jobs:
        job.operands["a"].base = job.operands["b"].base = 0
        x = np.arange(256).reshape(64, 4)
        x = x if unsigned else (x ^ 128) - 128
        job.acc, job.op2 = x * job.control["factor"] + job.control["term"], x
    simulate(4, jobs, bits=9)


@SIZES
@FORMS
def test_add_b_of_any_size(bits, size):
    """Forward: fewer channels, every second line and pixel; backward: more channels, zeros in between."""
    make = Make(size, bits=bits)
    small = [(1, 1, 1), (2, 2, 3), (2, 3, 2), (3, 1, 2), (1, 4, 1)]
    jobs = []
    for planes, height, width in small:
        large = {(planes, height, width), (planes, 2 * height, 2 * width - 1), (planes, 2 * height - 1, 2 * width)}
        for image in sorted(large):
            for more, fewer in ((1, 1), (size, size), (size + 1, size - 1), (3 * size - 1, 2), (2 * size, size + 1)):
                jobs.append(make.add((planes, height, width, more), (*image, fewer), factor=-3, term=1000))
                jobs.append(make.add((*image, fewer), (planes, height, width, more), backward=True, column=more == 1))
    simulate(size, jobs, bits=bits)


@SIZES
@FORMS
@pytest.mark.parametrize("pair", [False, True])
def test_sum(size, bits, pair):
    make = Make(size, bits=bits)
    shapes = [(1, 1, 1, 1), (1, 1, 1, size), (2, 3, 2, size + 1), (1, 2, 2, 3 * size - 1), (7, 1, 1, size - 1)]
    simulate(size, [make.sum(shape, pair=pair, drop=drop) for shape, drop in zip(shapes, (0, 3, 1, 8, 0), strict=True)],
             bits=bits)


def test_long_sum():
    """Half as many rows as there may be, at the end of the largest memory, each product as large as it can be."""
    job = Make(4, -128, -128, depth=1 << 17).sum((32800, 1, 1, 4), factor=-32768, drop=9)
    job.operands["b"].base = (1 << 17) - 32800
    assert job.acc == [[32800 << 15]]  # 2^37 a lane
    simulate(4, [job])


def test_long_sum_of_unsigned():
    """So many products of 255 and -128 that their sum just leaves int32 before it is shifted."""
    rows = 16449
    make = Make(4, -1, -1, depth=1 << 15, bits=9, unsigned=True)
    make.err[:] = -128
    job = make.sum((rows, 1, 1, 4), pair=True, drop=1)
    assert job.acc == [[-32640 * 4 * rows >> 1]] and job.acc < -(1 << 30)
    simulate(4, [job], bits=9)


@SIZES
@FORMS
def test_average(bits, size):
    make = Make(size, bits=bits)
    shapes = [(1, 1, 1, 1), (2, 3, 2, 2 * size + 1), (3, 1, 1, size + 1), (1, 5, 1, 2), (2, 1, 4, size)]
    jobs = [*(make.average(shape) for shape in shapes), Make(size, -128, -128, bits=bits).average((1, 40, 40, size))]
    if bits > 8:
        jobs.append(Make(size, -1, -1, bits=bits, unsigned=True).average((1, 40, 40, size)))
        assert (jobs[-1].acc == 255 * 1600).all()
    simulate(size, jobs, bits=bits)


@SIZES
def test_spread(size):
    make = Make(size)
    shapes = [(1, 1, 1, 1), (2, 3, 2, 2 * size + 1), (3, 1, 1, size + 1), (2, 5, 1, 2), (2, 1, 4, size)]
    simulate(size, [make.spread(shape) for shape in shapes])


WINDOWS = [(1, 1, 1), (2, 3, 2), (3, 1, 2), (1, 3, 1)]


@SIZES
@FORMS
def test_largest(bits, size):
    make = Make(size, bits=bits)
    simulate(size, [make.largest(*image, cols) for image in WINDOWS for cols in (1, size, 2 * size + 1)], bits=bits)


@SIZES
@FORMS
@pytest.mark.parametrize("mask", [False, True])
def test_route(size, bits, mask):
    make = Make(size, bits=bits)
    simulate(size, [make.route(*image, cols, mask=mask) for image in WINDOWS for cols in (1, size, 2 * size + 1)],
             bits=bits)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("bits", "unsigned"), [(8, False), (9, False), (9, True)], ids=["int8", "signed", "unsigned"])
@pytest.mark.parametrize("low, high", [(0, 1), (-1, 0), (-128, -127), (126, 127), (-1, 1)])
def test_route_ties(low, high, bits, unsigned, mask):
    """The first of equal maxima wins; a maximum of 0 is masked. Unsigned, what is below 0 here is from 128 to 255."""
    make = Make(4, low, high, bits=bits, unsigned=unsigned)
    make.err[:] = make.rng.integers(-128, 128, make.err.shape)
    simulate(4, [make.route(2, 3, 3, 7, mask=mask)], bits=bits)


def every_kind(make, size):
    """A pass of each kind, of some tens of cycles."""
    cols = int(make.rng.integers(1, 2 * size + 2))
    return [
        make.add((1, 3, 3, cols), factor=int(make.rng.integers(-32768, 32768)), term=int(make.rng.integers(-99, 99))),
        make.add((2, 2, 3, cols + 1), (2, 3, 6, cols)),
        make.add((2, 3, 3, cols), (2, 2, 2, cols + size), backward=True),
        make.sum((2, 3, 2, cols)),
        make.sum((2, 3, 3, cols), pair=True, drop=int(make.rng.integers(4))),
        make.average((2, 2, 3, cols)),
        make.spread((2, 2, 3, cols)),
        make.largest(1, 2, 2, cols),
        make.route(1, 2, 2, cols, mask=bool(make.rng.integers(2))),
    ]


@SIZES
@FORMS
def test_every_kind_after_every_other(bits, size):
    make = Make(size, seed=SEED + size, bits=bits)
    kinds = range(len(every_kind(make, size)))
    order = [kind for first in kinds for second in kinds for kind in (first, second)]
    simulate(size, [every_kind(make, size)[kind] for kind in order], bits=bits)


@SIZES
def test_abort(size):
    """Silence from the next cycle on, whenever it comes; the next pass is not disturbed."""
    make = Make(size, seed=SEED + size)
    jobs = []
    for i, kind in enumerate(every_kind(make, size)):
        for at in sorted({0, 1, *range(2, kind.reads + kind.wait, 5), *range(kind.reads, kind.reads + kind.wait)}):
            jobs.append(replace(kind, abort=at))
            jobs += [every_kind(make, size)[i], every_kind(make, size)[(i + at) % 9]]
    simulate(size, jobs)
