"""What the FP32 units compute, in NumPy: float32 operations in the units' order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.batchnorm.program import BACKWARD, FORWARD, MAGIC, PARTIALS, Kind, Operation, Register

__all__ = ["Floats", "add", "backward", "bits", "constants", "floats", "flush", "forward", "multiply"]

Floats = NDArray[np.float32]
SMALLEST = np.float32(2.0**-126)  # normal number


def bits(x: Any) -> NDArray[np.uint32]:
    """The words of float32 numbers; NaN is one word only."""
    x = np.asarray(x, np.float32)
    return np.where(np.isnan(x), np.uint32(0x7FC00000), x.view(np.uint32))


def floats(words: Any) -> Floats:
    """The numbers of 32-bit words."""
    return np.asarray(words, np.uint32).view(np.float32)


def flush(x: Any) -> Floats:
    """Subnormal numbers become zeros of their sign."""
    x = np.asarray(x, np.float32)
    return np.where(np.abs(x) < SMALLEST, np.copysign(np.float32(0), x), x)


def add(a: Any, b: Any) -> Floats:
    """a + b as :class:`experiments.batchnorm.fp32.Adder`."""
    with np.errstate(all="ignore"):
        return flush(flush(a) + flush(b))


def multiply(a: Any, b: Any) -> Floats:
    """a * b as :class:`experiments.batchnorm.fp32.Multiplier`."""
    a, b = flush(a), flush(b)
    with np.errstate(all="ignore"):
        product = a * b
        # too small after rounding to 24 bits without a limit of the exponent: a float64 holds the product exactly
        exact = a.astype(np.float64) * b.astype(np.float64)
        small = np.abs((np.where(np.abs(exact) < 2.0**-120, exact, 1) * 2.0**100).astype(np.float32)) < 2.0**-26
        return np.where(small, np.copysign(np.float32(0), product), product)


def constants(count: int, *, gamma: float, beta: float, epsilon: float = 1e-5) -> dict[int, np.float32]:
    """What is loaded before a tensor of ``count`` elements a channel."""
    values = {Register.RECIPROCAL: 1 / count, Register.EPSILON: epsilon, Register.HALF: 0.5, Register.THREE_HALVES: 1.5,
              Register.GAMMA: gamma, Register.BETA: beta}
    return {register: np.float32(value) for register, value in values.items()}


def forward(x: Floats, loaded: dict[int, np.float32]) -> tuple[Floats, Floats, dict[int, np.float32]]:
    """y, x_hat and the registers afterwards."""
    registers = _scalars(FORWARD, x, multiply(x, x), loaded)
    x_hat = multiply(add(x, -registers[Register.MEAN]), registers[Register.DEVIATION])
    y = add(multiply(x_hat, registers[Register.GAMMA]), registers[Register.BETA])
    return y, x_hat, registers


def backward(dy: Floats, x_hat: Floats, loaded: dict[int, np.float32]) -> tuple[Floats, dict[int, np.float32]]:
    """dx and the registers afterwards: S holds the gradient of beta, Q that of gamma."""
    registers = _scalars(BACKWARD, dy, multiply(dy, x_hat), loaded)
    centred = add(dy, -registers[Register.MEAN_S])
    dx = multiply(add(centred, -multiply(x_hat, registers[Register.MEAN_Q])), registers[Register.FACTOR])
    return dx, registers


def _partials(values: Floats) -> Floats:
    """Sums of every ninth value."""
    sums = np.full(PARTIALS, -0.0, np.float32)
    for start in range(0, len(values), PARTIALS):
        row = values[start:start + PARTIALS]
        sums[:len(row)] = add(sums[:len(row)], row)
    return sums


def _scalars(program: tuple[Operation, ...], first: Floats, second: Floats,
             loaded: dict[int, np.float32]) -> dict[int, np.float32]:
    """The registers after ``program``; its partial sums begin with the oldest in the unit's pipeline."""
    registers = dict(loaded)
    for base, values, oldest in ((Register.S, first, 0), (Register.Q, second, 1)):
        sums = np.roll(_partials(values), -(len(values) + oldest))
        registers |= {base + i: value for i, value in enumerate(sums)}
    for operation in program:
        registers[operation.target] = _result(operation.kind, registers[operation.a], registers[operation.b])
    return registers


def _result(kind: Kind, a: np.float32, b: np.float32) -> np.float32:
    if kind == Kind.SEED:
        word = (MAGIC - (int(a.view(np.uint32)) >> 1)) & 0xFFFFFFFF
        return np.uint32(word).view(np.float32)
    if kind == Kind.MULTIPLY:
        return np.float32(multiply(a, b))
    if kind == Kind.POSITIVE:
        a = np.float32(0) if np.signbit(a) else a
    return np.float32(add(a, -b if kind == Kind.SUBTRACT else b))
