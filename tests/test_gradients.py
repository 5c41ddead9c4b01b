"""Forward and backward of every kind of layer, as compiled and run, against float networks and finite differences.

From momenta of zero, the momenta after one step are the batch's gradient, rounded to eight bits.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shiftgrad.compiler import compile_network
from shiftgrad.config import Config
from shiftgrad.device import GoldenDevice
from shiftgrad.host import Host
from shiftgrad.models import Block, Conv, Dense, GlobalAverage, Layer, MaxPool, Network
from tests.float_network import Float, difference, logits, loss

CONFIG = Config(name="gradients", size=4, act_words=65536, err_words=65536, wgt_words=8192, mom_words=8192,
                vec_words=512, tensors=256)
BATCH, SEED = 6, 3
AVERAGE, HEAD = GlobalAverage(name="average"), Dense(name="fc", units=3)

NETWORKS: dict[str, tuple[tuple[int, int, int], tuple[Layer, ...]]] = {
    "dense": ((1, 1, 9), (Dense(name="a", units=7, relu=True), HEAD)),
    "dense on an image": ((4, 3, 2), (Conv(name="a", channels=3, relu=True), HEAD)),
    "conv 3x3": ((5, 4, 3), (Conv(name="s", channels=4, relu=True), Conv(name="a", channels=5, relu=True), AVERAGE,
                             HEAD)),
    "conv step 2": ((7, 6, 2), (Conv(name="s", channels=4, relu=True), Conv(name="a", channels=5, step=2, relu=True),
                                AVERAGE, HEAD)),
    "conv even kernel": ((5, 5, 1), (Conv(name="s", channels=3, kernel=2, relu=True),
                                     Conv(name="a", channels=4, kernel=4, step=2, pad=1, relu=True, bias=None), HEAD)),
    "conv scalar bias": ((4, 4, 1), (Conv(name="s", channels=4, relu=True, bias="scalar"),
                                     Conv(name="a", channels=3, kernel=1, bias="scalar"), AVERAGE, HEAD)),
    "conv 5x5 and 7x7": ((8, 8, 1), (Conv(name="s", channels=2, kernel=7, relu=True),
                                     Conv(name="a", channels=2, kernel=5, pad=0), HEAD)),
    "max pool": ((6, 4, 1), (Conv(name="s", channels=4, relu=True), MaxPool(name="p"), Conv(name="a", channels=3),
                             HEAD)),
    "max pool without relu": ((4, 4, 1), (Conv(name="s", channels=4), MaxPool(name="p"), HEAD)),
    "block": ((4, 5, 2), (Conv(name="s", channels=4, relu=True), Block(name="b", channels=4), AVERAGE, HEAD)),
    "block step 2": ((5, 6, 2), (Conv(name="s", channels=3, relu=True),
                                 Block(name="b", channels=6, step=2, shortcut="subsample"), AVERAGE, HEAD)),
    "block conv shortcut": ((6, 4, 2), (Conv(name="s", channels=3, relu=True),
                                        Block(name="b", channels=4, step=2, shortcut="conv"), AVERAGE, HEAD)),
    "block first": ((4, 4, 3), (Block(name="b", channels=4, shortcut="subsample"), AVERAGE, HEAD)),
    "pool first": ((6, 6, 2), (MaxPool(name="p"), Conv(name="a", channels=3, relu=True), HEAD)),
    "two blocks": ((4, 4, 1), (Conv(name="s", channels=4, relu=True, bias="scalar"), Block(name="b", channels=4),
                               Block(name="c", channels=6, step=2, shortcut="subsample"), AVERAGE, HEAD)),
}


def real(host: Host, name: str) -> Float:
    return np.ldexp(host.read_tensor(name).astype(np.float64), host.exponents()[name])


def started(network: Network, scale: str = "current") -> tuple[Host, NDArray[np.int8], NDArray[np.int64]]:
    """A host whose parameters are all random, and a loaded batch: mantissas and labels."""
    print("seed", SEED)
    rng = np.random.default_rng(SEED)
    plan = compile_network(network, CONFIG, batch=BATCH, lr_shift=4, scale=scale)
    host = Host(GoldenDevice(CONFIG), plan)
    host.load(SEED)
    for weights in network.weights():
        if weights.zero:
            host.write_tensor(weights.name, rng.integers(-90, 91, (weights.fan_in, weights.outputs)).astype(np.int8))
    for vector in network.vectors():
        host.write_tensor(vector.name, rng.integers(-4000, 4001, (1, vector.size)) + round(vector.value * 16384))
    images = rng.integers(0, 128, (BATCH, *network.input_shape)).astype(np.int8)
    labels = rng.integers(0, 3, BATCH)
    host.load_batch(images, labels)
    return host, images, labels


def cosine(a: Float, b: Float) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients(name: str) -> None:
    shape, layers = NETWORKS[name]
    network = Network(name="n", shape=shape, layers=layers)
    host, images, labels = started(network)
    x = images / 128
    parameters = {p.name: real(host, p.name) for p in (*network.weights(), *network.vectors())}
    host.train_step()
    wanted, got = logits(network, x, parameters), real(host, f"{layers[-1].name}.out")
    assert cosine(got, wanted) > 0.98  # the largest may have saturated
    for parameter in (*network.weights(), *network.vectors()):
        values = parameters[parameter.name]
        gradient = difference(lambda: loss(logits(network, x, parameters), labels), values)
        found = real(host, parameter.momentum)
        print(parameter.name, cosine(found, gradient), np.linalg.norm(found) / np.linalg.norm(gradient))
        if values.size > 1:
            assert cosine(found, gradient) > 0.93
            assert 0.6 < np.linalg.norm(found) / np.linalg.norm(gradient) < 1.1
        else:  # one element saturates by up to the square root of two, and sums errors of both signs
            assert 0.6 * abs(gradient[0, 0]) - 0.1 < np.sign(gradient[0, 0]) * found[0, 0] < abs(gradient[0, 0]) + 0.1


@pytest.mark.parametrize("name", NETWORKS)
def test_the_input_has_no_error(name: str) -> None:
    shape, layers = NETWORKS[name]
    plan = compile_network(Network(name="n", shape=shape, layers=layers), CONFIG, batch=2, lr_shift=4)
    assert "input.error" not in {t.name for t in plan.tensors}
    assert not any(i.operands["dst"] == "input" for i in plan.instructions if i.operands)
