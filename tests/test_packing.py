"""Layouts of the input: the same convolution, fewer empty lanes."""

from __future__ import annotations

import numpy as np
import pytest

from golden import convolution
from shiftgrad.config import Config
from shiftgrad.models import Conv, Dense, GlobalAverage, MaxPool, Network
from shiftgrad.packing import choose, packings


def network_of(shape: tuple[int, int, int], kernel: int = 3, step: int = 1, pad: int | None = None) -> Network:
    conv = Conv(name="c", channels=6, kernel=kernel, step=step, pad=pad)
    return Network(name="n", shape=shape, layers=(conv, GlobalAverage(name="a"), Dense(name="d", units=2)))


@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 5, 3), (1, 9, 2), (6, 6, 4)])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("padded", [False, True])
def test_every_packing_is_the_same_convolution(shape: tuple[int, int, int], kernel: int, step: int, padded: bool
                                               ) -> None:
    if not padded and kernel > min(shape[:2]):
        pytest.skip("the kernel is larger than the image")
    network = network_of(shape, kernel, step, None if padded else 0)
    rng = np.random.default_rng(1)
    x = rng.integers(-127, 128, (3, *shape)).astype(np.int8)
    (weights, *_) = network.weights()
    w = rng.integers(-127, 128, (weights.fan_in, 6)).astype(np.int8)
    wanted = convolution.forward(x, w, weights.window)
    errors = rng.integers(-127, 128, wanted.shape).astype(np.int8)
    gradient = convolution.gradient(x, errors, weights.window)
    for packing in packings(network):
        packed = packing.apply(x).reshape(3, *packing.shape)
        assert packing.window.output(*packing.shape[:2]) == network.layers[0].output(shape)[:2]
        assert np.array_equal(convolution.forward(packed, w, packing.window), wanted), packing
        assert np.array_equal(convolution.gradient(packed, errors, packing.window), gradient), packing


@pytest.mark.parametrize(("shape", "kernel", "size", "kind"), [
    ((8, 8, 1), 3, 8, "full"),  # 9 values are two words, twice the unpacked one
    ((8, 8, 1), 3, 4, "row"),  # three words would be too many
    ((28, 28, 1), 5, 8, "row"),
    ((32, 32, 3), 3, 8, "row"),
    ((32, 32, 3), 3, 16, "full"),
    ((8, 8, 8), 3, 8, "none"), ((8, 8, 16), 3, 4, "none"), ((8, 8, 1), 1, 8, "none"),
])
def test_the_fewest_slots_within_twice_the_words(shape: tuple[int, int, int], kernel: int, size: int, kind: str
                                                 ) -> None:
    config = Config(name="c", size=size)
    network = network_of(shape, kernel)
    chosen = choose(network, config)
    assert chosen.kind == kind
    for other in packings(network):
        if other.words(config) <= 2 * packings(network)[0].words(config):
            assert chosen.slots(config) <= other.slots(config)


def test_other_first_layers() -> None:
    flat = Network(name="n", shape=(4, 3, 2), layers=(Dense(name="d", units=2),))
    (packing,) = packings(flat)
    x = np.arange(48, dtype=np.int8).reshape(2, 4, 3, 2)
    assert packing.kind == "flat" and packing.shape == (1, 1, 24)
    assert np.array_equal(packing.apply(x), x.reshape(2, 24))
    pool = Network(name="n", shape=(4, 2, 2), layers=(MaxPool(name="p"), Dense(name="d", units=2)))
    (packing,) = packings(pool)
    assert packing.kind == "none" and packing.shape == (4, 2, 2)
