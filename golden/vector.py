"""What the vector unit computes, element by element: sums, products with a scalar, pooling and their backward sides.

Images are [planes, height, width, channels]; results are int32 or int64 accumulators, not yet requantised.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.numerics import align, round_log2

__all__ = ["ONE", "average", "average_backward", "average_shift", "largest", "largest_backward", "scalar_term",
           "scaled", "shortcut", "shortcut_backward", "sum_limit", "total"]

Ints = NDArray[Any]
ONE = 1 << 14  # a scalar of 1.0 at exponent -14
TERM = 1 << 30  # bound of the scalar added to a product of 23 bits, so that their sum fits int32


def scalar_term(scalar: int, d: int) -> int:
    """scalar * 2^d, nearest with ties up, saturated to [-2^30, 2^30 - 1]."""
    return int(np.clip(align(np.array(scalar), d), -TERM, TERM - 1))


def shortcut(x: Ints, shape: tuple[int, ...]) -> Ints:
    """``x`` as an image of ``shape``: every second line and pixel when that is smaller, channels of zeros behind."""
    planes, height, width, channels = shape
    step = 1 if x.shape[1:3] == (height, width) else 2
    result = np.zeros(shape, x.dtype)
    result[..., :x.shape[3]] = x[:, ::step, ::step]
    return result


def shortcut_backward(e: Ints, shape: tuple[int, ...]) -> Ints:
    """The error ``e`` of a :func:`shortcut`'s result brought back to its input of ``shape``: zeros in between."""
    step = 1 if e.shape[1:3] == shape[1:3] else 2
    result = np.zeros(shape, e.dtype)
    result[:, ::step, ::step] = e[..., :shape[3]]
    return result


def average_shift(pixels: int) -> int:
    """r of the average over ``pixels`` as sum * 2^-r: their logarithm rounded in the log domain."""
    return round_log2(pixels)


def average(x: Ints) -> Ints:
    """Sum over the pixels of each image: [planes, channels]; the exponent falls by :func:`average_shift`."""
    return x.sum(axis=(1, 2), dtype=np.int64)


def average_backward(e: Ints, shape: tuple[int, ...]) -> Ints:
    """``e`` [planes, channels] at every pixel of an image of ``shape``."""
    return np.broadcast_to(e[:, None, None, :].astype(np.int32), shape)


def _windows(x: Ints) -> Ints:
    """[planes, lines, pixels, 4, channels]: the 2 x 2 windows, in line order."""
    planes, height, width, channels = x.shape
    split = x.reshape(planes, height // 2, 2, width // 2, 2, channels)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(planes, height // 2, width // 2, 4, channels)


def largest(x: Ints) -> Ints:
    """Maximum of each 2 x 2 window."""
    lines = np.maximum(x[:, ::2], x[:, 1::2])
    return np.maximum(lines[:, :, ::2], lines[:, :, 1::2]).astype(np.int32)


def largest_backward(e: Ints, x: Ints, *, mask: bool) -> Ints:
    """``e`` at the first maximum of each 2 x 2 window of ``x``, 0 elsewhere; with ``mask`` only where that is > 0."""
    windows = _windows(x)
    first = windows.argmax(axis=3)
    chosen = np.arange(4)[:, None] == first[:, :, :, None, :]
    if mask:
        chosen &= windows > 0
    planes, lines, pixels, _, channels = windows.shape
    routed = chosen * e[:, :, :, None, :].astype(np.int32)
    routed = routed.reshape(planes, lines, pixels, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return routed.reshape(x.shape)


def scaled(a: Ints, factor: int) -> NDArray[np.int32]:
    """8-bit ``a`` times a 16-bit ``factor``."""
    return a.astype(np.int32) * np.int32(factor)


def total(b: Ints, a: Ints | None = None) -> NDArray[np.int64]:
    """Sum of int8 ``b``, or of the products of 8-bit ``a`` and ``b``, [1, 1]."""
    terms = b if a is None else np.multiply(a, b, dtype=np.int16)
    return terms.sum(dtype=np.int64, keepdims=True)


def sum_limit(rows: int, cols: int) -> int:
    """Largest guard shift of a SUM over rows x cols elements: 16 - ceil(log2 rows) - ceil(log2 cols); may be < 0."""
    return 16 - (rows - 1).bit_length() - (cols - 1).bit_length()
