"""How the host lays out the input: pixels as they are, or each with its neighbours as channels.

A word holds T channels of a pixel, so a kernel over 1 or 3 channels would leave most of the array idle. With the values
a kernel sees in a line (or everywhere) side by side in one pixel, the same sum is a narrower kernel over more channels;
rows of the weights, (line, pixel, channel), stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golden.convolution import Window
from shiftgrad.config import Config
from shiftgrad.models import Conv, Network, Shape

__all__ = ["Packing", "choose", "packings"]

WORDS_MAX = 2  # words a pixel, as a multiple of those of the unpacked input


@dataclass(frozen=True, kw_only=True)
class Packing:
    """A layout of the input.

    Parameters
    ----------
    kind : ``none``, ``row`` (what a kernel sees in a line), ``full`` (all a kernel sees) or ``flat`` (the whole sample)
    source : (height, width, channels) of a sample
    gather : the window whose values become a pixel's channels
    shape : (height, width, channels) of a packed sample
    window : the kernel that is left to do
    """

    kind: str
    source: Shape
    gather: Window
    shape: Shape
    window: Window

    def words(self, config: Config) -> int:
        """Memory words a pixel."""
        return config.stride(self.shape[2])

    def slots(self, config: Config) -> int:
        """Cycles of a forward tile: taps times channels rounded up to T."""
        return self.window.height * self.window.width * self.words(config) * config.size

    def apply(self, samples: NDArray[Any]) -> NDArray[Any]:
        """``samples`` [n, height, width, channels] packed: [n * height * width, channels] of ``shape``."""
        count, (height, width, channels) = len(samples), self.source
        images = samples.reshape(count, height, width, channels)
        if self.kind in ("none", "flat"):
            return images.reshape(-1, self.shape[2])
        g = self.gather
        padded = np.pad(images, ((0, 0), (g.pad_y,) * 2, (g.pad_x,) * 2, (0, 0)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, (g.height, g.width), (1, 2))
        seen = seen[:, ::g.step_y, ::g.step_x].transpose(0, 1, 2, 4, 5, 3)
        return seen.reshape(-1, self.shape[2])


def packings(network: Network) -> list[Packing]:
    """Those that ``network``'s first layer can take, the plainest first."""
    shape, (first, seen) = network.input_shape, next(iter(network.steps()))
    if not isinstance(first, Conv):
        kind = "none" if seen == shape else "flat"
        return [Packing(kind=kind, source=shape, gather=Window(), shape=seen, window=Window())]
    w, (lines, pixels, _) = first.window, first.output(shape)
    return [
        Packing(kind="none", source=shape, gather=Window(), shape=shape, window=w),
        Packing(kind="row", source=shape, gather=Window(1, w.width, 1, w.step_x, 0, w.pad_x),
                shape=(shape[0], pixels, w.width * shape[2]), window=Window(w.height, 1, w.step_y, 1, w.pad_y, 0)),
        Packing(kind="full", source=shape, gather=w, shape=(lines, pixels, w.height * w.width * shape[2]),
                window=Window()),
    ]


def choose(network: Network, config: Config) -> Packing:
    """The packing of the fewest reduction slots whose words a pixel are at most twice those of the unpacked input."""
    found = packings(network)
    most = WORDS_MAX * found[0].words(config)
    return min((p for p in found if p.words(config) <= most), key=lambda p: (p.slots(config), p.words(config)))
