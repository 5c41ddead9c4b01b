"""The rules of ``docs/numerics.md``, one function each, on NumPy integers.

Tensors are arrays of any integer type; results are int64 unless stated, so no intermediate wraps. Exponents and shifts
are Python integers: there is one a tensor. Where nothing can leave 32 bits, some of the rules work in int32, which is
several times faster on whole tensors; ``tests/test_fast_rules.py`` holds those paths against the plain ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from golden.generator import default_seeds, gradient_draws, leap, xorshift_block, xorshift_step
from shiftgrad.isa import EXPONENT_MAX, EXPONENT_MIN, HISTORY

__all__ = [
    "BOUND16", "BOUND8", "ERROR_EXPONENT", "EXP2", "FRACTION", "LOG2", "LOG2E", "LossRows", "REQUANTISE_MIN",
    "UNSIGNED8", "UPDATE_MIN", "add_sat32", "align", "amax", "backward_value", "clamp_exponent", "default_seeds",
    "fixed", "forward_value", "gradient_draws", "gradient_value", "guard_shift", "leap", "loss_rows", "nearest",
    "own_exponent", "push_history", "requantise", "round_log2", "sat32", "saturate", "stochastic", "target_exponent",
    "update", "with_scalar", "xorshift_block", "xorshift_step",
]

Ints = NDArray[Any]

FRACTION = 24  # fraction bits of the shifter, and bits of a random word
REQUANTISE_MIN, UPDATE_MIN = -7, -15  # least shift of a requantisation (one less when unsigned) and of an update
ZERO_SHIFT = 32  # shifts from here up give zero
INT8_ROOM = 23  # left shift of an int8 that stays far inside int32
BOUND8, UNSIGNED8, BOUND16 = 127, 255, 32767
ERROR_EXPONENT = -7  # of a LOSS result
LOG2E = 23637  # round(2^14 log2 e)
EXP2 = tuple(round(2**16 * 2 ** (-f / 256)) for f in range(256))
LOG2 = tuple(round(256 * math.log2(1 + i / 256)) for i in range(256))


# --- shifts and rounding --------------------------------------------------------------------------

def fixed(x: Ints, s: int, *, least: int = REQUANTISE_MIN) -> Ints:
    """floor(x / 2^s * 2^24), ``s`` raised to ``least``; 0 from s = 32 up. |x| * 2^(24 - least) must stay below 2^63."""
    x = np.array(x, np.int64)
    left = FRACTION - max(s, least)
    if s >= ZERO_SHIFT:
        x[...] = 0
    elif left >= 0:
        x <<= left
    else:
        x >>= -left
    return x


def nearest(x: Ints, s: int, *, least: int = REQUANTISE_MIN) -> Ints:
    """fixed(x, s) / 2^24 to the nearest integer, ties to the even one.

    Ties are common: sums of tensors are requantised by a bit or two. Rounded up, they would push every element the same
    way, and the scalars that sum a whole tensor's errors would see little else.
    """
    value = fixed(x, s, least=least)
    tie = (value & (1 << FRACTION) - 1) == 1 << FRACTION - 1
    rounded = _floor(value, 1 << FRACTION - 1)
    return rounded - (tie & rounded)


def stochastic(x: Ints, s: int, r: Ints, *, least: int = REQUANTISE_MIN) -> Ints:
    """floor((x / 2^s * 2^24 + r) / 2^24), r a 24-bit word an element."""
    return _floor(fixed(x, s, least=least), r)


def _floor(x: Ints, r: Ints | int) -> Ints:
    """floor((x + r) / 2^24), in place."""
    x += r
    x >>= FRACTION
    return x


def saturate(x: Ints, bound: int = BOUND8) -> Ints:
    """``x`` clamped to [-bound, bound]."""
    return np.minimum(np.maximum(x, -bound), bound)  # faster than np.clip on small tensors


def sat32(x: Ints) -> Ints:
    """``x`` clamped to [-2^31, 2^31 - 1], still int64; ``x`` itself when nothing saturates."""
    if x.size and (x.max() >> 31 > 0 or x.min() >> 31 < -1):
        return np.clip(x, -(1 << 31), (1 << 31) - 1)
    return x


def add_sat32(a: Ints, b: Ints) -> Ints:
    """a + b saturated to int32; of int32 when ``a`` is and no sum leaves it, which it then finds by itself."""
    if a.dtype == np.int32 and a.size and amax(a) + amax(b) < 1 << 31:
        return np.add(a, b, dtype=np.int32, casting="unsafe")
    return sat32(np.add(a, b, dtype=np.int64))


def align(x: Ints, d: int) -> Ints:
    """x * 2^d, nearest with ties up for d < 0, saturated to int32. ``d`` is clamped to [-31, 31]; |x| <= 2^31.

    Of int32 when ``x`` is 8-bit and small enough.
    """
    d = max(-31, min(31, d))
    x = np.array(x, np.int32 if x.dtype.itemsize == 1 and d < INT8_ROOM else np.int64)
    if d >= 0:
        x <<= d
    else:
        x += 1 << -d - 1
        x >>= -d
    return x if x.dtype == np.int32 else sat32(x)


# --- exponents ------------------------------------------------------------------------------------

def amax(v: Ints) -> int:
    """Largest magnitude of ``v``, 0 to 2^31."""
    return max(int(v.max()), -int(v.min()))


def round_log2(value: int) -> int:
    """log2 of ``value`` >= 1 rounded in the log domain: up when value^2 >= 2^(2k+1), k = floor(log2)."""
    k = value.bit_length() - 1
    return k + (value * value >= 1 << 2 * k + 1)


def clamp_exponent(e: int) -> int:
    """``e`` clamped to [-60, 60]."""
    return max(EXPONENT_MIN, min(EXPONENT_MAX, e))


def own_exponent(largest: int, e_v: int, previous: int, *, unsigned: bool = False) -> int:
    """Exponent that fits accumulators up to ``largest`` at ``e_v`` into int8, or uint8; ``previous`` when it is 0."""
    return clamp_exponent(e_v + round_log2(largest) - 7 - unsigned) if largest else previous


def target_exponent(own: int, history: Sequence[int] = ()) -> int:
    """Exponent to quantise to: the largest of ``history`` (scale mode delayed), ``own`` when it is empty."""
    return clamp_exponent(max(history)) if len(history) else own


def push_history(history: Sequence[int], own: int) -> list[int]:
    """``history``, newest first, with ``own`` in front; at most 8 entries."""
    return [own, *history][:HISTORY]


def guard_shift(e_g: int, e_m: int, most: int) -> int:
    """Left shift g of a gradient of exponent ``e_g`` so that the momentum's bits survive: 0 to ``most``.

    ``most`` is 16 - ceil(log2 terms), which keeps |G| * 2^g at or below 2^30, or below 2^31 with an unsigned operand;
    when it is negative it is g itself.
    """
    return min(most, max(0, e_g - (e_m - 3)))


# --- what is requantised --------------------------------------------------------------------------

def forward_value(acc: Ints, e_v: int, *, bias: Ints | None = None, e_bias: int = 0, relu: bool = False) -> Ints:
    """acc[M, N] plus ``bias`` [N] aligned to ``e_v``, saturated to int32, then ReLU."""
    v = acc if bias is None else add_sat32(acc, align(bias, e_bias - e_v))
    return np.maximum(v, 0) if relu else v


def backward_value(acc: Ints, mask: Ints | None = None) -> Ints:
    """acc[M, N] where ``mask`` > 0, else 0."""
    return acc if mask is None else acc * (mask > 0)  # not np.where, whose time depends on what it is given


def gradient_value(acc: Ints, g: int, m: Ints, e_m: int, e_v: int) -> Ints:
    """beta * m + G at exponent ``e_v`` (guard shift ``g`` already in it), beta = 7/8: 7 m has exponent e_m - 3.

    A negative ``g`` (of long scalar sums only) drops bits of G towards minus infinity.
    """
    v = align(7 * np.asarray(m, np.int64), e_m - 3 - e_v)
    acc = acc.astype(np.int64)
    return sat32(v + (acc << g if g >= 0 else acc >> -g))


def with_scalar(a: Ints, scalar: int, d: int) -> Ints:
    """int8 ``a`` plus scalar * 2^d (nearest, ties up), both saturated to +-127; int16 and +-255 of uint8 ``a``."""
    bound, dtype = (UNSIGNED8, np.int16) if a.dtype == np.uint8 else (BOUND8, np.int8)
    term = int(saturate(align(np.array(scalar), d), bound))
    return saturate(a.astype(np.int16) + term, bound).astype(dtype)


def requantise(v: Ints, s: int, r: Ints | None = None, *, unsigned: bool = False) -> tuple[Ints, int]:
    """round(v / 2^s) as int8, stochastically when there are random words ``r``; and how many mantissas saturated.

    As uint8 when ``unsigned``; v must not be negative then.
    """
    bound, dtype = (UNSIGNED8, np.uint8) if unsigned else (BOUND8, np.int8)
    if r is None and v.dtype == np.int32 and 1 <= s <= INT8_ROOM - unsigned:
        return _requantise32(v, s, bound, dtype)
    rounded = nearest(v, s, least=REQUANTISE_MIN - unsigned) if r is None else stochastic(v, s, r)
    q = saturate(rounded, bound).astype(dtype)
    return q, int(np.count_nonzero(q != rounded))


def _requantise32(v: Ints, s: int, bound: int, dtype: type[np.integer[Any]]) -> tuple[Ints, int]:
    """:func:`requantise` to nearest of int32 for s in [1, 23]: saturate before adding 1/2, so that nothing wraps."""
    half = 1 << s - 1
    least, most = -(bound << s) - half + 1, (bound << s) + half - 1  # those that become -127 and 127
    saturated = 0
    if v.size and (int(v.max()) > most or int(v.min()) < least):
        saturated = int(np.count_nonzero(v > most) + np.count_nonzero(v < least))
        v = np.clip(v, least, most)
    q = v >> s
    q &= 1  # a tie is moved up from odd integers only
    q += v
    q += np.int32(half - 1)
    q >>= s
    return q.astype(dtype), saturated


def update(dst: Ints, m: Ints, s: int, r: Ints, *, bound: int = BOUND8) -> Ints:
    """dst - m / 2^s, the step rounded stochastically and saturated before, and the result after; |m| <= 127."""
    return saturate(dst - saturate(stochastic(m, s, r, least=UPDATE_MIN), bound), bound)


# --- loss -----------------------------------------------------------------------------------------

class LossRows(NamedTuple):
    """errors int64[B, C] at exponent -7, and sums over the samples with a valid label (loss in 1/256 bit)."""

    errors: Ints
    loss: int
    correct: int
    samples: int


def loss_rows(z: Ints, e_z: int, labels: Ints) -> LossRows:
    """Softmax cross-entropy of logits int8[B, C] at exponent ``e_z``; a label outside [0, C) is an ignored sample."""
    z = np.asarray(z, np.int64)
    labels = np.asarray(labels, np.int64)
    valid = (labels >= 0) & (labels < z.shape[1])
    y, row = np.where(valid, labels, 0), np.arange(len(z))
    d = (z.max(axis=1, keepdims=True) - z) * LOG2E
    shift = e_z - 6
    w = np.minimum(d << min(shift, 2) if shift >= 0 else d >> min(-shift, 63), 65535)
    p = np.asarray(EXP2)[w & 255] >> np.minimum(w >> 8, 31)
    s = p.sum(axis=1)
    r = ((1 << 34) - 1) // s
    errors = (p * r[:, None] + (1 << 26)) >> 27
    errors[row, y] -= 128
    errors = saturate(errors) * valid[:, None]
    k = np.frexp(s.astype(np.float64))[1] - 1
    i = (s << 8 >> k) & 255
    loss = 256 * (k - 16) + np.asarray(LOG2)[i] + w[row, y]
    correct = z.argmax(axis=1) == labels
    return LossRows(errors, int(loss[valid].sum()), int(correct.sum()), int(valid.sum()))
