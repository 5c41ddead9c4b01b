"""The layers a network is made of: their options, output shapes and parameters, with nothing about how they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from golden.convolution import Window
from shiftgrad.isa import KERNEL_MAX
from shiftgrad.parameters import Vector, Weights

__all__ = ["Block", "Conv", "Dense", "GlobalAverage", "Layer", "MaxPool", "NetworkError", "Shape", "Vector", "Weights",
           "ZERO_RANGE", "is_size"]

Shape = tuple[int, int, int]  # height, width, channels
BIASES = (None, "channel", "scalar")
SHORTCUTS = ("identity", "subsample", "conv")
ZERO_RANGE = 0.25  # of He's deviation: what the exponent of a tensor that starts at zero is made for
ZERO_RANGES = 2.0 ** -10, 4.0  # the least and the most of it


class NetworkError(ValueError):
    """A network that makes no sense; the message names the layer."""


def is_size(value: object) -> bool:
    """Whether ``value`` is an integer from 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What every layer has.

    Parameters
    ----------
    name : unique in its network; prefix of its tensors' names
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise NetworkError(f"a layer's name must be an identifier, got {self.name!r}")

    def output(self, shape: Shape) -> Shape:
        """Shape of the output for an input of ``shape``; ``NetworkError`` when it cannot be."""
        raise NotImplementedError

    def weights(self, shape: Shape, blocks: int) -> list[Weights]:
        """Weight tensors for an input of ``shape`` in a network of ``blocks`` residual blocks."""
        return []

    def vectors(self, shape: Shape) -> list[Vector]:
        """Biases and scalars."""
        return []

    def _error(self, message: str) -> NetworkError:
        return NetworkError(f"layer {self.name}: {message}")

    def _check_size(self, field: str) -> None:
        if not is_size(value := getattr(self, field)):
            raise self._error(f"{field} must be an integer from 1, got {value!r}")

    def _check_range(self, field: str) -> None:
        value, (least, most) = getattr(self, field), ZERO_RANGES
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
            raise self._error(f"{field} must be a number from {least} to {most:g}, got {value!r}")

    def _check_choice(self, field: str, choices: tuple[object, ...]) -> None:
        value = getattr(self, field)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise self._error(f"{field} must be one of {choices}, got {value!r}")

    def _check_flags(self, *fields: str) -> None:
        for field in fields:
            if not isinstance(value := getattr(self, field), bool):
                raise self._error(f"{field} must be True or False, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Dense(Layer):
    """A fully connected layer: y = relu(x . W + bias), W of shape [inputs, units].

    On an image it is a kernel as large as that, of at most 7 x 7; as the first layer it takes any image.

    Parameters
    ----------
    units : outputs, from 1
    relu : negative results become 0
    bias : add a 16-bit bias to every output
    zero : start W at zero instead of at He values
    zero_range : then its exponent is made for so much of He's deviation
    """

    units: int
    relu: bool = False
    bias: bool = True
    zero: bool = False
    zero_range: float = ZERO_RANGE

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_size("units")
        self._check_range("zero_range")
        self._check_flags("relu", "bias", "zero")

    def output(self, shape: Shape) -> Shape:
        if max(shape[:2]) > KERNEL_MAX:
            raise self._error(f"a Dense behind another layer takes images of at most {KERNEL_MAX} x {KERNEL_MAX}, got "
                              f"{shape[0]} x {shape[1]}: put a MaxPool, a Conv of step 2 or a GlobalAverage before it")
        return 1, 1, self.units

    def weights(self, shape: Shape, blocks: int) -> list[Weights]:
        return [Weights(name=f"{self.name}.weight", inputs=shape[2], outputs=self.units,
                        window=Window(shape[0], shape[1]), gain=self.zero_range if self.zero else 1.0, zero=self.zero)]

    def vectors(self, shape: Shape) -> list[Vector]:
        return [Vector(name=f"{self.name}.bias", size=self.units)] if self.bias else []


@dataclass(frozen=True, kw_only=True)
class Conv(Layer):
    """A convolution: y = relu(conv(x, W) + bias), W of shape [kernel * kernel * channels in, channels].

    Parameters
    ----------
    channels : outputs, from 1
    kernel : side of the kernel, 1 to 7
    step : pixels from one output to the next in both directions, 1 or 2
    pad : pixels of zeros around an image, below ``kernel``; half the kernel when not given
    relu : negative results become 0
    bias : a 16-bit bias for every ``channel``, one ``scalar`` for all (its learning rate is an eighth), or None
    zero : start W at zero instead of at He values
    zero_range : then its exponent is made for so much of He's deviation
    """

    channels: int
    kernel: int = 3
    step: int = 1
    pad: int | None = None
    relu: bool = False
    bias: Literal["channel", "scalar"] | None = "channel"
    zero: bool = False
    zero_range: float = ZERO_RANGE

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_size("channels")
        self._check_range("zero_range")
        self._check_choice("kernel", tuple(range(1, KERNEL_MAX + 1)))
        self._check_choice("step", (1, 2))
        self._check_choice("bias", BIASES)
        self._check_flags("relu", "zero")
        if self.pad is None:
            object.__setattr__(self, "pad", self.kernel // 2)
        self._check_choice("pad", tuple(range(self.kernel)))

    @property
    def window(self) -> Window:
        """How the kernel moves."""
        assert self.pad is not None
        return Window(self.kernel, self.kernel, self.step, self.step, self.pad, self.pad)

    def output(self, shape: Shape) -> Shape:
        height, width = self.window.output(*shape[:2])
        if not height or not width:
            raise self._error(f"a kernel of {self.kernel} x {self.kernel} with {self.pad} pixels of padding needs "
                              f"larger images, got {shape[0]} x {shape[1]}: use a smaller kernel or more padding")
        return height, width, self.channels

    def weights(self, shape: Shape, blocks: int) -> list[Weights]:
        return [Weights(name=f"{self.name}.weight", inputs=shape[2], outputs=self.channels, window=self.window,
                        gain=self.zero_range if self.zero else 1.0, zero=self.zero)]

    def vectors(self, shape: Shape) -> list[Vector]:
        if self.bias is None:
            return []
        scalar = self.bias == "scalar"
        return [Vector(name=f"{self.name}.bias", size=1 if scalar else self.channels, scalar=scalar)]


@dataclass(frozen=True, kw_only=True)
class Block(Layer):
    """A Fixup residual block; b1a, b1b, b2a, b2b and m are scalars whose learning rate is an eighth.

    y = relu(m * conv2(relu(conv1(x + b1a) + b1b) + b2a) + b2b + shortcut(x)), both kernels 3 x 3, conv2 starting at
    zero and conv1 at He's deviation over the square root of the network's number of blocks.

    Parameters
    ----------
    channels : outputs, from 1
    step : of the first convolution, 1 or 2
    shortcut : ``identity``; ``subsample``, every ``step``-th line and pixel with channels of zeros behind; or ``conv``,
        a 1 x 1 convolution of the same step
    zero_range : the exponent of conv2 is made for so much of He's deviation
    """

    channels: int
    step: int = 1
    shortcut: str = "identity"
    zero_range: float = ZERO_RANGE

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_size("channels")
        self._check_range("zero_range")
        self._check_choice("step", (1, 2))
        self._check_choice("shortcut", SHORTCUTS)

    def output(self, shape: Shape) -> Shape:
        height, width = -(-shape[0] // self.step), -(-shape[1] // self.step)
        if self.shortcut == "identity" and (self.step, self.channels) != (1, shape[2]):
            raise self._error(f"an identity shortcut needs step 1 and the input's {shape[2]} channels, got step "
                              f"{self.step} and {self.channels}: use shortcut 'subsample' or 'conv'")
        if self.shortcut == "subsample" and self.channels < shape[2]:
            raise self._error(f"a subsampling shortcut needs at least the input's {shape[2]} channels, got "
                              f"{self.channels}: use shortcut 'conv'")
        return height, width, self.channels

    def weights(self, shape: Shape, blocks: int) -> list[Weights]:
        first, plain = Window(3, 3, self.step, self.step, 1, 1), Window(3, 3, 1, 1, 1, 1)
        found = [Weights(name=f"{self.name}.conv1.weight", inputs=shape[2], outputs=self.channels, window=first,
                         gain=max(1, blocks) ** -0.5),
                 Weights(name=f"{self.name}.conv2.weight", inputs=self.channels, outputs=self.channels, window=plain,
                         gain=self.zero_range, zero=True)]
        if self.shortcut == "conv":
            found.append(Weights(name=f"{self.name}.shortcut.weight", inputs=shape[2], outputs=self.channels,
                                 window=Window(1, 1, self.step, self.step)))
        return found

    def vectors(self, shape: Shape) -> list[Vector]:
        biases = [Vector(name=f"{self.name}.{role}", scalar=True) for role in ("b1a", "b1b", "b2a", "b2b")]
        return [*biases, Vector(name=f"{self.name}.m", scalar=True, value=1.0)]


@dataclass(frozen=True, kw_only=True)
class GlobalAverage(Layer):
    """The sum over an image's pixels times a power of two near one over their number, for every channel."""

    def output(self, shape: Shape) -> Shape:
        return 1, 1, shape[2]


@dataclass(frozen=True, kw_only=True)
class MaxPool(Layer):
    """The largest of every 2 x 2 pixels, for every channel; sides must be even."""

    def output(self, shape: Shape) -> Shape:
        if shape[0] % 2 or shape[1] % 2:
            raise self._error(f"2 x 2 pooling needs even sides, got {shape[0]} x {shape[1]}: use a Conv of step 2, or "
                              "change the padding before it")
        return shape[0] // 2, shape[1] // 2, shape[2]
