"""A run of 20 short steps on the golden machine, a stop in it, and what of two runs must be the same."""

import numpy as np

from shiftgrad.compiler import compile_network
from shiftgrad.config import get_config
from shiftgrad.datasets import Dataset
from shiftgrad.device import GoldenDevice
from shiftgrad.models import mlp
from shiftgrad.plan import Plan
from shiftgrad.record import History, Hyper
from shiftgrad.train import Stop, Trainer
from tests.arrays import assert_same

CONFIG = get_config("sim_4x4")
HYPER = Hyper(batch=4, epochs=4, lr_shift=4, sample_every=3)


def blobs(count: int = 22, held: int = 9, seed: int = 7) -> Dataset:
    """Three classes of noisy pictures of 6 pixels; 22 samples are 5 batches of 4 and 2 left over."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count + held).astype(np.uint8)
    centres = np.array([[240, 240, 0, 0, 30, 30], [0, 30, 240, 240, 0, 0], [30, 0, 0, 30, 240, 240]])
    images = np.clip(centres[labels] + rng.integers(-30, 31, (count + held, 6)), 0, 255).astype(np.uint8)
    return Dataset(name="blobs", images=images[:count], labels=labels[:count], test_images=images[count:],
                   test_labels=labels[count:], shape=(2, 3, 1), classes=3)


def plan(hyper: Hyper = HYPER) -> Plan:
    return compile_network(mlp(6, (5,), 3), CONFIG, batch=hyper.batch, lr_shift=hyper.lr_shift, scale=hyper.scale)


def trainer(hyper: Hyper = HYPER, **extra) -> Trainer:
    device = extra.pop("device", None) or GoldenDevice(CONFIG)
    return Trainer(device, plan(hyper), extra.pop("data", None) or blobs(), hyper, **extra)


def same_state(one: Trainer, other: Trainer) -> None:
    assert_same(one.host.state(), other.host.state())


def same_history(one: History, other: History) -> None:
    assert_same(one.to_arrays(), other.to_arrays())


class StopAt:
    """Sets a stop at a step, or while evaluating after it."""

    def __init__(self, stop: Stop, at: int, evaluating: bool = False) -> None:
        self.stop, self.at, self.evaluates = stop, at, evaluating

    def step(self, t: Trainer) -> None:
        if t.step == self.at and not self.evaluates:
            self.stop.requested = True

    def evaluating(self, t: Trainer, done: int, total: int) -> None:
        if t.step == self.at and self.evaluates:
            self.stop.requested = True

    def epoch(self, t: Trainer, epoch) -> None:
        pass
