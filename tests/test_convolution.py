"""Convolutions against loops over Python integers: no patches, no matrices, no floats."""

from __future__ import annotations

from itertools import product as every
from typing import Any

import numpy as np
import pytest

from golden import convolution
from golden.convolution import FLOAT32_TERMS, Window

SEED = 4711
Rows = list[list[int]]


def places(size: int, kernel: int, step: int, pad: int) -> list[int]:
    """Where the kernel begins, in pixels of the image, for each output; it never reaches beyond the padding."""
    return [first for first in range(-pad, size + pad, step) if first + kernel <= size + pad]


def links(shape: tuple[int, int, int], window: Window) -> list[tuple[int, int, int]]:
    """(output pixel, tap, input pixel) of everything that is multiplied; pixels counted over all planes."""
    planes, height, width = shape
    ys = places(height, window.height, window.step_y, window.pad_y)
    xs = places(width, window.width, window.step_x, window.pad_x)
    found = []
    for output, (plane, top, left) in enumerate(every(range(planes), ys, xs)):
        for tap, (dy, dx) in enumerate(every(range(window.height), range(window.width))):
            y, x = top + dy, left + dx
            if 0 <= y < height and 0 <= x < width:
                found.append((output, tap, (plane * height + y) * width + x))
    return found


def outputs(shape: tuple[int, int, int], window: Window) -> int:
    return (shape[0] * len(places(shape[1], window.height, window.step_y, window.pad_y))
            * len(places(shape[2], window.width, window.step_x, window.pad_x)))


def slow_forward(x: Rows, weights: Rows, shape: tuple[int, int, int], window: Window) -> Rows:
    """Outputs [pixels out][channels out] of ``x`` [pixels in][channels in]."""
    channels = len(x[0])
    total = [[0] * len(weights[0]) for _ in range(outputs(shape, window))]
    for output, tap, pixel in links(shape, window):
        for c, value in enumerate(x[pixel]):
            for n, weight in enumerate(weights[tap * channels + c]):
                total[output][n] += value * weight
    return total


def slow_backward(errors: Rows, weights: Rows, shape: tuple[int, int, int], window: Window, channels: int) -> Rows:
    """Errors [pixels in][channels in] of ``errors`` [pixels out][channels out]."""
    total = [[0] * channels for _ in range(shape[0] * shape[1] * shape[2])]
    for output, tap, pixel in links(shape, window):
        for c in range(channels):
            for error, weight in zip(errors[output], weights[tap * channels + c], strict=True):
                total[pixel][c] += error * weight
    return total


def slow_gradient(x: Rows, errors: Rows, shape: tuple[int, int, int], window: Window) -> Rows:
    """Like the weights: sums of inputs [pixels in][channels in] times ``errors`` [pixels out][channels out]."""
    channels = len(x[0])
    total = [[0] * len(errors[0]) for _ in range(window.height * window.width * channels)]
    for output, tap, pixel in links(shape, window):
        for c, value in enumerate(x[pixel]):
            for n, error in enumerate(errors[output]):
                total[tap * channels + c][n] += value * error
    return total


def slow_macs(shape: tuple[int, int], window: Window) -> int:
    """Pairs of an input pixel and a tap that some output, in the image or beyond it, would link."""
    return sum((y + window.pad_y - dy) % window.step_y == 0 and (x + window.pad_x - dx) % window.step_x == 0
               for y, x, dy, dx in every(*map(range, (*shape, window.height, window.width))))


def random_window(rng: np.random.Generator, largest: int = 7) -> Window:
    height, width = rng.integers(1, largest + 1, 2).tolist()
    return Window(height, width, *rng.integers(1, 3, 2).tolist(), int(rng.integers(height)), int(rng.integers(width)))


def random_shape(rng: np.random.Generator, window: Window) -> tuple[int, int, int]:
    """Planes, height and width with at least one output; often the smallest there are."""
    least = [max(1, window.height - 2 * window.pad_y), max(1, window.width - 2 * window.pad_x)]
    height, width = (int(size + rng.integers(rng.choice([1, 5]))) for size in least)
    return int(rng.integers(1, 4)), height, width


def int8(rng: np.random.Generator, *shape: int) -> np.ndarray[Any, Any]:
    kind = rng.integers(3)
    values = rng.integers(-128, 128, shape) if kind else rng.choice([-128, -127, 127], shape)
    return values.astype(np.int8)


def images(x: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return x.reshape(*shape, -1)


def check(x: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], errors: np.ndarray[Any, Any],
          shape: tuple[int, int, int], window: Window) -> None:
    """All three phases equal the loops."""
    lines, pixels = window.output(*shape[1:])
    got = convolution.forward(images(x, shape), weights, window)
    assert got.dtype == np.int32 and got.tolist() == slow_forward(x.tolist(), weights.tolist(), shape, window)
    back = convolution.backward(images(errors, (shape[0], lines, pixels)), weights, window, shape[1:])
    assert back.tolist() == slow_backward(errors.tolist(), weights.tolist(), shape, window, x.shape[1])
    grad = convolution.gradient(images(x, shape), errors, window)
    assert grad.tolist() == slow_gradient(x.tolist(), errors.tolist(), shape, window)


def one_case(rng: np.random.Generator, window: Window, shape: tuple[int, int, int]) -> None:
    channels_in, channels_out = rng.integers(1, 10, 2).tolist()
    print(window, shape, channels_in, channels_out)
    check(int8(rng, shape[0] * shape[1] * shape[2], channels_in),
          int8(rng, window.height * window.width * channels_in, channels_out),
          int8(rng, outputs(shape, window), channels_out), shape, window)


@pytest.mark.parametrize("block", range(8))
def test_random_shapes(block: int) -> None:
    print("seed", SEED + block)
    rng = np.random.default_rng(SEED + block)
    for _ in range(40):
        window = random_window(rng)
        one_case(rng, window, random_shape(rng, window))


@pytest.mark.parametrize(("window", "shape"), [
    (Window(), (1, 1, 1)), (Window(), (3, 2, 5)),
    (Window(1, 1, 2, 2), (2, 1, 1)), (Window(1, 1, 2, 2), (2, 2, 2)), (Window(1, 1, 1, 2), (1, 3, 4)),
    (Window(3, 3, 1, 1, 1, 1), (2, 1, 1)), (Window(3, 3, 2, 2, 1, 1), (1, 2, 2)), (Window(3, 3, 2, 2, 1, 1), (1, 5, 4)),
    (Window(7, 7, 1, 1, 6, 6), (1, 1, 1)), (Window(7, 7, 2, 2, 3, 3), (1, 2, 3)), (Window(7, 1, 2, 1, 3, 0), (2, 1, 4)),
    (Window(2, 4, 1, 2, 1, 3), (1, 1, 1)), (Window(2, 2, 2, 2), (1, 3, 5)), (Window(1, 7, 1, 1, 0, 3), (1, 2, 1)),
])
def test_corner_shapes(window: Window, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    one_case(rng, window, shape)


def test_output_sizes() -> None:
    for size, kernel, step, pad in every(range(1, 12), range(1, 8), (1, 2), range(7)):
        if pad < kernel:
            count = len(places(size, kernel, step, pad))
            assert Window(kernel, 1, step, 1, pad, 0).output(size, 5) == (count, 5)
            assert Window(1, kernel, 1, step, 0, pad).output(5, size) == (5, count)


def test_step_2_of_one_pixel_leaves_zeros(rng: np.random.Generator) -> None:
    errors, weights = int8(rng, 2, 2, 3, 5), int8(rng, 4, 5)
    back = convolution.backward(errors, weights, Window(1, 1, 2, 2), (4, 5)).reshape(2, 4, 5, 4)
    assert back[:, ::2, ::2].any()
    back[:, ::2, ::2] = 0
    assert not back.any()


def test_pixels_no_output_sees_get_zero(rng: np.random.Generator) -> None:
    back = convolution.backward(np.full((1, 1, 1, 2), 127, np.int8), np.full((4, 2), 127, np.int8), Window(2, 2, 2, 2),
                                (3, 3)).reshape(3, 3)
    assert np.array_equal(back != 0, np.outer([1, 1, 0], [1, 1, 0]))


# --- exactness ------------------------------------------------------------------------------------

@pytest.mark.parametrize("value", [-128, -127, 127])
@pytest.mark.parametrize("other", [-128, 127])
def test_extremes_beyond_one_float32_chunk(value: int, other: int) -> None:
    """Every reduction longer than float32 sums exactly, all terms of one sign: the sums count the taps in the image."""
    window, shape, channels = Window(7, 7, 2, 1, 3, 3), (1, 9, 8), 30
    terms = np.zeros(outputs(shape, window), np.int64)
    np.add.at(terms, [output for output, _, _ in links(shape, window)], channels)
    assert terms.max() > FLOAT32_TERMS
    x, weights = np.full((*shape, channels), value, np.int8), np.full((49 * channels, 2), other, np.int8)
    assert np.array_equal(convolution.forward(x, weights, window), np.repeat(terms[:, None] * value * other, 2, axis=1))

    shape, channels = (2, 3, 4), FLOAT32_TERMS + 77
    window = Window(2, 3, 1, 2, 0, 1)
    terms = np.zeros(24, np.int64)
    np.add.at(terms, [pixel for _, _, pixel in links(shape, window)], channels)
    errors, weights = np.full((2, 2, 2, channels), value, np.int8), np.full((6 * 2, channels), other, np.int8)
    back = convolution.backward(errors, weights, window, shape[1:])
    assert np.array_equal(back, np.repeat(terms[:, None] * value * other, 2, axis=1))

    shape, window = (3, 40, 21), Window(3, 2, 1, 1, 1, 0)
    terms = np.zeros(6, np.int64)
    np.add.at(terms, [tap for _, tap, _ in links(shape, window)], 1)
    assert terms.min() > 2 * FLOAT32_TERMS
    errors = np.full((outputs(shape, window), 2), other, np.int8)
    grad = convolution.gradient(np.full((*shape, 1), value, np.int8), errors, window)
    assert np.array_equal(grad, np.repeat(terms[:, None] * value * other, 2, axis=1))


@pytest.mark.parametrize("terms", [FLOAT32_TERMS - 1, FLOAT32_TERMS, FLOAT32_TERMS + 1, 5000])
def test_long_reductions_of_mixed_signs(terms: int, rng: np.random.Generator) -> None:
    a, b = (rng.choice([-128, -127, -1, 1, 127], shape).astype(np.int8) for shape in ((4, terms), (terms, 3)))
    exact = [[sum(x * y for x, y in zip(row, column, strict=True)) for column in b.T.tolist()] for row in a.tolist()]
    assert convolution.product(a, b).tolist() == exact


# --- relations ------------------------------------------------------------------------------------

@pytest.mark.parametrize("block", range(4))
def test_backward_and_gradient_are_adjoint_to_forward(block: int) -> None:
    """<e, W x> = <W' e, x> = <x e', W>, exactly."""
    print("seed", SEED + block)
    rng = np.random.default_rng(SEED + block)
    for _ in range(40):
        window = random_window(rng)
        shape, (cin, cout) = random_shape(rng, window), rng.integers(1, 20, 2).tolist()
        x, weights = int8(rng, *shape, cin), int8(rng, window.height * window.width * cin, cout)
        errors = int8(rng, shape[0], *window.output(*shape[1:]), cout)
        flat = errors.reshape(-1, cout)
        inner = int((convolution.forward(x, weights, window) * flat).sum())
        back = convolution.backward(errors, weights, window, shape[1:])
        assert int((back * x.reshape(-1, cin)).sum()) == inner
        assert int((convolution.gradient(x, flat, window) * weights).sum()) == inner


def test_backward_macs_without_the_zeros_of_a_step() -> None:
    for kernel, step, pad, size in every(range(1, 8), (1, 2), range(7), (1, 2, 5, 8)):
        if pad >= kernel:
            continue
        for window, shape in ((Window(kernel, 3, step, 2, pad, 1), (size, 4)),
                              (Window(2, kernel, 1, step, 0, pad), (3, size))):
            macs = convolution.backward_macs(3, shape, window, 5, 7)
            assert macs == 3 * 5 * 7 * slow_macs(shape, window)
            if window.step_y == window.step_x == 1:
                assert macs == 3 * 5 * 7 * shape[0] * shape[1] * window.height * window.width
    assert convolution.backward_macs(2, (5, 5), Window(1, 1, 2, 2), 1, 1) == 2 * 9
