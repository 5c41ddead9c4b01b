"""The same training step on arrays of every size: what four times the multipliers bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from shiftgrad import bench_plots
from shiftgrad.bench_network import NETWORK, Load, whole_step
from shiftgrad.bench_text import number, rows, share
from shiftgrad.compiler import compile_network
from shiftgrad.config import Config

__all__ = ["BATCH", "markdown", "measure", "plots", "summary"]

BATCH = 4  # what fits the smallest of the machines


def measure(configs: Sequence[Config], *, device: str = "verilator", seed: int = 0,
            progress: Callable[[str], None] = print) -> dict[str, Any]:
    """``machines``: config, size, step (as of the network), and speedup over the one before, in cycles."""
    from shiftgrad.session import open_device

    machines: list[dict[str, Any]] = []
    for config in configs:
        progress(f"{config.name}: starting {device}")
        plan = compile_network(NETWORK, config, batch=BATCH, lr_shift=4)
        opened = open_device(device, config, quiet=True)
        try:
            step = whole_step(opened, Load(plan, seed), progress)
            before = machines[-1]["step"]["cycles"] if machines else None
            machines.append({"config": config.name, "size": config.size, "step": step,
                             "speedup": before / step["cycles"] if before else None,
                             "compared_instructions": opened.compared_instructions, "mismatches": opened.mismatches})
        finally:
            opened.close()
    return {"network": NETWORK.name, "batch": BATCH, "device": device, "seed": seed, "machines": machines}


def summary(found: dict[str, Any]) -> list[str]:
    """The figures that count, a line each."""
    pairs = zip(found["machines"], found["machines"][1:], strict=False)
    return [f"step of {found['network']}, batch {found['batch']}, T = {one['size']} to {two['size']}: "
            f"{two['speedup']:.2f} times fewer cycles" for one, two in pairs if two["speedup"]]


def markdown(found: dict[str, Any]) -> str:
    """The figures as a table."""
    head = ["machine", "cycles", "estimate", "of peak", "times faster", "compared", "mismatches"]
    lines = [[entry["config"], number(entry["step"]["cycles"]), number(entry["step"]["estimate"]),
              share(entry["step"]["utilization"]), f"{entry['speedup']:.2f}" if entry["speedup"] else "",
              number(entry["compared_instructions"]), number(entry["mismatches"])] for entry in found["machines"]]
    return f"Training step of {found['network']}, batch {found['batch']}, on {found['device']}:\n\n{rows(head, lines)}"


def plots(found: dict[str, Any]) -> dict[str, str]:
    """Charts by name, SVG; none on a device that counts no cycles."""
    machines = [entry for entry in found["machines"] if entry["step"]["cycles"]]
    if not machines:
        return {}
    return {"scaling": bench_plots.speedup([entry["size"] for entry in machines],
                                           [entry["step"]["cycles"] for entry in machines])}
