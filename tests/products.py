"""Products of convolutions by definition: operands, loop bounds, and every slot that the issuer must make."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from golden.convolution import Window
from shiftgrad.config import WORD_BITS

PHASES = ("forward", "backward", "gradient", "ones")


@dataclass(frozen=True)
class Images:
    """A tensor of images (of weights: planes are input channels) in a memory of ``lanes`` lanes."""

    lanes: int
    base: int
    planes: int
    height: int
    width: int
    cols: int
    window: Window = Window()

    @property
    def stride(self) -> int:
        return -(-self.cols // self.lanes)

    @property
    def rows(self) -> int:
        return self.planes * self.height * self.width

    def word(self, plane: int, y: int, x: int) -> int:
        """Of the first channels of a pixel."""
        return self.base + ((plane * self.height + y) * self.width + x) * self.stride

    def operand(self, exponent: int = 0) -> dict:
        """As a ``hw.operand.Operand``."""
        window = self.window
        entry = {"base": self.base, "planes": self.planes, "cols": self.cols, "stride": self.stride,
                 "height": self.height - 1, "width": self.width - 1, "pad_y": window.pad_y, "pad_x": window.pad_x,
                 "step_y": window.step_y - 1, "step_x": window.step_x - 1, "scale": {"exponent": exponent}}
        line = self.width * self.stride
        return {"entry": entry, "pixels": self.height * self.width, "rows": self.rows, "line": line,
                "image": self.height * line, "end": self.base + self.rows * self.stride}


class Row(NamedTuple):
    """What a slot says of a row of its tile."""

    new: bool
    index: int
    offset: int
    rows: int
    cols: int
    tile: int


class Step(NamedTuple):
    """A slot; ``a``, ``b`` None where the address does not matter, ``a`` -1 in the padding."""

    valid: bool
    first: bool
    index: int
    rows: int
    cols: int
    a: int | None
    b: int | None
    row: Row | None
    waiting: bool


@dataclass(frozen=True)
class Product:
    """A product of images ``x`` [planes, height, width, cin] and weights to images ``y`` of ``cout`` channels."""

    phase: str
    size: int
    planes: int
    shape: tuple[int, int]
    cin: int
    cout: int
    window: Window = Window()
    bases: tuple[int, int, int] = (0, 0, 0)

    @property
    def images(self) -> tuple[Images, Images, Images]:
        """dst, a, b."""
        dst, a, b = self.bases
        lines, pixels = self.window.output(*self.shape)
        x = (self.planes, *self.shape, self.cin)
        y = (self.planes, lines, pixels, self.cout)
        weights = (self.cin, self.window.height, self.window.width, self.cout, self.window)
        chosen = {"forward": (y, x, weights), "backward": (x, y, weights), "gradient": (weights, x, y),
                  "ones": ((1, 1, 1, self.cout), x, y)}[self.phase]
        return tuple(Images(self.size, base, *shape) for base, shape in zip((dst, a, b), chosen, strict=True))

    @property
    def parities(self) -> list[tuple[int, int]]:
        """The parts of a pass, as the parity of line and pixel, in the machine's order."""
        if self.phase != "backward":
            return [(0, 0)]
        return [(y, x) for y in range(min(self.window.step_y, self.shape[0]))
                for x in range(min(self.window.step_x, self.shape[1]))]

    def axis(self, i: int, odd: int) -> tuple[list[int], int, int]:
        """Kernel coordinates seen in direction ``i``, in order; lattice points; a's coordinate with the first of them.

        A backward pass sees none where the kernel is too small; its tap is then -1.
        """
        window = self.window
        kernel, step, pad = ((window.height, window.step_y, window.pad_y), (window.width, window.step_x,
                                                                            window.pad_x))[i]
        if self.phase == "ones":
            return [0], self.images[2].height if i == 0 else self.images[2].width, 0
        if self.phase != "backward":
            return list(range(kernel)), window.output(*self.shape)[i], -pad
        taps = [k for k in reversed(range(kernel)) if (odd + pad - k) % step == 0] or [-1]
        return taps, len(range(odd, self.shape[i], step)), (odd + pad - taps[0]) // step

    def loops(self, odd: tuple[int, int] = (0, 0)) -> dict:
        """As a ``hw.geometry.Loops``; what does not matter is 0."""
        dst, a, b = self.images
        window, back = self.window, self.phase == "backward"
        grad = self.phase in ("gradient", "ones")
        (taps_y, lines, y), (taps_x, pixels, x) = (self.axis(i, odd[i]) for i in range(2))
        step_y, step_x = (1, 1) if back or self.phase == "ones" else (window.step_y, window.step_x)
        gap_y, gap_x = (window.step_y, window.step_x) if back else (1, 1)
        line, tap = a.width * a.stride, self.cin * b.stride  # tap: words of one in the weights
        values = {
            "rows": self.planes * lines * pixels, "cols": self.cin if back else b.cols, "depth": a.cols, "grad": grad,
            "b_rotated": back, "empty": -1 in taps_y or -1 in taps_x, "last_y": lines - 1, "last_x": pixels - 1,
            "taps_y": len(taps_y) - 1, "taps_x": len(taps_x) - 1, "y": y, "x": x, "step_y": step_y - 1,
            "step_x": step_x - 1, "high": a.height - 1, "wide": a.width - 1, "tap_y": line, "tap_x": a.stride,
            "a": {"start": a.base + y * line + x * a.stride, "pixel": step_x * a.stride, "line": step_y * line,
                  "image": a.height * line},
            "b_start": b.base, "b_row": b.stride, "b_tile": b.stride * self.size if back else 1,
            "lattice": back and gap_y + gap_x > 2,
            "dst": {"start": (odd[0] * dst.width + odd[1]) * dst.stride, "pixel": gap_x * dst.stride,
                    "line": gap_y * dst.width * dst.stride, "image": dst.height * dst.width * dst.stride},
        }
        if back:
            values |= {"b_start": b.base + (taps_y[0] * window.width + taps_x[0]) * tap,
                       "b_tap_y": gap_y * window.width * tap, "b_tap_x": gap_x * tap}
        if grad:
            values |= {"rows": 1 if self.phase == "ones" else self.cin, "depth": b.rows}
        return _wrapped(values)

    def slots(self, odd: tuple[int, int] = (0, 0)) -> Iterator[Step]:
        """Every slot of a part, but for the closing one."""
        return self._gradient_slots() if self.phase in ("gradient", "ones") else self._slots(odd)

    def _slots(self, odd: tuple[int, int]) -> Iterator[Step]:
        """Pixels in tiles of T, all taps and channels of each."""
        dst, a, b = self.images
        size, back, window = self.size, self.phase == "backward", self.window
        (taps_y, lines, _), (taps_x, columns, _) = (self.axis(i, odd[i]) for i in range(2))
        empty = -1 in taps_y or -1 in taps_x
        pixels = [(p, y, x) for p in range(self.planes) for y in range(lines) for x in range(columns)]
        for tile, row, cols in _tiles(self.cin if back else self.cout, len(pixels), size):
            rows = min(size, len(pixels) - row)
            blocks = [(ty, tx, c) for ty in taps_y for tx in taps_x
                      for c in (range(1) if empty else range(0, a.cols, size))]
            for n, (ty, tx, c) in enumerate(blocks):
                for index in range(size):
                    valid = c + index < a.cols and not empty
                    place = pixels[row + index] if index < rows else None
                    a_word = None if place is None or empty else self._tap(a, place, (ty, tx), odd)
                    if a_word not in (None, -1):
                        a_word += c // size
                    b_row, b_word = ((tile * size + index, c // size) if back else (c + index, tile))
                    inside = index < cols and not empty if back else valid
                    b_word += b.base + ((ty * window.width + tx) * self.cin + b_row) * b.stride
                    named = None
                    if n == 0 and place is not None:
                        p, y, x = place
                        gap = (window.step_y, window.step_x) if back else (1, 1)
                        offset = dst.word(p, y * gap[0] + odd[0], x * gap[1] + odd[1]) - dst.base + tile
                        named = Row(index == 0, index, offset, rows, cols, tile)
                    yield Step(valid, n == 0 and index == 0, index, rows, cols, a_word, b_word if inside else None,
                               named, False)

    def _tap(self, a: Images, place: tuple[int, int, int], tap: tuple[int, int], odd: tuple[int, int]) -> int:
        """Word of operand a that lattice pixel ``place`` sees through ``tap``, -1 in the padding."""
        p, y, x = place
        w = self.window
        if self.phase == "backward":  # output o sees input o * step - pad + tap
            y, rest_y = divmod(y * w.step_y + odd[0] + w.pad_y - tap[0], w.step_y)
            x, rest_x = divmod(x * w.step_x + odd[1] + w.pad_x - tap[1], w.step_x)
            assert not rest_y and not rest_x
        else:
            y, x = y * w.step_y - w.pad_y + tap[0], x * w.step_x - w.pad_x + tap[1]
        return a.word(p, y, x) if 0 <= y < a.height and 0 <= x < a.width else -1

    def _gradient_slots(self) -> Iterator[Step]:
        """Channels of a tap in tiles of T, all pixels of each."""
        dst, a, b = self.images
        size, ones = self.size, self.phase == "ones"
        channels = 1 if ones else self.cin
        pixels = [(p, y, x) for p in range(b.planes) for y in range(b.height) for x in range(b.width)]
        taps = [(ty, tx) for ty in self.axis(0, 0)[0] for tx in self.axis(1, 0)[0]]
        for tile in range(b.stride):
            cols = min(size, b.cols - tile * size)
            for tap, (_, row, _) in ((t, r) for t in taps for r in _tiles(1, channels, size)):
                rows = min(size, channels - row)
                for k in range(max(len(pixels), size)):
                    valid, index = k < len(pixels), k % size
                    a_word = None if ones or not valid else self._tap(a, pixels[k], tap, (0, 0))
                    if a_word not in (None, -1):
                        a_word += row // size
                    named = None
                    if k < rows:
                        line = (tap[0] * self.window.width + tap[1]) * channels + row + k
                        named = Row(k == 0, k, line * dst.stride + tile, rows, cols, tile)
                    yield Step(valid, k == 0, index, rows, cols, a_word, b.word(*pixels[k]) + tile if valid else None,
                               named, not valid)


def _tiles(cols: int, rows: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Column tile, its first row, its columns: columns outer, rows inner."""
    for tile in range(-(-cols // size)):
        for row in range(0, rows, size):
            yield tile, row, min(size, cols - tile * size)


def _wrapped(values: dict) -> dict:
    """Word addresses modulo the address space."""
    words = {"start", "pixel", "line", "image", "tap_y", "tap_x", "b_start", "b_tile", "b_tap_y", "b_tap_x"}
    return {name: _wrapped(value) if isinstance(value, dict)
            else value % (1 << WORD_BITS) if name in words else int(value) for name, value in values.items()}


def random_product(rng: random.Random, phase: str, size: int, *, cycles: int = 1500) -> Product:
    """A product of any kernel that takes fewer than ``cycles`` slots; a fifth of them are dense."""
    while True:
        kernel = [rng.choice([1, 2, 3, 3, 4, 5, 6, 7]) for _ in range(2)]
        window = Window(*kernel, rng.randint(1, 2), rng.randint(1, 2), *(rng.randint(0, k - 1) for k in kernel))
        shape = (rng.randint(1, 9), rng.randint(1, 9))
        if rng.random() < 0.2:
            window, shape = Window(), (1, 1)
        planes, channels = rng.randint(1, 4), [rng.choice([1, size, size + 1, rng.randint(1, 2 * size + 2)])
                                               for _ in range(2)]
        if shape == (1, 1) and window.identity:
            planes = rng.choice([1, size, size + 1, rng.randint(1, 3 * size)])
        product = Product(phase, size, planes, shape, *channels, window, tuple(rng.randrange(5000) for _ in range(3)))
        if 0 in window.output(*shape):
            continue
        loops = product.loops()
        tiles = -(-loops["rows"] // size) * -(-loops["cols"] // size)
        taps = (loops["taps_y"] + 1) * (loops["taps_x"] + 1)
        term = max(loops["depth"], size) if loops["grad"] else -(-loops["depth"] // size) * size
        if tiles * taps * term < cycles:
            return product
