"""The scalar part of batch normalisation: operations on FP32 registers, and when each is issued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from experiments.batchnorm.fp32 import Adder, Multiplier

__all__ = ["BACKWARD", "FORWARD", "MAGIC", "PARTIALS", "Kind", "Operation", "Register", "cycles"]

PARTIALS = Adder.latency  # an adder fed with its own result keeps so many sums
MAGIC = 0x5F3759DF  # this less half of a number's word is the word of about its reciprocal square root
NEWTON = 3  # steps, each of which doubles the number of right bits


class Register(IntEnum):
    """Registers: nine partial sums from S up and from Q up, later the sums in the first ones; constants; results."""

    S = 0  # of x, or of the errors (the gradient of beta)
    Q = 9  # of x * x, or of the errors times x_hat (the gradient of gamma)
    RECIPROCAL = 18  # 1 / N
    EPSILON = 19
    HALF = 20
    THREE_HALVES = 21
    GAMMA = 22
    BETA = 23
    MEAN = 24
    DEVIATION = 25  # 1 / sqrt(variance + epsilon)
    MEAN_S = 26
    MEAN_Q = 27
    FACTOR = 28  # gamma / sqrt(variance + epsilon)
    A = 29
    B = 30


class Kind(IntEnum):
    """What an operation does with registers a and b."""

    ADD = 0  # a + b
    SUBTRACT = 1  # a - b
    POSITIVE = 2  # max(a, 0) + b
    MULTIPLY = 3  # a * b
    SEED = 4  # MAGIC - (a >> 1), on words


# from the cycle an operation is issued to the one in which its result can be read
LATENCY = {Kind.ADD: Adder.latency + 3, Kind.SUBTRACT: Adder.latency + 3, Kind.POSITIVE: Adder.latency + 3,
           Kind.MULTIPLY: Multiplier.latency + 3, Kind.SEED: 3}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """``target`` = ``kind`` of ``a`` and ``b``; the next one is issued ``wait`` + 1 cycles later."""

    kind: Kind
    target: int
    a: int
    b: int
    wait: int = 0


def _sums() -> list[Operation]:
    """Both sums from their partial sums: the first half of them plus the other one, until there is one."""
    left, found = PARTIALS, []
    while left > 1:
        half = -(-left // 2)
        found += [Operation(kind=Kind.ADD, target=base + i, a=base + i, b=base + half + i)
                  for i in range(left - half) for base in (Register.S, Register.Q)]
        left = half
    return found


def _lines(text: str) -> list[Operation]:
    """Operations from lines such as ``MEAN MULTIPLY S RECIPROCAL``."""
    words = (line.split() for line in text.strip().splitlines())
    return [Operation(kind=Kind[kind], target=Register[target], a=Register[a], b=Register[b])
            for target, kind, a, b in words]


def _scheduled(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Their waits: in order, as early as operands are there and the one write port is free."""
    ready: dict[int, int] = {}  # cycle from which a register can be read
    found: list[Operation] = []
    now = 0
    for operation in operations:
        latency = LATENCY[operation.kind]
        earliest = max(ready.get(operation.a, 0), ready.get(operation.b, 0), ready.get(operation.target, 0))
        issue = max(now, earliest)
        while issue + latency in ready.values():
            issue += 1
        if found:
            found[-1] = replace(found[-1], wait=issue - now)
        ready[operation.target] = issue + latency
        found.append(operation)
        now = issue + 1
    return (*found[:-1], replace(found[-1], wait=max(ready.values()) - now))


def cycles(program: Sequence[Operation]) -> int:
    """Cycles from the first operation's issue until the last result is there."""
    return sum(operation.wait + 1 for operation in program)


# variance = E[x^2] - E[x]^2; y <- y * (3/2 - v / 2 * y^2)
FORWARD = _scheduled(_sums() + _lines("""
    MEAN MULTIPLY S RECIPROCAL
    A MULTIPLY Q RECIPROCAL
    B MULTIPLY MEAN MEAN
    A SUBTRACT A B
    A POSITIVE A EPSILON
    DEVIATION SEED A A
    A MULTIPLY A HALF
""") + NEWTON * _lines("""
    B MULTIPLY DEVIATION DEVIATION
    B MULTIPLY B A
    B SUBTRACT THREE_HALVES B
    DEVIATION MULTIPLY DEVIATION B
"""))
BACKWARD = _scheduled(_sums() + _lines("""
    FACTOR MULTIPLY GAMMA DEVIATION
    MEAN_S MULTIPLY S RECIPROCAL
    MEAN_Q MULTIPLY Q RECIPROCAL
"""))
