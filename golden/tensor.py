"""Entries of the tensor table, and whether an instruction's operands belong together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from golden.convolution import Window
from shiftgrad.isa import KERNEL_MAX, PRODUCTS, SUM_BITS_MAX, TERMS_END, UNSIGNED, Memory, Opcode

__all__ = ["PLACE_WORDS", "Tensor", "fit", "scales", "tensor", "terms"]

PLACE_WORDS = 4  # words of an entry that say where and how large it is; exponent and history follow


@dataclass
class Tensor:
    """An entry of the tensor table as stored; ``history`` holds the entries in use, newest first.

    An ``unsigned`` one lives in ACT and has mantissas from 0 to 255.

    Only ``exponent``, ``count`` and ``history`` may be changed.
    """

    id: int
    memory: int
    base: int
    stride: int
    planes: int
    height: int
    width: int
    cols: int
    window: Window
    exponent: int
    count: int
    history: tuple[int, ...]
    unsigned: bool = False

    @cached_property
    def rows(self) -> int:
        """Memory rows: pixels of all planes."""
        return self.planes * self.height * self.width

    @cached_property
    def end(self) -> int:
        """First memory word behind the tensor."""
        return self.base + self.rows * self.stride

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.rows, self.cols

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image."""
        return self.height, self.width

    @cached_property
    def image(self) -> tuple[int, int, int, int]:
        """Planes, height, width and channels."""
        return self.planes, self.height, self.width, self.cols


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of every second line and pixel."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def tensor(index: int, words: ArrayLike) -> Tensor:
    """Entry ``index`` of the tensor table from its 32-bit ``words``, unchecked."""
    entry = np.array(words, "<u4")
    base, planes, place, form = entry[:PLACE_WORDS].tolist()
    height, width = (form & 0xFF) + 1, (form >> 8 & 0xFF) + 1
    window = Window(height, width, (form >> 22 & 1) + 1, (form >> 23 & 1) + 1, form >> 16 & 7, form >> 19 & 7)
    unsigned = place & 7 == UNSIGNED
    memory = int(Memory.ACT) if unsigned else place & 7
    return Tensor(index, memory, base & 0xFFFFF, place >> 16, planes & 0xFFFF, height, width, planes >> 16, window,
                  *scales(entry[None])[0], unsigned)


def scales(entries: NDArray[np.uint32]) -> list[tuple[int, int, tuple[int, ...]]]:
    """What training changes of each of some ``entries``: exponent, entries of the history in use, and those."""
    found = entries.view("<i1")[:, 4 * PLACE_WORDS:4 * (PLACE_WORDS + 3)].tolist()
    return [(scale[0], count := scale[1] & 0xF, tuple(scale[4:4 + count])) for scale in found]


def terms(opcode: Opcode, operands: dict[str, Tensor]) -> int:
    """Products, or errors, that add up to an element of a product; 0 for other operations."""
    if opcode not in PRODUCTS:
        return 0
    b = operands["b"]
    return b.window.height * b.window.width * b.cols if opcode == Opcode.BWD else b.rows


def fit(opcode: Opcode, operands: dict[str, Tensor], classes: int) -> bool:
    """Whether the operands' shapes belong together; a LOSS takes at most ``classes`` columns."""
    dst, a, b, c, d = (operands.get(name) for name in ("dst", "a", "b", "c", "d"))
    assert dst
    if d and d.shape != (1, 1):
        return False
    if opcode in (Opcode.BWD, Opcode.ADDB, Opcode.AVGB) and c and c.shape != dst.shape:  # mask
        return False
    if opcode == Opcode.FWD:
        assert a and b
        bias = c is None or (c.rows == 1 and c.cols in (1, b.cols))
        return bias and dst.cols == b.cols and _window_fits(b, a, dst)
    if opcode == Opcode.BWD:
        assert a and b
        return a.cols == b.cols and b.height * b.width * b.cols < TERMS_END and _window_fits(b, dst, a)
    if opcode == Opcode.GRAD:
        assert b and c
        if a is None:
            return dst.shape == c.shape == (1, b.cols)
        return c.shape == dst.shape and dst.cols == b.cols and _window_fits(dst, a, b)
    if opcode == Opcode.LOSS:
        assert a and b
        return dst.shape == a.shape and a.cols <= classes and b.shape == (1, a.rows)
    if opcode == Opcode.SUM:
        assert b and c
        bits = (b.rows - 1).bit_length() + (b.cols - 1).bit_length()
        return (dst.shape == c.shape == (1, 1) and bits <= SUM_BITS_MAX) and (a is None or a.shape == b.shape)
    assert a
    if opcode in (Opcode.ADD, Opcode.ADDB):
        if dst.shape != a.shape or (opcode == Opcode.ADD and c and c.shape != (1, 1)):
            return False
        if b is None:
            return True
        small, large = (dst, b) if opcode == Opcode.ADD else (b, dst)
        return (b.planes == dst.planes and small.size in (large.size, _halved(large.size))
                and large.cols <= small.cols)
    if opcode in (Opcode.AVG, Opcode.AVGB):
        small, large = (dst, a) if opcode == Opcode.AVG else (a, dst)
        return small.planes == large.planes and small.cols == large.cols and small.size == (1, 1)
    small, large = (dst, a) if opcode == Opcode.MAX else (a, dst)
    return (small.planes == large.planes and small.cols == large.cols
            and large.size == (2 * small.height, 2 * small.width)
            and (b is None or (b.image == dst.image)))


def _window_fits(weights: Tensor, x: Tensor, y: Tensor) -> bool:
    """Whether ``weights`` take images ``x`` to images of ``y``'s size."""
    window = weights.window
    return (max(window.height, window.width) <= KERNEL_MAX
            and window.pad_y < window.height and window.pad_x < window.width
            and x.planes == y.planes and x.cols == weights.planes and y.size == window.output(*x.size))
