"""Utilisation measured by the machine's own counters: single products, and a whole training step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shiftgrad import bench_plots, isa
from shiftgrad.bench_text import number, rows, share
from shiftgrad.compiler import compile_network
from shiftgrad.config import MEMORIES, Config
from shiftgrad.device import Device, DeviceError
from shiftgrad.estimate import estimate
from shiftgrad.host import Host
from shiftgrad.initialise import generator_seeds
from shiftgrad.isa import Flag, Memory, Opcode, Region, Status
from shiftgrad.meters import read_counters
from shiftgrad.models import mlp
from shiftgrad.packing import choose
from shiftgrad.plan import Instruction, Loading, Plan, Tensor
from shiftgrad.plots import CAUSES
from shiftgrad.record import PHASES, Totals

__all__ = ["markdown", "measure", "plots", "product_plan", "summary"]

OPERANDS = {  # phase -> operand: memory, and its rows and columns among m, n, k
    "forward": {"dst": (Memory.ACT, "mn"), "a": (Memory.ACT, "mk"), "b": (Memory.WGT, "kn")},
    "backward": {"dst": (Memory.ERR, "mn"), "a": (Memory.ERR, "mk"), "b": (Memory.WGT, "nk")},
    "gradient": {"dst": (Memory.WGT, "mn"), "a": (Memory.ACT, "km"), "b": (Memory.ERR, "kn"), "c": (Memory.MOM, "mn")},
}
DEEP = 256  # terms of a sum from which the array should hardly ever wait
STEP_NETWORK, STEP_BATCH, STEPS = (784, (128,), 10), 32, 3
Progress = Callable[[str], None]


def product_plan(config: Config, phase: str, m: int, n: int, k: int, scale: str = "delayed") -> Plan:
    """A program of one product, [m, k] by [k, n], as ``phase`` runs it; tensors side by side in their memories."""
    ends = dict.fromkeys(Memory, 0)
    size = {"m": m, "n": n, "k": k}
    tensors: list[Tensor] = []
    for role, (memory, axes) in OPERANDS[phase].items():
        rows, cols = size[axes[0]], size[axes[1]]
        stride = config.stride(cols)
        tensors.append(Tensor(name=role, id=len(tensors), memory=memory, base=ends[memory], stride=stride, planes=rows,
                              cols=cols, exponent=-7, layer="", live=(0, 1)))
        ends[memory] += rows * stride
    opcode = Opcode[PHASES[phase]]
    flags = Flag.DELAYED if scale == "delayed" else Flag(0)
    ids = {tensor.name: tensor.id for tensor in tensors}
    program = tuple(
        Instruction(pc=pc, program="train", layer="", phase=name, opcode=op, flags=used, imm=0, operands=operands,
                    shape=shape, word=isa.encode(op, flags=used, **ids_of))
        for pc, (name, op, used, operands, shape, ids_of) in enumerate((
            (phase, opcode, flags, {role: role for role in ids}, (m, n, k), ids),
            ("halt", Opcode.HALT, Flag(0), {}, (0, 0, 0), {}),
        ))
    )
    network = mlp(k, (), max(2, n), name=f"{phase}-{m}x{n}x{k}")
    return Plan(network=network, config=config, batch=m, lr_shift=0, scale=scale, packing=choose(network, config),
                tensors=tuple(tensors), instructions=program, entries={"train": 0},
                loading=Loading(second={}, why="for this is a single product"))


def measure(config: Config, *, device: str = "verilator", sizes: Sequence[int] = (64, 128),
            depths: Sequence[int] = (64, 128, 256), seed: int = 0, progress: Progress = print) -> dict[str, Any]:
    """Single products by phase, and the training step of an MLP with each scale mode.

    Parameters
    ----------
    sizes : values that m and n of the single products take
    depths : values that k takes
    seed : of the random data
    progress : called with one line at a time

    Returns
    -------
    dict
        ``products`` (per phase, shape), ``steps`` (per scale), each with cycles, macs, utilization, causes (cycles) and
        estimate (cycles); utilization is None on a device that counts no cycles
    """
    from shiftgrad.session import open_device

    generator = np.random.default_rng(seed)
    progress(f"{config.name}: starting {device}")
    opened = open_device(device, config, quiet=True)
    try:
        products = []
        for phase, (m, n, k) in itertools.product(OPERANDS, itertools.product(sizes, sizes, depths)):
            plan = product_plan(config, phase, m, n, k)
            if not _fits(plan):
                progress(f"{phase} {m} x {n} x {k}: does not fit {config.name}")
                continue
            products.append({"phase": phase, "m": m, "n": n, "k": k, **_product(opened, plan, generator)})
            progress(f"{phase} {m} x {n} x {k}: {share(products[-1]['utilization'])}")
        steps = []
        for scale in ("delayed", "current"):
            steps.append(_step(opened, config, scale, generator))
            progress(f"step of {steps[-1]['network']}, {scale}: {share(steps[-1]['utilization'])}")
        return {"config": config.name, "size": config.size, "device": device, "seed": seed, "products": products,
                "steps": steps, "compared_instructions": opened.compared_instructions, "mismatches": opened.mismatches}
    finally:
        opened.close()


def _fits(plan: Plan) -> bool:
    return all(plan.used_words(memory) <= plan.config.words(MEMORIES[memory]) for memory in Memory)


def _product(device: Device, plan: Plan, generator: np.random.Generator) -> dict[str, Any]:
    """Measure the plan's program in steady state: once for the exponent history, once counted."""
    host = Host(device, plan)
    program = np.array(plan.program, np.uint64).astype("<u8").view("<u4").astype(np.uint32)
    device.write(plan.config.address(Region.PROGRAM), program)
    table = np.array([tensor.descriptor() for tensor in plan.tensors], np.uint32)
    device.write(plan.config.address(Region.TABLE), table.reshape(-1))
    device.write(isa.LFSR_BASE, generator_seeds(0, plan.config.size))
    for tensor in plan.tensors:
        values = generator.integers(-127, 128, (tensor.rows, tensor.cols)).astype(np.int8)
        host.write_tensor(tensor.name, values)
    for _ in range(2):
        device.clear_counters()
        status = Status(device.run(0))
        if status != Status.HALTED:
            raise DeviceError(f"{plan.network.name}: wanted HALTED, got {status.name}")
    counters = read_counters(device)
    phase = plan.instructions[0].phase
    prefix = PHASES[phase]
    return _figures(plan.config, counters[f"{prefix}_CYCLES"], counters[f"{prefix}_MACS"], counters,
                    estimate(plan).costs[0].cycles)


def _figures(config: Config, cycles: int, macs: int, counters: dict[str, int], expected: int) -> dict[str, Any]:
    return {"cycles": cycles or None, "macs": macs,
            "utilization": macs / (cycles * config.macs_per_cycle) if cycles else None,
            "causes": {cause.lower(): counters[f"{cause}_CYCLES"] for cause in CAUSES}, "estimate": expected}


def _step(device: Device, config: Config, scale: str, generator: np.random.Generator) -> dict[str, Any]:
    """Measure whole training steps on random data, after one that fills the histories; all figures are of one step."""
    inputs, hidden, classes = STEP_NETWORK
    plan = compile_network(mlp(inputs, hidden, classes), config, batch=STEP_BATCH, lr_shift=4, scale=scale)
    host = Host(device, plan)
    host.load(0)
    for index in range(STEPS + 1):
        images = generator.integers(0, 256, (STEP_BATCH, inputs), dtype=np.uint8)
        host.load_batch(images, generator.integers(0, classes, STEP_BATCH))
        if index == 1:
            device.clear_counters()
        host.train_step()
    totals = Totals(counters={name: value // STEPS for name, value in read_counters(device).items()}, metered=STEPS)
    expected = estimate(plan)
    figures = _figures(config, totals.cycles, totals.macs, totals.counters, expected.cycles())
    cycles = {name: totals.counters[f"{prefix}_CYCLES"] for name, prefix in PHASES.items()}
    guess = expected.phases()
    guess["gradient"] = guess.pop("weights") + guess.pop("bias")
    return {"phase": "step", "scale": scale, "network": plan.network.name, "batch": STEP_BATCH, **figures,
            "phases": {name: {"cycles": cycles[name] or None, "macs": totals.counters[f"{prefix}_MACS"],
                              "utilization": totals.utilisation(config.macs_per_cycle)[name], "estimate": guess[name]}
                       for name, prefix in PHASES.items()}}


# --- text -----------------------------------------------------------------------------------------


def summary(found: dict[str, Any]) -> list[str]:
    """The figures that count, a line each."""
    lines = []
    for phase in OPERANDS:
        deep = [p["utilization"] for p in found["products"]
                if p["phase"] == phase and p["k"] >= DEEP and p["utilization"] is not None]
        if deep:
            lines.append(f"{phase} products with k >= {DEEP}, T = {found['size']}: {share(min(deep))} of peak or more")
    lines += [f"step of {step['network']}, batch {step['batch']}, {step['scale']}, T = {found['size']}: "
              f"{share(step['utilization'])} of peak" for step in found["steps"]]
    return lines


def _row(name: str, entry: dict[str, Any]) -> list[str]:
    shape = f"{entry['m']} x {entry['n']} x {entry['k']}" if "m" in entry else ""
    causes = entry.get("causes", {})
    total = sum(causes.values())
    return [name, shape, number(entry["macs"]), number(entry["cycles"]), number(entry["estimate"]),
            share(entry["utilization"]), *(share(causes[c.lower()] / total) if total else "" for c in CAUSES)]


def markdown(found: dict[str, Any]) -> str:
    """The figures as tables; causes are shares of all busy cycles, those of HALT included."""
    head = ["", "m x n x k", "MACs", "cycles", "estimate", "of peak", *(c.lower() for c in CAUSES)]
    parts = [f"{found['config']} on {found['device']}, seed {found['seed']}; "
             f"{found['compared_instructions']:,} instructions compared, {found['mismatches']} mismatches.",
             rows(head, [_row(entry["phase"], entry) for entry in found["products"]])]
    for step in found["steps"]:
        parts.append(f"Training step of {step['network']}, batch {step['batch']}, scale {step['scale']}:")
        parts.append(rows(head, [*(_row(name, entry) for name, entry in step["phases"].items()), _row("step", step)]))
    return "\n\n".join(parts)


def plots(found: dict[str, Any]) -> dict[str, str]:
    """Charts by name, SVG."""
    shares = [(f"{p['phase']} {p['m']} x {p['n']} x {p['k']}", p["phase"], p["utilization"] or 0)
              for p in found["products"]]
    causes = [(f"step, {step['scale']}", step["causes"]) for step in found["steps"]]
    return {"products": bench_plots.shares(shares), "products-causes": bench_plots.causes(causes)}
