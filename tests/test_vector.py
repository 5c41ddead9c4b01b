"""hw.vector against golden.vector: order, offsets, lanes, accumulators and second operands, each to the cycle."""

from dataclasses import replace

import numpy as np
import pytest

from golden import vector
from tests.vector_bench import SEED, Make, simulate

SIZES = pytest.mark.parametrize("size", [4, 8])
FORMS = pytest.mark.parametrize("bits", [8, 9], ids=["int8", "uint8"])


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
