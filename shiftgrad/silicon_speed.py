"""Images a second in training: the machine at a clock, and PyTorch in FP32 on this computer's processor."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from shiftgrad.compiler import CompileError, compile_network
from shiftgrad.config import MEMORIES, get_config
from shiftgrad.estimate import estimate
from shiftgrad.models import Network, fixup_resnet, mlp
from shiftgrad.plan import LOADED
from shiftgrad.recipes import CHANNELS, CLASSES, SHAPES

__all__ = ["WORKLOADS", "machine", "processor", "torch_rate"]

MOMENTUM, RATE = 7 / 8, 1 / 16
WARM_UP, WINDOW, WINDOWS = 5, 1.0, 5  # steps; seconds; how many of them, of which the fastest counts
# network, batch; the first fits every configuration, the last those of the ECP5-85F
WORKLOADS: tuple[tuple[Network, int], ...] = (
    (mlp(64, (48,), 10), 16), (mlp(196, (128,), 10), 16), (mlp(784, (128,), 10), 32),
    (fixup_resnet(SHAPES["digits"], CLASSES, channels=CHANNELS), 4))


def machine(config: str, network: Network, batch: int, mhz: float, baud: int) -> dict[str, Any]:
    """Cycles of a training step by the cycle model, images a second; or the ``reason`` why there are none.

    ``link_images_a_second`` is the most that the serial link could bring: ten bits a byte, of the words that the host
    writes for a batch, which hold packed pixels and unused lanes, too.
    """
    if get_config(config).dense:
        return {"reason": "its microcode has no cycle model"}
    try:
        plan = compile_network(network, get_config(config), batch=batch, lr_shift=4)
    except CompileError:
        return {"reason": "does not fit"}
    found, loaded = estimate(plan), [plan.tensor(name) for name in LOADED]
    sent = sum(tensor.words * plan.config.pitch(MEMORIES[tensor.memory]) for tensor in loaded)
    return {"cycles": found.cycles(), "utilisation": found.utilisation(), "mhz": mhz,
            "images_a_second": found.samples_per_second(mhz),
            "link_images_a_second": baud / 10 / sent * batch}


def processor() -> dict[str, Any]:
    """What this computer computes with."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in (info.read_text().splitlines() if info.exists() else [])
             if line.startswith("model name")]
    return {"name": names[0] if names else platform.processor() or platform.machine(), "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1)}


def torch_rate(network: Network, batch: int, threads: int) -> dict[str, Any] | None:
    """Images a second of SGD with momentum in FP32 on random data with ``threads`` threads; None without PyTorch.

    The fastest of some windows counts, so other work on the computer disturbs it least.
    """
    if util.find_spec("torch") is None:
        return None
    import torch

    from shiftgrad.torch_net import FloatNet

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        net = FloatNet(network)
        optimiser = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
        rng = np.random.default_rng(0)
        height, width, channels = network.input_shape
        x = torch.from_numpy(rng.uniform(0, 1, (batch, channels, height, width)).astype(np.float32))
        y = torch.from_numpy(rng.integers(0, network.classes, batch))

        def step() -> None:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()

        rates = [batch * rate for rate in _rates(step)]
    finally:
        torch.set_num_threads(before)
    return {"threads": threads, "images_a_second": max(rates), "windows": rates, "torch": torch.__version__}


def _rates(step: Callable[[], None]) -> list[float]:
    """Steps a second in every window."""
    for _ in range(WARM_UP):
        step()
    found = []
    for _ in range(WINDOWS):
        began, steps = time.perf_counter(), 0
        while (spent := time.perf_counter() - began) < WINDOW:
            step()
            steps += 1
        found.append(steps / spent)
    return found
