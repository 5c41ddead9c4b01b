"""Norms of signals and errors by block: what keeps a deep network trainable without normalisation.

At the start a Fixup block is its shortcut, since its last convolution is zero: signals pass it unchanged, errors pass
back as they came, but for ReLU, at any depth. Convolutions at He's deviation double the variance in each.
The classifier, which Fixup starts at zero too, is drawn here, or there would be no error to follow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch.nn import functional

from experiments import floating
from experiments.grid import CONFIG
from experiments.observe import observed_device
from experiments.plots import draw
from shiftgrad.compiler import compile_network
from shiftgrad.config import get_config
from shiftgrad.files import write_text
from shiftgrad.host import Host
from shiftgrad.images import Dataset, mantissas
from shiftgrad.initialise import drawn_weights, weight_exponent
from shiftgrad.models import Block, Conv, Network
from shiftgrad.plots import COLORS
from shiftgrad.torch_net import FloatNet, inputs
from shiftgrad.weights import floats

__all__ = ["measure", "write"]

Norms = dict[str, list[float]]
LABELS = {"int8": "int8, Fixup", "fp32_fixup": "FP32, Fixup, the same weights", "fp32_he": "FP32, He, no scalars",
          "fp32_bn": "FP32, batch norm"}
SHADES = {"int8": COLORS[0], "fp32_fixup": COLORS[7], "fp32_he": COLORS[5], "fp32_bn": COLORS[1]}


def _classifier(network: Network, seed: int) -> NDArray[np.int8]:
    """Mantissas of a drawn classifier, at a quarter of He's deviation."""
    w = network.weights()[-1]
    values = np.ldexp(drawn_weights(network, seed)[w.name] * w.deviation, -weight_exponent(w))
    return np.clip(np.rint(values), -127, 127).astype(np.int8)


def _on_device(network: Network, data: Dataset, batch: int, seed: int) -> tuple[Norms, dict[str, NDArray[Any]]]:
    """Norms on the golden machine, and its parameters in float."""
    config = get_config(CONFIG)
    plan = compile_network(network, config, batch=batch, lr_shift=20, scale="current")
    device, machine = observed_device(config)
    host = Host(device, plan)
    host.load(seed, parameters={network.weights()[-1].name: _classifier(network, seed)})
    names = [w.name for w in network.weights()] + [v.name for v in network.vectors()]
    values = floats(network, {name: host.read_tensor(name) for name in names})
    host.load_batch(mantissas(data.images[:batch], data.centred), data.labels[:batch])
    machine.observing = True
    host.train_step()
    rms = {t.name: machine.rms[t.id] for t in plan.tensors if t.id in machine.rms}
    return {"signal": [rms[f"{name}.out"] for name in _stages(network)],
            "error": [rms[f"{name}.error"] for name in _stages(network)]}, dict(values)


def _stages(network: Network) -> list[str]:
    return [layer.name for layer in network.layers if isinstance(layer, Conv | Block)]


def _in_float(net: FloatNet, data: Dataset, batch: int) -> Norms:
    """Norms of the same samples in PyTorch; errors are those of the sum before ReLU and of the batch's total loss."""
    kept: list[torch.Tensor] = []

    def keep(module: Any, args: Any, out: torch.Tensor) -> None:
        out.retain_grad()
        kept.append(out)

    for name in _stages(net.network):
        net.get_submodule(name).register_forward_hook(keep)
    logits = net(inputs(data.images[:batch], data.shape, centred=data.centred))
    y = torch.from_numpy(data.labels[:batch].astype(np.int64))
    functional.cross_entropy(logits, y, reduction="sum").backward()
    return {"signal": [_rms(out) for out in kept], "error": [_rms(out.grad * (out > 0)) for out in kept]}


def _rms(x: torch.Tensor) -> float:
    return float(x.detach().double().square().mean().sqrt())


def measure(network: Network, data: Dataset, *, batch: int, seed: int) -> dict[str, Any]:
    """Norms by stage for every variant, before the first step; plain types."""
    device, values = _on_device(network, data, batch, seed)
    fixup = FloatNet(network)
    fixup.load_weights(values)
    last = network.weights()[-1].name
    he, norm = floating.he_net(network, seed), floating.batch_norm_net(network, seed)
    with torch.no_grad():
        for net in (he, norm):
            net.get_parameter(last).copy_(torch.from_numpy(values[last]))
    variants = {"int8": device, "fp32_fixup": _in_float(fixup, data, batch), "fp32_he": _in_float(he, data, batch),
                "fp32_bn": _in_float(norm, data, batch)}
    return {"network": network.name, "dataset": data.name, "batch": batch, "seed": seed, "stages": _stages(network),
            "variants": variants}


def write(found: dict[str, Any], docs: Path) -> list[Path]:
    """JSON and chart of what :func:`measure` returned."""
    name = f"isometry-{found['dataset']}-{len(found['stages']) - 1}blocks"

    def paint(axes: list[Axes]) -> None:
        for panel, kind, title in zip(axes, ("signal", "error"), ("activations", "errors"), strict=True):
            for variant, norms in found["variants"].items():
                style = "--" if variant == "fp32_fixup" else "-"
                panel.plot(norms[kind], "o" + style, color=SHADES[variant], markersize=4, label=LABELS[variant])
            panel.set_yscale("log")
            panel.set_xticks(range(len(found["stages"])), [s.replace("block", "") for s in found["stages"]])
            panel.set(title=f"{title} at initialisation, {found['dataset']}", xlabel="stem, then block",
                      ylabel="root mean square")
        axes[0].legend(loc="best")

    picture = draw(docs / f"{name}.png", paint, columns=2, width=11, height=3.8)
    return [write_text(docs / f"{name}.json", json.dumps(found, indent=1) + "\n"), picture]
