"""Utilisation of every instruction of a network's training step, by the machine's own counters."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shiftgrad.compiler import compile_network
from shiftgrad.config import MEMORIES, Config
from shiftgrad.device import Device
from shiftgrad.estimate import estimate
from shiftgrad.files import check_writable, write_text
from shiftgrad.host import Host
from shiftgrad.isa import Memory, Opcode
from shiftgrad.meters import Probe, read_counters
from shiftgrad.models import Network, fixup_resnet
from shiftgrad.plan import Plan
from shiftgrad.record import PHASES

__all__ = ["NETWORK", "run", "table"]

NETWORK = fixup_resnet((28, 28, 1), 10, depth=3, width=16)
BATCH = 8
WORK = ("FWD", "BWD", "GRAD", "VECTOR")  # counters of an instruction's cycles; its HALT is among the others
SUMMARY = {"3 x 3 forward": "FWD", "3 x 3 input gradient": "BWD", "3 x 3 weight gradient": "GRAD"}


def run(config: Config, out: Path, *, device: str = "verilator", network: Network = NETWORK, batch: int = BATCH,
        seed: int = 0, progress: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure a training step of ``network`` on random data in steady state; ``network.json`` and ``.txt`` in ``out``.

    Returns
    -------
    dict
        ``instructions`` (layer, phase, operation, shape, cycles, macs, utilization, estimate), ``products`` (the same
        summed over the convolutions of more than one tap, by phase), ``step`` (cycles, macs, utilization, counters)
    """
    from shiftgrad.session import open_device

    folder = out / config.name
    check_writable(folder / "network.json")
    progress(f"{config.name}: starting {device}")
    plan = compile_network(network, config, batch=batch, lr_shift=4)
    opened = open_device(device, config, compare=False if device == "verilator" else None)
    try:
        found = _measure(opened, plan, np.random.default_rng(seed), progress)
    finally:
        opened.close()
    found = {"config": config.name, "size": config.size, "device": device, "network": network.name, "batch": batch,
             "seed": seed, **found}
    write_text(folder / "network.json", json.dumps(found, indent=1) + "\n")
    write_text(folder / "network.txt", table(found) + "\n")
    return found


def _measure(device: Device, plan: Plan, generator: np.random.Generator, progress: Callable[[str], None]
             ) -> dict[str, Any]:
    host, probe = Host(device, plan), Probe(Host(device, plan))
    host.load(0)
    probe.load()
    for tensor in plan.tensors:  # layers that start at zero would give no errors, and no history, for some steps
        if tensor.memory == Memory.WGT:
            host.write_tensor(tensor.name, generator.integers(-40, 41, (tensor.rows, tensor.cols)).astype(np.int8))
    peak = plan.config.macs_per_cycle

    def load_batch() -> None:
        images = generator.integers(0, 128, (plan.batch, math.prod(plan.network.shape or ()))).astype(np.int8)
        host.load_batch(images, generator.integers(0, plan.network.classes, plan.batch))

    progress("a step to fill the exponent histories")
    load_batch()
    host.train_step()
    progress("the whole step")
    load_batch()
    device.clear_counters()
    host.train_step()
    counters = read_counters(device)
    cycles = sum(counters[f"{name}_CYCLES"] for name in (*WORK, "OTHER"))
    macs = sum(counters[f"{prefix}_MACS"] for prefix in PHASES.values())
    step = {"cycles": cycles, "macs": macs, "utilization": macs / (cycles * peak) if cycles else None,
            "estimate": estimate(plan).cycles(), "counters": dict(counters)}
    progress("instruction by instruction")
    load_batch()
    rows = []
    costs = {cost.instruction.pc: cost.cycles for cost in estimate(plan).costs}
    for instruction in probe.instructions:
        device.clear_counters()
        probe.run(instruction)
        counters = read_counters(device)
        cycles = sum(counters[f"{name}_CYCLES"] for name in WORK)
        macs = sum(counters[f"{prefix}_MACS"] for prefix in PHASES.values())
        taps = _taps(plan, instruction.operands, instruction.opcode)
        rows.append({"layer": instruction.layer, "phase": instruction.phase, "operation": instruction.opcode.name,
                     "shape": list(instruction.shape), "taps": taps, "cycles": cycles or None, "macs": macs,
                     "utilization": macs / (cycles * peak) if cycles else None, "estimate": costs[instruction.pc]})
    return {"instructions": rows, "products": _products(rows, peak), "step": step}


def _taps(plan: Plan, operands: dict[str, str] | Any, opcode: Opcode) -> int:
    """Taps of the kernel an instruction uses; 0 without one."""
    role = {Opcode.FWD: "b", Opcode.BWD: "b", Opcode.GRAD: "dst"}.get(opcode)
    tensor = plan.tensor(operands[role]) if role else None
    return tensor.height * tensor.width if tensor and MEMORIES[tensor.memory] == "wgt" else 0


def _products(rows: list[dict[str, Any]], peak: int) -> dict[str, Any]:
    """Convolutions of 3 x 3 taps together, by phase."""
    found = {}
    for name, operation in SUMMARY.items():
        chosen = [row for row in rows if row["operation"] == operation and row["taps"] == 9]
        cycles, macs = sum(row["cycles"] or 0 for row in chosen), sum(row["macs"] for row in chosen)
        found[name] = {"cycles": cycles, "macs": macs, "utilization": macs / (cycles * peak) if cycles else None,
                       "least": min((row["utilization"] for row in chosen if row["cycles"]), default=None)}
    return found


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def table(found: dict[str, Any]) -> str:
    """The figures as a text table."""
    head = f"{'layer':12}{'phase':10}{'op':6}{'m x n x k':>20}{'cycles':>11}{'estimate':>11}{'MACs':>13}{'of peak':>10}"
    lines = [f"{found['network']} on {found['config']} ({found['device']}), batch {found['batch']}", "", head]
    for row in found["instructions"]:
        shape, share = " x ".join(map(str, row["shape"])), _share(row["utilization"] if row["macs"] else None)
        lines.append(f"{row['layer']:12}{row['phase']:10}{row['operation']:6}{shape:>20}{row['cycles'] or 0:>11,}"
                     f"{row['estimate']:>11,}{row['macs']:>13,}{share:>10}")
    lines.append("")
    for name, entry in found["products"].items():
        lines.append(f"{name}: {_share(entry['utilization'])} of peak, least layer {_share(entry['least'])}")
    step = found["step"]
    lines.append(f"whole step: {step['cycles']:,} cycles (estimate {step['estimate']:,}), "
                 f"{_share(step['utilization'])} of peak")
    return "\n".join(lines)
