"""The generator of docs/numerics.md against a reference, its period, and the draws of a gradient."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from golden import generator

SEED = 20240611


def reference_step(x: int) -> int:
    x ^= x << 13 & 0xFFFFFFFF
    x ^= x >> 17
    return x ^ (x << 5 & 0xFFFFFFFF)


def apply(matrix: list[int], x: int) -> int:
    image = 0
    while x:
        image ^= matrix[(x & -x).bit_length() - 1]
        x &= x - 1
    return image


def matrix_power(n: int) -> list[int]:
    """Columns of the n-th power of the generator's matrix over GF(2)."""
    result, square = [1 << i for i in range(32)], [reference_step(1 << i) for i in range(32)]
    while n:
        if n & 1:
            result = [apply(square, column) for column in result]
        square = [apply(square, column) for column in square]
        n >>= 1
    return result


def test_the_matrix_has_order_2_32_minus_1() -> None:
    identity = [1 << i for i in range(32)]
    primes = (3, 5, 17, 257, 65537)
    assert math.prod(primes) == 2**32 - 1
    assert matrix_power(2**32 - 1) == identity
    for prime in primes:
        assert matrix_power((2**32 - 1) // prime) != identity


WALK = """
#include <stdint.h>
/* 16 walks of n steps at once, in place; how often any of them met the state 1 */
uint64_t walk(uint32_t *start, uint64_t n) {
    uint32_t x[16], met[16] = {0};
    for (int i = 0; i < 16; i++) x[i] = start[i];
    for (uint64_t step = 0; step < n; step++)
        for (int i = 0; i < 16; i++) {
            x[i] ^= x[i] << 13; x[i] ^= x[i] >> 17; x[i] ^= x[i] << 5;
            met[i] += x[i] == 1;
        }
    uint64_t sum = 0;
    for (int i = 0; i < 16; i++) { start[i] = x[i]; sum += met[i]; }
    return sum;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_whole_period(tmp_path: Path) -> None:
    """From state 1, every one of 2^32 - 1 steps: 16 parts of 2^28 that join, and 1 comes back at the end only."""
    (tmp_path / "walk.c").write_text(WALK)
    command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", "-o", "walk.so", "walk.c"]
    subprocess.run(command, cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "walk.so"))
    library.walk.restype = ctypes.c_uint64
    library.walk.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
    starts = np.array([apply(matrix_power(part << 28), 1) for part in range(16)], np.uint32)
    state = starts.copy()
    met = library.walk(state.ctypes.data, 2**28 - 1)
    assert state[15] == 1 and met == 1
    library.walk(state.ctypes.data, 1)
    assert state[:15].tolist() == starts[1:].tolist()


def test_steps_and_leaps_equal_the_reference(rng: np.random.Generator) -> None:
    states = np.array([0, 1, 2**31, 2**32 - 1, *rng.integers(1, 2**32, 12)], np.uint32)
    expected = [reference_step(x) for x in states.tolist()]
    assert generator.xorshift_step(states).tolist() == expected
    for k in (0, 1, 2, 5, 6, 7, 13, 31):
        matrix = matrix_power(1 << k)
        assert generator.leap(states, k).tolist() == [apply(matrix, x) for x in states.tolist()]


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 127, 128, 129, 1000, 4097])
def test_block_equals_single_steps(n: int, rng: np.random.Generator) -> None:
    start = rng.integers(1, 2**32, 4, dtype=np.uint32)
    given = start.copy()
    block = generator.xorshift_block(given, n)
    assert block.dtype == np.uint32 and block.shape == (n, 4) and np.array_equal(given, start)
    state = start
    for row in block:
        state = generator.xorshift_step(state)
        assert np.array_equal(row, state)


def test_bits_are_balanced() -> None:
    draws = generator.xorshift_block(generator.default_seeds(16), 1 << 16)[1:]
    n = draws.size
    ones = np.array([np.count_nonzero(draws >> np.uint32(bit) & 1) for bit in range(32)])
    assert np.all(np.abs(ones - n / 2) < 5 * math.sqrt(n) / 2)
    lanes = (draws >> np.uint32(8)).astype(np.float64)
    correlation = np.corrcoef(lanes.T) - np.eye(16)
    assert np.abs(correlation).max() < 5 / math.sqrt(len(draws))


def slow_order(lanes: int, rows: int, cols: int, group: int) -> list[tuple[int, int]]:
    """(row, first column) as a gradient of taps of ``group`` rows drains."""
    return [(row, left) for left in range(0, cols, lanes) for first in range(0, rows, group)
            for top in range(first, first + group, lanes)
            for row in reversed(range(top, min(top + lanes, first + group)))]


def check_draws(start: np.ndarray, rows: int, cols: int, *group: int) -> None:
    r1, r2, last = generator.gradient_draws(start, rows, cols, *group)
    assert r1.shape == r2.shape == (rows, cols)
    state = start.tolist()
    for row, left in slow_order(len(start), rows, cols, *(group or (rows,))):
        for words in (r1, r2):
            state = [reference_step(x) for x in state]
            valid = min(len(start), cols - left)
            assert words[row, left:left + valid].tolist() == [x >> 8 for x in state[:valid]]
    assert last.tolist() == state


@pytest.mark.parametrize(("lanes", "rows", "cols"), [
    (4, 1, 1), (4, 4, 4), (4, 5, 4), (8, 3, 20), (8, 17, 9), (12, 30, 13), (16, 16, 33), (16, 70, 5),
])
def test_gradient_draws_follow_the_drain(lanes: int, rows: int, cols: int, rng: np.random.Generator) -> None:
    check_draws(rng.integers(1, 2**32, lanes, dtype=np.uint32), rows, cols)


@pytest.mark.parametrize(("lanes", "taps", "group", "cols"), [
    (4, 9, 1, 1), (4, 9, 3, 5), (4, 4, 4, 4), (4, 6, 5, 9), (4, 1, 7, 3), (8, 9, 8, 8), (8, 2, 20, 17), (8, 49, 1, 9),
    (12, 4, 13, 12), (12, 3, 24, 30), (16, 9, 3, 16), (16, 9, 16, 33), (16, 2, 35, 5),
])
def test_draws_of_grouped_rows(lanes: int, taps: int, group: int, cols: int, rng: np.random.Generator) -> None:
    check_draws(rng.integers(1, 2**32, lanes, dtype=np.uint32), taps * group, cols, group)


def test_one_group_is_the_whole_matrix(rng: np.random.Generator) -> None:
    start = rng.integers(1, 2**32, 8, dtype=np.uint32)
    for mine, other in zip(generator.gradient_draws(start, 21, 11), generator.gradient_draws(start, 21, 11, 21),
                           strict=True):
        assert np.array_equal(mine, other)


def test_states_made_ahead_are_the_same(rng: np.random.Generator) -> None:
    ahead, state = generator.Ahead(), rng.integers(1, 2**32, 4, dtype=np.uint32)
    for n in (1, 2, generator.AHEAD - 4, 1, 3, generator.AHEAD, generator.AHEAD + 1, 5):  # within, to and over the end
        block = ahead.block(state, n)
        assert np.array_equal(block, generator.xorshift_block(state, n))
        state = block[-1].copy()
    for other in (state + np.uint32(1), state):  # not where it was left
        assert np.array_equal(ahead.block(other, 2), generator.xorshift_block(other, 2))


def test_default_seeds() -> None:
    assert generator.default_seeds(3).tolist() == [0x9E3779B9, 0x3C6EF372, 0xDAA66D2B]
