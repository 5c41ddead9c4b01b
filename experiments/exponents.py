"""Exponents, saturation and underflow of every tensor over an int8 training run: the log, its charts, its table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.grid import CONFIG, Study
from experiments.observe import PHASES, ObservedMachine, observed_device
from experiments.plots import draw
from shiftgrad.compiler import compile_network
from shiftgrad.config import get_config
from shiftgrad.files import write_text
from shiftgrad.images import Dataset
from shiftgrad.isa import Memory
from shiftgrad.record import Epoch, Hyper
from shiftgrad.train import Stop, Trainer

__all__ = ["record", "write"]

SAMPLES = 80  # of a run
QUANTITIES = {"exponent": "exponent e, value = q 2^e", "saturated": "saturated, % of all mantissas",
              "lost": "underflow, % of the non-zero sums"}


class _Watch:
    """Observes one training step in so many."""

    def __init__(self, machine: ObservedMachine, every: int) -> None:
        self.machine, self.every = machine, every
        self.steps: list[int] = []
        self.log: dict[str, dict[str, list[float]]] = {}
        self.moved: dict[str, list[float]] = {}
        machine.observing = True

    def step(self, trainer: Trainer) -> None:
        """Keep the step just done, if it was observed."""
        machine = self.machine
        if machine.observing:
            self.steps.append(trainer.step)
            for name, entry in machine.by_name(trainer.plan).items():
                for quantity in QUANTITIES:
                    series = self.log.setdefault(name, {q: [] for q in QUANTITIES})
                    series[quantity].append(round(getattr(entry, quantity), 4))
            for tensor in trainer.plan.tensors:
                if tensor.id in machine.moved:
                    self.moved.setdefault(tensor.name, []).append(round(machine.moved[tensor.id], 4))
        machine.observing = trainer.step % self.every == 0

    def evaluating(self, trainer: Trainer, done: int, total: int) -> None:
        """Nothing to say."""

    def epoch(self, trainer: Trainer, epoch: Epoch) -> None:
        """Nothing to say."""


def record(study: Study, data: Dataset, hyper: Hyper, stop: Stop) -> dict[str, Any]:
    """Train by ``hyper`` and log; plain types."""
    config = get_config(CONFIG)
    plan = compile_network(study.network, config, batch=hyper.batch, lr_shift=hyper.lr_shift, scale=hyper.scale)
    device, machine = observed_device(config)
    trainer = Trainer(device, plan, data, replace(hyper, sample_every=1 << 30))
    watch = _Watch(machine, max(1, trainer.steps // SAMPLES))
    outcome = trainer.run(watch=watch, stop=stop)
    return {
        "dataset": study.dataset, "blocks": study.blocks, "channels": list(study.channels), "batch": hyper.batch,
        "lr_shift": hyper.lr_shift, "epochs": hyper.epochs, "scale": hyper.scale, "seed": hyper.seed,
        "accuracy": outcome.accuracy, "steps": watch.steps, "moved": watch.moved,
        "phases": {t.name: PHASES[Memory(t.memory)] for t in plan.tensors if t.name in watch.log}, "tensors": watch.log,
    }


def write(found: dict[str, Any], docs: Path) -> list[Path]:
    """JSON, charts and table of what :func:`record` returned."""
    name = f"exponents-{found['dataset']}-{found['blocks']}blocks-b{found['batch']}"
    picture = draw(docs / f"{name}.png", lambda axes: _paint(axes, found), rows=3, columns=3, width=14, height=9.5)
    text = "\n".join(_table(found, picture)) + "\n"
    return [write_text(docs / f"{name}.json", json.dumps(found) + "\n"), write_text(docs / f"{name}.md", text), picture]


def _paint(axes: list[Axes], found: dict[str, Any]) -> None:
    """A row a phase, a column a quantity, a line a tensor in the colour of its layer; momenta of weights only."""
    layers = list(dict.fromkeys(_layer(name) for name in found["tensors"]))
    shades = dict(zip(layers, mpl.colormaps["viridis"](np.linspace(0, 0.92, len(layers))), strict=True))
    for row, phase in enumerate(PHASES.values()):
        names = [n for n, p in found["phases"].items() if p == phase and not n.endswith("_momentum")]
        for column, (quantity, label) in enumerate(QUANTITIES.items()):
            panel = axes[3 * row + column]
            for name in names:
                values = np.array(found["tensors"][name][quantity], float)
                if quantity == "exponent":
                    panel.step(found["steps"], values, where="post", color=shades[_layer(name)], linewidth=1.1)
                else:
                    panel.plot(found["steps"], 100 * _smooth(values), color=shades[_layer(name)], linewidth=1.1)
            panel.set(title=phase if not column else "", xlabel="step", ylabel=label)
            if quantity == "exponent":
                panel.yaxis.set_major_locator(MaxNLocator(integer=True))
            else:
                panel.set_ylim(bottom=0)
    lines = [Line2D([], [], color=shade, label=layer) for layer, shade in shades.items()]
    axes[2].legend(handles=lines, loc="upper left", bbox_to_anchor=(1.01, 1.03), borderaxespad=0)


def _layer(tensor: str) -> str:
    return tensor.split(".")[0]


def _smooth(values: np.ndarray[Any, Any], width: int = 9) -> np.ndarray[Any, Any]:
    kernel = np.ones(min(width, len(values)))
    weights = np.convolve(np.ones(len(values)), kernel, "same")
    smooth: np.ndarray[Any, Any] = np.convolve(values, kernel, "same") / weights
    return smooth


def _table(found: dict[str, Any], picture: Path) -> Iterator[str]:
    yield f"# Exponents, saturation and underflow: {found['dataset']}, {found['blocks']} blocks, batch {found['batch']}"
    yield ""
    options = " ".join(f"--{name.replace('_', '-')} {found[name]}"
                       for name in ("dataset", "blocks", "batch", "seed", "lr_shift", "epochs"))
    yield (f"`python -m experiments exponents {options}`: "
           f"int8, scale mode {found['scale']}; {100 * found['accuracy']:.2f} % held out at the end. One "
           f"step in about {found['steps'][-1] // max(1, len(found['steps']) - 1)} is observed.")
    yield ""
    yield ("Saturated: share of all mantissas beyond 127 before they were clamped. Underflow: share of the sums other "
           "than zero below half a step; activations and errors lose those, momenta keep them on average by "
           "stochastic rounding. Moved: share of a parameter's elements that a step changes. Means over the run.")
    yield ""
    yield f"![a line a tensor, in the colour of its layer]({picture.name})"
    yield ""
    yield "| tensor | phase | exponent, first | lowest | highest | last | saturated, % | underflow, % | moved, % |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for name, series in found["tensors"].items():
        e = [int(x) for x in series["exponent"]]
        saturated, lost = (100 * float(np.mean(series[q])) for q in ("saturated", "lost"))
        parameter = name.replace("_momentum", "").replace(".momentum", ".weight")
        moved = f"{100 * float(np.mean(found['moved'][parameter])):.1f}" if parameter in found["moved"] else ""
        yield (f"| `{name}` | {found['phases'][name]} | {e[0]} | {min(e)} | {max(e)} | {e[-1]} | {saturated:.3f} | "
               f"{lost:.1f} | {moved} |")
