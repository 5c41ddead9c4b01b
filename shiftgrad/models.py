"""Networks as data: what is to be trained, with nothing about how."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from golden.convolution import Window
from shiftgrad.layers import (
    ZERO_RANGE,
    Block,
    Conv,
    Dense,
    GlobalAverage,
    Layer,
    MaxPool,
    NetworkError,
    Shape,
    Vector,
    Weights,
    is_size,
)

__all__ = ["LAYERS", "Block", "Conv", "Dense", "GlobalAverage", "Layer", "MaxPool", "Network", "NetworkError",
           "Shape", "Vector", "Weights", "Window", "fixup_resnet", "lenet", "mlp"]

LAYERS: tuple[type[Layer], ...] = (Dense, Conv, Block, GlobalAverage, MaxPool)
SIDE_MAX = 256  # of an image


@dataclass(frozen=True, kw_only=True)
class Network:
    """A chain of layers; the last one's outputs are the logits of a softmax classifier.

    Parameters
    ----------
    name : used in reports and errors
    layers : first to last, at least one
    shape : (height, width, channels) of a sample; a plain vector of n elements is (1, 1, n)
    inputs : elements of a sample; enough for plain vectors, otherwise it follows from ``shape``
    """

    name: str
    layers: tuple[Layer, ...]
    shape: Shape | None = None
    inputs: int | None = None

    def __post_init__(self) -> None:
        self._check_input()
        if not isinstance(self.layers, tuple) or not self.layers:
            raise NetworkError(f"network {self.name}: layers must be a tuple of one or more, got {self.layers!r}")
        seen: set[str] = set()
        for index, layer in enumerate(self.layers):
            if not isinstance(layer, LAYERS):
                raise NetworkError(f"network {self.name}: layer {index} must be a "
                                   f"{', '.join(kind.__name__ for kind in LAYERS)}, got {type(layer).__name__}")
            if layer.name in seen:
                raise NetworkError(f"layer {layer.name}: names must be unique in network {self.name}, got it twice")
            seen.add(layer.name)
        self._check_last()

    def _check_input(self) -> None:
        shape, inputs = self.shape, self.inputs
        if shape is None:
            if not is_size(inputs):
                raise NetworkError(f"network {self.name}: inputs must be an integer from 1, got {inputs!r}")
            assert inputs
            object.__setattr__(self, "shape", (1, 1, inputs))
            return
        if not isinstance(shape, tuple) or len(shape) != 3 or not all(map(is_size, shape)) or max(shape[:2]) > SIDE_MAX:
            raise NetworkError(f"network {self.name}: shape must be (height, width, channels), integers from 1, the "
                               f"sides up to {SIDE_MAX}, got {shape!r}")
        if inputs not in (None, math.prod(shape)):
            raise NetworkError(f"network {self.name}: shape {shape} has {math.prod(shape)} inputs, got {inputs}")
        object.__setattr__(self, "inputs", math.prod(shape))

    def _check_last(self) -> None:
        *_, (last, shape) = self.steps()
        out = last.output(shape)
        if getattr(last, "relu", False) or isinstance(last, Block):
            raise NetworkError(f"layer {last.name}: the last layer gives logits: relu must be False, got True")
        if out[:2] != (1, 1):
            raise NetworkError(f"layer {last.name}: the last layer gives logits, 1 x 1 x classes: wanted a Dense or a "
                               f"GlobalAverage at the end, got outputs of {out[0]} x {out[1]} x {out[2]}")
        if out[2] < 2:
            raise NetworkError(f"layer {last.name}: a classifier needs at least 2 units, got {out[2]}")

    @property
    def input_shape(self) -> Shape:
        """(height, width, channels) of a sample."""
        assert self.shape
        return self.shape

    @property
    def elements(self) -> int:
        """Elements of a sample."""
        return math.prod(self.input_shape)

    @cached_property
    def classes(self) -> int:
        """Channels of the last layer."""
        *_, (last, shape) = self.steps()
        return last.output(shape)[2]

    def steps(self) -> Iterator[tuple[Layer, Shape]]:
        """Every layer with the shape of its input, first to last."""
        shape = self.input_shape
        for index, layer in enumerate(self.layers):
            if not index and isinstance(layer, Dense):
                shape = (1, 1, math.prod(shape))  # the host writes a sample as one pixel
            yield layer, shape
            shape = layer.output(shape)

    @property
    def kind(self) -> str:
        """What it is called on the command line, as its name says."""
        return self.name.split("-")[0]

    @cached_property
    def blocks(self) -> int:
        """Residual blocks."""
        return sum(isinstance(layer, Block) for layer in self.layers)

    def weights(self) -> list[Weights]:
        """Every weight tensor, first to last."""
        blocks = self.blocks
        return [weights for layer, shape in self.steps() for weights in layer.weights(shape, blocks)]

    def vectors(self) -> list[Vector]:
        """Every bias and scalar, first to last."""
        return [vector for layer, shape in self.steps() for vector in layer.vectors(shape)]

    @property
    def parameters(self) -> int:
        """Weights, biases and scalars together."""
        return sum(w.fan_in * w.outputs for w in self.weights()) + sum(v.size for v in self.vectors())


# --- ready-made -----------------------------------------------------------------------------------

def mlp(inputs: int, hidden: Sequence[int], classes: int, *, name: str | None = None) -> Network:
    """A multilayer perceptron: ReLU layers ``fc1``, ``fc2``, ... of ``hidden`` units, then ``classes`` logits."""
    sizes = (*hidden, classes)
    layers = tuple(Dense(name=f"fc{i}", units=units, relu=i < len(sizes)) for i, units in enumerate(sizes, start=1))
    return Network(name=name or "mlp-" + "-".join(map(str, (inputs, *sizes))), inputs=inputs, layers=layers)


def lenet(shape: Shape, classes: int, *, channels: tuple[int, int] = (8, 16)) -> Network:
    """Two 5 x 5 convolutions, each followed by 2 x 2 max pooling, and a dense classifier.

    The convolutions keep the size of an image (28 x 28, 8 x 8) or, where that would leave more pixels than a kernel
    can see (32 x 32), take no padding. A size that is odd after the first pooling (14 x 14) is not pooled again.
    """
    side = max(shape[:2])
    pad = 2 if side <= 28 else 0
    first = Conv(name="conv1", channels=channels[0], kernel=5, pad=pad, relu=True)
    second = Conv(name="conv2", channels=channels[1], kernel=5, pad=pad, relu=True)
    layers: list[Layer] = [first, MaxPool(name="pool1"), second]
    if all(size // 2 % 2 == 0 for size in shape[:2]):
        layers.append(MaxPool(name="pool2"))
    layers.append(Dense(name="fc", units=classes))
    return Network(name=f"lenet-{channels[0]}-{channels[1]}", shape=shape, layers=tuple(layers))


def fixup_resnet(shape: Shape, classes: int, *, depth: int = 3, width: int = 16, channels: Sequence[int] | None = None,
                 steps: Sequence[int] | None = None, shortcut: str = "subsample", zero_range: float = ZERO_RANGE
                 ) -> Network:
    """A residual network without normalisation: stem, Fixup blocks, global average, classifier that starts at zero.

    Parameters
    ----------
    shape : (height, width, channels) of a sample
    depth, width : number of blocks, in three stages as equal as can be of ``width``, 2 and 4 times as many channels
    channels : instead of those, channels of the stem and of every block
    steps : of every block; 2 where the channels grow, when not given
    shortcut : of blocks that change the shape, ``subsample`` or ``conv``
    zero_range : the exponents of the classifier and of every block's last convolution, which start at zero, are made
        for so much of He's deviation
    """
    if channels is None:
        if not is_size(depth) or not is_size(width):
            raise NetworkError(f"fixup_resnet: depth and width must be integers from 1, got {depth!r} and {width!r}")
        channels = (width, *(width << 3 * i // depth for i in range(depth)))
    if len(channels) < 2:
        raise NetworkError(f"fixup_resnet: channels must name the stem's and at least one block's, got {channels!r}")
    steps = steps or [2 if after > before else 1 for before, after in zip(channels, channels[1:], strict=False)]
    if len(steps) != len(channels) - 1:
        raise NetworkError(f"fixup_resnet: steps must be one a block, {len(channels) - 1}, got {len(steps)}")
    layers: list[Layer] = [Conv(name="stem", channels=channels[0], relu=True, bias="scalar")]
    for index, (before, after, step) in enumerate(zip(channels, channels[1:], steps, strict=False), start=1):
        kind = "identity" if (before, step) == (after, 1) else shortcut
        layers.append(Block(name=f"block{index}", channels=after, step=step, shortcut=kind, zero_range=zero_range))
    layers += [GlobalAverage(name="average"), Dense(name="fc", units=classes, zero=True, zero_range=zero_range)]
    return Network(name=f"fixup_resnet-{len(channels) - 1}x{'-'.join(map(str, dict.fromkeys(channels)))}", shape=shape,
                   layers=tuple(layers))
