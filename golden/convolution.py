"""Convolutions on the machine's layout: pixels in rows, channels last; exact integer sums.

A tensor of images is [planes, height, width, channels]. A kernel's weights are [height * width * channels in, channels
out], taps in line order, the channels of a tap together. A dense layer is a 1 x 1 kernel on images of one pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Window", "backward", "backward_macs", "forward", "gradient", "patches", "product"]

FLOAT32_TERMS = 1 << 10  # reductions up to here are exact in float32: 2^10 * 128^2 = 2^24, and 2^9 * 255 * 128 < 2^24
BLOCK = 1 << 18  # elements of the patches worked on at a time, so that they stay in the cache
Ints = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel moves over an image: its size, the steps from one output to the next, zeros around the image."""

    height: int = 1
    width: int = 1
    step_y: int = 1
    step_x: int = 1
    pad_y: int = 0
    pad_x: int = 0

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Lines and pixels a line of the result on an image of ``height`` x ``width``; 0 where the kernel is larger."""
        return (max(0, (height + 2 * self.pad_y - self.height) // self.step_y + 1),
                max(0, (width + 2 * self.pad_x - self.width) // self.step_x + 1))

    @property
    def identity(self) -> bool:
        """Whether every output sees just its own pixel."""
        return self == Window()


def product(a: Ints, b: Ints) -> NDArray[np.int32]:
    """a[M, K] . b[K, N] of int8, K < 2^17, exact: float BLAS keeps every partial sum below its mantissa's range.

    ``a`` may go from -255 to 255 in another type, K < 2^16 then.
    """
    return _product(a.astype(np.float32), b.astype(np.float32), _exact(a))


def _exact(a: Ints) -> int:
    """Terms of a reduction of ``a`` and int8 that are exact in float32."""
    return FLOAT32_TERMS if a.dtype == np.int8 else FLOAT32_TERMS // 2


def _product(a: NDArray[np.float32], b: NDArray[np.float32], exact: int) -> NDArray[np.int32]:
    terms = a.shape[1]
    total: NDArray[np.int32] = (a[:, :exact] @ b[:exact]).astype(np.int32)
    for start in range(exact, terms, exact):
        part = slice(start, start + exact)
        total += (a[:, part] @ b[part]).astype(np.int32)
    return total


def patches(x: Ints, window: Window) -> Ints:
    """[outputs, taps * channels]: what each output sees of ``x`` [planes, height, width, channels], zero-padded."""
    planes, height, width, channels = x.shape
    if window.identity:
        return x.reshape(-1, channels)
    lines, pixels = window.output(height, width)
    padded = np.pad(x, ((0, 0), (window.pad_y,) * 2, (window.pad_x,) * 2, (0, 0)))
    return _windows(padded, window, lines, pixels).reshape(planes * lines * pixels, -1)


def _windows(padded: Ints, window: Window, lines: int, pixels: int) -> Ints:
    """[planes, lines, pixels, height, width, channels]: what each output sees, a view."""
    p, y, x, c = padded.strides
    shape = (len(padded), lines, pixels, window.height, window.width, padded.shape[3])
    return np.ndarray(shape, padded.dtype, padded, 0, (p, y * window.step_y, x * window.step_x, y, x, c))


def _blocks(x: Ints, window: Window) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """The rows of :func:`patches`, some images at a time: which outputs they are of, and float32 values.

    The values are overwritten by the next.
    """
    planes, height, width, channels = x.shape
    lines, pixels = window.output(height, width)
    taps = window.height * window.width
    count = min(planes, max(1, BLOCK // (lines * pixels * taps * channels)))
    padded = np.zeros((count, height + 2 * window.pad_y, width + 2 * window.pad_x, channels), np.float32)
    inner = padded[:, window.pad_y:window.pad_y + height, window.pad_x:window.pad_x + width]
    views = _windows(padded, window, lines, pixels)
    seen = np.empty(views.shape, np.float32)
    for first in range(0, planes, count):
        images = x[first:first + count]
        inner[:len(images)] = images
        for dy in range(window.height):
            seen[:, :, :, dy] = views[:, :, :, dy]
        outputs = slice(first * lines * pixels, (first + len(images)) * lines * pixels)
        yield outputs, seen.reshape(-1, taps * channels)[:outputs.stop - outputs.start]


def forward(x: Ints, weights: Ints, window: Window) -> NDArray[np.int32]:
    """Outputs [pixels out, channels out] of ``x`` [planes, height, width, channels in]."""
    if window.identity:
        return product(patches(x, window), weights)
    lines, pixels = window.output(*x.shape[1:3])
    total = np.empty((len(x) * lines * pixels, weights.shape[1]), np.int32)
    kernel = weights.astype(np.float32)
    for outputs, seen in _blocks(x, window):
        total[outputs] = _product(seen, kernel, _exact(x))
    return total


def gradient(x: Ints, errors: Ints, window: Window) -> NDArray[np.int32]:
    """Sum over all outputs of patch times error, like the weights; ``errors`` [pixels out, channels out]."""
    total = np.zeros((window.height * window.width * x.shape[3], errors.shape[1]), np.int32)
    for outputs, seen in _blocks(x, window):
        total += _product(seen.T, errors[outputs].astype(np.float32), _exact(x))
    return total


def backward(errors: Ints, weights: Ints, window: Window, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Errors [pixels in, channels in] of an input of ``shape`` (height, width).

    errors : [planes, lines out, pixels out, channels out]
    """
    planes, lines, pixels, channels_out = errors.shape
    if window.identity:
        return product(errors.reshape(-1, channels_out), weights.T)
    kernel = weights.reshape(window.height, window.width, -1, channels_out)
    if window.step_y == window.step_x == 1:  # a forward product with the kernel mirrored
        mirrored = kernel[::-1, ::-1].swapaxes(2, 3).reshape(-1, kernel.shape[2])
        return forward(errors, mirrored, Window(window.height, window.width, 1, 1, window.height - 1 - window.pad_y,
                                                window.width - 1 - window.pad_x))
    shares = product(errors.reshape(-1, channels_out), weights.T)
    height, width = shape
    shares = shares.reshape(planes, lines, pixels, *kernel.shape[:3])
    total = np.zeros((planes, height + 2 * window.pad_y, width + 2 * window.pad_x, kernel.shape[2]), np.int32)
    for dy in range(window.height):
        for dx in range(window.width):
            total[:, dy:dy + lines * window.step_y:window.step_y,
                  dx:dx + pixels * window.step_x:window.step_x] += shares[:, :, :, dy, dx]
    inner = total[:, window.pad_y:window.pad_y + height, window.pad_x:window.pad_x + width]
    return inner.reshape(planes * height * width, -1)


def backward_macs(planes: int, shape: tuple[int, int], window: Window, channels_in: int, channels_out: int) -> int:
    """Multiply-accumulates of :func:`backward` without those of the zeros a step of 2 would insert.

    Input pixels with the same coordinates modulo the steps see the same taps; padding counts as at stride 1.
    """
    pairs = 1
    for size, kernel, step, pad in ((shape[0], window.height, window.step_y, window.pad_y),
                                    (shape[1], window.width, window.step_x, window.pad_x)):
        pairs *= sum(len(range(r, size, step)) * len(range((r + pad) % step, kernel, step)) for r in range(step))
    return planes * pairs * channels_in * channels_out
