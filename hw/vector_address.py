"""Addresses of the vector unit's two streams: counters that follow a walk over images, one addition a step."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.logic import one_of, times
from hw.vector_lane import VectorControl
from shiftgrad.config import WORD_BITS

__all__ = ["FirstAddress", "Loop", "Place", "SecondAddress", "VectorOperand", "tail_lanes"]


class VectorOperand(data.Struct):
    """Where a tensor of images is and its shape, as the tensor table has it; ``line`` and ``image`` in words."""

    base: unsigned(WORD_BITS)
    stride: unsigned(16)
    planes: unsigned(16)
    height_1: unsigned(8)
    width_1: unsigned(8)
    cols: unsigned(16)
    line: unsigned(WORD_BITS)
    image: unsigned(WORD_BITS)


class Place(data.Struct):
    """Where a walk is: what ends with the word read in this cycle.

    Members
    -------
    issue, index : a word is read; its place in a 2 x 2 window, 0 without one
    done : with ``issue``: the last of a window, or there is none
    word_last, pixel_last, line_last : last word of a pixel, pixel of a line, line of an image; whether ``issue`` or not
    word, pixel, line, plane : the walk goes on to the next word of a pixel, pixel of a line, line of an image, image
    """

    issue: 1
    index: 2
    done: 1
    word_last: 1
    pixel_last: 1
    line_last: 1
    word: 1
    pixel: 1
    line: 1
    plane: 1


class Loop(wiring.Component):
    """Counts ``count`` steps, at least 1, again and again.

    Members
    -------
    count : In      static from two cycles before ``load``
    load : In(1)    the next step is the first
    step : In(1)    a step is done
    last : Out(1)   this step is the last; from a register
    """

    def __init__(self, *, bits: int) -> None:
        self.bits = bits
        super().__init__({"count": In(bits), "load": In(1), "step": In(1), "last": Out(1)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        left = Signal(self.bits, reset_less=True)
        single = Signal(reset_less=True)
        m.d.sync += single.eq(self.count == 1)
        with m.If(self.load | (self.step & self.last)):
            m.d.sync += [left.eq(self.count), self.last.eq(single)]
        with m.Elif(self.step):
            m.d.sync += [left.eq(left - 1), self.last.eq(left == 2)]
        return m


def tail_lanes(m: Module, operand: data.View, size: int, name: str) -> Signal:
    """Lanes of a row's last word, 1 to ``size``; right one cycle after ``operand``."""
    bits = size.bit_length()  # of both numbers are enough
    tail = Signal(bits, name=name, reset_less=True)
    m.d.sync += tail.eq(operand.cols[:bits] - times(operand.stride[:bits], size) + size)
    return tail


class FirstAddress(wiring.Component):
    """Addresses of a, in SUM and MAXB of b: from the last word's, the one to come back to, or the window's right one.

    Members
    -------
    control, a, b : In    static from two cycles before ``start``
    start : In(1)         the next word is the first
    place : In(Place)
    addr : Out(17)        of the word that was at ``place`` a cycle before; from a register
    """

    control: In(VectorControl)
    a: In(VectorOperand)
    b: In(VectorOperand)
    start: In(1)
    place: In(Place)
    addr: Out(WORD_BITS)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        stride, line = (Signal(WORD_BITS, name=name, reset_less=True) for name in ("stride", "line"))
        home, right, begin = (Signal(WORD_BITS, name=name, reset_less=True) for name in ("home", "right", "begin"))
        after_home, below_home, after_right = (
            Signal(WORD_BITS, name=name, reset_less=True) for name in ("after_home", "below_home", "after_right"))
        settled, come_back = Signal(), Signal(WORD_BITS)  # the address is the one to come back to, ``home`` not yet
        m.d.comb += come_back.eq(Mux(settled, self.addr, home))
        b_first = self.control.total | self.control.route
        m.d.sync += [
            stride.eq(self.a.stride),  # MAXB: b's is the same
            line.eq(Mux(self.control.route, self.b.line, self.a.line)),
            begin.eq(Mux(b_first, self.b.base, self.a.base)),
            # home and right do not change in the step before these are wanted, but for what ``settled`` says
            after_home.eq(come_back + 1), below_home.eq(come_back + line), after_right.eq(right + 1),
            home.eq(come_back),
        ]
        ahead = Signal(WORD_BITS, reset_less=True)  # words to the next one, down the pixels or straight on
        choice, down = self._choice(m)
        m.d.sync += ahead.eq(Mux(down, stride, 1))
        start, following = Signal(), Signal(WORD_BITS)
        m.d.sync += start.eq(self.start)
        targets = [(choice.home, come_back), (choice.after_home & ~settled, after_home),
                   (choice.below_home, below_home), (choice.after_right, after_right)]  # one of them at most
        target = one_of(targets)
        m.d.comb += following.eq(Mux(Cat(chosen for chosen, _ in targets).any(), target, self.addr + ahead))
        with m.If(choice.issue):
            m.d.sync += [self.addr.eq(following), settled.eq(choice.settle)]
            with m.If(choice.index_1):
                m.d.sync += right.eq(self.addr)
        with m.If(start):
            m.d.sync += [self.addr.eq(begin), settled.eq(1)]
        return m

    def _choice(self, m: Module) -> tuple[data.View, Value]:
        """Where the word after the one at ``place`` is, a cycle late; and whether ``ahead`` is down the pixels."""
        control, place = self.control, self.place
        choice = Signal(data.StructLayout({name: 1 for name in (
            "issue", "index_1", "settle", "home", "after_home", "below_home", "after_right")}))
        column_last = place.pixel_last & place.line_last
        pool, last_index = control.largest | control.route, place.index == 3
        m.d.sync += [
            choice.issue.eq(place.issue), choice.index_1.eq(place.index == 1),
            # an image's words again for each of its pixels; down the pixels, then to the next column; windows
            choice.settle.eq((control.spread & place.word_last & column_last) | (control.average & column_last)
                             | (pool & last_index)),
            choice.home.eq(control.spread & place.word_last & ~column_last),
            choice.below_home.eq(pool & (place.index == 1)),
            choice.after_home.eq(~place.word_last & ((control.average & column_last) | (pool & last_index))),
            # behind the pixel's last word is the right pixel, behind the line's the line below
            choice.after_right.eq(pool & last_index & place.word_last & ~place.pixel_last),
        ]
        return choice, (control.average & ~column_last) | (pool & ~place.index[0])


class SecondAddress(wiring.Component):
    """Addresses of b in ADD and ADDB, whatever its size, and its lanes; in SUM and MAXB of a, word after word.

    Parameters
    ----------
    size : T

    Members
    -------
    control, dst, a, b : In    static from two cycles before ``start``
    start : In(1)              the next word is the first
    place : In(Place)
    read : Out(1)              the word that was at ``place`` a cycle before has a partner in this stream
    addr : Out(17)             where; from a register
    lanes : Out                how many of its lanes count in ADD and ADDB; 0 without ``read`` and in other operations
    """

    def __init__(self, *, size: int) -> None:
        self.size = size
        super().__init__({
            "control": In(VectorControl),
            "dst": In(VectorOperand),
            "a": In(VectorOperand),
            "b": In(VectorOperand),
            "start": In(1),
            "place": In(Place),
            "read": Out(1),
            "addr": Out(WORD_BITS),
            "lanes": Out(unsigned(size.bit_length())),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        control, b, dst = self.control, self.b, self.dst
        add = Signal()
        self.late = place = Place(Signal(Place, name="late"))
        self.begin = Signal()
        twice, half = Signal(), Signal()  # b's lines and pixels against those of dst
        m.d.sync += [
            place.eq(self.place), self.begin.eq(self.start), add.eq(control.add & control.pair),
            twice.eq((b.width_1 > dst.width_1) | (b.height_1 > dst.height_1)),
            half.eq((b.width_1 < dst.width_1) | (b.height_1 < dst.height_1)),
        ]
        inside = self._inside(m, place.issue & add, half)
        m.d.comb += self.read.eq(inside | (place.issue & control.total & control.pair)
                                 | (place.issue & control.route & (place.index == 0)))
        self._address(m, add, twice, half)
        return m

    def _inside(self, m: Module, reading: Value, half: Value) -> Signal:
        """Whether b has the word: it may have fewer words a pixel or more, and half of the lines and pixels."""
        place, start = self.late, self.begin
        m.submodules.word = word = Loop(bits=16)
        tail = tail_lanes(m, self.b, self.size, "tail")
        present, inside = Signal(), Signal()
        self.odd_pixel, self.odd_line = Signal(), Signal()
        m.d.comb += [
            word.count.eq(self.b.stride),
            word.load.eq(start | place.pixel),
            word.step.eq(place.done),
            inside.eq(reading & present & ~(half & (self.odd_pixel | self.odd_line))),
            self.lanes.eq(Mux(inside, Mux(word.last, tail, self.size), 0)),
        ]
        with m.If(word.load):
            m.d.sync += [present.eq(1), self.odd_pixel.eq(~(start | place.pixel_last | self.odd_pixel))]
        with m.Elif(place.done & word.last):
            m.d.sync += present.eq(0)
        with m.If(start | place.line):
            m.d.sync += self.odd_line.eq(~(start | place.line_last | self.odd_line))
        return inside

    def _address(self, m: Module, add: Value, twice: Value, half: Value) -> None:
        """From the last word's, or where the pixel, the line or the image began."""
        control, place, b, start = self.control, self.late, self.b, self.begin
        pixel_words, line_words = (Signal(WORD_BITS, name=name, reset_less=True) for name in ("pixel", "line"))
        home = Signal(WORD_BITS, reset_less=True)
        m.d.sync += [
            pixel_words.eq(Mux(twice, b.stride << 1, b.stride)),
            line_words.eq(Mux(twice, b.line << 1, b.line)),
            home.eq(Mux(control.total | control.route, self.a.base, b.base)),
        ]
        of_pixel, of_line, of_image = (Signal(WORD_BITS, name=name, reset_less=True)
                                       for name in ("of_pixel", "of_line", "of_image"))
        # where they go on; ADD and ADDB with b take two cycles a step, so that these are right in time
        steps = {"pixel": Mux(half & ~self.odd_pixel, 0, pixel_words),
                 "line": Mux(half & ~self.odd_line, 0, line_words), "image": b.image}
        first_steps = {"pixel": Mux(half, 0, pixel_words), "line": Mux(half, 0, line_words), "image": b.image}
        nexts = {}
        for name, register in (("pixel", of_pixel), ("line", of_line), ("image", of_image)):
            first, nexts[name] = (
                Signal(WORD_BITS, name=f"{what}_{name}", reset_less=True) for what in ("first", "next"))
            m.d.sync += [first.eq(home + first_steps[name]), nexts[name].eq(Mux(start, first, register + steps[name]))]
        following = Signal(WORD_BITS)
        m.d.comb += following.eq(self.addr + 1)
        with m.If(add & place.word_last):
            m.d.comb += following.eq(Mux(place.pixel_last, Mux(place.line_last, nexts["image"], nexts["line"]),
                                         nexts["pixel"]))
        for register, load in ((self.addr, place.done), (of_pixel, place.pixel), (of_line, place.line),
                               (of_image, place.plane)):
            with m.If(start | load):
                m.d.sync += register.eq(Mux(start, home, following))
