"""Every rule of docs/numerics.md against big integers and fractions, corners first."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from golden import generator, numerics

SEED = 20240611
CORNERS = sorted({
    sign * (magnitude + delta)
    for magnitude in (0, 1, 127, 128, 180, 181, 182, 255, 2**15, 2**24, 2**30, 2**31, *(2**k for k in range(31)))
    for delta in (-1, 0, 1)
    for sign in (-1, 1)
    if -(2**31) <= sign * (magnitude + delta) < 2**31
})
SHIFTS = (-100, -32, -16, -15, -14, -8, -7, -6, -1, 0, 1, 7, 8, 23, 24, 25, 30, 31, 32, 33, 63, 64, 200)
WORDS = (0, 1, 2**23 - 1, 2**23, 2**24 - 2, 2**24 - 1)


def power(s: int) -> Fraction:
    return Fraction(2) ** s


def clamp(x: int, low: int, high: int) -> int:
    return max(low, min(high, x))


@pytest.fixture
def rng() -> np.random.Generator:
    print("seed", SEED)
    return np.random.default_rng(SEED)


@pytest.fixture
def values(rng: np.random.Generator) -> np.ndarray:
    wide = rng.integers(-(2**31), 2**31, 300) >> rng.integers(0, 31, 300)
    return np.array([*CORNERS, *wide.tolist()], np.int64)


def ties(s: int) -> list[int]:
    """int32 values halfway between two multiples of 2^s."""
    return [x for k in (-129, -128, -3, -2, -1, 0, 1, 2, 126, 127, 128)
            if -(2**31) <= (x := (2 * k + 1 << s) >> 1) < 2**31] if s > 0 else []


# --- shifts and rounding --------------------------------------------------------------------------

@pytest.mark.parametrize("s", SHIFTS)
def test_fixed(s: int, values: np.ndarray) -> None:
    expected = [0 if s >= 32 else math.floor(x / power(max(s, -7) - 24)) for x in values.tolist()]
    assert numerics.fixed(values, s).tolist() == expected


@pytest.mark.parametrize("s", SHIFTS)
def test_nearest_is_half_to_even(s: int, values: np.ndarray) -> None:
    """Python's round of the exact quotient; beyond 24 bits, of what 24 fraction bits hold of it."""
    x = np.array([*values.tolist(), *ties(s)])
    dropped = max(0, s - 24)
    exact = [round(Fraction(v >> dropped) / power(s - dropped)) if s < 32 else 0 for v in x.tolist()]
    q, saturated = numerics.requantise(x, s)
    assert q.dtype == np.int8
    assert q.tolist() == [clamp(v, -127, 127) for v in exact]
    if s >= -7:
        assert saturated == sum(abs(v) > 127 for v in exact)


def test_nearest_ties_have_no_direction() -> None:
    assert numerics.nearest(np.array([-12, -4, 4, 12]), 3).tolist() == [-2, 0, 0, 2]
    x = np.arange(-1000, 1001)
    for s in range(1, 8):
        assert numerics.nearest(x, s).sum() == 0
        assert abs((np.ldexp(numerics.nearest(x[1000:1512], s), s) - x[1000:1512]).sum()) <= 1 << s


@pytest.mark.parametrize("least", [-7, -15])
@pytest.mark.parametrize("s", SHIFTS)
def test_stochastic(s: int, least: int, values: np.ndarray, rng: np.random.Generator) -> None:
    x = values if least == -7 else np.arange(-127, 128)
    for word in (*WORDS, *rng.integers(0, 2**24, 4).tolist()):
        got = numerics.stochastic(x, s, np.full(x.shape, word), least=least).tolist()
        if s >= 32:
            assert not any(got)
        elif s > 24:
            assert got == [(v * 2**24 // 2**s + word) // 2**24 for v in x.tolist()]
        else:  # floor((x + r') / 2^s), r' the upper bits of the word
            clamped = max(s, least)
            assert got == [math.floor((v + word / power(24 - clamped)) / power(clamped)) for v in x.tolist()]


@pytest.mark.parametrize("s", [1, 4, 8, 10])
def test_stochastic_has_no_bias(s: int) -> None:
    words = np.arange(2**s) << 24 - s
    for x in (-(2**31), -129, -1, 0, 1, 3, 2**s - 1, 12345, 2**31 - 1):
        total = int(numerics.stochastic(np.full(words.shape, x), s, words).sum())
        assert total == x  # 2^s draws of mean x / 2^s


@pytest.mark.parametrize("bound", [numerics.BOUND8, numerics.BOUND16])
def test_any_value_saturates_at_the_least_shift(bound: int) -> None:
    least = numerics.REQUANTISE_MIN if bound == 127 else numerics.UPDATE_MIN
    x = np.array([-127, -2, -1, 0, 1, 2, 127])
    for s in (least, least - 1, -90):
        for word in WORDS:
            got = numerics.saturate(numerics.stochastic(x, s, np.full(7, word), least=least), bound)
            assert got.tolist() == [-bound] * 3 + [0] + [bound] * 3


def test_saturate_never_gives_minus_128() -> None:
    q, saturated = numerics.requantise(np.array([-(2**31), -129, -128, -127, 127, 128, 2**31 - 1]), 0)
    assert (q.tolist(), saturated) == ([-127, -127, -127, -127, 127, 127, 127], 5)


def test_sat32() -> None:
    x = [-(2**62), -(2**31) - 1, -(2**31), -1, 0, 2**31 - 1, 2**31, 2**62]
    for subset in (x, x[:5], x[3:], x[2:6], x[4:5], x[1:2], x[1:5], x[3:7]):
        expected = [clamp(v, -(2**31), 2**31 - 1) for v in subset]
        assert numerics.sat32(np.array(subset)).tolist() == expected


@pytest.mark.parametrize("d", [-200, -32, -31, -30, -8, -1, 0, 1, 8, 21, 22, 30, 31, 32, 200])
def test_align(d: int, values: np.ndarray) -> None:
    x = np.array([*values.tolist(), *ties(min(31, max(0, -d)))])
    shift = power(clamp(d, -31, 31))
    rounded = [math.floor(v * shift + (Fraction(1, 2) if d < 0 else 0)) for v in x.tolist()]
    before = x.copy()
    assert numerics.align(x, d).tolist() == [clamp(v, -(2**31), 2**31 - 1) for v in rounded]
    assert np.array_equal(x, before)


# --- exponents ------------------------------------------------------------------------------------

def test_round_log2_corners() -> None:
    corners = {1: 0, 2: 1, 3: 2, 127: 7, 128: 7, 180: 7, 181: 7, 182: 8, 255: 8, 2**31 - 1: 31, 2**31: 31}
    assert {value: numerics.round_log2(value) for value in corners} == corners
    for k in range(32):
        root = math.isqrt(2 ** (2 * k + 1))  # the last value that rounds down to k
        assert [numerics.round_log2(v) for v in (2**k, root, root + 1)] == [k, k, k + 1] if root > 2**k else True


def test_round_log2_is_the_nearest_power(rng: np.random.Generator) -> None:
    for value in (rng.integers(1, 2**31, 500) >> rng.integers(0, 30, 500)).tolist():
        k = numerics.round_log2(max(1, value))
        assert Fraction(2) ** (2 * k - 1) <= max(1, value) ** 2 < Fraction(2) ** (2 * k + 1)


def test_amax_of_the_most_negative_value() -> None:
    assert numerics.amax(np.array([-(2**31), 2**31 - 1])) == 2**31
    assert numerics.amax(np.array([[0, -3], [2, 0]])) == 3
    assert numerics.amax(np.zeros(4, np.int64)) == 0


@pytest.mark.parametrize(("largest", "e_v", "previous", "own"), [
    (0, 5, -17, -17), (1, 0, 9, -7), (127, -14, 0, -14), (181, -14, 0, -14), (182, -14, 0, -13), (2**31, 0, 0, 24),
    (1, -60, 0, -60), (1, -120, 0, -60), (2**31, 60, 0, 60), (2**31, 36, 0, 60), (2**31, 35, 0, 59),
])
def test_own_exponent(largest: int, e_v: int, previous: int, own: int) -> None:
    assert numerics.own_exponent(largest, e_v, previous) == own


def test_history_and_target() -> None:
    assert numerics.target_exponent(-9) == -9
    assert numerics.target_exponent(-9, [-20, -11, -30]) == -11
    assert numerics.target_exponent(0, [-100]) == -60
    assert numerics.target_exponent(0, [100, 3]) == 60
    history: list[int] = []
    for own in range(10):
        history = numerics.push_history(history, own)
    assert history == [9, 8, 7, 6, 5, 4, 3, 2]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 31, 32, 33, 65535])
def test_guard_shift(k: int, rng: np.random.Generator) -> None:
    room = 16 - math.ceil(math.log2(k))
    assert numerics.guard_shift(120, -60, room) == room
    assert numerics.guard_shift(-120, 60, room) == 0
    assert numerics.guard_shift(120, -60, -3) == numerics.guard_shift(-120, 60, -3) == -3
    for e_a, e_b, e_m in rng.integers(-60, 61, (50, 3)).tolist():
        g = numerics.guard_shift(e_a + e_b, e_m, room)
        assert g == clamp(e_a + e_b - e_m + 3, 0, room)
        assert g == 0 or k * 2 ** (14 + g) <= 2**30


# --- what is requantised --------------------------------------------------------------------------

def test_forward_value() -> None:
    acc = np.array([[2**31 - 1, -(2**31), -5, 7]])
    bias = np.array([1, -1, 100, -3], np.int16)
    assert numerics.forward_value(acc, -14, bias=bias, e_bias=-14).tolist() == [[2**31 - 1, -(2**31), 95, 4]]
    assert numerics.forward_value(acc, -12, bias=bias, e_bias=-14).tolist() == [[2**31 - 1, -(2**31), 20, 6]]
    assert numerics.forward_value(acc, -14, relu=True).tolist() == [[2**31 - 1, 0, 0, 7]]


def test_backward_value() -> None:
    acc = np.array([[5, -6, 7]])
    assert numerics.backward_value(acc, np.array([[1, 0, -1]], np.int8)).tolist() == [[5, 0, 0]]
    assert numerics.backward_value(acc) is acc


def test_gradient_value(values: np.ndarray, rng: np.random.Generator) -> None:
    acc = np.array([*rng.integers(-(2**19), 2**19, 100), 2**19, -(2**19)])
    m = rng.integers(-127, 128, acc.size).astype(np.int8)
    for e_a, e_b, e_m in [(-7, -7, -14), (-7, -7, -9), (-60, -60, 60), (60, 60, -60), (-7, -20, 3)]:
        g = numerics.guard_shift(e_a + e_b, e_m, 11)
        e_v = e_a + e_b - g
        d = clamp(e_m - 3 - e_v, -31, 31)
        expected = []
        for total, momentum in zip(acc.tolist(), m.tolist(), strict=True):
            decayed = math.floor(7 * momentum * power(d) + (Fraction(1, 2) if d < 0 else 0))
            decayed = clamp(decayed, -(2**31), 2**31 - 1)
            expected.append(clamp(total * 2**g + decayed, -(2**31), 2**31 - 1))
        assert numerics.gradient_value(acc, g, m, e_m, e_v).tolist() == expected


@pytest.mark.parametrize("bound", [127, 32767])
@pytest.mark.parametrize("s", SHIFTS)
def test_update(s: int, bound: int, rng: np.random.Generator) -> None:
    m = np.arange(-127, 128)
    r = np.resize([*WORDS, *rng.integers(0, 2**24, 50).tolist()], 255)
    for dst in (np.full(255, bound), np.full(255, -bound), rng.integers(-bound, bound + 1, 255)):
        expected = []
        for w, x, word in zip(dst.tolist(), m.tolist(), r.tolist(), strict=True):
            step = 0 if s >= 32 else math.floor((math.floor(x / power(max(s, -15) - 24)) + word) / power(24))
            expected.append(clamp(w - clamp(step, -bound, bound), -bound, bound))
        assert numerics.update(dst, m, s, r, bound=bound).tolist() == expected


# --- loss -----------------------------------------------------------------------------------------

def reference_loss_row(z: list[int], e_z: int, label: int) -> tuple[list[int], int, bool]:
    """Errors, loss and whether the sample is correct, with fractions and no table."""
    w = [min(math.floor((max(z) - x) * 23637 * power(e_z - 6)), 65535) for x in z]
    p = [round(2**16 * 2 ** (-(x % 256) / 256)) // 2 ** (x // 256) for x in w]
    total = sum(p)
    r = (2**34 - 1) // total
    errors = [clamp((x * r + 2**26) // 2**27 - 128 * (i == label), -127, 127) for i, x in enumerate(p)]
    k = len(bin(total)) - 3
    fraction = total * 256 // 2**k - 256
    return errors, 256 * (k - 16) + round(256 * math.log2(1 + fraction / 256)) + w[label], z.index(max(z)) == label


@pytest.mark.parametrize("classes", [1, 2, 10, 256])
@pytest.mark.parametrize("e_z", [-60, -30, -14, -8, -7, -6, -5, -3, 0, 5, 6, 7, 8, 9, 60])
def test_loss_rows(classes: int, e_z: int, rng: np.random.Generator) -> None:
    z = np.vstack([
        np.zeros((1, classes)), np.full((1, classes), -127), np.full((1, classes), 127),
        np.where(np.arange(classes) % 2, 127, -127)[None], rng.integers(-127, 128, (8, classes)),
        rng.integers(-3, 4, (8, classes)),
    ]).astype(np.int8)
    labels = rng.integers(0, classes, len(z))
    labels[3] = 0
    got = numerics.loss_rows(z, e_z, labels)
    rows = [reference_loss_row(row, e_z, label) for row, label in zip(z.tolist(), labels.tolist(), strict=True)]
    assert got.errors.tolist() == [row[0] for row in rows]
    assert (got.loss, got.correct, got.samples) == (sum(r[1] for r in rows), sum(r[2] for r in rows), len(z))


def test_ignored_labels_count_nowhere() -> None:
    z = np.array([[3, 5, -4], [9, 0, 0], [1, 1, 1]], np.int8)
    got = numerics.loss_rows(z, -3, np.array([1, 3, -1], np.int16))
    alone = numerics.loss_rows(z[:1], -3, np.array([1]))
    assert got.errors[1:].tolist() == [[0] * 3] * 2 and got.errors[:1].tolist() == alone.errors.tolist()
    assert got[1:] == alone[1:] and got.samples == 1


def test_tables() -> None:
    assert (len(numerics.EXP2), numerics.EXP2[0], numerics.EXP2[128], numerics.EXP2[255]) == (256, 65536, 46341, 32857)
    assert (len(numerics.LOG2), numerics.LOG2[0], numerics.LOG2[128], numerics.LOG2[255]) == (256, 0, 150, 255)
    assert round(2**14 * math.log2(math.e)) == numerics.LOG2E


# --- generator ------------------------------------------------------------------------------------

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


@pytest.mark.parametrize(("lanes", "rows", "cols"), [
    (4, 1, 1), (4, 4, 4), (4, 5, 4), (8, 3, 20), (8, 17, 9), (12, 30, 13), (16, 16, 33), (16, 70, 5),
])
def test_gradient_draws_follow_the_drain(lanes: int, rows: int, cols: int, rng: np.random.Generator) -> None:
    start = rng.integers(1, 2**32, lanes, dtype=np.uint32)
    r1, r2, last = generator.gradient_draws(start, rows, cols)
    assert r1.shape == r2.shape == (rows, cols)
    state = start.tolist()
    for left in range(0, cols, lanes):
        for top in range(0, rows, lanes):
            for row in reversed(range(top, min(top + lanes, rows))):
                for words in (r1, r2):
                    state = [reference_step(x) for x in state]
                    valid = min(lanes, cols - left)
                    assert words[row, left:left + valid].tolist() == [x >> 8 for x in state[:valid]]
    assert last.tolist() == state


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
