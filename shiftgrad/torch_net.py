"""A :class:`~shiftgrad.models.Network` as a float module of PyTorch; names and layouts are the exported weights'.

It computes what the machine does, without the machine's rounding: the same inputs, the same Fixup blocks, the same
average over an image, which is a sum times a power of two. PyTorch is the extra ``torch``.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from golden.vector import average_shift
from shiftgrad import checkpoint as checkpoints
from shiftgrad.draft import PIXEL_EXPONENT
from shiftgrad.images import Images, mantissas
from shiftgrad.models import Block, Conv, Dense, GlobalAverage, Layer, MaxPool, Network, NetworkError, Shape
from shiftgrad.weights import floats

__all__ = ["FixupBlock", "FloatNet", "from_checkpoint", "inputs", "predictions"]


def inputs(images: Images, shape: Shape, *, centred: bool) -> torch.Tensor:
    """uint8 ``images`` [n, height * width * channels] as the machine sees them: [n, channels, height, width].

    Pixel p becomes floor(p / 2) / 128 or, centred, (p - 128) / 128, at least -127 / 128.
    """
    values = np.ldexp(mantissas(images, centred).astype(np.float32), PIXEL_EXPONENT)
    return torch.from_numpy(np.ascontiguousarray(values.reshape(-1, *shape).transpose(0, 3, 1, 2)))


def predictions(net: nn.Module, x: torch.Tensor, batch: int = 256) -> NDArray[np.int64]:
    """The class of every sample of ``x``; ``net`` is put into evaluation mode."""
    net.eval()
    with torch.inference_mode():
        found: NDArray[np.int64] = torch.cat([net(part).argmax(dim=1) for part in x.split(batch)]).numpy()
    return found


class _Conv(nn.Conv2d):
    """A convolution whose bias may be one scalar for all channels."""

    def __init__(self, layer: Conv, shape: Shape) -> None:
        super().__init__(shape[2], layer.channels, layer.kernel, layer.step, layer.pad or 0, bias=False)
        self.relu = layer.relu
        if layer.bias:
            self.bias = nn.Parameter(torch.zeros(layer.channels if layer.bias == "channel" else 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.conv2d(x, self.weight, None, self.stride, self.padding)
        if self.bias is not None:
            y = y + self.bias.view(1, -1, 1, 1)
        return functional.relu(y) if self.relu else y


class _Dense(nn.Linear):
    """A dense layer on whatever comes in, flattened in the order channel, line, pixel."""

    def __init__(self, layer: Dense, shape: Shape) -> None:
        super().__init__(math.prod(shape), layer.units, bias=layer.bias)
        self.relu = layer.relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x.flatten(1))
        return functional.relu(y) if self.relu else y


class _Average(nn.Module):
    """Sum over an image times 2^-round(log2 pixels)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.factor = 2.0 ** -average_shift(shape[0] * shape[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(dim=(2, 3), keepdim=True) * self.factor


class FixupBlock(nn.Module):
    """y = relu(m * conv2(relu(conv1(x + b1a) + b1b) + b2a) + b2b + shortcut(x)); padding stays zero."""

    def __init__(self, layer: Block, shape: Shape) -> None:
        super().__init__()
        self.channels, self.step = layer.channels, layer.step
        self.conv1 = nn.Conv2d(shape[2], layer.channels, 3, layer.step, 1, bias=False)
        self.conv2 = nn.Conv2d(layer.channels, layer.channels, 3, 1, 1, bias=False)
        self.shortcut = None
        if layer.shortcut == "conv":
            self.shortcut = nn.Conv2d(shape[2], layer.channels, 1, layer.step, bias=False)
        for vector in layer.vectors(shape):
            self.register_parameter(vector.name.split(".")[1], nn.Parameter(torch.full((1,), vector.value)))

    def branch(self, x: torch.Tensor) -> torch.Tensor:
        """z, before the multiplier."""
        h = functional.relu(self.conv1(x + self.b1a) + self.b1b)
        z: torch.Tensor = self.conv2(h + self.b2a)
        return z

    def skip(self, x: torch.Tensor) -> torch.Tensor:
        """shortcut(x): itself, its subsample with channels of zeros behind, or a 1 x 1 convolution."""
        if self.shortcut is not None:
            y: torch.Tensor = self.shortcut(x)
            return y
        x = x[:, :, ::self.step, ::self.step]
        return functional.pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.m * self.branch(x) + self.b2b + self.skip(x))


class FloatNet(nn.Module):
    """``network`` in float; takes [n, channels, height, width] (:func:`inputs`), gives logits [n, classes].

    Its ``state_dict`` has the names and shapes of :func:`shiftgrad.weights.floats`.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        for index, (layer, shape) in enumerate(network.steps()):
            try:
                self.add_module(layer.name, _module(layer, shape if index else network.input_shape))
            except KeyError:
                raise NetworkError(f"layer {layer.name}: a PyTorch module cannot have a layer of that name") from None

    def load_weights(self, values: dict[str, NDArray[Any]]) -> None:
        """Parameters from arrays, by name; all of them and no others."""
        self.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in values.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.network.layers:
            x = self.get_submodule(layer.name)(x)
        return x.flatten(1)


def _module(layer: Layer, shape: Shape) -> nn.Module:
    match layer:
        case Conv():
            return _Conv(layer, shape)
        case Dense():
            return _Dense(layer, shape)
        case Block():
            return FixupBlock(layer, shape)
        case MaxPool():
            return nn.MaxPool2d(2)
        case GlobalAverage():
            return _Average(shape)
    raise TypeError(f"no module for a {type(layer).__name__}")


def from_checkpoint(path: Path) -> FloatNet:
    """The network of a checkpoint with its weights."""
    saved = checkpoints.load(path)
    net = FloatNet(saved.network)
    net.load_weights(dict(floats(saved.network, saved.state)))
    return net
