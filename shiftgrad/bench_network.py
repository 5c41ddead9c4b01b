"""Utilisation of every instruction of a network's training step, by the machine's own counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from shiftgrad import bench_plots
from shiftgrad.bench_text import number, rows, share
from shiftgrad.compiler import compile_network
from shiftgrad.config import MEMORIES, Config
from shiftgrad.device import Device
from shiftgrad.estimate import estimate
from shiftgrad.host import Host
from shiftgrad.isa import Memory, Opcode
from shiftgrad.meters import Probe, read_counters
from shiftgrad.models import Network, fixup_resnet
from shiftgrad.plan import Plan
from shiftgrad.plots import CAUSES
from shiftgrad.record import PHASES

__all__ = ["NETWORK", "Load", "markdown", "measure", "plots", "summary", "whole_step"]

NETWORK = fixup_resnet((28, 28, 1), 10, depth=3, width=16)
BATCH = 8
WORK = ("FWD", "BWD", "GRAD", "VECTOR")  # counters of an instruction's cycles; its HALT is among the others
CLASSES = {**{prefix: name for name, prefix in PHASES.items()}, "LOSS": "loss"}  # of operations; the rest: vector unit
SUMMARY = {"3 x 3 forward": "FWD", "3 x 3 input gradient": "BWD", "3 x 3 weight gradient": "GRAD"}
Progress = Callable[[str], None]


class Load:
    """Random parameters, and random mini-batches, of a plan; the same for the same ``seed`` on every device."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self._generator = plan, np.random.default_rng(seed)

    def parameters(self, host: Host) -> None:
        """Weights away from zero: layers that start there would give no errors, and no history, for some steps."""
        host.load(0)
        for tensor in self.plan.tensors:
            if tensor.memory == Memory.WGT:
                values = self._generator.integers(-40, 41, (tensor.rows, tensor.cols))
                host.write_tensor(tensor.name, values.astype(np.int8))

    def batch(self, host: Host) -> None:
        """The next mini-batch."""
        network = self.plan.network
        images = self._generator.integers(0, 128, (self.plan.batch, network.elements)).astype(np.int8)
        host.load_batch(images, self._generator.integers(0, network.classes, self.plan.batch))


def measure(config: Config, *, device: str = "verilator", network: Network = NETWORK, batch: int = BATCH,
            seed: int = 0, progress: Progress = print) -> dict[str, Any]:
    """Measure a training step of ``network`` on random data in steady state.

    Returns
    -------
    dict
        ``instructions`` (layer, phase, operation, shape, cycles, macs, utilization, causes, estimate), ``products``
        (the same summed over the convolutions of more than one tap, by phase), ``classes`` (causes by class of
        operation), ``step`` (cycles, macs, utilization, counters)
    """
    from shiftgrad.session import open_device

    progress(f"{config.name}: starting {device}")
    plan = compile_network(network, config, batch=batch, lr_shift=4)
    opened = open_device(device, config, quiet=True)
    try:
        load = Load(plan, seed)
        step = whole_step(opened, load, progress)
        progress("instruction by instruction")
        instructions = _instructions(opened, load)
        compared = {"compared_instructions": opened.compared_instructions, "mismatches": opened.mismatches}
    finally:
        opened.close()
    return {"config": config.name, "size": config.size, "device": device, "network": network.name, "batch": batch,
            "seed": seed, "instructions": instructions, "products": _products(instructions, config.macs_per_cycle),
            "classes": _classes(instructions), "step": step, **compared}


def whole_step(device: Device, load: Load, progress: Progress) -> dict[str, Any]:
    """Counters of one step, after one that fills the exponent histories."""
    plan, host = load.plan, Host(device, load.plan)
    load.parameters(host)
    progress("a step to fill the exponent histories")
    load.batch(host)
    host.train_step()
    progress("the whole step")
    load.batch(host)
    device.clear_counters()
    host.train_step()
    counters = read_counters(device)
    cycles = sum(counters[f"{name}_CYCLES"] for name in (*WORK, "OTHER"))
    macs = sum(counters[f"{prefix}_MACS"] for prefix in PHASES.values())
    return {"cycles": cycles or None, "macs": macs, "utilization": _share(macs, cycles, plan),
            "estimate": estimate(plan).cycles(), "counters": dict(counters)}


def _share(macs: int, cycles: int, plan: Plan) -> float | None:
    return macs / (cycles * plan.config.macs_per_cycle) if cycles else None


def _instructions(device: Device, load: Load) -> list[dict[str, Any]]:
    """Every instruction of a step on its own."""
    plan, host = load.plan, Host(device, load.plan)
    probe = Probe(host)
    probe.load()
    load.batch(host)
    found = []
    costs = {cost.instruction.pc: cost.cycles for cost in estimate(plan).costs}
    for instruction in probe.instructions:
        device.clear_counters()
        probe.run(instruction)
        counters = read_counters(device)
        loss = counters["LOSS_CYCLES"] if instruction.opcode == Opcode.LOSS else 0
        cycles = sum(counters[f"{name}_CYCLES"] for name in WORK) + loss
        macs = sum(counters[f"{prefix}_MACS"] for prefix in PHASES.values())
        taps = _taps(plan, instruction.operands, instruction.opcode)
        found.append({"layer": instruction.layer, "phase": instruction.phase, "operation": instruction.opcode.name,
                      "shape": list(instruction.shape), "taps": taps, "cycles": cycles or None, "macs": macs,
                      "utilization": _share(macs, cycles, plan), "estimate": costs[instruction.pc],
                      "causes": {cause.lower(): counters[f"{cause}_CYCLES"] for cause in CAUSES}})
    return found


def _taps(plan: Plan, operands: dict[str, str] | Any, opcode: Opcode) -> int:
    """Taps of the kernel an instruction uses; 0 without one."""
    role = {Opcode.FWD: "b", Opcode.BWD: "b", Opcode.GRAD: "dst"}.get(opcode)
    tensor = plan.tensor(operands[role]) if role else None
    return tensor.height * tensor.width if tensor and MEMORIES[tensor.memory] == "wgt" else 0


def _products(instructions: list[dict[str, Any]], peak: int) -> dict[str, Any]:
    """Convolutions of 3 x 3 taps together, by phase."""
    found = {}
    for name, operation in SUMMARY.items():
        chosen = [row for row in instructions if row["operation"] == operation and row["taps"] == 9]
        cycles, macs = sum(row["cycles"] or 0 for row in chosen), sum(row["macs"] for row in chosen)
        found[name] = {"cycles": cycles, "macs": macs, "utilization": macs / (cycles * peak) if cycles else None,
                       "least": min((row["utilization"] for row in chosen if row["cycles"]), default=None)}
    return found


def _classes(instructions: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Causes by class of operation, those of the HALT behind each instruction included."""
    found: dict[str, Counter[str]] = {name: Counter() for name in (*CLASSES.values(), "vector unit")}
    for row in instructions:
        found[CLASSES.get(row["operation"], "vector unit")].update(row["causes"])
    return {name: dict(causes) for name, causes in found.items()}


# --- text -----------------------------------------------------------------------------------------


def summary(found: dict[str, Any]) -> list[str]:
    """The figures that count, a line each."""
    where = f"{found['network']}, batch {found['batch']}, T = {found['size']}"
    lines = [f"{name}, {where}: {share(entry['utilization'])} of peak, least layer {share(entry['least'])}"
             for name, entry in found["products"].items()]
    return [*lines, f"step of {where}: {share(found['step']['utilization'])} of peak, "
                    f"{number(found['step']['cycles'])} cycles"]


def markdown(found: dict[str, Any]) -> str:
    """The figures as tables."""
    head = ["layer", "phase", "operation", "m x n x k", "MACs", "cycles", "estimate", "of peak"]
    lines = [[row["layer"], row["phase"], row["operation"], " x ".join(map(str, row["shape"])), number(row["macs"]),
              number(row["cycles"]), number(row["estimate"]), share(row["utilization"] if row["macs"] else None)]
             for row in found["instructions"]]
    causes = [[name, *(number(entry[cause.lower()]) for cause in CAUSES)] for name, entry in found["classes"].items()]
    step = found["step"]
    return "\n\n".join((
        f"{found['network']} on {found['config']} ({found['device']}), batch {found['batch']}, seed {found['seed']}; "
        f"{found['compared_instructions']:,} instructions compared, {found['mismatches']} mismatches.",
        rows(head, lines), "Busy cycles by cause:", rows(["", *map(str.lower, CAUSES)], causes),
        f"Whole step: {number(step['cycles'])} cycles (estimate {step['estimate']:,}), "
        f"{share(step['utilization'])} of peak."))


def plots(found: dict[str, Any]) -> dict[str, str]:
    """Charts by name, SVG."""
    names = {prefix: name for name, prefix in PHASES.items()}
    shares = [(f"{row['layer']} {row['operation']} {' x '.join(map(str, row['shape']))}", names[row["operation"]],
               row["utilization"] or 0)
              for operation in names for row in found["instructions"] if row["operation"] == operation and row["macs"]]
    return {"network": bench_plots.shares(shares),
            "network-causes": bench_plots.causes(list(found["classes"].items()))}
