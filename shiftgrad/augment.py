"""Mirrored and shifted training images: a function of the seed and the step, so that a resumed run sees the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shiftgrad.images import Images

__all__ = ["augmented"]

STREAM = 0x464C4950  # keeps these draws apart from those of weights, generators and the order of samples


def augmented(images: Images, shape: tuple[int, int, int], *, flip: bool, shift: int, blank: int, seed: int,
              step: int) -> Images:
    """The images that ``step`` trains on.

    Parameters
    ----------
    images : uint8 [n, height * width * channels], channels last; left as they are
    shape : (height, width, channels)
    flip : mirror each left to right with a probability of 1/2
    shift : then move each down and right by whole pixels, both uniform from -shift to shift
    blank : the pixel that fills the gap
    seed, step : decide everything drawn, together with n; whether there are flips does not change the shifts
    """
    rng = np.random.default_rng([seed, step, STREAM])
    mirrored = rng.integers(0, 2, len(images)).astype(bool)
    moves = rng.integers(-shift, shift + 1, (len(images), 2))
    pixels = images.reshape(-1, *shape)
    if flip:
        pixels = np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
    if shift:
        pixels = _moved(pixels, moves, shift, blank)
    return pixels.reshape(images.shape)


def _moved(pixels: Images, moves: NDArray[np.int64], most: int, blank: int) -> Images:
    """[n, height, width, channels] moved by [n, 2] pixels, at most ``most`` of them."""
    _, height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, 0), (most, most), (most, most), (0, 0)), constant_values=blank)
    rows = np.arange(height) + most - moves[:, :1]
    columns = np.arange(width) + most - moves[:, 1:]
    return padded[np.arange(len(pixels))[:, None, None], rows[:, :, None], columns[:, None, :]]
