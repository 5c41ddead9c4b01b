"""The float references in PyTorch: the Fixup network, and the same convolutions with batch normalisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from experiments.store import write_whole
from shiftgrad.draft import SCALAR_SLOWDOWN
from shiftgrad.feed import Feed
from shiftgrad.images import Dataset
from shiftgrad.initialise import drawn_weights, weight_exponent
from shiftgrad.models import Block, Conv, Network
from shiftgrad.record import Epoch, Hyper
from shiftgrad.torch_net import FixupBlock, FloatNet, inputs
from shiftgrad.train import Interrupted, Stop
from shiftgrad.weights import floats

__all__ = ["batch_norm_net", "fixup_net", "he_net", "train"]

MOMENTUM = 7 / 8
TEST_BATCH = 256


# --- networks -------------------------------------------------------------------------------------

class _NormConv(nn.Module):
    """relu(norm(conv(x)))."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm2d(conv.out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.norm(self.conv(x)))


class _NormBlock(nn.Module):
    """relu(norm2(conv2(relu(norm1(conv1(x))))) + shortcut(x))."""

    def __init__(self, block: FixupBlock) -> None:
        super().__init__()
        self.conv1, self.conv2, self.skip = block.conv1, block.conv2, block.skip
        self.norm1, self.norm2 = (nn.BatchNorm2d(block.channels) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(h)) + self.skip(x))


def _values(network: Network, seed: int, *, fixup: bool) -> dict[str, NDArray[Any]]:
    """The device's draws from ``seed``, not rounded: [fan_in, outputs] by name, in units of the tensor's exponent."""
    found: dict[str, NDArray[Any]] = {}
    for w in network.weights():
        deviation = w.deviation * (not w.zero) if fixup or w.name.startswith("fc.") else math.sqrt(2 / w.fan_in)
        found[w.name] = np.ldexp(drawn_weights(network, seed)[w.name] * deviation, -weight_exponent(w))
    return found | {v.name: np.full((1, v.size), v.value * 2.0**14) for v in network.vectors()}


def fixup_net(network: Network, seed: int) -> FloatNet:
    """``network`` in float32 with the initial weights the device rounds to int8."""
    net = FloatNet(network)
    net.load_weights(dict(floats(network, _values(network, seed, fixup=True))))
    return net


def he_net(network: Network, seed: int) -> FloatNet:
    """``network`` with every convolution at He's deviation instead of Fixup's."""
    net = FloatNet(network)
    net.load_weights(dict(floats(network, _values(network, seed, fixup=False))))
    return net


def batch_norm_net(network: Network, seed: int) -> FloatNet:
    """The convolutions of ``network`` at He's deviation, each followed by batch normalisation, without scalars."""
    net = he_net(network, seed)
    for layer in network.layers:
        module = net.get_submodule(layer.name)
        if isinstance(layer, Block):
            net.set_submodule(layer.name, _NormBlock(module))
        elif isinstance(layer, Conv):
            module.relu, module.bias = False, None
            net.set_submodule(layer.name, _NormConv(module))
    return net


# --- training -------------------------------------------------------------------------------------

class _Run:
    """Network, optimiser and figures of a run; :meth:`state` is everything needed to go on."""

    def __init__(self, net: FloatNet, hyper: Hyper) -> None:
        scalars = {f"{v.name}" for v in net.network.vectors() if v.scalar}
        named = dict(net.named_parameters())
        slow = [p for name, p in named.items() if name in scalars]
        fast = [p for name, p in named.items() if name not in scalars]
        groups = [{"params": fast, "slowdown": 0}, {"params": slow, "slowdown": SCALAR_SLOWDOWN}]
        self.net, self.hyper = net, hyper
        self.optimiser = torch.optim.SGD([g for g in groups if g["params"]], lr=1.0, momentum=MOMENTUM)
        self.epochs: list[Epoch] = []

    def state(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict(),
                "epochs": [vars(epoch) for epoch in self.epochs]}

    def restore(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epochs = [Epoch(**entry) for entry in state["epochs"]]

    def step(self, x: torch.Tensor, y: torch.Tensor, lr_extra: int) -> tuple[float, int]:
        """One training step; the loss, and samples classified correctly."""
        for group in self.optimiser.param_groups:
            group["lr"] = 2.0 ** -(self.hyper.lr_shift + lr_extra + group["slowdown"])
        self.optimiser.zero_grad()
        logits = self.net(x)
        loss = functional.cross_entropy(logits, y)
        loss.backward()
        self.optimiser.step()
        return loss.item(), int((logits.argmax(1) == y).sum())

    def evaluate(self, data: Dataset) -> tuple[float, float]:
        """Held-out loss and accuracy."""
        self.net.eval()
        loss, correct, count = 0.0, 0, len(data.test_labels)
        with torch.inference_mode():
            for start in range(0, count, TEST_BATCH):
                part = slice(start, start + TEST_BATCH)
                logits = self.net(inputs(data.test_images[part], data.shape, centred=data.centred))
                y = torch.from_numpy(data.test_labels[part].astype(np.int64))
                loss += functional.cross_entropy(logits, y, reduction="sum").item()
                correct += int((logits.argmax(1) == y).sum())
        self.net.train()
        return loss / count, correct / count


def train(net: FloatNet, data: Dataset, hyper: Hyper, *, save: Path, stop: Stop,
          tick: Callable[[int, int], None]) -> list[Epoch]:
    """Train ``net`` as the device is trained, in float32, going on from ``save`` if it is there.

    ``tick`` is told steps done and in all. Raises ``Interrupted`` when ``stop`` is set; what is behind the last epoch
    is lost then.
    """
    torch.set_num_threads(1)
    run, feed = _Run(net, hyper), Feed(data, hyper)
    if save.exists():
        run.restore(torch.load(save, weights_only=True))
    net.train()
    for epoch in range(len(run.epochs), hyper.epochs):
        losses, correct = [], 0
        for step in range(epoch * feed.steps_per_epoch, (epoch + 1) * feed.steps_per_epoch):
            if stop:
                raise Interrupted(step, feed.steps)
            x = inputs(feed.images(step), data.shape, centred=data.centred)
            y = torch.from_numpy(feed.labels(step).astype(np.int64))
            loss, right = run.step(x, y, hyper.lr_extra(step, feed.steps))
            losses.append(loss)
            correct += right
            tick(step + 1, feed.steps)
        loss, accuracy = run.evaluate(data)
        run.epochs.append(Epoch(epoch=epoch + 1, step=step + 1, train_loss=float(np.mean(losses)),
                                train_accuracy=correct / (len(losses) * hyper.batch), loss=loss, accuracy=accuracy))
        write_whole(save, lambda file: torch.save(run.state(), file))
    return run.epochs
