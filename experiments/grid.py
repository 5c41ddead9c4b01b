"""What is measured: studies, and the jobs they are made of, the most informative first."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from shiftgrad.layers import ZERO_RANGE
from shiftgrad.limits import DIMENSION_MAX
from shiftgrad.models import Network, fixup_resnet
from shiftgrad.recipes import CLASSES, SHAPES, scale_of
from shiftgrad.record import Hyper

__all__ = ["BATCHES", "CONFIG", "SEEDS", "STUDIES", "TITLES", "UNSIGNED", "VARIANTS", "Job", "Study", "jobs",
           "lengthened", "middle_shift", "queue", "taken"]

UNSIGNED = "int8_unsigned"
VARIANTS = ("fp32_bn", "fp32_fixup", "int8", "int8_current", UNSIGNED)
TITLES = {"fp32_bn": "FP32, batch norm", "fp32_fixup": "FP32, Fixup", "int8": "int8, Fixup",
          "int8_current": "int8, Fixup, current", UNSIGNED: "int8, Fixup, unsigned ReLU"}
SCALES = {"int8": "delayed", "int8_current": "current"}  # scale modes of the variants with one for every batch size
CONFIG, MODEL = "golden_16x16", "fixup_resnet"
BATCHES = (1, 2, 4, 8, 32, 128)
FIRST = (1, 32, 2, 128, 4, 8)  # order of work
SEEDS = (0, 1, 2)
SHALLOW = 3  # most blocks that learn at the full rate, at which FP32 Fixup and int8 diverge with 9
AROUND = (-1, 0, 1)  # learning rates tried, as shifts around the middle one
TUNE_SEED = 0
SHORT_TUNING = 32  # largest batch whose learning rate is chosen in shorter runs: beyond, those would have too few steps


def middle_shift(batch: int) -> int:
    """A shallow network's middle learning rate is 2^-this: 2^-4 from batch 8 up, below that in proportion to it."""
    return 4 + max(0, round(math.log2(8 / batch)))


def taken(batch: int) -> str:
    """The int8 variant with the scale mode that training takes for residual networks at ``batch``."""
    return next(variant for variant, scale in SCALES.items() if scale == scale_of(MODEL, batch))


def lengthened(epochs: int, batch: int) -> int:
    """Twice the epochs at batch 32, four times at 128: a Fixup network needs some hundred steps before it learns."""
    return epochs * max(1, round(math.sqrt(batch / 8)))


@dataclass(frozen=True, kw_only=True)
class Study:
    """A data set, a network and a length, at every batch size and seed.

    Parameters
    ----------
    dataset : as ``shiftgrad train`` knows it
    channels : of the stem and every block
    epochs, tune_epochs : of a run, and of one that chooses a learning rate; :func:`lengthened` at large batches. None:
        every run takes the middle learning rate
    batches : mini-batch sizes
    seeds : of initial weights, rounding and the order of samples
    zero_range : of int8 weights that start at zero, in He's deviations
    """

    dataset: str
    channels: tuple[int, ...]
    epochs: int
    tune_epochs: int | None = None
    batches: tuple[int, ...] = BATCHES
    seeds: tuple[int, ...] = SEEDS
    zero_range: float = ZERO_RANGE

    @property
    def blocks(self) -> int:
        """Residual blocks."""
        return len(self.channels) - 1

    @property
    def name(self) -> str:
        """Folder of its results."""
        return f"{self.dataset}-{self.blocks}blocks-{self.epochs}epochs"

    @property
    def facts(self) -> dict[str, Any]:
        """What a result says of it, in JSON's types."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self) | {"blocks": self.blocks}))
        return found

    @property
    def network(self) -> Network:
        """The Fixup network; the one with batch normalisation has the same convolutions."""
        return fixup_resnet(SHAPES[self.dataset], CLASSES, channels=self.channels, zero_range=self.zero_range)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run.

    Parameters
    ----------
    study, variant, batch, seed : what
    lr_shift : its learning rate is 2^-lr_shift when it is one that chooses; otherwise None, for what was chosen
    """

    study: Study
    variant: str
    batch: int
    seed: int
    lr_shift: int | None = None

    @property
    def scale(self) -> str | None:
        """Scale mode; None: float."""
        return scale_of(MODEL, self.batch) if self.variant == UNSIGNED else SCALES.get(self.variant)

    @property
    def config(self) -> str:
        """The machine of an int8 variant."""
        return f"{CONFIG}_unsigned" if self.variant == UNSIGNED else CONFIG

    @property
    def tunes(self) -> bool:
        """Whether it is there to choose a learning rate."""
        return self.lr_shift is not None

    @property
    def key(self) -> str:
        """Path of its result, without the ending."""
        what = f"tune-{self.variant}-b{self.batch}-lr{self.lr_shift}" if self.tunes else \
            f"{self.variant}-b{self.batch}-s{self.seed}"
        return f"{self.study.name}/{what}"

    @property
    def middle_shift(self) -> int:
        """The middle learning rate is 2^-this: that of its batch size, half as large for a deep network."""
        return middle_shift(self.batch) + (self.study.blocks > SHALLOW)

    @property
    def candidates(self) -> list[Job]:
        """The jobs that choose its learning rate."""
        if self.study.tune_epochs is None:
            return []
        return [replace(self, seed=TUNE_SEED, lr_shift=self.middle_shift + d) for d in AROUND]

    @property
    def tuned(self) -> list[Job]:
        """The jobs that take its learning rate if it is the best."""
        return [replace(self, seed=seed, lr_shift=None) for seed in self.study.seeds]

    @property
    def fits(self) -> bool:
        """Whether the machine can count the pixels of a batch; with ``current`` scales, whether training takes them.

        Unsigned activations are for CIFAR-10 alone, where int8 is behind.
        """
        height, width, _ = self.study.network.input_shape
        if self.scale and self.batch * height * width > DIMENSION_MAX:
            return False
        if self.variant == UNSIGNED:
            return self.study.dataset == "cifar10"
        return self.scale != "current" or self.variant == taken(self.batch)

    def hyper(self, lr_shift: int) -> Hyper:
        """How it trains: momentum 7/8, the learning rate a quarter of ``lr_shift``'s for the last 30 %."""
        short = self.tunes and self.batch <= SHORT_TUNING
        epochs = self.study.tune_epochs if short and self.study.tune_epochs else self.study.epochs
        return Hyper(batch=self.batch, epochs=lengthened(epochs, self.batch), lr_shift=lr_shift, seed=self.seed,
                     scale=self.scale or "delayed", drops=(0.7, 0.7), flip=self.study.dataset == "cifar10",
                     sample_every=max(1, 2048 // self.batch))


HE = 1.0  # the range a quarter of which is too little for deep networks and for CIFAR-10
GREY, DEEP_GREY = (8, 8, 16, 16), (8, *(8,) * 3, *(16,) * 3, *(32,) * 3)
COLOUR, DEEP_COLOUR = (16, 16, 32, 64), (16, *(16,) * 3, *(32,) * 3, *(64,) * 3)
STUDIES = (
    Study(dataset="digits", channels=GREY, epochs=15, tune_epochs=5),
    Study(dataset="mnist14", channels=GREY, epochs=4),
    Study(dataset="digits", channels=DEEP_GREY, epochs=15, zero_range=HE),
    Study(dataset="cifar10", channels=COLOUR, epochs=2, zero_range=HE),
    Study(dataset="digits", channels=GREY, epochs=30, batches=(128,)),
    Study(dataset="mnist14", channels=DEEP_GREY, epochs=4, zero_range=HE),
    Study(dataset="cifar10", channels=DEEP_COLOUR, epochs=2, zero_range=HE),
    Study(dataset="cifar10", channels=COLOUR, epochs=8, batches=(1, 4, 32), seeds=(0,), zero_range=HE),
    Study(dataset="cifar10", channels=DEEP_COLOUR, epochs=8, batches=(1, 4, 32), seeds=(0,), zero_range=HE),
)
SHORT = 7  # of them; the others follow when all of these are done


def queue() -> Iterator[Job]:
    """Every job of every study: the first study, then one seed of the other short ones, their other seeds, long ones.

    A job that tunes comes before those it tunes.
    """
    seen = set()
    short, long = STUDIES[:SHORT], STUDIES[SHORT:]
    order = [(short[0], s) for s in SEEDS] + [(study, s) for s in SEEDS for study in short[1:]]
    order += [(study, s) for study in long for s in study.seeds]
    for study, seed in order:
        for job in jobs(study, (seed,)):
            if job.key not in seen:
                seen.add(job.key)
                yield job


def jobs(study: Study, seeds: Iterable[int] | None = None) -> Iterator[Job]:
    """Every job of ``study`` (or of some ``seeds``) that fits: a seed at all batch sizes, each behind what tunes it."""
    seen = set()
    for seed in study.seeds if seeds is None else seeds:
        for batch in sorted(study.batches, key=FIRST.index):
            for variant in VARIANTS:
                job = Job(study=study, variant=variant, batch=batch, seed=seed)
                for each in (*job.candidates, job):
                    if each.key not in seen and job.fits:
                        seen.add(each.key)
                        yield each
