"""The int32 paths of the rules equal the plain int64 ones, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from golden import numerics, vector

SEED = 8
INT32 = np.iinfo(np.int32)
CORNERS = [0, 1, -1, 126, 127, 128, -127, -128, INT32.max, INT32.min, INT32.max - 1, INT32.min + 1]


def values(bits: int) -> NDArray[np.int32]:
    """Random numbers of up to ``bits`` bits, corners, and ties on both sides of zero."""
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    ties = np.array([k * (1 << s - 1) for s in range(1, 24) for k in (-255, -254, -253, -3, -1, 1, 3, 253, 254, 255)])
    near = np.concatenate([ties - 1, ties, ties + 1])
    drawn = rng.integers(-(1 << bits), 1 << bits, 500)
    return np.concatenate([near, CORNERS, drawn]).clip(INT32.min, INT32.max).astype(np.int32).reshape(1, -1)


@pytest.mark.parametrize("s", range(-8, 34))
@pytest.mark.parametrize("bits", [7, 12, 20, 31])
def test_requantise(s: int, bits: int) -> None:
    for v in (values(bits), values(bits) >> 12):
        rounded = numerics.nearest(v, s)
        wanted = numerics.saturate(rounded)
        q, saturated = numerics.requantise(v, s)
        assert q.dtype == np.int8 and np.array_equal(q, wanted)
        assert saturated == np.count_nonzero(rounded != wanted)


@pytest.mark.parametrize("d", range(-34, 35))
def test_align(d: int) -> None:
    x = np.arange(-128, 128).astype(np.int8)
    assert np.array_equal(numerics.align(x, d), numerics.align(x.astype(np.int64), d))


def test_add_sat32() -> None:
    corners = np.array(CORNERS, np.int64)
    for size in (1, 7, 8, 12):  # with and without the extremes
        a, b = (part.reshape(-1) for part in np.meshgrid(corners[:size], corners[:size]))
        wanted = numerics.sat32(a + b)
        for left in (a, a.astype(np.int32)):
            for right in (b, b.astype(np.int32)):
                assert np.array_equal(numerics.add_sat32(left, right), wanted)


def test_masks_keep_every_bit() -> None:
    acc = values(31)
    mask = np.resize(np.array([-128, -1, 0, 1, 127], np.int8), acc.shape)
    wanted = [[x if m > 0 else 0 for x, m in zip(acc[0].tolist(), mask[0].tolist(), strict=True)]]
    assert numerics.backward_value(acc, mask).tolist() == wanted


def test_sums_and_products() -> None:
    extremes = np.array([[-128, -127, 127, 1, 0, -128]], np.int8)
    many = np.repeat(extremes, 1 << 16, axis=0)
    assert vector.total(many)[0, 0] == many.astype(object).sum()
    assert vector.total(many, many)[0, 0] == (1 << 16) * sum(int(x) ** 2 for x in extremes[0])
    for factor in (-32768, -32767, -1, 0, 1, 32767):
        assert vector.scaled(extremes, factor).tolist() == [[int(x) * factor for x in extremes[0]]]
