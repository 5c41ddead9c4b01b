"""Training that was stopped, by whatever, and resumed: it leaves no trace, and states that do not fit are refused."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from shiftgrad import checkpoint as checkpoints
from shiftgrad.checkpoint import CheckpointError
from shiftgrad.device import GoldenDevice
from shiftgrad.record import History
from shiftgrad.train import Interrupted, Stop, Trainer, stop_on_signals
from tests.train_cases import CONFIG, HYPER, StopAt, blobs, same_history, same_state, trainer


@pytest.mark.parametrize("scale", ["delayed", "current"])
@pytest.mark.parametrize(
    ("at", "evaluating"), [(1, False), (4, False), (5, False), (10, True), (13, False), (20, True)])
def test_stopping_leaves_no_trace(tmp_path: Path, at: int, evaluating: bool, scale: str) -> None:
    hyper = replace(HYPER, scale=scale)
    straight = trainer(hyper)
    expected = straight.run()
    path, stop = tmp_path / "c.npz", Stop()
    with pytest.raises(Interrupted, match=f"step {at} of 20"):
        trainer(hyper, save=path).run(watch=StopAt(stop, at, evaluating), stop=stop)
    saved = checkpoints.load(path)
    assert saved.step == at
    resumed = trainer(hyper, resume=saved)
    outcome = resumed.run()
    same_state(straight, resumed)
    same_history(expected.history, outcome.history)
    assert (outcome.accuracy, outcome.loss) == (expected.accuracy, expected.loss)
    assert outcome.totals.counters == expected.totals.counters and outcome.totals.metered == expected.totals.metered


@pytest.mark.parametrize("at", [3, 10])
def test_stopping_leaves_no_trace_in_flips_and_shifts(tmp_path: Path, at: int) -> None:
    hyper, data, path, stop = replace(HYPER, flip=True, shift=1), blobs(), tmp_path / "c.npz", Stop()
    straight = trainer(hyper)
    expected = straight.run()
    with pytest.raises(Interrupted):
        trainer(hyper, save=path).run(watch=StopAt(stop, at), stop=stop)
    saved = checkpoints.load(path)
    assert saved.hyper == hyper
    resumed = trainer(saved.hyper, resume=saved, data=data)
    same_history(expected.history, resumed.run().history)
    same_state(straight, resumed)
    plain = trainer()
    assert plain.run().history.loss != expected.history.loss


def test_stopping_without_a_path() -> None:
    stop = Stop()
    with pytest.raises(Interrupted):
        trainer().run(watch=StopAt(stop, 2), stop=stop)


def test_max_steps_then_the_rest(tmp_path: Path) -> None:
    straight, path = trainer(), tmp_path / "c.npz"
    expected = straight.run()
    trainer(save=path).run(max_steps=8)
    resumed = trainer(resume=checkpoints.load(path))
    same_history(expected.history, resumed.run().history)
    same_state(straight, resumed)


def test_a_finished_run_resumed_only_evaluates(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    expected = trainer(save=path).run()
    saved = checkpoints.load(path)
    assert saved.finished
    outcome = trainer(resume=saved).run()
    assert (outcome.steps, outcome.accuracy, outcome.loss) == (20, expected.accuracy, expected.loss)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals(number: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # under nohup the tests ignore a hangup
    try:
        with stop_on_signals() as stop:
            assert not stop
            os.kill(os.getpid(), number)
            assert stop
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_checkpoint_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    trainer(save=path).run(max_steps=7)
    saved = checkpoints.load(path)
    for _ in range(2):
        again = trainer(resume=saved)
        again.run(max_steps=9)
        assert len(again.history.loss) == 9 and len(saved.history.loss) == 7


def test_comparisons_add_up_over_runs(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    device = GoldenDevice(CONFIG)
    device.compared_instructions = 100  # of an earlier run on the same device
    first = trainer(device=device, save=path)

    class Count(StopAt):
        def step(self, t: Trainer) -> None:
            t.device.compared_instructions += 10
            t.device.mismatches += t.step == 3

    first.run(max_steps=4, watch=Count(Stop(), -1))
    saved = checkpoints.load(path)
    assert (saved.totals.compared_instructions, saved.totals.mismatches) == (40, 1)
    outcome = trainer(resume=saved).run(watch=Count(Stop(), -1))
    assert (outcome.totals.compared_instructions, outcome.totals.mismatches) == (200, 1)
    assert "200 instructions compared, 1 mismatches" in outcome.final_line


def test_a_state_of_another_plan(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    trainer(save=path).run(max_steps=1)
    saved = checkpoints.load(path)
    wrong = replace(saved, state=saved.state | {"fc1.weight": saved.state["fc1.weight"][:2]})
    with pytest.raises(CheckpointError, match=r"fc1.weight must have shape \(6, 5\), got \(2, 5\)"):
        trainer(resume=wrong).run()


def test_history_round_trip() -> None:
    history = trainer().run(max_steps=9).history
    same_history(history, History.from_arrays(history.to_arrays()))
    same_history(History(), History.from_arrays(History().to_arrays()))
