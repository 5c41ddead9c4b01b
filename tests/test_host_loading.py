"""The next batch, loaded by the host driver while a program runs: what it must not disturb, and loads that fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shiftgrad.compiler import compile_network
from shiftgrad.config import CONFIGS
from shiftgrad.device import ADDRESSES, DeviceError, GoldenDevice
from shiftgrad.host import Host
from shiftgrad.isa import LOADS_WHILE_BUSY, Status
from shiftgrad.models import Dense, GlobalAverage, MaxPool, Network, mlp
from tests.arrays import assert_same
from tests.host_cases import Array, samples


class Failing(GoldenDevice):
    """Refuses a write from the ``refuse``-th on while it is not negative; counts those between start and wait."""

    refuse = -1
    running = False
    meanwhile = 0

    def write(self, address: int, words: Any) -> None:
        self.meanwhile += self.running
        if self.refuse == 0:
            raise DeviceError("lost")
        self.refuse -= 1
        super().write(address, words)

    def start(self, pc: int = 0) -> None:
        super().start(pc)
        self.running = True

    def wait(self) -> Status:
        self.running = False
        return super().wait()


def failing(**more: Any) -> tuple[Host, Failing]:
    device = Failing(CONFIGS["sim_4x4"])
    host = Host(device, compile_network(mlp(6, (5,), 3), device.config, batch=4, lr_shift=3, **more))
    host.load(1)
    return host, device


def batches(count: int) -> list[tuple[Array, Array]]:
    return [samples(4, 6, 3, seed) for seed in range(count)]


@pytest.mark.parametrize("overlaps", [True, False])
def test_a_batch_loaded_during_a_step_is_that_of_the_next(overlaps: bool) -> None:
    alone, _ = failing()
    results = []
    for batch in batches(5):
        alone.load_batch(*batch)
        results.append(alone.train_step())
    host, device = failing()
    assert host.overlaps
    host.overlaps = overlaps
    left = iter(batches(5))
    host.load_batch(*next(left))
    seen = []
    for batch in batches(5):
        seen.append(host.train_step(0, lambda: next(left, None)))
        if overlaps:
            np.testing.assert_array_equal(host.read_tensor("input"), batch[0] // 2)
    assert seen == results and device.meanwhile == 8 * overlaps
    assert_same(host.state(), alone.state())


def test_evaluation_and_training_take_turns() -> None:
    host, _ = failing()
    other, _ = failing()
    other.overlaps = False
    x, y = samples(18, 6, 3)
    for _ in range(2):
        found = []
        for one in (host, other):
            epoch = one.train_epoch(x, y, np.random.default_rng(3))
            with one.same_table():
                found.append((epoch, one.evaluate(x, y), one.predict(x).tolist()))
        assert found[0] == found[1]
    assert_same(host.state(), other.state())


def test_predictions_are_read_before_the_next_batch_is_loaded() -> None:
    """Logits may be where the input was, when the next batch has no place of its own."""
    network = Network(name="pooled", shape=(4, 4, 16),
                      layers=(MaxPool(name="pool"), GlobalAverage(name="mean"), Dense(name="head", units=10)))
    tight, roomy = (replace(CONFIGS["sim_4x4"], act_words=words) for words in (320, 1024))
    x, found = samples(16, 256, 10)[0], []
    for config in (tight, roomy):
        host = Host(GoldenDevice(config), compile_network(network, config, batch=4, lr_shift=3))
        assert host.overlaps == (config is roomy)
        host.load(3)
        found.append(host.predict(x).tolist())
        assert host.predict(x[:0]).tolist() == []
    assert found[0] == found[1]


def test_a_load_that_fails_during_a_step_spoils_nothing() -> None:
    host, device = failing()
    first, second = batches(2)
    host.load_batch(*first)
    for refuse in (0, 1):
        def following(refuse: int = refuse) -> tuple[Array, Array]:
            device.refuse = refuse
            return second

        with pytest.raises(DeviceError, match="lost"):
            host.train_step(0, following)
        assert not device.running, "wanted a machine that has stopped"
        device.refuse = -1
        np.testing.assert_array_equal(host.read_tensor("input"), first[0] // 2)
    other, _ = failing()
    other.load_batch(*first)
    for one in (other, other, other, host):
        one.train_step()
    assert_same(host.state(), other.state())


def test_a_batch_that_was_not_loaded_whole_is_not_trained_on() -> None:
    host, device = failing()
    first, second = batches(2)
    host.load_batch(*first)
    device.refuse = 1
    with pytest.raises(DeviceError, match="lost"):
        host.load_batch(*second)
    device.refuse = -1
    for run in (host.train_step, host.select):
        with pytest.raises(ValueError, match="got one whose loading failed"):
            run()
    host.load_batch(*second)
    host.train_step()


def test_both_places_are_named_or_none() -> None:
    """The table's two words are written again when only one of them was."""
    host, device = failing()
    other, _ = failing()
    for one in (host, other):
        left = iter(batches(2))
        one.load_batch(*next(left))
        one.train_step(0, lambda left=left: next(left, None))
    device.refuse = 1
    with pytest.raises(DeviceError, match="lost"):
        host.train_step()
    device.refuse = -1
    for one in (host, other):
        one.train_step()
    assert_same(host.state(), other.state())


@pytest.mark.parametrize("overlaps", [True, False])
def test_nothing_is_written_below_a_program_left_running(overlaps: bool) -> None:
    """An interruption, or a lost answer, leaves one; memories would take its batch's successor meanwhile."""
    class Late(GoldenDevice):
        """Runs a program when it is waited for, as late as can be."""

        started: int | None = None
        lost = False

        def start(self, pc: int = 0) -> None:
            assert self.started is None, "wanted an idle machine"
            self.started = pc

        def wait(self) -> Status:
            if self.lost:
                raise DeviceError("no answer")
            if self.started is not None:
                pc, self.started = self.started, None
                super().start(pc)
            return super().wait()

    def interrupted() -> None:
        raise KeyboardInterrupt

    def lost() -> None:
        device.lost = True

    alone, _ = failing()
    for batch in batches(3):
        alone.load_batch(*batch)
        alone.train_step()
    device = Late(CONFIGS["sim_4x4"])
    host = Host(device, alone.plan)
    host.overlaps = overlaps
    host.load(1)
    first, second, third = batches(3)
    host.load_batch(*first)
    with pytest.raises(KeyboardInterrupt):
        host.train_step(0, interrupted)
    host.load_batch(*second)
    device.lost = not overlaps
    with pytest.raises(DeviceError, match="no answer"):
        host.train_step(0, lost)
    device.lost = False
    host.load_batch(*third)
    host.train_step()
    assert_same(host.state(), alone.state())


def test_a_device_that_takes_no_writes_while_it_runs() -> None:
    class Deaf(Failing):
        def read(self, address: int, count: int = 1) -> NDArray[np.uint32]:
            words = super().read(address, count)
            return words & ~np.uint32(LOADS_WHILE_BUSY) if address == ADDRESSES["CONFIG"] else words

    device = Deaf(CONFIGS["sim_4x4"])
    host = Host(device, compile_network(mlp(6, (5,), 3), device.config, batch=4, lr_shift=3))
    assert not host.overlaps
    assert str(host.loading) == "next batch: loaded between programs, for the device takes no writes while one runs"
    host.load(1)
    left = iter(batches(3))
    host.load_batch(*next(left))
    for _ in range(3):
        host.train_step(0, lambda: next(left, None))
    assert device.meanwhile == 0
