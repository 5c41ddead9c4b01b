"""The training loop: the same on every device, resumable to the bit."""

from __future__ import annotations

import hashlib
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np

from shiftgrad import checkpoint as checkpoints
from shiftgrad.checkpoint import Checkpoint, CheckpointError
from shiftgrad.datasets import Dataset, DatasetError
from shiftgrad.device import Device
from shiftgrad.feed import Feed
from shiftgrad.host import Batch, Host
from shiftgrad.images import mantissas
from shiftgrad.isa import LR_MAX
from shiftgrad.meters import Probe, read_counters
from shiftgrad.plan import Plan
from shiftgrad.record import Epoch, History, Hyper, HyperError, Totals

__all__ = ["Interrupted", "Outcome", "Trainer", "Watch", "digest", "stop_on_signals"]


class Interrupted(Exception):  # noqa: N818
    """Training was asked to stop; the step in progress is done and, where a path was given, the checkpoint written."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"stopped after step {step} of {steps}")
        self.step, self.steps = step, steps


class Watch(Protocol):
    """What follows a run; every method is called between two programs of the device."""

    def step(self, trainer: Trainer) -> None:
        """A training step is done."""

    def evaluating(self, trainer: Trainer, done: int, total: int) -> None:
        """``done`` of ``total`` held-out samples are classified."""

    def epoch(self, trainer: Trainer, epoch: Epoch) -> None:
        """An evaluation is done."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Parameters
    ----------
    accuracy, loss : on the held-out samples, 0 to 1 and nats
    steps : training steps done
    totals, history : figures of the whole run, resumed parts included
    """

    accuracy: float
    loss: float
    steps: int
    totals: Totals
    history: History

    @property
    def final_line(self) -> str:
        """The run in one line."""
        compared = self.totals.compared_instructions
        return (f"held-out accuracy {100 * self.accuracy:.2f} %, {self.steps} steps, "
                f"{compared} instructions compared, {self.totals.mismatches} mismatches")


class Stop:
    """A request to stop, set from outside; ``bool(stop)`` tells."""

    def __init__(self) -> None:
        self.requested = False

    def __bool__(self) -> bool:
        return self.requested


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """A :class:`Stop` that the first SIGINT, SIGTERM or SIGHUP sets, but one that is ignored (``nohup``).

    A second one raises ``KeyboardInterrupt``.
    """
    stop = Stop()

    def request(signum: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    heeded = [number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
              if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, request) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def digest(data: Dataset) -> str:
    """SHA-256 of the training images and labels, as hexadecimal."""
    total = hashlib.sha256()
    for array in (data.images, data.labels):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


class Trainer:
    """Trains ``plan`` on ``device`` with ``data``.

    Parameters
    ----------
    device : a machine of the plan's configuration
    plan, data, hyper : what, on what, how; ``plan`` has ``hyper``'s batch, learning rate and scale
    resume : go on from here instead of fresh parameters
    save : where to write checkpoints: after every evaluation, and when stopped
    initial : mantissas by tensor name to start with instead of those drawn from the seed

    Attributes
    ----------
    feed : its mini-batches
    step, steps : training steps done, and of the whole run
    resumed_from : the step it started at
    history, totals : figures so far
    """

    def __init__(self, device: Device, plan: Plan, data: Dataset, hyper: Hyper, *, resume: Checkpoint | None = None,
                 save: Path | str | None = None, initial: Mapping[str, np.ndarray[Any, Any]] | None = None) -> None:
        if data.inputs != plan.network.inputs or data.classes > plan.network.classes:
            raise DatasetError(f"{data.name} has {data.inputs} inputs and {data.classes} classes, "
                               f"{plan.network.name} takes {plan.network.inputs} and gives {plan.network.classes}")
        if len(data.labels) < hyper.batch:
            raise DatasetError(f"{data.name}: a batch of {hyper.batch} needs as many samples, got {len(data.labels)}")
        if hyper.shift >= min(data.shape[:2]):
            raise HyperError(f"shift must be less than the sides of an image, {data.shape[0]} x {data.shape[1]}, "
                             f"got {hyper.shift}")
        for name in ("batch", "lr_shift", "scale"):
            if (planned := getattr(plan, name)) != (wanted := getattr(hyper, name)):
                raise HyperError(f"wanted a plan for {name} {wanted}, got one for {planned}")
        slowest = max(i.imm for i in plan.instructions) + len(hyper.drops)
        if slowest > LR_MAX:
            raise HyperError(f"lr_shift + round(log2 batch) + halvings must be at most {LR_MAX}, got {slowest}")
        self.plan, self.data, self.hyper, self.save_path = plan, data, hyper, Path(save) if save else None
        self.host = Host(device, plan)
        self.device = device
        self.probe = Probe(self.host)
        self.feed = Feed(data, hyper)
        self.steps_per_epoch, self.steps = self.feed.steps_per_epoch, self.feed.steps
        self.step = self.resumed_from = resume.step if resume else 0
        self.history = deepcopy(resume.history) if resume else History()
        self.totals = deepcopy(resume.totals) if resume else Totals()
        self._resume, self._initial = resume, initial
        self._begun = self._broken = False  # the device holds the run; or something unknown of it
        self._last = self.steps
        self._loaded: int | None = None  # the step whose batch is
        self._digest = digest(data)
        self._seen = (device.compared_instructions, device.mismatches)
        self._clock = time.monotonic()

    # --- the run ----------------------------------------------------------------------------------

    def run(self, *, max_steps: int | None = None, watch: Watch | None = None, stop: Stop | None = None) -> Outcome:
        """Train until the last step, or the ``max_steps``-th, and evaluate; called again it goes on.

        Raises
        ------
        RuntimeError
            a run of this trainer has failed, so that the device may hold another state than it has figures of
        Interrupted
            ``stop`` was set; the checkpoint, if there is a path for one, has been written
        """
        stop = stop if stop is not None else Stop()
        self._last = self.steps if max_steps is None else min(self.steps, max_steps)
        if self._broken:
            raise RuntimeError("wanted a run that can go on, got one that failed: make another Trainer")
        if not self._begun:
            self._load()
        self._loaded = None
        self.device.clear_counters()
        self._clock = time.monotonic()
        try:
            result = self._train(watch, stop) or self._evaluate(watch, stop)
        except Interrupted:
            self._settle()
            if self.save_path:
                self.save(self.save_path)
            raise
        except BaseException:
            self._broken = True
            raise
        self._settle()
        if self.save_path:
            self.save(self.save_path)
        return Outcome(accuracy=result[0], loss=result[1], steps=self.step, totals=self.totals, history=self.history)

    def checkpoint(self) -> Checkpoint:
        """The run as it stands."""
        self._settle()
        return Checkpoint(network=self.plan.network, config=self.plan.config, hyper=self.hyper, dataset=self.data.name,
                          digest=self._digest, step=self.step, steps=self.steps, state=self.host.state(),
                          history=self.history, totals=self.totals)

    def save(self, path: Path) -> None:
        """Write :meth:`checkpoint` to ``path``."""
        checkpoints.save(path, self.checkpoint())

    # --- steps ------------------------------------------------------------------------------------

    def _train(self, watch: Watch | None, stop: Stop) -> tuple[float, float] | None:
        """Steps up to the last; the evaluation that fell due behind it, if one did."""
        while True:
            result = self._evaluate_if_due(watch, stop)
            if self.step >= self._last:
                return result
            self._halt_if(stop)
            self._train_step()
            if watch:
                watch.step(self)

    def _load(self) -> None:
        """The state onto the device."""
        if self._resume:
            try:
                self.host.load(self.hyper.seed, state=self._resume.state)
            except ValueError as error:
                raise CheckpointError(f"the checkpoint does not fit the run: {error}") from error
        else:
            self.host.load(self.hyper.seed, parameters=self._initial)
        if self.probe.fits:
            self.probe.load()
        self._begun = True

    def _train_step(self) -> None:
        extra = self.hyper.lr_extra(self.step, self.steps)
        if self._loaded != self.step:
            self.host.load_batch(*self._batch(self.step))
        self._loaded = None
        sampled = self.step % self.hyper.sample_every == 0 or self.step == self.steps - 1
        saturation: dict[str, float] = {}
        if sampled and self.probe.fits:
            with self._unmetered():
                result, saturation = self.probe.step(extra)
        else:
            result = self.host.train_step(extra, self._following)
            self.totals.metered += 1
        self.step += 1
        self.history.loss.append(result.loss)
        self.history.accuracy.append(result.correct / max(1, result.samples))
        self.history.lr_extra.append(extra)
        if sampled:
            self.history.sample(self.host.exponents(), saturation)

    def _batch(self, step: int) -> Batch:
        return self.feed.mantissas(step), self.feed.labels(step)

    def _following(self) -> Batch | None:
        """The batch of the next step, unless something else comes before that."""
        step = self.step + 1
        if step >= self._last or self._due(step):
            return None
        batch, self._loaded = self._batch(step), step
        return batch

    def _due(self, step: int) -> bool:
        """Whether the held-out samples are classified before ``step``."""
        epoch, rest = divmod(step, self.steps_per_epoch)
        return not rest and step > 0 and (epoch % self.hyper.eval_every == 0 or step == self.steps)

    def _evaluate_if_due(self, watch: Watch | None, stop: Stop) -> tuple[float, float] | None:
        if not self._due(self.step):
            return None
        epochs = self.history.epochs
        if epochs and epochs[-1].step == self.step:
            return epochs[-1].accuracy, epochs[-1].loss
        accuracy, loss = self._evaluate(watch, stop)
        since = epochs[-1].step if epochs else 0
        entry = Epoch(epoch=self.step // self.steps_per_epoch, step=self.step,
                      train_loss=float(np.mean(self.history.loss[since:])),
                      train_accuracy=float(np.mean(self.history.accuracy[since:])), loss=loss, accuracy=accuracy)
        epochs.append(entry)
        if self.save_path:
            self.save(self.save_path)
        if watch:
            watch.epoch(self, entry)
        return accuracy, loss

    def _evaluate(self, watch: Watch | None, stop: Stop) -> tuple[float, float]:
        """Accuracy and mean loss on the held-out samples, a batch at a time so that it can be stopped.

        The tensor table is put back, so that evaluations leave no trace in the training that follows.
        """
        total, batch = len(self.data.test_labels), self.hyper.batch
        parts = [slice(start, min(start + batch, total)) for start in range(0, total, batch)]
        correct, loss, self._loaded = 0, 0.0, None
        self._halt_if(stop)
        with self._unmetered(), self.host.same_table():
            for part, result in zip(parts, self.host.evaluations(map(self._held_out, parts)), strict=True):
                correct, loss = correct + result.correct, loss + result.loss * (part.stop - part.start)
                if watch:
                    watch.evaluating(self, part.stop, total)
                if part.stop < total:
                    self._halt_if(stop)
        return correct / max(1, total), loss / max(1, total)

    def _held_out(self, part: slice) -> Batch:
        return mantissas(self.data.test_images[part], self.data.centred), self.data.test_labels[part]

    def _halt_if(self, stop: Stop) -> None:
        if stop:
            raise Interrupted(self.step, self.steps)

    # --- figures ----------------------------------------------------------------------------------

    @contextmanager
    def _unmetered(self) -> Iterator[None]:
        """Keep what runs inside out of the counters' totals."""
        self._collect()
        try:
            yield
        finally:
            self.device.clear_counters()

    def _collect(self) -> None:
        counters = Counter(self.totals.counters)
        counters.update(read_counters(self.device))
        self.totals.counters = dict(counters)
        self.device.clear_counters()

    def _settle(self) -> None:
        """Bring the totals up to date."""
        self._collect()
        now, seen = time.monotonic(), (self.device.compared_instructions, self.device.mismatches)
        self.totals.compared_instructions += seen[0] - self._seen[0]
        self.totals.mismatches += seen[1] - self._seen[1]
        self.totals.seconds += now - self._clock
        self._seen, self._clock = seen, now

    def facts(self) -> dict[str, Any]:
        """Hyperparameters and sizes in plain types."""
        return {**asdict(self.hyper), "drops": list(self.hyper.drops), "network": self.plan.network.name,
                "parameters": self.plan.network.parameters, "config": self.plan.config.name, "dataset": self.data.name,
                "train_samples": len(self.data.labels), "test_samples": len(self.data.test_labels)}
