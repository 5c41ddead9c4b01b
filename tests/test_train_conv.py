"""Training convolutional networks on the golden machine: they learn, and resuming leaves no trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shiftgrad import checkpoint as checkpoints
from shiftgrad.compiler import compile_network
from shiftgrad.config import get_config
from shiftgrad.datasets import load
from shiftgrad.device import GoldenDevice
from shiftgrad.models import Network, fixup_resnet, lenet
from shiftgrad.record import Hyper
from shiftgrad.train import Trainer
from tests.arrays import assert_same

CONFIG = get_config("sim_8x8_large")
SHAPE = (8, 8, 1)


def trainer(network: Network, hyper: Hyper, **extra: object) -> Trainer:
    plan = compile_network(network, CONFIG, batch=hyper.batch, lr_shift=hyper.lr_shift, scale=hyper.scale)
    return Trainer(GoldenDevice(CONFIG), plan, load("digits"), hyper, **extra)  # type: ignore[arg-type]


@pytest.mark.parametrize(("network", "epochs", "least"), [
    (lenet(SHAPE, 10), 4, 0.93), (fixup_resnet(SHAPE, 10, channels=(8, 8, 16, 16)), 8, 0.93),
])
def test_digits(network: Network, epochs: int, least: float) -> None:
    hyper = Hyper(batch=16, epochs=epochs, drops=(0.7, 0.7), eval_every=epochs)
    print("seed", hyper.seed)
    outcome = trainer(network, hyper).run()
    losses = outcome.history.loss
    assert outcome.accuracy > least
    assert np.mean(losses[-50:]) < 0.2 * np.mean(losses[:50])


@pytest.mark.parametrize("scale", ["delayed", "current"])
def test_resuming_leaves_no_trace(tmp_path: Path, scale: str) -> None:
    network = fixup_resnet(SHAPE, 10, channels=(4, 4, 8), shortcut="conv")
    hyper = Hyper(batch=16, epochs=1, scale=scale, flip=True, sample_every=7)
    whole = trainer(network, hyper)
    whole.run(max_steps=20)
    path = tmp_path / "run.npz"
    trainer(network, hyper, save=path).run(max_steps=9)
    saved = checkpoints.load(path)
    assert saved.network == network
    assert saved.state["block1.m"].shape == saved.state["block1.m_momentum"].shape == (1, 1)
    second = trainer(saved.network, hyper, resume=saved)
    second.run(max_steps=20)
    one, other = whole.host.state(), second.host.state()
    assert {"block1.b1a", "block2.shortcut.momentum"} <= one.keys()
    assert_same(one, other)
    assert whole.history.loss == second.history.loss and whole.history.exponents == second.history.exponents
