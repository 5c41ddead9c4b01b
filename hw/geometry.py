"""Loop bounds and address steps of a product, from its operands' shapes."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.operand import Operand
from shiftgrad.config import WORD_BITS

__all__ = ["Geometry", "Loops", "Steps"]

WORD = unsigned(WORD_BITS)


class Steps(data.Struct):
    """Word addresses of the pixels of an image: of the first one, and from one pixel, line, image to the next."""

    start: WORD
    pixel: WORD
    line: WORD
    image: WORD


class Loops(data.Struct):
    """What the issuer walks.

    FWD and BWD: row tiles are T pixels of the lattice, the reduction runs over taps and channels. GRAD: row tiles are T
    channels of a tap, the reduction runs over the lattice.

    Members
    -------
    rows : row count: M, or in GRAD the channels of a tap
    cols : N
    depth : terms of the reduction: channels of a tap, or in GRAD all pixels
    grad : a is read plain, taps are tiles
    b_rotated, empty : BWD; no tap reaches this lattice: every sum is 0
    last_y, last_x : lines and pixels of an image of the lattice, less 1
    taps_y, taps_x : taps, less 1
    y, x : where the first tap of the first pixel falls in an image of operand a
    step_y, step_x : from one lattice pixel to the next there, less 1
    high, wide : height and width of a's images, less 1
    a : Steps of lattice pixels in a; ``tap_y`` and ``tap_x`` words from tap to tap
    b_start, b_row, b_tile : first word, words from row to row and from column tile to column tile
    b_tap_y, b_tap_x : words back from tap line to tap line and from tap to tap (BWD)
    lattice, dst : whether the rows of the result are pixels with gaps; their Steps, without dst's base
    """

    rows: unsigned(16)
    cols: unsigned(16)
    depth: unsigned(16)
    grad: unsigned(1)
    b_rotated: unsigned(1)
    empty: unsigned(1)
    last_y: unsigned(8)
    last_x: unsigned(8)
    taps_y: unsigned(3)
    taps_x: unsigned(3)
    y: signed(5)
    x: signed(5)
    step_y: unsigned(1)
    step_x: unsigned(1)
    high: unsigned(8)
    wide: unsigned(8)
    a: Steps
    tap_y: WORD
    tap_x: WORD
    b_start: WORD
    b_row: unsigned(16)
    b_tile: WORD
    b_tap_y: WORD
    b_tap_x: WORD
    lattice: unsigned(1)
    dst: Steps


class Axis(data.Struct):
    """One direction of a pass: which taps see the lattice, and where.

    ``first`` is the position of the first tap, ``taps`` how many less 1, ``none`` that there are none, ``kernel`` the
    kernel coordinate of the tap that comes first, ``last`` lattice points less 1.
    """

    first: signed(5)
    taps: unsigned(3)
    none: unsigned(1)
    kernel: unsigned(3)
    last: unsigned(8)


class Geometry(wiring.Component):
    """Works the loops out in LATENCY cycles, with one multiplier.

    BWD with a step of 2 is up to four passes, one for each parity of line and pixel: all pixels of one see the same
    taps. A parity without pixels must not be asked for.

    Parameters
    ----------
    size : T

    Members
    -------
    start : In(1)               all other inputs are there and stay
    is_bwd, is_grad, ones : In  operation; forward when none
    dst, a, b : In(Operand)
    odd_y, odd_x : In(1)        BWD: the parity of this pass
    loops : Out(Loops)          from LATENCY cycles after ``start``
    """

    LATENCY = 12

    def __init__(self, *, size: int) -> None:
        self.size = size
        super().__init__({
            "start": In(1),
            "is_bwd": In(1),
            "is_grad": In(1),
            "ones": In(1),
            "dst": In(Operand),
            "a": In(Operand),
            "b": In(Operand),
            "odd_y": In(1),
            "odd_x": In(1),
            "loops": Out(Loops),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        loops, a, b = self.loops, self.a, self.b
        weights, lattice = Operand(Signal(Operand, name="weights")), Operand(Signal(Operand, name="grid"))
        m.d.comb += [
            weights.eq(Mux(self.is_grad, self.dst, self.b)),
            lattice.eq(Mux(self.is_grad, self.b, self.dst)),
        ]
        kernel = weights.entry
        y = self._axis(m, "y", kernel.height, kernel.pad_y, kernel.step_y, lattice.entry.height, self.odd_y)
        x = self._axis(m, "x", kernel.width, kernel.pad_x, kernel.step_x, lattice.entry.width, self.odd_x)
        step_y, step_x = kernel.step_y & ~self.is_bwd, kernel.step_x & ~self.is_bwd
        gaps_y, gaps_x = kernel.step_y & self.is_bwd, kernel.step_x & self.is_bwd
        m.d.sync += [
            loops.cols.eq(Mux(self.is_bwd, kernel.planes, b.entry.cols)),
            loops.depth.eq(Mux(self.is_grad, b.rows, a.entry.cols)),
            loops.grad.eq(self.is_grad), loops.b_rotated.eq(self.is_bwd), loops.empty.eq(y.none | x.none),
            loops.last_y.eq(y.last), loops.last_x.eq(x.last),
            loops.taps_y.eq(Mux(self.ones, 0, y.taps)), loops.taps_x.eq(Mux(self.ones, 0, x.taps)),
            loops.y.eq(y.first), loops.x.eq(x.first), loops.step_y.eq(step_y), loops.step_x.eq(step_x),
            loops.high.eq(a.entry.height), loops.wide.eq(a.entry.width),
            loops.a.pixel.eq(a.entry.stride << step_x), loops.a.line.eq(a.line << step_y), loops.a.image.eq(a.image),
            loops.tap_y.eq(a.line), loops.tap_x.eq(a.entry.stride),
            loops.b_row.eq(b.entry.stride), loops.b_tile.eq(Mux(self.is_bwd, b.entry.stride * self.size, 1)),
            loops.lattice.eq(self.is_bwd & (kernel.step_y | kernel.step_x)),
            loops.dst.start.eq(Mux(self.is_bwd & self.odd_y, self.dst.line, 0)
                               + Mux(self.is_bwd & self.odd_x, self.dst.entry.stride, 0)),
            loops.dst.pixel.eq(self.dst.entry.stride << gaps_x), loops.dst.line.eq(self.dst.line << gaps_y),
            loops.dst.image.eq(self.dst.image),
        ]
        self._products(m, y, x, kernel, lattice)
        return m

    def _axis(self, m: Module, name: str, kernel: Value, pad: Value, step: Value, lattice: Value,
              odd: Value) -> data.View:
        """One direction; ``kernel`` and ``lattice`` are sizes less 1. Two cycles."""
        axis = Axis(Signal(Axis, name=f"axis_{name}"))
        skip, reach = Signal(name=f"skip_{name}"), Signal(4, name=f"reach_{name}")
        room = Signal(signed(5), name=f"room_{name}")
        # BWD: the first kernel coordinate seen, where its error lies, and how many steps of the kernel follow it
        m.d.comb += [skip.eq(step & (odd ^ pad[0])), room.eq(kernel[:3] - skip)]
        m.d.sync += reach.eq((odd + pad) >> step)
        taps = room[:3] >> step
        with m.If(self.is_bwd):
            m.d.sync += [
                axis.none.eq(room < 0), axis.taps.eq(Mux(room < 0, 0, taps)),
                axis.kernel.eq(Mux(step, Cat(skip, taps[:2]), taps)),
                axis.first.eq(reach - axis.taps),
                axis.last.eq((lattice - odd) >> step),
            ]
        with m.Else():
            m.d.sync += [
                axis.none.eq(0), axis.taps.eq(kernel), axis.kernel.eq(0), axis.first.eq(-pad),
                axis.last.eq(lattice),
            ]
        return axis

    def _products(self, m: Module, y: data.View, x: data.View, kernel: data.View, lattice: data.View) -> None:
        """The sums and products, one multiplication a cycle; each is there two cycles later."""
        loops, a, b = self.loops, self.a, self.b
        step = Signal(range(self.LATENCY + 1))
        right = Signal(16)
        left, product, tap, taps, b_offset, up, across = (  # tap, taps: words of a tap, and of a line of taps
            Signal(WORD_BITS, name=name) for name in ("left", "product", "tap", "taps", "b_offset", "up", "across"))
        m.d.sync += [product.eq(left * right), step.eq(Mux(self.start, 1, Mux(step == 0, 0, step + 1)))]

        def multiply(u: Value, v: Value) -> None:
            m.d.sync += [left.eq(u), right.eq(v)]

        def magnitude(value: Value) -> Value:
            return Mux(value < 0, -value, value)[:4]

        with m.Switch(step):
            with m.Case(1):
                multiply(kernel.planes, kernel.stride)
            with m.Case(2):  # the axes are right from here on
                multiply(y.last + 1, x.last + 1)
            with m.Case(3):
                m.d.sync += tap.eq(product)
                multiply(product, kernel.width + 1)
            with m.Case(4):
                multiply(product, lattice.entry.planes)
            with m.Case(5):
                m.d.sync += taps.eq(product)
                multiply(product, y.kernel)
            with m.Case(6):
                m.d.sync += loops.rows.eq(Mux(self.ones, 1, Mux(self.is_grad, a.entry.cols, product)))
                multiply(tap, x.kernel)
            with m.Case(7):
                m.d.sync += b_offset.eq(product)
                multiply(a.line, magnitude(y.first))
            with m.Case(8):
                m.d.sync += b_offset.eq(Mux(self.is_bwd, b_offset + product, 0))
                multiply(a.entry.stride, magnitude(x.first))
            with m.Case(9):
                m.d.sync += [up.eq(Mux(y.first < 0, -product, product)), loops.b_start.eq(b.entry.base + b_offset)]
            with m.Case(10):
                m.d.sync += across.eq(Mux(x.first < 0, -product, product))
            with m.Case(11):
                m.d.sync += [
                    loops.a.start.eq(a.entry.base + up + across),
                    loops.b_tap_x.eq(tap << kernel.step_x), loops.b_tap_y.eq(taps << kernel.step_y), step.eq(0),
                ]
