"""Tensors of random programs: forms of matrices, images and kernels, and where they lie."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from golden.convolution import Window
from shiftgrad.config import Config
from shiftgrad.isa import DESCRIPTOR, HISTORY, UNSIGNED, Flag, Memory, pack

__all__ = ["Form", "Full", "Tensors", "descriptor", "halved"]

KERNELS = (1, 2, 3, 3, 3, 4, 5, 6, 7)


class Form(NamedTuple):
    """Planes, height and width."""

    planes: int
    height: int = 1
    width: int = 1

    @property
    def rows(self) -> int:
        """Rows of the matrix."""
        return self.planes * self.height * self.width


class Full(Exception):  # noqa: N818
    """No room for another tensor."""


@dataclass(frozen=True)
class Known:
    """A tensor there is; ``window`` is that of weights, None for others."""

    memory: Memory
    form: Form
    cols: int
    window: Window | None
    unsigned: bool = False


def descriptor(**values: int) -> NDArray[np.uint32]:
    """Table entry with the named fields, the others 0."""
    words = [pack(fields, {f.name: values[f.name] for f in fields if f.name in values}) for fields in DESCRIPTOR]
    return np.array(words, np.uint32)


def halved(form: Form) -> Form:
    """Every second line and pixel."""
    return Form(form.planes, (form.height + 1) // 2, (form.width + 1) // 2)


@dataclass
class Tensors:
    """Chooses sizes and allocates tensors; old ones half of the time, so that results are operands later.

    Attributes
    ----------
    largest : greatest dimension of a dense product; images have up to 4 times as many pixels
    entries : the tensor table so far
    palette, frames, windows : dimensions, images and kernels to choose from; empty for no bound
    """

    rng: np.random.Generator
    config: Config
    largest: int
    entries: list[NDArray[np.uint32]] = field(default_factory=list)
    known: list[Known] = field(default_factory=list)
    used: dict[Memory, int] = field(default_factory=dict)
    palette: list[int] = field(default_factory=list)
    frames: list[Form] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)

    def limit(self, palette: int) -> None:
        """Choose from ``palette`` dimensions, and about as many images and kernels, from now on; 0 for no bound."""
        self.palette = [self.size() for _ in range(palette)]
        frames = [self.frame() for _ in range(-(-palette // 2))]
        self.windows = [self.window(frames[0]) for _ in range(palette)]
        self.frames = [*frames, *map(halved, frames)]

    # --- sizes ------------------------------------------------------------------------------------

    def size(self) -> int:
        """A dimension: often around multiples of T, sometimes 1."""
        rng, t = self.rng, self.config.size
        if self.palette:
            return int(rng.choice(self.palette))
        if rng.random() < 0.4:
            return int(np.clip(rng.integers(1, 3) * t + rng.integers(-1, 2), 1, self.largest))
        return int(rng.integers(1, self.largest + 1))

    def channels(self) -> int:
        """Columns of an image: like :meth:`size`, less often more than two words."""
        return min(self.size(), 2 * self.config.size + 1)

    def frame(self) -> Form:
        """Planes, height and width of images."""
        rng = self.rng
        if self.frames:
            return self.frames[int(rng.integers(len(self.frames)))]
        planes, height, width = rng.integers(1, [4, 8, 8]).tolist()
        if rng.random() < 0.2:
            height, width = (1, width) if rng.random() < 0.5 else (height, 1)
        return Form(min(planes, max(1, min(64, 4 * self.largest) // (height * width))), height, width)

    def window(self, form: Form) -> Window:
        """A kernel for images of ``form``; half of them keep its size at step 1."""
        rng = self.rng
        if self.windows:
            chosen = self.windows[int(rng.integers(len(self.windows)))]
            (height, width), steps, pads = ((chosen.height, chosen.width), (chosen.step_y, chosen.step_x),
                                            [chosen.pad_y, chosen.pad_x])
        else:
            height, width = rng.choice(KERNELS, 2).tolist() if rng.random() < 0.5 else [int(rng.choice(KERNELS))] * 2
            steps = (int(rng.random() < 0.4) + 1, int(rng.random() < 0.4) + 1)
            pads = ([(height - 1) // 2, (width - 1) // 2] if rng.random() < 0.5
                    else [int(rng.integers(height)), int(rng.integers(width))])
        pads = [kernel - 1 if size + 2 * pad < kernel else pad
                for size, kernel, pad in zip(form[1:], (height, width), pads, strict=True)]
        return Window(height, width, *steps, *pads)

    def flags(self, *choices: Flag) -> int:
        """Each flag with probability one half."""
        return sum(int(flag) for flag in choices if self.rng.random() < 0.5)

    # --- allocation -------------------------------------------------------------------------------

    def image(self, memory: Memory, form: Form, cols: int, avoid: Collection[int] = ()) -> int:
        """Index of a tensor of these images, none of ``avoid``; the window bits mean nothing."""
        return self._old([i for i, known in enumerate(self.known)
                          if (known.memory, known.form, known.cols) == (memory, form, cols) and i not in avoid],
                         Known(memory, form, cols, None))

    def matrix(self, memory: Memory, rows: int, cols: int, avoid: Collection[int] = (), *, signed: bool = False) -> int:
        """Index of a tensor of this size in whatever form; none of ``avoid``, and no unsigned one if ``signed``."""
        height = int(self.rng.choice([n for n in range(1, 17) if rows % n == 0]))
        width = int(self.rng.choice([n for n in (1, 2, 3, 7) if rows // height % n == 0]))
        form = Form(rows // height // width, height, width) if self.rng.random() < 0.4 else Form(rows)
        if self.config.dense:
            form = Form(rows)
        return self._old([i for i, known in enumerate(self.known)
                          if (known.memory, known.form.rows, known.cols) == (memory, rows, cols) and i not in avoid
                          and not known.unsigned & signed],
                         Known(memory, form, cols, None), signed=signed)

    def weights(self, channels: int, cols: int, window: Window) -> int:
        """Index of a kernel from ``channels`` to ``cols``."""
        new = Known(Memory.WGT, Form(channels, window.height, window.width), cols, window)
        return self._old([i for i, known in enumerate(self.known) if known == new], new)

    def _old(self, fitting: list[int], new: Known, *, signed: bool = False) -> int:
        """One of ``fitting`` half of the time and when there is no room, else ``new``, which may become unsigned."""
        rng, stride = self.rng, self.config.stride(new.cols)
        base = self.used.get(new.memory, 0) + int(rng.integers(0, 3))
        end = base + new.form.rows * stride
        full = end > self.config.words(new.memory.name.lower()) or len(self.entries) >= self.config.tensors
        if fitting and (full or rng.random() < 0.5):
            return fitting[int(rng.integers(len(fitting)))]
        if full:
            raise Full
        self.used[new.memory] = end
        if self.config.unsigned and new.memory == Memory.ACT and not signed:
            new = replace(new, unsigned=self.rng.random() < 0.5)
        window = new.window or Window(1, 1, *rng.integers(1, 3, 2).tolist(), *rng.integers(0, 8, 2).tolist())
        if self.config.dense:
            window = Window()
        exponent = self._exponent(new.memory)
        own = np.clip(exponent + rng.integers(-2, 3, HISTORY), -60, 60)
        self.entries.append(descriptor(
            base=base, stride=stride, planes=new.form.planes, height=new.form.height - 1, width=new.form.width - 1,
            cols=new.cols, memory=UNSIGNED if new.unsigned else int(new.memory), exponent=exponent,
            pad_y=window.pad_y, pad_x=window.pad_x, step_y=window.step_y - 1, step_x=window.step_x - 1,
            count=int(rng.choice([0, 0, 1, 3, HISTORY])),
            **{f"history{i}": int(e) for i, e in enumerate(own)}))
        self.known.append(new)
        return len(self.entries) - 1

    def _exponent(self, memory: Memory) -> int:
        """Mostly one that a program would have; sometimes any."""
        if self.rng.random() < 0.1:
            return int(self.rng.integers(-60, 61))
        return -14 if memory == Memory.VEC and self.rng.random() < 0.6 else int(self.rng.integers(-12, -2))
