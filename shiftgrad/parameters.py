"""What a layer learns: weight tensors, biases and scalars, with what their first values depend on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from golden.convolution import Window

__all__ = ["Vector", "Weights"]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A weight tensor, [height * width * inputs, outputs]; rows are taps in line order, a tap's channels together.

    Parameters
    ----------
    name : ``layer.role``
    inputs, outputs : channels
    window : kernel size, steps and padding
    gain : factor on He's standard deviation
    zero : starts at zero
    """

    name: str
    inputs: int
    outputs: int
    window: Window = Window()
    gain: float = 1.0
    zero: bool = False

    @property
    def fan_in(self) -> int:
        """Products an output is the sum of."""
        return self.window.height * self.window.width * self.inputs

    @property
    def momentum(self) -> str:
        """Name of its momentum."""
        return f"{self.name.removesuffix('weight')}momentum"

    @property
    def deviation(self) -> float:
        """Standard deviation at the start, or of what its exponent is made for when it starts at zero."""
        return math.sqrt(2 / self.fan_in) * self.gain


@dataclass(frozen=True, kw_only=True)
class Vector:
    """A 16-bit bias of ``size`` channels or, when that is 1 and ``scalar``, a scalar; ``value`` is where it starts."""

    name: str
    size: int = 1
    scalar: bool = False
    value: float = 0.0

    @property
    def momentum(self) -> str:
        """Name of its momentum."""
        return f"{self.name}_momentum"
