"""Initial parameters from a seed: He and Fixup weights, biases, scalars, generator states."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from shiftgrad.models import Network, Weights

__all__ = ["BIAS_EXPONENT", "MOMENTUM_EXPONENT", "generator_seeds", "initial_vectors", "initial_weights",
           "weight_exponent"]

BIAS_EXPONENT = -14  # of biases and scalars
# A momentum starts at zero, so its exponent says nothing about its value: it only sets the first gradient's guard
# shift. Pixels and the loss error both have exponent -7, which makes their product's -14 the natural one.
MOMENTUM_EXPONENT = -14


def weight_exponent(weights: Weights) -> int:
    """The exponent a weight tensor keeps for ever: ceil(log2(4 std)) - 7."""
    return math.ceil(math.log2(4 * weights.deviation)) - 7


def initial_weights(network: Network, seed: int) -> dict[str, NDArray[np.int8]]:
    """Mantissas by tensor name: normal / 2^exponent to nearest, saturated to +-127; [fan_in, outputs] int8.

    A tensor's values depend on the seed, its position and its deviation only, not on the sizes of others.
    """
    found = {}
    for index, weights in enumerate(network.weights()):
        values = np.zeros((weights.fan_in, weights.outputs))
        if not weights.zero:
            values = np.random.default_rng([seed, index]).normal(0, weights.deviation, values.shape)
        mantissas = np.rint(np.ldexp(values, -weight_exponent(weights)))
        found[weights.name] = np.clip(mantissas, -127, 127).astype(np.int8)
    return found


def initial_vectors(network: Network) -> dict[str, NDArray[np.int16]]:
    """Mantissas by tensor name, [1, size] int16: zero biases, multipliers of one."""
    return {v.name: np.full((1, v.size), round(math.ldexp(v.value, -BIAS_EXPONENT)), np.int16)
            for v in network.vectors()}


def generator_seeds(seed: int, lanes: int) -> NDArray[np.uint32]:
    """A non-zero 32-bit generator state for every lane."""
    return np.random.default_rng([seed, 0x4C465352]).integers(1, 1 << 32, lanes, dtype=np.uint32)
