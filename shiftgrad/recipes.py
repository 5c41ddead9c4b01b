"""What a network and a training run get when nothing else is asked for, by data set and kind of network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shiftgrad.images import DatasetError
from shiftgrad.models import Block, Conv, Dense, Network, NetworkError, Shape, fixup_resnet, lenet, mlp

__all__ = ["CLASSES", "HIDDEN", "MODELS", "SHAPES", "Options", "config_of", "hyper_of", "network_of", "options_of",
           "scale_of"]

MODELS = ("mlp", "lenet", "fixup_resnet")
SHAPES: dict[str, Shape] = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "mnist14": (14, 14, 1), "cifar10": (32, 32, 3)}
CLASSES = 10  # of every data set
TINY_BATCH = 2  # largest at which a residual network's exponents come from each tensor's own maximum
HIDDEN = {"digits": (48,), "mnist": (128,), "mnist14": (128,), "cifar10": (32,)}
CHANNELS = (8, 8, 16, 16)  # of a residual network's stem and blocks on grey images
SHORTCUTS = {"digits": "subsample", "mnist": "conv", "mnist14": "conv", "cifar10": "conv"}  # past blocks of a new shape

HYPER: dict[str, dict[str, Any]] = {
    "digits": {"batch": 16, "epochs": 15, "lr_shift": 4},
    "mnist": {"batch": 32, "epochs": 15, "lr_shift": 3},
    "mnist14": {"batch": 32, "epochs": 15, "lr_shift": 3},
    "cifar10": {"batch": 32, "epochs": 8, "lr_shift": 4, "flip": True, "shift": 0},
}
CONVOLUTIONAL: dict[str, dict[str, Any]] = {  # instead of those
    "digits": {}, "mnist": {"lr_shift": 4}, "mnist14": {"lr_shift": 4}, "cifar10": {},
}
RESIDUAL: dict[str, dict[str, Any]] = {
    "digits": {"drops": (0.7, 0.7)}, "mnist": {"drops": (0.7, 0.7)}, "mnist14": {"drops": (0.7, 0.7)},
    "cifar10": {"drops": (0.6, 0.6, 0.85, 0.85)},
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for; None is "not given".

    Parameters
    ----------
    model : one of :data:`MODELS`
    hidden : units of the hidden layers (mlp)
    depth, width : blocks, and channels of the first stage (fixup_resnet)
    channels : of every convolution (lenet), or of the stem and every block (fixup_resnet)
    shortcut : of blocks that change the shape (fixup_resnet)
    zero_range : of tensors that start at zero, in He's deviations (fixup_resnet)
    """

    model: str = "mlp"
    hidden: tuple[int, ...] | None = None
    depth: int | None = None
    width: int | None = None
    channels: tuple[int, ...] | None = None
    shortcut: str | None = None
    zero_range: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Those that were given."""
        names = ("hidden", "depth", "width", "channels", "shortcut", "zero_range")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


TAKES = {"mlp": {"hidden"}, "lenet": {"channels"},
         "fixup_resnet": {"depth", "width", "channels", "shortcut", "zero_range"}}


def network_of(dataset: str, shape: Shape, classes: int, options: Options) -> Network:
    """The network that ``options`` describe, for samples of ``shape``; ``NetworkError`` when they make none."""
    model, given = options.model, options.given
    if model not in TAKES:
        raise NetworkError(f"no model {model!r}; there are: {', '.join(MODELS)}")
    if wrong := sorted(given.keys() - TAKES[model]):
        raise NetworkError(f"{model} has no {' and no '.join(wrong)}; it takes {', '.join(sorted(TAKES[model]))}")
    if model == "mlp":
        return mlp(math.prod(shape), given.get("hidden", HIDDEN.get(dataset, (32,))), classes)
    if model == "lenet":
        channels = given.get("channels", (8, 16))
        if len(channels) != 2:
            raise NetworkError(f"lenet: channels must be two, of its convolutions, got {channels}")
        return lenet(shape, classes, channels=channels)
    sizes = given.keys() - {"shortcut", "zero_range"}
    if "channels" in given and len(sizes) > 1:
        raise NetworkError("fixup_resnet: channels say depth and width already; give one or the other")
    if not sizes and shape[2] == 1:
        given["channels"] = CHANNELS
    return fixup_resnet(shape, classes, **{"shortcut": SHORTCUTS.get(dataset, "conv"), **given})


def options_of(network: Network, given: Mapping[str, Any]) -> Options:
    """What makes ``network``, one of :func:`network_of`'s, but for what is ``given``: names of :class:`Options`."""
    mine: dict[str, Any] = {}
    if network.kind == "mlp":
        mine = {"hidden": tuple(layer.units for layer in network.layers[:-1] if isinstance(layer, Dense))}
    if network.kind == "lenet":
        mine = {"channels": tuple(layer.channels for layer in network.layers if isinstance(layer, Conv))}
    stem, blocks = network.layers[0], [layer for layer in network.layers if isinstance(layer, Block)]
    if network.kind == "fixup_resnet" and isinstance(stem, Conv) and blocks:
        channels = (stem.channels, *(block.channels for block in blocks))
        if given.keys() & {"depth", "width"}:
            mine = {"depth": len(blocks), "width": stem.channels}
        elif "channels" not in given:
            mine = {"channels": channels}
        mine["zero_range"] = blocks[0].zero_range
        if past := [block.shortcut for block in blocks if block.shortcut != "identity"]:
            mine["shortcut"] = past[0]
    return Options(**{"model": network.kind, **mine, **given})


def hyper_of(dataset: str, model: str) -> dict[str, Any]:
    """Hyperparameters of ``model`` on ``dataset``."""
    if dataset not in HYPER:
        raise DatasetError(f"no data set {dataset!r}; there are: {', '.join(HYPER)}")
    convolutional = CONVOLUTIONAL[dataset] if model != "mlp" else {}
    return {**HYPER[dataset], **convolutional, **(RESIDUAL[dataset] if model == "fixup_resnet" else {})}


def scale_of(model: str, batch: int) -> str:
    """Scale mode of ``model`` at mini-batches of ``batch``: errors of a sample or two outrun histories."""
    return "current" if model == "fixup_resnet" and batch <= TINY_BATCH else "delayed"


def config_of(dataset: str, model: str) -> str:
    """The machine for ``model`` on ``dataset``: the smallest named one that such a network's step fits."""
    if model == "fixup_resnet" and dataset in ("cifar10", "mnist"):
        return "golden_16x16"
    return "sim_8x8" if model == "mlp" and dataset != "cifar10" else "sim_8x8_large"
