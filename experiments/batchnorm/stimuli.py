"""The same tensor through the netlists of both units: results checked, changes of nets counted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from amaranth.lib.wiring import Component

from experiments.batchnorm import model
from experiments.batchnorm.activity import Stimulus, simulate, transitions
from experiments.batchnorm.compare import shift_latencies
from experiments.batchnorm.shift import ShiftScaling
from experiments.batchnorm.unit import BatchNorm
from golden import numerics

__all__ = ["ELEMENTS", "batchnorm", "measure", "results", "shift"]

ELEMENTS = 1024
DEVIATION, SHIFT = 2000, 5  # of the accumulators; a shift that makes them fill int8


def shift(elements: int) -> tuple[ShiftScaling, Stimulus, list[int]]:
    """A unit, its inputs by cycle, the mantissas wanted."""
    x = np.round(np.random.default_rng(1).normal(size=elements) * DEVIATION).astype(np.int32)
    unit = ShiftScaling()
    inputs: list[dict[str, int]] = [{"shift": SHIFT, "clear": 1}, {}, {"clear": 0}]
    inputs += [{"valid": 1, "x": int(value)} for value in x]
    inputs += [{"valid": 0}] + [{}] * (ShiftScaling.RANGE_DELAY - 1) + [{"close": 1}, {"close": 0}]
    inputs += [{}] * (unit.range_latency + unit.latency)
    return unit, inputs, [int(q) & 255 for q in numerics.requantise(x, SHIFT)[0]]


def batchnorm(elements: int) -> tuple[BatchNorm, Stimulus, list[int]]:
    """The same for batch normalisation forward; the words of y wanted."""
    x = (np.random.default_rng(1).normal(size=elements) * DEVIATION).astype(np.float32)
    loaded = model.constants(elements, gamma=1.25, beta=-0.5)
    inputs: list[dict[str, int]] = [{"load": 1, "address": int(register), "value": int(model.bits(value))}
                                    for register, value in loaded.items()]
    inputs += [{"load": 0}, {}]
    stream = [{"x": int(word), "valid": 1, "last": int(i == elements - 1)} for i, word in enumerate(model.bits(x))]
    inputs += [*stream, {"valid": 0, "last": 0}] + [{}] * BatchNorm.scalar_cycles(backward=False)
    inputs += [stream[0] | {"normalise": 1}, *stream[1:], {"valid": 0, "last": 0}] + [{}] * BatchNorm.FORWARD_LATENCY
    return BatchNorm(), inputs, [int(word) for word in model.bits(model.forward(x, loaded)[0])]


def measure(progress: Callable[[str], None], elements: int = ELEMENTS) -> dict[str, float]:
    """Changes of nets an element of both units, in netlists whose results are right."""
    found = {}
    for name, (unit, inputs, wanted) in {"shift": shift(elements), "batchnorm": batchnorm(elements)}.items():
        found[name] = _changes(name, unit, inputs, wanted) / elements
        progress(f"{name}: {found[name]:.0f} changes of nets an element")
    return found


def results(name: str, inputs: Stimulus, rows: Sequence[dict[str, int]]) -> list[int]:
    """The mantissas or words of y among the outputs of every cycle."""
    if name == "batchnorm":
        return [row["y"] for row in rows if row["y_valid"]]
    first = next(i for i, change in enumerate(inputs) if change.get("valid"))
    count = sum(change.get("valid", 0) for change in inputs)
    return [row["q"] for row in rows[first + shift_latencies()[0]:]][:count]


def _changes(name: str, unit: Component, inputs: Stimulus, wanted: list[int]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        if results(name, inputs, simulate(unit, inputs, Path(folder))) != wanted:
            raise RuntimeError(f"{type(unit).__name__}: the netlist's results differ from the model's")
        with (Path(folder) / "nets.vcd").open() as lines:
            return transitions(lines)
