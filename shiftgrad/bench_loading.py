"""Cycles between training steps in which the array stands still, with the next mini-batch loaded then or before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from shiftgrad.bench_text import number, rows, share
from shiftgrad.compiler import compile_network
from shiftgrad.config import get_config
from shiftgrad.device import Device
from shiftgrad.host import Batch, Host
from shiftgrad.models import mlp

__all__ = ["markdown", "measure", "plots", "summary"]

NETWORK, BATCH, LR_SHIFT = mlp(64, (48,), 10), 32, 4
STEPS = 3  # measured, after one
PHASES = [f"{name}_CYCLES" for name in ("FWD", "BWD", "GRAD", "VECTOR", "OTHER")]


class _Clock(Protocol):
    @property
    def cycles(self) -> int:
        """Clock cycles so far."""
        ...


def measure(config: str, board: str, *, seed: int = 0, progress: Callable[[str], None] = print) -> dict[str, Any]:
    """Steps of an MLP behind AXI4-Lite on ``config``, and at the serial pins of ``board``, in simulated cycles.

    Returns
    -------
    dict
        ``runs``: of each host, with ``overlaps`` and without: cycles a step, and how many of them the machine is busy
    """
    from hw.boards import get_board
    from shiftgrad.serial_device import SerialDevice
    from sim.board import BoardSimulation
    from sim.device import VerilatorDevice

    runs = []
    progress(f"loading: {NETWORK.name} on {config}, AXI4-Lite")
    device = VerilatorDevice(get_config(config), compare=False, progress=progress)
    runs += [{"host": "AXI4-Lite", **_run(device, device, overlaps, seed)} for overlaps in (False, True)]
    device.close()
    progress(f"loading: {NETWORK.name} on {board}, serial line")
    found = get_board(board)
    simulated = BoardSimulation(found, progress)
    serial = SerialDevice(simulated.config, simulated.line, baud=found.baud)
    runs += [{"host": f"serial line, {found.baud:,} bits a second at {found.clock_hz / 1e6:g} MHz",
              **_run(serial, simulated.simulation, overlaps, seed)} for overlaps in (False, True)]
    simulated.close()
    return {"network": NETWORK.name, "batch": BATCH, "steps": STEPS, "runs": runs}


def _run(device: Device, clock: _Clock, overlaps: bool, seed: int) -> dict[str, Any]:
    host = Host(device, compile_network(NETWORK, device.config, batch=BATCH, lr_shift=LR_SHIFT))
    host.load(seed)
    if not host.overlaps:
        raise RuntimeError(f"{device.config.name} has no place for a second batch, or takes it too late")
    host.overlaps = overlaps
    rng = np.random.default_rng(seed)

    def batch() -> Batch:
        return rng.integers(0, 256, (BATCH, NETWORK.elements), np.uint8), rng.integers(0, NETWORK.classes, BATCH)

    host.load_batch(*batch())
    host.train_step(0, batch if overlaps else lambda: None)
    before, began = _busy(device), clock.cycles
    for _ in range(STEPS):
        if not overlaps:
            host.load_batch(*batch())
        host.train_step(0, batch if overlaps else lambda: None)
    cycles = clock.cycles - began
    busy = _busy(device) - before
    return {"config": device.config.name, "overlaps": overlaps, "cycles": cycles / STEPS, "busy": busy / STEPS,
            "idle": (cycles - busy) / STEPS}


def _busy(device: Device) -> int:
    values = device.counters()
    return sum(values[name] for name in PHASES)


def summary(found: dict[str, Any]) -> list[str]:
    """Idle cycles a step, a line for each host."""
    lines = []
    for before, after in zip(found["runs"][::2], found["runs"][1::2], strict=True):
        lines.append(f"idle between steps of {found['network']}, {before['host']}: {number(before['idle'])} cycles, "
                     f"{number(after['idle'])} when the next batch is loaded meanwhile")
    return lines


def markdown(found: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = [[f"{run['host']}, {run['config']}", "while a step runs" if run["overlaps"] else "between steps",
              number(run["cycles"]), number(run["busy"]), number(run["idle"]), share(run["idle"] / run["cycles"])]
             for run in found["runs"]]
    return "\n\n".join((
        f"Simulated cycles a training step of {found['network']}, batch {found['batch']}, {found['steps']} steps. The "
        f"host behind AXI4-Lite sees at once that a program has ended; the serial one asks for it, over a line without "
        f"an adapter's delay.",
        rows(["", "batch loaded", "cycles", "busy", "idle", ""], lines)))


def plots(found: dict[str, Any]) -> dict[str, str]:
    """None."""
    return {}
