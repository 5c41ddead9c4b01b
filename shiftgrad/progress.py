"""A training run on the terminal: a live line where there is one, a line an evaluation in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shiftgrad.record import Epoch
from shiftgrad.train import Trainer

__all__ = ["LiveWatch", "LogWatch", "watch_for"]

LOG_SECONDS = 60.0
SMOOTHING = 0.98  # of the loss and accuracy shown


def _line(trainer: Trainer, epoch: Epoch) -> str:
    rate = trainer.hyper.lr_shift + (trainer.history.lr_extra[-1] if trainer.history.lr_extra else 0)
    return (f"epoch {epoch.epoch:3} of {trainer.hyper.epochs}  step {epoch.step:6}  lr 2^-{rate}  "
            f"train loss {epoch.train_loss:.4f} {100 * epoch.train_accuracy:6.2f} %  "
            f"held-out loss {epoch.loss:.4f} {100 * epoch.accuracy:6.2f} %")


class LogWatch:
    """Lines on standard error: one an evaluation, and where the run is when the last line is a minute old."""

    def __init__(self) -> None:
        self._spoke = time.monotonic()

    def __enter__(self) -> LogWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing to close."""

    def _say(self, line: str) -> None:
        self._spoke = time.monotonic()
        print(line, file=sys.stderr, flush=True)

    def _say_now_and_then(self, trainer: Trainer, line: str) -> None:
        if time.monotonic() - self._spoke >= LOG_SECONDS:
            compared = trainer.device.compared_instructions
            self._say(line + (f", {compared:,} instructions compared" if compared else ""))

    def step(self, trainer: Trainer) -> None:
        """Where it is, now and then."""
        loss = trainer.history.loss[-1]
        self._say_now_and_then(trainer, f"step {trainer.step:6} of {trainer.steps}, mini-batch loss {loss:.4f}")

    def evaluating(self, trainer: Trainer, done: int, total: int) -> None:
        """The same."""
        self._say_now_and_then(trainer, f"evaluated {done} of {total} held-out samples")

    def epoch(self, trainer: Trainer, epoch: Epoch) -> None:
        """The evaluation's line."""
        self._say(_line(trainer, epoch))


class LiveWatch:
    """Steps, loss, accuracy, instructions compared and the time left, on one live line; evaluations above it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:10}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=console, transient=True,
        )
        self._task = self._progress.add_task("starting", total=None, figures="")
        self._loss = self._accuracy = 0.0
        self._weight = 0.0

    def __enter__(self) -> LiveWatch:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.__exit__(kind, error, at)

    def step(self, trainer: Trainer) -> None:
        """Move the bar."""
        history = trainer.history
        self._weight = SMOOTHING * self._weight + 1 - SMOOTHING
        self._loss += (history.loss[-1] - self._loss) * (1 - SMOOTHING) / self._weight
        self._accuracy += (history.accuracy[-1] - self._accuracy) * (1 - SMOOTHING) / self._weight
        compared = trainer.device.compared_instructions
        figures = f"loss {self._loss:.3f}  accuracy {100 * self._accuracy:5.1f} %"
        figures += f"  {compared:,} instructions compared" if compared else ""
        self._progress.update(self._task, total=trainer.steps, completed=trainer.step, description="training",
                              figures=figures)

    def evaluating(self, trainer: Trainer, done: int, total: int) -> None:
        """Say so."""
        self._progress.update(self._task, description="evaluating")

    def epoch(self, trainer: Trainer, epoch: Epoch) -> None:
        """The evaluation's line, above the bar."""
        self._progress.console.print(_line(trainer, epoch), highlight=False)


class _Silent(LogWatch):
    def _say(self, line: str) -> None:
        """Nothing."""


def watch_for(*, quiet: bool) -> LiveWatch | LogWatch:
    """What fits standard error: live on a terminal, lines elsewhere, silent when ``quiet``."""
    if quiet:
        return _Silent()
    console = Console(stderr=True)
    return LiveWatch(console) if console.is_terminal else LogWatch()
