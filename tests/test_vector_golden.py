"""The vector unit's rules, scalars and the guard of long sums against loops over Python integers."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product as every
from typing import Any

import numpy as np
import pytest

from golden import numerics, vector

SEED = 1213
Array = np.ndarray[Any, Any]


def clamp(x: int, low: int, high: int) -> int:
    return max(low, min(high, x))


def int8(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-128, 128, shape).astype(np.int8)


def rounded(x: int, d: int) -> int:
    """x * 2^d with the clamp of d, nearest, ties up; no saturation."""
    d = clamp(d, -31, 31)
    return math.floor(x * Fraction(2) ** d + (Fraction(1, 2) if d < 0 else 0))


# --- shortcuts ------------------------------------------------------------------------------------

def slow_shortcut(x: Array, shape: tuple[int, ...]) -> list[Any]:
    """[planes][height][width][channels] of ``shape``, element by element."""
    step = [1 if x.shape[1:3] == shape[1:3] else 2] * 2
    return [[[[int(x[p, y * step[0], w * step[1], c]) if c < x.shape[3] else 0 for c in range(shape[3])]
              for w in range(shape[2])] for y in range(shape[1])] for p in range(shape[0])]


def slow_shortcut_backward(e: Array, shape: tuple[int, ...]) -> list[Any]:
    """The reverse: what of ``e`` each element of ``shape`` gets."""
    step = 1 if e.shape[1:3] == shape[1:3] else 2
    return [[[[0 if y % step or w % step else int(e[p, y // step, w // step, c]) for c in range(shape[3])]
              for w in range(shape[2])] for y in range(shape[1])] for p in range(shape[0])]


SHORTCUTS = [  # of what, to what
    ((2, 4, 6, 3), (2, 4, 6, 3)), ((1, 1, 1, 1), (1, 1, 1, 9)), ((3, 4, 6, 2), (3, 2, 3, 2)),
    ((2, 5, 7, 4), (2, 3, 4, 8)), ((1, 1, 5, 3), (1, 1, 3, 4)), ((1, 2, 1, 3), (1, 1, 1, 3)),
    ((2, 3, 2, 5), (2, 2, 1, 6)), ((1, 5, 4, 2), (1, 5, 4, 7)),
]


@pytest.mark.parametrize(("large", "small"), SHORTCUTS)
def test_shortcut_and_its_adjoint(large: tuple[int, ...], small: tuple[int, ...], rng: np.random.Generator) -> None:
    x, e = int8(rng, *large), int8(rng, *small)
    forward, back = vector.shortcut(x, small), vector.shortcut_backward(e, large)
    assert forward.tolist() == slow_shortcut(x, small)
    assert back.tolist() == slow_shortcut_backward(e, large)
    assert (forward.astype(np.int64) * e).sum() == (back.astype(np.int64) * x).sum()
    assert not forward[..., large[3]:].any()


def test_odd_sizes_keep_their_last_line() -> None:
    x = np.arange(15, dtype=np.int8).reshape(1, 3, 5, 1)
    assert vector.shortcut(x, (1, 2, 3, 2))[0, :, :, 0].tolist() == [[0, 2, 4], [10, 12, 14]]


# --- pooling --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("pixels", "shift"), [
    (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 3), (9, 3), (11, 3), (12, 4), (49, 6), (64, 6), (90, 6),
    (91, 7), (196, 8), (65535, 16),
])
def test_average_shift(pixels: int, shift: int) -> None:
    assert vector.average_shift(pixels) == shift
    assert Fraction(2) ** (2 * shift - 1) <= pixels**2 < Fraction(2) ** (2 * shift + 1)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 4), (3, 7, 7, 9), (1, 8, 2, 3)])
def test_average_and_its_adjoint(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    planes, height, width, channels = shape
    x, e = int8(rng, *shape), int8(rng, planes, channels)
    total = [[sum(int(x[p, y, w, c]) for y in range(height) for w in range(width)) for c in range(channels)]
             for p in range(planes)]
    assert vector.average(x).tolist() == total
    back = vector.average_backward(e, shape)
    assert all(back[p, y, w, c] == e[p, c] for p, y, w, c in every(*map(range, shape)))
    assert (vector.average(x) * e).sum() == (back * x).sum()
    assert vector.average(np.full((1, 200, 200, 1), -128, np.int8)).tolist() == [[-128 * 40000]]


def slow_maxima(x: Array) -> dict[tuple[int, int, int, int], tuple[int, int]]:
    """(plane, line, pixel, channel) of each result -> (line, pixel) of the first maximum in its window."""
    found = {}
    for p, y, w, c in every(range(x.shape[0]), range(x.shape[1] // 2), range(x.shape[2] // 2), range(x.shape[3])):
        best = (2 * y, 2 * w)
        for place in ((2 * y, 2 * w + 1), (2 * y + 1, 2 * w), (2 * y + 1, 2 * w + 1)):
            if x[(p, *place, c)] > x[(p, *best, c)]:
                best = place
        found[p, y, w, c] = best
    return found


def slow_largest(x: Array) -> Array:
    result = np.zeros((x.shape[0], x.shape[1] // 2, x.shape[2] // 2, x.shape[3]), np.int64)
    for (p, y, w, c), place in slow_maxima(x).items():
        result[p, y, w, c] = x[(p, *place, c)]
    return result


def slow_largest_backward(e: Array, x: Array, mask: bool) -> Array:
    result = np.zeros(x.shape, np.int64)
    for (p, y, w, c), place in slow_maxima(x).items():
        if not mask or x[(p, *place, c)] > 0:
            result[(p, *place, c)] = e[p, y, w, c]
    return result


@pytest.mark.parametrize("bound", [0, 1, 127])
@pytest.mark.parametrize("shape", [(1, 2, 2, 1), (2, 4, 6, 5), (3, 2, 8, 3)])
def test_max_pooling(shape: tuple[int, ...], bound: int, rng: np.random.Generator) -> None:
    """Few different values: most windows have ties."""
    x = rng.integers(-bound - 1, bound + 1, shape).astype(np.int8)
    e = int8(rng, shape[0], shape[1] // 2, shape[2] // 2, shape[3])
    assert np.array_equal(vector.largest(x), slow_largest(x))
    for mask in (False, True):
        assert np.array_equal(vector.largest_backward(e, x, mask=mask), slow_largest_backward(e, x, mask))


@pytest.mark.parametrize(("window", "first"), [
    ([5, 5, 5, 5], 0), ([-3, -3, -3, -3], 0), ([1, 2, 2, 1], 1), ([1, 0, 2, 2], 2), ([-128, -127, -128, -127], 1),
    ([0, 0, 0, 1], 3),
])
def test_the_first_maximum_wins(window: list[int], first: int) -> None:
    x, e = np.array(window, np.int8).reshape(1, 2, 2, 1), np.full((1, 1, 1, 1), -9, np.int8)
    route = [-9 if place == first else 0 for place in range(4)]
    assert vector.largest_backward(e, x, mask=False).reshape(-1).tolist() == route
    assert vector.largest_backward(e, x, mask=True).reshape(-1).tolist() == (route if max(window) > 0 else [0] * 4)


# --- scalars --------------------------------------------------------------------------------------

@pytest.mark.parametrize("d", [-200, -32, -31, -17, -16, -15, -2, -1, 0, 1, 14, 15, 16, 17, 31, 32, 100])
def test_scalar_term(d: int) -> None:
    for scalar in (-32768, -32767, -16385, -3, -2, -1, 0, 1, 2, 3, 16384, 32767):
        assert vector.scalar_term(scalar, d) == clamp(rounded(scalar, d), -(2**30), 2**30 - 1)


def test_a_scalar_and_a_product_fit_32_bits() -> None:
    assert vector.scalar_term(32767, 31) + 128 * 32768 < 2**31
    assert vector.scalar_term(-32768, 31) - 128 * 32768 >= -(2**31)
    assert vector.scalar_term(1, -1) == 1 and vector.scalar_term(-1, -1) == 0, "ties go up"


@pytest.mark.parametrize("d", [-100, -16, -15, -9, -8, -7, -1, 0, 1, 7, 31, 60])
def test_with_scalar(d: int) -> None:
    a = np.arange(-128, 128).astype(np.int8).reshape(16, 16)
    for scalar in (-32768, -32767, -200, -128, -1, 0, 1, 64, 127, 16384, 32767):
        term = clamp(rounded(scalar, d), -127, 127)
        got = numerics.with_scalar(a, scalar, d)
        assert got.dtype == np.int8
        assert got.reshape(-1).tolist() == [clamp(x + term, -127, 127) for x in range(-128, 128)]
    assert numerics.with_scalar(np.array([-128], np.int8), 0, 0).tolist() == [-127], "-128 counts as -128, then fits"
    assert numerics.with_scalar(np.array([-128], np.int8), 5, 0).tolist() == [-123]


# --- long sums ------------------------------------------------------------------------------------

def test_sum_limit() -> None:
    for rows, cols in every((1, 2, 3, 4, 5, 255, 256, 257, 65535), (1, 2, 8, 9, 300)):
        most = vector.sum_limit(rows, cols)
        assert most == 16 - math.ceil(math.log2(rows)) - math.ceil(math.log2(cols))
        total = rows * cols * 128 * 128
        assert (total << most if most >= 0 else total >> -most) <= 2**30


@pytest.mark.parametrize("most", [-8, -3, -1, 0, 1, 16])
def test_guard_shift(most: int) -> None:
    for e_g, e_m in every((-120, -40, -14, 0, 120), (-60, -20, -3, 0, 60)):
        wanted = max(0, e_g - e_m + 3)  # so many bits finer is 7 m than G
        assert numerics.guard_shift(e_g, e_m, most) == min(wanted, most)


@pytest.mark.parametrize("g", [-8, -1, 0, 5])
def test_gradient_value_of_every_guard(g: int, rng: np.random.Generator) -> None:
    """A negative guard drops bits towards minus infinity, before the momentum is added."""
    top = 2**38 if g < 0 else 2**24
    acc = [-top, -top + 1, -257, -256, -255, -1, 0, 1, 255, 256, top - 1, *rng.integers(-top, top, 50).tolist()]
    m = rng.integers(-127, 128, len(acc)).tolist()
    for e_m, e_v in ((-14, -20), (-9, -9), (-30, -9), (60, -60), (0, 0)):
        got = numerics.gradient_value(np.array(acc), g, np.array(m, np.int8), e_m, e_v)
        shifted = [math.floor(total * Fraction(2) ** g) for total in acc]
        decayed = [clamp(rounded(7 * q, e_m - 3 - e_v), -(2**31), 2**31 - 1) for q in m]
        assert got.tolist() == [clamp(x + y, -(2**31), 2**31 - 1) for x, y in zip(shifted, decayed, strict=True)]
