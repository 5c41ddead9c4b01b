"""Every rule of docs/numerics.md against big integers and fractions, corners first."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from golden import numerics

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
