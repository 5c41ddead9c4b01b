"""What a training run was told, and what it did: plain data, ready for checkpoints and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad.compiler import SCALES

__all__ = ["EPOCHS_MAX", "PHASES", "Epoch", "History", "Hyper", "HyperError", "Totals"]

PHASES = {"forward": "FWD", "backward": "BWD", "gradient": "GRAD"}  # name in reports -> prefix of the counters
EPOCHS_MAX = 1_000_000
Array = NDArray[Any]


class HyperError(ValueError):
    """A hyperparameter out of range."""


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """How to train.

    Parameters
    ----------
    batch : samples a step
    epochs : passes over the training images; an incomplete last batch of a pass is left out
    lr_shift : the learning rate starts at 2^-lr_shift
    scale : ``delayed`` or ``current``
    seed : of parameters, generators, the order of samples and their flips and shifts
    drops : fractions of the run after which the learning rate is halved, ascending
    eval_every : epochs from one held-out evaluation to the next; the last epoch has one always
    sample_every : steps from one record of exponents and saturation to the next
    flip : mirror half of the training images, drawn anew each step
    shift : move training images by up to this many pixels in both directions, drawn anew each step
    """

    batch: int
    epochs: int
    lr_shift: int = 4
    scale: str = "delayed"
    seed: int = 0
    drops: tuple[float, ...] = (0.6, 0.85)
    eval_every: int = 1
    sample_every: int = 20
    flip: bool = False
    shift: int = 0

    def __post_init__(self) -> None:
        for name, low in (("batch", 1), ("epochs", 1), ("lr_shift", 0), ("seed", 0), ("eval_every", 1),
                          ("sample_every", 1), ("shift", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise HyperError(f"{name} must be an integer from {low}, got {value!r}")
        if not isinstance(self.flip, bool):
            raise HyperError(f"flip must be True or False, got {self.flip!r}")
        if self.epochs > EPOCHS_MAX:
            raise HyperError(f"epochs must be at most {EPOCHS_MAX:,}, got {self.epochs}")
        if self.scale not in SCALES:
            raise HyperError(f"scale must be one of {SCALES}, got {self.scale!r}")
        if not isinstance(self.drops, tuple) or not all(isinstance(drop, int | float) for drop in self.drops):
            raise HyperError(f"drops must be a tuple of numbers, got {self.drops!r}")
        if list(self.drops) != sorted(self.drops) or not all(0 <= drop <= 1 for drop in self.drops):
            raise HyperError(f"drops must be fractions from 0 to 1, ascending, got {self.drops}")

    def lr_extra(self, step: int, steps: int) -> int:
        """Halvings of the learning rate in force at ``step`` of ``steps``."""
        return sum(step >= drop * steps for drop in self.drops)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The held-out evaluation after ``step`` steps, and the training figures since the one before; losses in nats."""

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    loss: float
    accuracy: float


@dataclass(kw_only=True)
class History:
    """Figures by step, by sampled step and by epoch.

    Attributes
    ----------
    loss, accuracy : of every step's mini-batch, nats and 0 to 1
    lr_extra : halvings of the learning rate at every step
    sampled : number of steps done when each sample was taken
    exponents : tensor name -> its exponent at each sample
    saturation : phase -> share of its mantissas that saturated, at each sample; empty when the device cannot tell
    epochs : evaluations, in order
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    lr_extra: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    exponents: dict[str, list[int]] = field(default_factory=dict)
    saturation: dict[str, list[float]] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=list)

    def sample(self, exponents: Mapping[str, int], saturation: Mapping[str, float]) -> None:
        """Record exponents and saturation after the steps so far."""
        self.sampled.append(len(self.loss))
        for name, exponent in exponents.items():
            self.exponents.setdefault(name, []).append(exponent)
        for phase, share in saturation.items():
            self.saturation.setdefault(phase, []).append(share)

    def to_arrays(self) -> dict[str, Array]:
        """Everything as named arrays; :meth:`from_arrays` is the inverse."""
        arrays: dict[str, Array] = {
            "loss": np.array(self.loss, np.float64),
            "accuracy": np.array(self.accuracy, np.float64),
            "lr_extra": np.array(self.lr_extra, np.int32),
            "sampled": np.array(self.sampled, np.int64),
            "epochs": np.array([list(asdict(e).values()) for e in self.epochs], np.float64).reshape(-1, 6),
        }
        arrays |= {f"exponents/{name}": np.array(values, np.int8) for name, values in self.exponents.items()}
        arrays |= {f"saturation/{name}": np.array(values, np.float64) for name, values in self.saturation.items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> History:
        """The history that :meth:`to_arrays` described."""

        def group(prefix: str) -> dict[str, list[Any]]:
            return {name[len(prefix):]: a.tolist() for name, a in arrays.items() if name.startswith(prefix)}

        epochs = [
            Epoch(epoch=int(e), step=int(s), train_loss=tl, train_accuracy=ta, loss=lo, accuracy=ac)
            for e, s, tl, ta, lo, ac in arrays["epochs"].tolist()
        ]
        return cls(loss=arrays["loss"].tolist(), accuracy=arrays["accuracy"].tolist(),
                   lr_extra=arrays["lr_extra"].tolist(), sampled=arrays["sampled"].tolist(),
                   exponents=group("exponents/"), saturation=group("saturation/"), epochs=epochs)


@dataclass(kw_only=True)
class Totals:
    """Sums over a run and the runs it resumed.

    Attributes
    ----------
    counters : the device's counters, over the metered steps
    metered : training steps the counters cover (sampled steps are taken apart to look inside and left out)
    compared_instructions, mismatches : with the golden machine
    seconds : of training and evaluation
    """

    counters: dict[str, int] = field(default_factory=dict)
    metered: int = 0
    compared_instructions: int = 0
    mismatches: int = 0
    seconds: float = 0.0

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates."""
        return sum(self.counters.get(f"{prefix}_MACS", 0) for prefix in PHASES.values())

    @property
    def cycles(self) -> int:
        """Busy cycles; 0 when the device does not count them."""
        return sum(self.counters.get(f"{prefix}_CYCLES", 0) for prefix in (*PHASES.values(), "VECTOR", "OTHER"))

    def utilisation(self, peak: int) -> dict[str, float | None]:
        """Useful multiply-accumulates over ``peak`` a cycle: by phase, and ``step`` for all; None without cycles."""

        def share(macs: int, cycles: int) -> float | None:
            return macs / (cycles * peak) if cycles else None

        phases = {name: share(self.counters.get(f"{p}_MACS", 0), self.counters.get(f"{p}_CYCLES", 0))
                  for name, p in PHASES.items()}
        return {**phases, "step": share(self.macs, self.cycles)}
