"""Networks in float64 that know nothing of the machine: layers as their definitions say, gradients by differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad.models import Block, Conv, Dense, GlobalAverage, Layer, MaxPool, Network, Window

Float = NDArray[np.float64]
Parameters = Mapping[str, Float]  # by tensor name, shaped as the machine has them


def convolution(x: Float, weights: Float, window: Window) -> Float:
    """x [n, h, w, c] by weights [kh * kw * c, o]: a sum over taps of shifted images."""
    n, h, w, c = x.shape
    lines, pixels = window.output(h, w)
    padded = np.pad(x, ((0, 0), (window.pad_y,) * 2, (window.pad_x,) * 2, (0, 0)))
    kernel = weights.reshape(window.height, window.width, c, -1)
    total = np.zeros((n, lines, pixels, kernel.shape[3]))
    for dy in range(window.height):
        for dx in range(window.width):
            seen = padded[:, dy:, dx:][:, ::window.step_y, ::window.step_x][:, :lines, :pixels]
            total += seen @ kernel[dy, dx]
    return total


def _relu(x: Float, on: bool) -> Float:
    return np.maximum(x, 0) if on else x


def _product(layer: Dense | Conv, x: Float, p: Parameters) -> Float:
    window = layer.window if isinstance(layer, Conv) else Window(*x.shape[1:3])
    bias = p.get(f"{layer.name}.bias", np.zeros((1, 1)))
    return _relu(convolution(x, p[f"{layer.name}.weight"], window) + bias[0], layer.relu)


def _block(layer: Block, x: Float, p: Parameters) -> Float:
    of = {name.removeprefix(f"{layer.name}."): value for name, value in p.items() if name.startswith(layer.name + ".")}
    first, plain = Window(3, 3, layer.step, layer.step, 1, 1), Window(3, 3, 1, 1, 1, 1)

    def inner(image: Float, scalar: str) -> Float:
        return image + of[scalar][0, 0]

    h = np.maximum(convolution(inner(x, "b1a"), of["conv1.weight"], first) + of["b1b"][0, 0], 0)
    z = convolution(inner(h, "b2a"), of["conv2.weight"], plain)
    if layer.shortcut == "conv":
        shortcut = convolution(x, of["shortcut.weight"], Window(1, 1, layer.step, layer.step))
    else:
        shortcut = np.zeros(z.shape)
        shortcut[..., :x.shape[3]] = x[:, ::layer.step, ::layer.step]
    return np.maximum(of["m"][0, 0] * z + of["b2b"][0, 0] + shortcut, 0)


def apply(layer: Layer, x: Float, p: Parameters) -> Float:
    """Output of one layer."""
    if isinstance(layer, Dense | Conv):
        return _product(layer, x, p)
    if isinstance(layer, Block):
        return _block(layer, x, p)
    if isinstance(layer, GlobalAverage):  # by the power of two that the machine divides by
        pixels = x.shape[1] * x.shape[2]
        return np.asarray(x.sum(axis=(1, 2), keepdims=True) * 2.0 ** -round(np.log2(pixels)))
    assert isinstance(layer, MaxPool)
    n, h, w, c = x.shape
    return np.asarray(x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4)))


def logits(network: Network, x: Float, p: Parameters) -> Float:
    """[n, classes] of samples [n, h, w, c]."""
    if isinstance(network.layers[0], Dense):
        x = x.reshape(len(x), 1, 1, -1)
    for layer in network.layers:
        x = apply(layer, x, p)
    return x.reshape(len(x), -1)


def loss(z: Float, labels: NDArray[Any]) -> float:
    """Cross-entropy summed over the samples, in nats."""
    z = z - z.max(axis=1, keepdims=True)
    return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]).sum())


def difference(function: Callable[[], float], values: Float, step: float = 1e-5) -> Float:
    """Gradient of ``function`` by every element of ``values``, which it reads, by central differences."""
    found = np.zeros_like(values)
    for index in np.ndindex(values.shape):
        kept, seen = values[index], []
        for sign in (1, -1):
            values[index] = kept + sign * step
            seen.append(function())
        values[index] = kept
        found[index] = (seen[0] - seen[1]) / (2 * step)
    return found
