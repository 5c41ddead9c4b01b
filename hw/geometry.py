"""Loop bounds and address steps of a product, from its operands' shapes."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.logic import one_of, register, times
from hw.multiplier import Multipliers
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

    ``first`` is the position of the first tap, ``away`` its magnitude, ``taps`` how many less 1, ``none`` that there
    are none, ``kernel`` the kernel coordinate of the tap that comes first, ``points`` the lattice points, ``last``
    their number less 1.
    """

    first: signed(5)
    away: unsigned(4)
    taps: unsigned(3)
    none: unsigned(1)
    kernel: unsigned(3)
    last: unsigned(8)
    points: unsigned(9)


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
    is_bwd, is_grad, ones : In  operation, there a cycle before ``start``; forward when none
    dst, a, b : In(Operand)
    odd_y, odd_x : In(1)        BWD: the parity of this pass
    loops : Out(Loops)          from LATENCY cycles after ``start``
    done : Out(1)               so it is; low from ``start`` until then, and before the first one
    """

    LATENCY = 18

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
            "done": Out(1),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        loops, a, b = self.loops, self.a, self.b
        self._bwd, self._grad = register(m, self.is_bwd, "bwd"), register(m, self.is_grad, "grad")  # much hangs on them
        weights, lattice = Operand(Signal(Operand, name="weights")), Operand(Signal(Operand, name="grid"))
        m.d.comb += [
            weights.eq(Mux(self._grad, self.dst, self.b)),
            lattice.eq(Mux(self._grad, self.b, self.dst)),
        ]
        kernel = weights.entry
        y = self._axis(m, "y", kernel.height, kernel.pad_y, kernel.step_y, lattice.entry.height, self.odd_y)
        x = self._axis(m, "x", kernel.width, kernel.pad_x, kernel.step_x, lattice.entry.width, self.odd_x)
        step_y, step_x = kernel.step_y & ~self._bwd, kernel.step_x & ~self._bwd
        gaps_y, gaps_x = kernel.step_y & self._bwd, kernel.step_x & self._bwd
        line, pixel = Signal(WORD_BITS, name="odd_line"), Signal(WORD_BITS, name="odd_pixel")  # BWD: left out at first
        m.d.sync += [
            loops.cols.eq(Mux(self._bwd, kernel.planes, b.entry.cols)),
            loops.depth.eq(Mux(self._grad, b.rows, a.entry.cols)),
            loops.grad.eq(self._grad), loops.b_rotated.eq(self._bwd), loops.empty.eq(y.none | x.none),
            loops.last_y.eq(y.last), loops.last_x.eq(x.last),
            loops.taps_y.eq(Mux(self.ones, 0, y.taps)), loops.taps_x.eq(Mux(self.ones, 0, x.taps)),
            loops.y.eq(y.first), loops.x.eq(x.first), loops.step_y.eq(step_y), loops.step_x.eq(step_x),
            loops.high.eq(a.entry.height), loops.wide.eq(a.entry.width),
            loops.a.pixel.eq(a.entry.stride << step_x), loops.a.line.eq(a.line << step_y), loops.a.image.eq(a.image),
            loops.tap_y.eq(a.line), loops.tap_x.eq(a.entry.stride),
            loops.b_row.eq(b.entry.stride), loops.b_tile.eq(Mux(self._bwd, times(b.entry.stride, self.size), 1)),
            loops.lattice.eq(self._bwd & (kernel.step_y | kernel.step_x)),
            line.eq(Mux(self._bwd & self.odd_y, self.dst.line, 0)),
            pixel.eq(Mux(self._bwd & self.odd_x, self.dst.entry.stride, 0)),
            loops.dst.start.eq(line + pixel),
            loops.dst.pixel.eq(self.dst.entry.stride << gaps_x), loops.dst.line.eq(self.dst.line << gaps_y),
            loops.dst.image.eq(self.dst.image),
        ]
        self._products(m, y, x, kernel, lattice)
        return m

    def _axis(self, m: Module, name: str, kernel: Value, pad: Value, step: Value, lattice: Value,
              odd: Value) -> data.View:
        """One direction; ``kernel`` and ``lattice`` are sizes less 1. Two cycles, ``first`` and ``points`` three."""
        axis = Axis(Signal(Axis, name=f"axis_{name}"))
        skip, reach = Signal(name=f"skip_{name}"), Signal(4, name=f"reach_{name}")
        room, points = Signal(signed(5), name=f"room_{name}"), Signal(8, name=f"points_{name}")
        # BWD: the first kernel coordinate seen, where its error lies, and how many steps of the kernel follow it
        odd_pad = odd ^ pad[0]
        m.d.sync += [
            skip.eq(step & odd_pad), room.eq(kernel[:3] - (step & odd_pad)), reach.eq((odd + pad) >> step),
            points.eq(lattice - odd),
            axis.away.eq(Mux(axis.first < 0, -axis.first, axis.first)), axis.points.eq(axis.last + 1),
        ]
        taps = room[:3] >> step
        with m.If(self._bwd):
            m.d.sync += [
                axis.none.eq(room < 0), axis.taps.eq(Mux(room < 0, 0, taps)),
                axis.kernel.eq(Mux(step, Cat(skip, taps[:2]), taps)),
                axis.first.eq(reach - axis.taps),
                axis.last.eq(points >> step),
            ]
        with m.Else():
            m.d.sync += [
                axis.none.eq(0), axis.taps.eq(kernel), axis.kernel.eq(0), axis.first.eq(-pad),
                axis.last.eq(lattice),
            ]
        return axis

    def _products(self, m: Module, y: data.View, x: data.View, kernel: data.View, lattice: data.View) -> None:
        """The sums and products, one multiplication a cycle; each is there five cycles later."""
        loops, a, b, cycles = self.loops, self.a, self.b, self.LATENCY - 1
        m.submodules.multiplier = multiplier = Multipliers(count=1, a_bits=18, b_bits=17)
        cycle, done = Signal(cycles), Signal()  # bit n: n + 1 cycles after ``start``
        m.d.sync += [cycle.eq(Cat(self.start, cycle)), done.eq((done | cycle[-1]) & ~self.start)]
        m.d.comb += self.done.eq(done & ~self.start)
        left, right, product = Signal(WORD_BITS), Signal(16), Signal(WORD_BITS)
        tap, taps, a_base, b_base = (  # tap, taps: words of a tap, and of a line of taps
            Signal(WORD_BITS, name=name) for name in ("tap", "taps", "a_base", "b_base"))
        # the multiplier is far away
        m.d.sync += [multiplier.a[0].eq(left), multiplier.b[0].eq(right), product.eq(multiplier.p[0])]

        terms: list[tuple[Value, Value, Value]] = []  # one of them at a time

        def multiply(n: int, u: Value, v: Value) -> None:
            terms.append((cycle[n - 1], u, v))

        def take(n: int, target: Value, value: Value) -> None:
            with m.If(cycle[n - 1]):
                m.d.sync += target.eq(value)

        # the operands are far away, too
        a_line, a_stride = register(m, a.line, "of_line"), register(m, a.entry.stride, "of_pixel")
        channels, stride, planes, width = (
            Signal(bits, name=f"of_{name}") for name, bits in (
                ("channels", 16), ("stride", 16), ("planes", 16), ("width", 9)))
        m.d.sync += [
            channels.eq(kernel.planes), stride.eq(kernel.stride), planes.eq(lattice.entry.planes),
            width.eq(kernel.width + 1),
        ]
        multiply(1, channels, stride)
        multiply(5, y.points, x.points)
        multiply(6, product, width)
        multiply(7, a_line, y.away)
        multiply(8, a_stride, x.away)
        multiply(10, product, planes)
        multiply(11, product, y.kernel)
        multiply(12, tap, x.kernel)
        m.d.comb += left.eq(one_of((now, u) for now, u, _ in terms))
        m.d.comb += right.eq(one_of((now, v) for now, _, v in terms))
        take(6, tap, product)
        take(11, taps, product)
        take(12, a_base, _moved(a.entry.base, product, y.first < 0))
        take(13, loops.a.start, _moved(a_base, product, x.first < 0))
        take(15, loops.rows, Mux(self.ones, 1, Mux(self._grad, a.entry.cols, product)))
        take(16, b_base, b.entry.base + Mux(self._bwd, product, 0))
        take(17, loops.b_start, b_base + Mux(self._bwd, product, 0))
        m.d.sync += [loops.b_tap_x.eq(tap << kernel.step_x), loops.b_tap_y.eq(taps << kernel.step_y)]


def _moved(base: Value, by: Value, back: Value) -> Value:
    """``base`` plus or, with ``back``, minus ``by``, modulo 2^WORD_BITS, in one carry chain."""
    return (Cat(back, base[:WORD_BITS]) + Cat(back, by ^ back.replicate(WORD_BITS)))[1:1 + WORD_BITS]
