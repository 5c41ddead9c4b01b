"""Initial parameters from a seed: He weights, zero biases and momenta, generator states."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shiftgrad.models import Network

__all__ = ["BIAS_EXPONENT", "MOMENTUM_EXPONENT", "generator_seeds", "initial_weights", "weight_exponent"]

BIAS_EXPONENT = -14
# A momentum starts at zero, so its exponent says nothing about its value: it only sets the first gradient's guard
# shift. Pixels and the loss error both have exponent -7, which makes their product's -14 the natural one.
MOMENTUM_EXPONENT = -14


def he_deviation(fan_in: int) -> float:
    """Standard deviation of He initialisation, sqrt(2 / fan_in)."""
    return math.sqrt(2 / fan_in)


def weight_exponent(fan_in: int, *, zero: bool = False) -> int:
    """The exponent a weight tensor keeps for ever: ceil(log2(4 std)) - 7.

    Parameters
    ----------
    fan_in : inputs of the layer
    zero : the layer starts at zero, so std is a quarter of He's
    """
    deviation = he_deviation(fan_in) / (4 if zero else 1)
    return math.ceil(math.log2(4 * deviation)) - 7


def initial_weights(network: Network, seed: int) -> dict[str, NDArray[np.int8]]:
    """He mantissas by layer name: normal / 2^exponent to nearest, saturated to +-127; [fan_in, units] int8.

    A layer's values depend on the seed and its position only, not on the sizes of other layers.
    """
    weights = {}
    for index, (layer, fan_in) in enumerate(network.fan_in()):
        values = np.zeros((fan_in, layer.units))
        if not layer.zero:
            values = np.random.default_rng([seed, index]).normal(0, he_deviation(fan_in), values.shape)
        mantissas = np.rint(np.ldexp(values, -weight_exponent(fan_in, zero=layer.zero)))
        weights[layer.name] = np.clip(mantissas, -127, 127).astype(np.int8)
    return weights


def generator_seeds(seed: int, lanes: int) -> NDArray[np.uint32]:
    """A non-zero 32-bit generator state for every lane."""
    return np.random.default_rng([seed, 0x4C465352]).integers(1, 1 << 32, lanes, dtype=np.uint32)
