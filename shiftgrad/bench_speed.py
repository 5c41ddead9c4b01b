"""How fast the simulation is: cycles a second, and images a second beside the golden machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from shiftgrad.bench_network import NETWORK, Load
from shiftgrad.bench_text import number, rows
from shiftgrad.compiler import compile_network
from shiftgrad.config import Config
from shiftgrad.device import Device
from shiftgrad.host import Host
from shiftgrad.models import mlp
from shiftgrad.plan import Plan

__all__ = ["markdown", "measure", "plots", "summary"]

STEP_NETWORK, STEP_BATCH = mlp(784, (128,), 10), 32
NETWORK_BATCH = 4
STEPS = 2  # timed, after one that fills the exponent histories


def measure(config: Config, large: Config, *, seed: int = 0, progress: Callable[[str], None] = print
            ) -> dict[str, Any]:
    """Time training steps; seconds are those of a clock, and of this process's processor in brackets.

    Returns
    -------
    dict
        ``simulation``: runs with and without comparison of an MLP's step on ``config``; ``devices``: ``golden`` and
        ``verilator`` on the same steps of a Fixup ResNet on ``large``, ``ratio``: images a second, golden over
        simulated, both without comparison
    """
    plan = compile_network(STEP_NETWORK, config, batch=STEP_BATCH, lr_shift=4)
    simulation = [{"compared": compare, **_run(plan, "verilator", compare, seed, progress)[0]}
                  for compare in (False, True)]
    plan = compile_network(NETWORK, large, batch=NETWORK_BATCH, lr_shift=4)
    golden, one = _run(plan, "golden", False, seed, progress)
    simulated, other = _run(plan, "verilator", False, seed, progress)
    if differing := [name for name in one if not np.array_equal(one[name], other[name])]:
        raise RuntimeError(f"golden and simulated machine end with other {', '.join(differing)}")
    return {"config": config.name, "size": config.size, "network": STEP_NETWORK.name, "batch": STEP_BATCH,
            "simulation": simulation,
            "devices": {"config": large.name, "network": NETWORK.name, "batch": NETWORK_BATCH, "golden": golden,
                        "verilator": simulated, "ratio": golden["images_a_second"] / simulated["images_a_second"]}}


def _run(plan: Plan, device: str, compare: bool, seed: int, progress: Callable[[str], None]
         ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of the timed steps, and the state they end in."""
    from shiftgrad.session import open_device

    progress(f"{plan.network.name} on {plan.config.name}, {device}{', compared' * compare}")
    opened = open_device(device, plan.config, compare if device == "verilator" else None, quiet=True)
    try:
        host, load = Host(opened, plan), Load(plan, seed)
        load.parameters(host)
        load.batch(host)
        host.train_step()
        load.batch(host)
        before, wall, processor = _cycles(opened), time.perf_counter(), time.process_time()
        for _ in range(STEPS):
            host.train_step()
        seconds, busy = time.perf_counter() - wall, time.process_time() - processor
        cycles = _cycles(opened) - before
        return {"steps": STEPS, "cycles": cycles or None, "seconds": seconds, "processor_seconds": busy,
                "cycles_a_second": cycles / seconds if cycles else None,
                "cycles_a_processor_second": cycles / busy if cycles else None,
                "images_a_second": STEPS * plan.batch / seconds,
                "images_a_processor_second": STEPS * plan.batch / busy}, host.state()
    finally:
        opened.close()


def _cycles(device: Device) -> int:
    """Clock cycles so far; 0 on a device that counts none."""
    return int(getattr(device, "cycles", 0))


def summary(found: dict[str, Any]) -> list[str]:
    """The figures that count, a line each."""
    devices, size = found["devices"], found["size"]
    lines = [f"simulation, T = {size}{', compared' * run['compared']}: {number(run['cycles_a_second'])} cycles a "
             f"second ({number(run['cycles_a_processor_second'])} of processor time)" for run in found["simulation"]]
    return [*lines, f"golden machine over simulation, {devices['network']}: {devices['ratio']:.0f} times the images a "
                    f"second"]


def markdown(found: dict[str, Any]) -> str:
    """The figures as tables."""
    devices = found["devices"]
    speed = [[f"{found['config']}{', compared' * run['compared']}", number(run["cycles"]), f"{run['seconds']:.2f}",
              number(run["cycles_a_second"]), number(run["cycles_a_processor_second"])] for run in found["simulation"]]
    images = [[name, f"{devices[name]['seconds']:.2f}", f"{devices[name]['images_a_second']:.2f}",
               f"{devices[name]['images_a_processor_second']:.2f}"] for name in ("golden", "verilator")]
    return "\n\n".join((
        f"Simulation of {STEPS} training steps of {found['network']}, batch {found['batch']}:",
        rows(["", "cycles", "seconds", "cycles a second", "of processor time"], speed),
        f"{STEPS} training steps of {devices['network']}, batch {devices['batch']}, on {devices['config']}; the same "
        f"bits on both devices:", rows(["", "seconds", "images a second", "of processor time"], images),
        f"The golden machine is {devices['ratio']:.0f} times as fast."))


def plots(found: dict[str, Any]) -> dict[str, str]:
    """None."""
    return {}
