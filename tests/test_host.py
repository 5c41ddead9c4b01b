"""The host driver on the golden device: packing, state, evaluation, errors and training."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from shiftgrad.compiler import compile_network
from shiftgrad.config import CONFIGS, SIZES, Config
from shiftgrad.datasets import load
from shiftgrad.device import ADDRESSES, DeviceError, GoldenDevice
from shiftgrad.host import Host, MachineError
from shiftgrad.images import pixels
from shiftgrad.isa import LOADS_WHILE_BUSY, Memory, Opcode, Region, Status, encode
from shiftgrad.models import Dense, GlobalAverage, MaxPool, Network, mlp
from shiftgrad.tensor_words import pack_tensor, unpack_tensor

Array = NDArray[Any]


def host_of(network: Network, *, config: Config = CONFIGS["sim_4x4"], batch: int = 4, lr_shift: int = 3,
            scale: str = "delayed", seed: int = 1) -> Host:
    host = Host(GoldenDevice(config), compile_network(network, config, batch=batch, lr_shift=lr_shift, scale=scale))
    host.load(seed)
    return host


def samples(count: int, inputs: int, classes: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, inputs), dtype=np.uint8), rng.integers(0, classes, count)


def assert_same(a: dict[str, Array], b: dict[str, Array]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# --- packing --------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("memory", [Memory.WGT, Memory.VEC])
def test_packing_is_the_documented_layout(size: int, memory: Memory) -> None:
    config, rng = Config(name="c", size=size), np.random.default_rng(size)
    width = 2 if memory == Memory.VEC else 1
    for rows, cols in ((1, 1), (3, size), (2, size + 1), (5, 2 * size - 1)):
        values = rng.integers(-127, 128, (rows, cols)).astype(np.int16)
        raw = pack_tensor(values, config, memory).astype("<u4").tobytes()
        pitch = {4: 4, 8: 8, 12: 16, 16: 16}[size] * width
        stride = -(-cols // size)
        assert len(raw) == rows * stride * pitch
        expected = bytearray(len(raw))
        for r in range(rows):
            for c in range(cols):
                at = (r * stride + c // size) * pitch + c % size * width
                expected[at : at + width] = int(values[r, c]).to_bytes(width, "little", signed=True)
        assert raw == bytes(expected)
        back = unpack_tensor(np.frombuffer(raw, "<u4"), (rows, cols), config, memory)
        assert back.dtype == (np.int16 if width == 2 else np.int8)
        np.testing.assert_array_equal(back, values)


def test_pixels() -> None:
    np.testing.assert_array_equal(pixels(np.array([0, 1, 2, 255], np.uint8)), np.array([0, 0, 1, 127], np.int8))
    signed = np.array([-127, 127], np.int8)
    assert pixels(signed) is signed
    with pytest.raises(ValueError, match="got -128"):
        pixels(np.array([-128], np.int8))
    with pytest.raises(TypeError, match="got float64"):
        pixels(np.zeros(3))


@pytest.mark.parametrize("config", [CONFIGS["sim_4x4"], CONFIGS["sim_12x12"]], ids=lambda c: c.name)
def test_tensors_reach_the_machine(config: Config) -> None:
    host = host_of(mlp(7, (13,), 3), config=config)
    rng = np.random.default_rng(3)
    for tensor in host.plan.tensors:
        values = rng.integers(-127, 128, (tensor.rows, tensor.cols))
        host.write_tensor(tensor.name, values)
        np.testing.assert_array_equal(host.read_tensor(tensor.name), values)
        machine = host.device.machine  # type: ignore[attr-defined]
        np.testing.assert_array_equal(machine.values(machine.tensor(tensor.id)), values)
    with pytest.raises(ValueError, match="fc1.weight is 7 x 13, got shape"):
        host.write_tensor("fc1.weight", np.zeros((13, 7)))
    with pytest.raises(ValueError, match="from -127 to 127, got -128 to 0"):
        host.write_tensor("fc1.bias_momentum", np.array([[-128] + [0] * 12]))


# --- batches and results --------------------------------------------------------------------------

def test_a_short_batch_is_padded() -> None:
    host = host_of(mlp(6, (5,), 3), batch=4)
    x, y = samples(2, 6, 3)
    host.load_batch(x, y)
    np.testing.assert_array_equal(host.read_tensor("input"), np.vstack([x // 2, np.zeros((2, 6))]))
    np.testing.assert_array_equal(host.read_tensor("labels").view(np.uint16), [[*y, 0xFFFF, 0xFFFF]])
    result = host.train_step()
    assert result.samples == 2 and 0 <= result.correct <= 2
    assert not host.read_tensor("fc2.error")[2:].any()


def test_bad_batches() -> None:
    host = host_of(mlp(6, (), 3), batch=4)
    x, y = samples(5, 6, 3)
    with pytest.raises(ValueError, match="wanted 1 to 4 images and as many labels, got 5 and 5"):
        host.load_batch(x, y)
    with pytest.raises(ValueError, match="got 3 and 2"):
        host.load_batch(x[:3], y[:2])
    with pytest.raises(ValueError, match="wanted 6 elements a sample, got 5"):
        host.load_batch(x[:3, :5], y[:3])
    with pytest.raises(ValueError, match="labels must be from 0 to 2, got 0 to 3"):
        host.load_batch(x[:2], np.array([0, 3]))
    host.load_batch(x[:4], y[:4])
    with pytest.raises(ValueError, match="lr_extra must be from 0 to 63, got -1"):
        host.train_step(-1)


def test_loss_is_in_nats() -> None:
    network = Network(name="zero", inputs=6, layers=(Dense(name="out", units=4, zero=True),))
    host = host_of(network)
    x, y = samples(4, 6, 4)
    host.load_batch(x, y)
    assert host.train_step().loss == pytest.approx(math.log(4), abs=1e-9)


def test_the_schedule_reaches_the_machine() -> None:
    """One first step from zero weights and momenta: 2^-3 of the step moves the biases 2^-3 as far."""
    moved = []
    for extra in (0, 3):
        host = host_of(Network(name="zero", inputs=6, layers=(Dense(name="out", units=4, zero=True),)), lr_shift=1)
        x, _ = samples(4, 6, 4)
        host.load_batch(x, np.zeros(4, int))
        host.train_step(extra)
        moved.append(host.read_tensor("out.bias")[0, 0])
    assert moved[0] == pytest.approx(8 * moved[1], abs=8) and moved[1] > 100


def test_a_rate_whose_answer_was_lost_is_written_again() -> None:
    """Over a serial line it is not known whether a write that failed was done."""
    class Unanswered(GoldenDevice):
        lost = False

        def write(self, address: int, words: Any) -> None:
            super().write(address, words)
            if self.lost:
                raise DeviceError("no answer")

    device = Unanswered(CONFIGS["sim_4x4"])
    host = Host(device, compile_network(mlp(6, (5,), 3), device.config, batch=4, lr_shift=3))
    host.load(1)
    host.load_batch(*samples(4, 6, 3))
    host.train_step(0)
    device.lost = True
    with pytest.raises(DeviceError, match="no answer"):
        host.train_step(2)
    device.lost = False
    host.train_step(0)
    assert device.machine.lr_shift == 0


@pytest.mark.parametrize("scale", ["delayed", "current"])
def test_evaluation_changes_nothing_that_training_uses(scale: str) -> None:
    host = host_of(mlp(6, (9,), 3), scale=scale)
    x, y = samples(10, 6, 3)
    host.train_epoch(x, y, np.random.default_rng(0))
    before = host.state()
    accuracy, loss = host.evaluate(x // 4, y)
    after = host.state()
    rows = [t.id for t in host.plan.tensors if t.memory not in (Memory.ACT, Memory.ERR)]
    np.testing.assert_array_equal(before["table"][:, 1:], after["table"][:, 1:])
    np.testing.assert_array_equal(before["table"][rows], after["table"][rows])
    assert_same({k: v for k, v in before.items() if k != "table"}, {k: v for k, v in after.items() if k != "table"})
    assert 0 <= accuracy <= 1 and loss > 0 and round(accuracy * 10) == pytest.approx(accuracy * 10)


# --- state ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("scale", ["delayed", "current"])
@pytest.mark.parametrize("stop", [0, 1, 5, 11])
def test_resuming_is_never_having_stopped(scale: str, stop: int) -> None:
    print("seed 4")
    x, y = samples(64, 11, 3, seed=4)
    batches = [slice(4 * i, 4 * i + 4) for i in range(16)]

    def run(host: Host, chosen: list[slice], start: int) -> list[object]:
        results: list[object] = []
        for step, batch in enumerate(chosen, start):
            host.load_batch(x[batch], y[batch])
            results.append(host.train_step(step // 8))
        return results

    whole = host_of(mlp(11, (9, 6), 3), scale=scale)
    expected = run(whole, batches, 0)
    first = host_of(mlp(11, (9, 6), 3), scale=scale)
    results = run(first, batches[:stop], 0)
    second = Host(GoldenDevice(first.plan.config), first.plan)
    second.load(state=first.state())
    assert_same(second.state(), first.state())
    results += run(second, batches[stop:], stop)
    assert results == expected
    assert_same(second.state(), whole.state())
    assert second.exponents() == whole.exponents()


def test_a_state_must_fit() -> None:
    host = host_of(mlp(6, (), 3))
    state = host.state()
    with pytest.raises(ValueError, match=r"table must have shape \(8, 3\), got \(7, 3\)"):
        host.restore(state | {"table": state["table"][1:]})
    with pytest.raises(ValueError, match="a state of mlp-6-3 has .*'fc1.weight'"):
        host.restore({"fc1.weight": state["fc1.weight"]})
    with pytest.raises(ValueError, match="the plan is for sim_4x4, the device is sim_8x8"):
        Host(GoldenDevice(CONFIGS["sim_8x8"]), host.plan)


def test_seeds_differ() -> None:
    a, b, c = (host_of(mlp(6, (), 3), seed=seed).state() for seed in (1, 1, 2))
    assert_same(a, b)
    assert not np.array_equal(a["fc1.weight"], c["fc1.weight"])
    assert not np.array_equal(a["generators"], c["generators"])


# --- errors ---------------------------------------------------------------------------------------

def test_a_failed_program_names_its_instruction() -> None:
    host = host_of(mlp(6, (5,), 3))
    host.load_batch(*samples(4, 6, 3))
    backward = next(i for i in host.plan.instructions if i.opcode == Opcode.BWD)
    host.device.write(Region.TABLE.address + 32 * host.plan.tensor("fc1.error").id + 4, [0])
    with pytest.raises(MachineError) as caught:
        host.train_step()
    assert (caught.value.status, caught.value.pc) == (Status.BAD_SHAPE, backward.pc)
    assert str(caught.value) == ("wanted HALTED, got BAD_SHAPE at instruction 3: BWD.MASK.DELAYED dst=fc1.error, "
                                 "a=fc2.error, b=fc2.weight, c=fc1.out (layer fc2, backward)")


def test_a_program_that_runs_away() -> None:
    host = host_of(mlp(6, (), 3))
    host.load_batch(*samples(4, 6, 3))
    word = encode(Opcode.LOSS, dst=host.plan.tensor("fc1.error").id, a=host.plan.tensor("fc1.out").id, b=1)
    for pc in range(len(host.plan.instructions)):
        host.device.write(Region.PROGRAM.address + 8 * pc, [word & 0xFFFFFFFF, word >> 32])
    with pytest.raises(MachineError, match="ILLEGAL_OPCODE at instruction 8: beyond the program's 8 instructions"):
        host.train_step()


# --- it learns ------------------------------------------------------------------------------------

def test_digits() -> None:
    """64-48-10 in 6 epochs: 97.5 to 98.9 % held out over seeds 0 to 7 (20 epochs: 98.9 to 99.4 % over 0 to 2)."""
    data = load("digits")
    host = host_of(mlp(64, (48,), 10), config=CONFIGS["sim_8x8"], batch=16, lr_shift=4, seed=0)
    rng = np.random.default_rng(0)
    losses = [host.train_epoch(data.images, data.labels, rng, 2 * (epoch >= 4)).loss for epoch in range(6)]
    accuracy, loss = host.evaluate(data.test_images, data.test_labels)
    print(f"losses {losses}, held out {accuracy:.4f}, loss {loss:.4f}")
    assert accuracy >= 0.97 and losses[-1] < 0.08 < losses[0]


# --- loading while a program runs -----------------------------------------------------------------

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
