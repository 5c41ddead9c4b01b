"""Which samples a training step sees, and how: a function of seed and step alone, the same for whatever is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shiftgrad.augment import augmented
from shiftgrad.images import Dataset, Images, mantissas
from shiftgrad.record import Hyper

__all__ = ["Feed"]


class Feed:
    """The mini-batches of a run.

    Parameters
    ----------
    data, hyper : what to draw from, and how

    Attributes
    ----------
    steps_per_epoch, steps : of a pass over the training images, and of the run; an incomplete last batch is left out
    """

    def __init__(self, data: Dataset, hyper: Hyper) -> None:
        self.data, self.hyper = data, hyper
        self.steps_per_epoch = len(data.labels) // hyper.batch
        self.steps = hyper.epochs * self.steps_per_epoch
        self._order: tuple[int, NDArray[Any]] = (-1, np.zeros(0, np.int64))

    def indices(self, step: int) -> NDArray[Any]:
        """Training samples of ``step``."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            generator = np.random.default_rng([self.hyper.seed, epoch])
            self._order = (epoch, generator.permutation(len(self.data.labels)))
        return self._order[1][index * self.hyper.batch : (index + 1) * self.hyper.batch]

    def images(self, step: int) -> Images:
        """uint8 images of :meth:`indices`, mirrored and shifted as ``hyper`` says."""
        data, hyper = self.data, self.hyper
        return augmented(data.images[self.indices(step)], data.shape, flip=hyper.flip, shift=hyper.shift,
                         blank=data.blank, seed=hyper.seed, step=step)

    def mantissas(self, step: int) -> NDArray[np.int8]:
        """What the machine sees of :meth:`images`."""
        return mantissas(self.images(step), self.data.centred)

    def labels(self, step: int) -> Images:
        """Their labels."""
        return self.data.labels[self.indices(step)]
