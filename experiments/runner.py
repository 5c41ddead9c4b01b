"""Runs jobs one after the other: what is done is skipped, what was interrupted goes on, a budget ends it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.grid import CONFIG, Job
from experiments.store import Store
from shiftgrad import checkpoint as checkpoints
from shiftgrad import datasets
from shiftgrad.compiler import compile_network
from shiftgrad.config import get_config
from shiftgrad.device import GoldenDevice
from shiftgrad.images import Dataset
from shiftgrad.record import Epoch, Hyper
from shiftgrad.train import Stop, Trainer

__all__ = ["CONFIG", "run", "validation"]

VALIDATION = 8  # one training image in so many chooses the learning rate
Tick = Callable[[int, int], None]


def validation(data: Dataset) -> Dataset:
    """Training images alone: the last eighth of them held out, so that no held-out image chooses a learning rate."""
    cut = len(data.labels) - len(data.labels) // VALIDATION
    return replace(data, images=data.images[:cut], labels=data.labels[:cut], test_images=data.images[cut:],
                   test_labels=data.labels[cut:])


class _Progress:
    """Says what is running and when it will be done: on one line on a terminal, a line a job elsewhere."""

    def __init__(self, job: Job, position: str) -> None:
        self.job, self.position = job, position
        self.live = sys.stderr.isatty()
        self.started, self.first, self.last = time.monotonic(), -1, 0.0

    def tick(self, done: int, total: int) -> None:
        """``done`` of ``total`` steps are done."""
        now = time.monotonic()
        self.first = done - 1 if self.first < 0 else self.first
        if self.live and now - self.last > 1:
            self.last = now
            left = (now - self.started) / (done - self.first) * (total - done)
            print(f"\r{self.position} {self.job.key}: step {done} of {total}, {_time(left)} left\033[K", end="",
                  file=sys.stderr, flush=True)

    def close(self, result: dict[str, Any]) -> None:
        """The job is done."""
        start = "\r\033[K" if self.live else ""
        print(f"{start}{self.position} {self.job.key}: {100 * result['accuracy']:.2f} % at 2^-{result['lr_shift']}, "
              f"{_time(time.monotonic() - self.started)}", file=sys.stderr, flush=True)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"


def run(work: Iterable[Job], store: Store, folders: Mapping[str, Path], stop: Stop, *, hours: float | None = None
        ) -> None:
    """Run every job of ``work`` that is not done; those of data sets without a folder in ``folders`` are left out.

    Raises
    ------
    Interrupted
        ``stop`` was set, or the budget of ``hours`` is spent; a run in progress has been saved
    """
    known = [job for job in work if job.study.dataset == "digits" or job.study.dataset in folders]
    todo = [job for job in known if store.result(job) is None and not (job.tunes and all(map(store.result, job.tuned)))]
    deadline = time.monotonic() + 3600 * hours if hours is not None else None
    print(f"{len(known)} jobs, {len(known) - len(todo)} done", file=sys.stderr, flush=True)
    for index, job in enumerate(todo, start=len(known) - len(todo) + 1):
        progress = _Progress(job, f"[{index}/{len(known)}]")

        def tick(done: int, total: int, progress: _Progress = progress) -> None:
            if deadline is not None and time.monotonic() > deadline:
                stop.requested = True
            progress.tick(done, total)

        started = time.monotonic()
        hyper = job.hyper(store.lr_shift(job))
        data = datasets.load(job.study.dataset, folders.get(job.study.dataset))
        epochs, more = _train(job, validation(data) if job.tunes else data, hyper, store, stop, tick)
        result = {
            "key": job.key, "study": job.study.facts, "variant": job.variant,
            "batch": job.batch, "seed": job.seed, "tunes": job.tunes, "lr_shift": hyper.lr_shift,
            "accuracy": epochs[-1].accuracy, "loss": epochs[-1].loss, "epochs": [asdict(e) for e in epochs],
            "train_samples": len(data.labels), "test_samples": len(data.test_labels),
            "last_session_seconds": round(time.monotonic() - started, 1), **more,
        }
        store.finish(job, result)
        progress.close(result)


def _train(job: Job, data: Dataset, hyper: Hyper, store: Store, stop: Stop, tick: Tick
           ) -> tuple[list[Epoch], dict[str, Any]]:
    if job.scale:
        return _train_int8(job, data, hyper, store.checkpoint_path(job), stop, tick)
    from experiments import floating

    make = floating.batch_norm_net if job.variant == "fp32_bn" else floating.fixup_net
    net = make(job.study.network, job.seed)
    return floating.train(net, data, hyper, save=store.checkpoint_path(job), stop=stop, tick=tick), {}


class _Watch:
    def __init__(self, tick: Tick) -> None:
        self._tick = tick

    def step(self, trainer: Trainer) -> None:
        """Pass it on."""
        self._tick(trainer.step, trainer.steps)

    def evaluating(self, trainer: Trainer, done: int, total: int) -> None:
        """Nothing to say."""

    def epoch(self, trainer: Trainer, epoch: Epoch) -> None:
        """Nothing to say."""


def _train_int8(job: Job, data: Dataset, hyper: Hyper, save: Path, stop: Stop, tick: Tick
                ) -> tuple[list[Epoch], dict[str, Any]]:
    config = get_config(job.config)
    plan = compile_network(job.study.network, config, batch=hyper.batch, lr_shift=hyper.lr_shift, scale=hyper.scale)
    resume = checkpoints.load(save) if save.exists() else None
    if resume:
        resume.expect(save, network=job.study.network)
    trainer = Trainer(GoldenDevice(config), plan, data, hyper, resume=resume, save=save)
    history = trainer.run(watch=_Watch(tick), stop=stop).history
    saturation = {phase: float(np.mean(values)) for phase, values in history.saturation.items()}
    return history.epochs, {"config": job.config, "scale": hyper.scale, "saturation": saturation}


