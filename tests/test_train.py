"""The training loop: what it feeds the machine, what it records, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from shiftgrad.compiler import compile_network
from shiftgrad.datasets import Dataset, DatasetError
from shiftgrad.device import GoldenDevice
from shiftgrad.host import Host
from shiftgrad.images import mantissas
from shiftgrad.meters import Probe
from shiftgrad.models import mlp
from shiftgrad.record import HyperError, Totals
from shiftgrad.train import Interrupted, Stop, Trainer
from tests.train_cases import CONFIG, HYPER, StopAt, blobs, plan, same_history, same_state, trainer

# --- figures --------------------------------------------------------------------------------------


def test_it_learns_and_records() -> None:
    t = trainer(replace(HYPER, epochs=8))
    outcome = t.run()
    assert outcome.accuracy == 1.0 and outcome.steps == 8 * 5 == len(outcome.history.loss)
    assert [e.epoch for e in outcome.history.epochs] == list(range(1, 9))
    assert [e.step for e in outcome.history.epochs] == list(range(5, 41, 5))
    assert outcome.history.loss[-1] < outcome.history.loss[0]
    last = outcome.history.epochs[-1]
    assert (last.accuracy, last.loss) == (outcome.accuracy, outcome.loss)
    assert last.train_loss == pytest.approx(np.mean(outcome.history.loss[-5:]))
    assert t.host.evaluate(t.data.test_images, t.data.test_labels) == pytest.approx((outcome.accuracy, outcome.loss))


def test_samples_of_exponents_and_saturation() -> None:
    t = trainer()
    history = t.run().history
    assert history.sampled == [1, 4, 7, 10, 13, 16, 19, 20]
    assert set(history.exponents) == {tensor.name for tensor in t.plan.tensors}
    assert set(history.saturation) == {"forward", "backward", "gradient"}
    assert all(len(v) == len(history.sampled) for v in (*history.exponents.values(), *history.saturation.values()))
    assert {name: values[-1] for name, values in history.exponents.items()} == t.host.exponents()


def test_counters_cover_metered_steps_only() -> None:
    t = trainer()
    totals = t.run().totals
    macs = sum(m * n * k for i in t.plan.program_of("train") for m, n, k in [i.shape] if i.opcode.name != "LOSS")
    assert totals.metered == 20 - 8
    assert totals.macs == totals.metered * macs
    assert totals.cycles == 0 and set(totals.utilisation(16).values()) == {None}


def test_utilisation() -> None:
    counters = {"FWD_CYCLES": 100, "BWD_CYCLES": 50, "GRAD_CYCLES": 100, "OTHER_CYCLES": 150, "FWD_MACS": 1600,
                "BWD_MACS": 200, "GRAD_MACS": 800}
    totals = Totals(counters=counters)
    assert totals.utilisation(16) == {"forward": 1.0, "backward": 0.25, "gradient": 0.5, "step": 2600 / (400 * 16)}


def test_the_probe_is_the_step_taken_apart() -> None:
    hyper, data = HYPER, blobs()
    hosts = [Host(GoldenDevice(CONFIG), plan(hyper)) for _ in range(2)]
    probe = Probe(hosts[1])
    for host in hosts:
        host.load(3)
    probe.load()
    machine = hosts[0].device.machine
    for step in range(4):
        part = slice(4 * step, 4 * step + 4)
        for host in hosts:
            host.load_batch(data.images[part], data.labels[part])
        whole = hosts[0].train_step(step)
        result, saturation = probe.step(step)
        assert result == whole
        assert hosts[1].device.machine.lr_shift == 0, "the register is put back"
        assert all(0 <= share <= 1 for share in saturation.values())
    for name, array in machine.snapshot().items():
        np.testing.assert_array_equal(array, hosts[1].device.machine.snapshot()[name], err_msg=name)


def test_the_probe_sees_saturation() -> None:
    """A first-layer result of 1.4 times a power of two saturates by design; 127/128 of one does not."""
    host = Host(GoldenDevice(CONFIG), plan())
    probe = Probe(host)
    host.load(0)
    probe.load()
    host.write_tensor("fc1.weight", np.eye(6, 5, dtype=np.int8))
    host.write_tensor("fc2.weight", np.zeros((5, 3), np.int8))
    images = np.zeros((4, 6), np.int8)
    images[:2, 0] = 90  # 90 / 64 < sqrt(2): the exponent rounds down and 90 becomes 127 of 64ths
    host.load_batch(images, np.zeros(4, int))
    _, saturation = probe.step(0)
    assert saturation["forward"] == 2 / (4 * 5 + 4 * 3)


def test_a_program_memory_without_room_for_the_probe() -> None:
    small = replace(CONFIG, program_words=len(plan().program))
    compiled = compile_network(mlp(6, (5,), 3), small, batch=4, lr_shift=4)
    t = Trainer(GoldenDevice(small), compiled, blobs(), HYPER)
    outcome = t.run()
    assert outcome.history.saturation == {} and outcome.totals.metered == 20
    other = trainer()
    other.run()
    same_state(t, other)


# --- what reaches the machine ---------------------------------------------------------------------


def test_an_epoch_visits_every_sample_at_most_once() -> None:
    t = trainer()
    epochs = [np.concatenate([t.feed.indices(5 * e + i) for i in range(5)]) for e in range(3)]
    for order in epochs:
        assert len(set(order)) == len(order) == 20 and set(order) <= set(range(22))
    assert not np.array_equal(epochs[0], epochs[1])
    other = trainer(replace(HYPER, seed=1))
    assert not np.array_equal(epochs[0][:4], other.feed.indices(0))


def colour() -> Dataset:
    """:func:`blobs` as 1 x 2 pixels of 3 colours, centred."""
    return replace(blobs(), shape=(1, 2, 3), centred=True)


class Seen:
    """Collects the input that the device held at every step, and at every evaluation."""

    def __init__(self) -> None:
        self.steps: list[np.ndarray] = []
        self.evaluations: list[np.ndarray] = []

    def step(self, t: Trainer) -> None:
        self.steps.append(t.host.read_tensor("input"))

    def evaluating(self, t: Trainer, done: int, total: int) -> None:
        self.evaluations.append(t.host.read_tensor("input"))

    def epoch(self, t: Trainer, epoch) -> None:
        pass


@pytest.mark.parametrize("data", [blobs(), colour()], ids=["grey", "centred"])
def test_the_machine_sees_mantissas_of_the_data_sets_rule(data: Dataset) -> None:
    t = trainer(data=data)
    seen = Seen()
    t.run(max_steps=5, watch=seen)
    for step, got in enumerate(seen.steps):
        np.testing.assert_array_equal(got, mantissas(data.images[t.feed.indices(step)], data.centred))
    for index, got in enumerate(seen.evaluations):
        wanted = mantissas(data.test_images[4 * index : 4 * index + 4], data.centred)
        np.testing.assert_array_equal(got[: len(wanted)], wanted)
    assert len(seen.steps) == 5 and len(seen.evaluations) == 3


def test_flips_reach_the_training_steps_and_not_the_evaluations() -> None:
    data = colour()
    t = trainer(replace(HYPER, flip=True, seed=2), data=data)
    seen = Seen()
    t.run(max_steps=5, watch=seen)
    mirrored = 0
    for step, got in enumerate(seen.steps):
        for index, image in zip(t.feed.indices(step), got, strict=True):
            pixels = mantissas(data.images[index], True).reshape(2, 3)
            mirrored += (flipped := np.array_equal(image, pixels[::-1].reshape(-1)))
            assert flipped or np.array_equal(image, pixels.reshape(-1))
    assert 5 <= mirrored <= 15
    for index, got in enumerate(seen.evaluations):
        wanted = mantissas(data.test_images[4 * index : 4 * index + 4], True)
        np.testing.assert_array_equal(got[: len(wanted)], wanted)


@pytest.mark.parametrize("data", [blobs(), replace(blobs(), centred=True)], ids=["grey", "centred"])
def test_shifts_bring_in_mantissas_of_0(data: Dataset) -> None:
    t = trainer(replace(HYPER, shift=1), data=replace(data, images=np.full_like(data.images, 250)))
    seen = Seen()
    t.run(max_steps=5, watch=seen)
    assert set(np.unique(seen.steps)) == {0, 122 if data.centred else 125}


def test_schedule() -> None:
    hyper = replace(HYPER, drops=(0.5, 0.75))
    assert [hyper.lr_extra(step, 8) for step in range(8)] == [0, 0, 0, 0, 1, 1, 2, 2]
    assert [replace(HYPER, drops=()).lr_extra(step, 8) for step in (0, 7)] == [0, 0]
    t = trainer(hyper)
    assert t.run().history.lr_extra == [0] * 10 + [1] * 5 + [2] * 5
    assert t.device.machine.lr_shift == 2


def test_loads_beside_a_step_change_no_training() -> None:
    hyper = replace(HYPER, sample_every=1000)  # a sampled step loads nothing beside it
    beside, between = trainer(hyper), trainer(hyper)
    assert beside.host.overlaps
    between._following = lambda: None  # every batch is loaded in front of its step
    assert beside.run().history.epochs == between.run().history.epochs
    same_state(beside, between)
    same_history(beside.history, between.history)


@pytest.mark.parametrize("change", [{"eval_every": 3}, {"sample_every": 1}, {"sample_every": 1000}])
def test_looking_changes_nothing(change: dict[str, int]) -> None:
    one, other = trainer(), trainer(replace(HYPER, **change))
    one.run()
    other.run()
    same_state(one, other)
    assert one.history.loss == other.history.loss


def test_evaluation_leaves_no_exponent_behind() -> None:
    data = blobs()
    dim = replace(data, test_images=data.test_images // 16)
    t = trainer(replace(HYPER, scale="current", sample_every=1), data=dim)
    history = t.run(max_steps=5).history
    assert {name: values[-1] for name, values in history.exponents.items()} == t.host.exponents()
    t.host.evaluate(dim.test_images, dim.test_labels)
    assert t.host.exponents()["fc1.out"] < history.exponents["fc1.out"][-1], "the host alone does leave some"


def test_eval_every_keeps_the_last_epoch() -> None:
    assert [e.epoch for e in trainer(replace(HYPER, eval_every=3)).run().history.epochs] == [3, 4]


def test_a_run_goes_on_where_it_ended() -> None:
    whole, parts = trainer(), trainer()
    last = whole.run()
    assert parts.run(max_steps=7).steps == 7
    with pytest.raises(Interrupted):
        stop = Stop()
        parts.run(watch=StopAt(stop, 9), stop=stop)
    assert parts.run(max_steps=13).steps == 13
    for _ in range(2):
        again = parts.run()
        assert (again.accuracy, again.loss, again.steps) == (last.accuracy, last.loss, last.steps)
        same_state(whole, parts)
    assert whole.totals.counters == parts.totals.counters


def test_a_run_that_failed_does_not_go_on() -> None:
    broken = trainer()
    step = broken.host.device.start
    broken.host.device.start = lambda pc: (step(pc), 1 / 0)
    with pytest.raises(ZeroDivisionError):
        broken.run()
    broken.host.device.start = step
    with pytest.raises(RuntimeError, match="wanted a run that can go on"):
        broken.run()


@pytest.mark.parametrize(("name", "value"), [("batch", 3), ("lr_shift", 5), ("scale", "current")])
def test_a_plan_of_another_run(name: str, value: int | str) -> None:
    other = replace(HYPER, **{name: value})
    with pytest.raises(HyperError, match=f"wanted a plan for {name} {value}, got one for {getattr(HYPER, name)}"):
        Trainer(GoldenDevice(CONFIG), plan(HYPER), blobs(), other)


def test_max_steps() -> None:
    outcome = trainer().run(max_steps=7)
    assert outcome.steps == len(outcome.history.loss) == 7 and len(outcome.history.epochs) == 1
    untrained = trainer().run(max_steps=0)
    assert untrained.steps == 0 and 0 <= untrained.accuracy <= 1


def test_seed_decides() -> None:
    runs = [trainer(replace(HYPER, seed=s)) for s in (0, 0, 1)]
    for t in runs:
        t.run()
    same_state(runs[0], runs[1])
    assert runs[0].history.loss != runs[2].history.loss


# --- errors ---------------------------------------------------------------------------------------


def test_data_that_does_not_fit() -> None:
    with pytest.raises(DatasetError, match="a batch of 4 needs as many samples, got 3"):
        trainer(data=blobs(3))
    wrong = replace(blobs(), images=np.zeros((22, 4), np.uint8), test_images=np.zeros((9, 4), np.uint8),
                    shape=(2, 2, 1))
    with pytest.raises(DatasetError, match="blobs has 4 inputs and 3 classes, mlp-6-5-3 takes 6 and gives 3"):
        trainer(data=wrong)


@pytest.mark.parametrize(
    "bad", [{"batch": 0}, {"epochs": 0}, {"epochs": 10**400}, {"lr_shift": -1}, {"seed": -1}, {"drops": (0.8, 0.6)},
            {"drops": (1.5,)}, {"eval_every": 0}, {"flip": 1}, {"flip": None}, {"shift": -1}, {"shift": 0.5},
            {"batch": True}, {"scale": "now"}, {"drops": None}, {"drops": 0.5}])
def test_hyperparameters_out_of_range(bad: dict) -> None:
    with pytest.raises(HyperError, match=f"{next(iter(bad))} must be"):
        replace(HYPER, **bad)


def test_a_shift_as_large_as_an_image() -> None:
    trainer(replace(HYPER, shift=1))
    with pytest.raises(HyperError, match="shift must be less than the sides of an image, 2 x 3, got 2"):
        trainer(replace(HYPER, shift=2))


def test_halvings_beyond_the_slowest_rate() -> None:
    slow = replace(HYPER, lr_shift=60, drops=(0.5,))
    trainer(slow)
    with pytest.raises(HyperError, match="halvings must be at most 63, got 64"):
        trainer(replace(slow, drops=(0.5, 0.75)))
