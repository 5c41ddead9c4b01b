"""The order in which the vector unit reads words, and where the results belong."""

from amaranth.hdl import Assert, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.vector_lane import VectorControl
from shiftgrad.config import WORD_BITS

__all__ = ["Loop", "VectorOperand", "VectorWalk", "step_layout"]


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


def step_layout(size: int) -> data.StructLayout:
    """What is known of a word when it is read.

    read : a word of the first stream; of the second with ``y_read``
    fresh : a new sum starts with it; 1 throughout where nothing is summed
    index : place in a 2 x 2 window
    lanes : columns inside the tensor; ``y_lanes`` of operand b in ADD and ADDB, 0 when there are none
    token : a result belongs to it (to each word of a MAXB window); ``offset`` its word in the destination
    end : it is the pass's last
    """
    count = unsigned(size.bit_length())
    return data.StructLayout({
        "read": 1, "x_addr": WORD_BITS, "y_read": 1, "y_addr": WORD_BITS, "fresh": 1, "index": 2, "lanes": count,
        "y_lanes": count, "token": 1, "offset": WORD_BITS, "end": 1,
    })


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


class VectorWalk(wiring.Component):
    """Walks images word by word: a word a cycle, one every other cycle where b is added.

    Order: planes, lines, pixels, words of a pixel; AVG: planes, words, lines, pixels; MAX and MAXB: windows instead of
    pixels, and for each word the four of its window.

    Parameters
    ----------
    size : T

    Members
    -------
    control, dst, a, b : In    static from two cycles before ``start`` to the end
    start, abort : In(1)
    step : Out(step_layout)    ``read``, ``token`` and ``end`` are 0 while there is no word
    busy : Out(1)              a word is still to come
    """

    def __init__(self, *, size: int) -> None:
        self.size = size
        super().__init__({
            "control": In(VectorControl),
            "dst": In(VectorOperand),
            "a": In(VectorOperand),
            "b": In(VectorOperand),
            "start": In(1),
            "abort": In(1),
            "step": Out(step_layout(size)),
            "busy": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        control, step = self.control, self.step
        m.submodules.word = word = Loop(bits=16)
        m.submodules.pixel = pixel = Loop(bits=9)
        m.submodules.line = line = Loop(bits=9)
        m.submodules.plane = plane = Loop(bits=16)
        loops = (word, pixel, line, plane)
        pool, double = control.largest | control.route, control.add & control.pair

        # the tensor walked: MAX and MAXB walk the small one
        shape = Signal(VectorOperand)
        m.d.comb += shape.eq(Mux(control.total, self.b, Mux(control.average | control.route, self.a, self.dst)))
        m.d.comb += [
            word.count.eq(shape.stride),
            pixel.count.eq(shape.width_1 + 1),
            line.count.eq(shape.height_1 + 1),
            plane.count.eq(shape.planes),
            *(loop.load.eq(self.start) for loop in loops),
        ]

        wait, index = Signal(), Signal(2)  # the other cycle of a word; place in a window
        issue, done, image_end, end = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            issue.eq(self.busy & ~wait),
            done.eq(issue & (~pool | (index == 3))),
            plane.step.eq(image_end),
            end.eq(image_end & plane.last),
        ]
        with m.If(control.average):
            m.d.comb += [
                pixel.step.eq(done),
                line.step.eq(done & pixel.last),
                word.step.eq(line.step & line.last),
                image_end.eq(word.step & word.last),
            ]
        with m.Else():
            m.d.comb += [
                word.step.eq(done),
                pixel.step.eq(done & word.last),
                line.step.eq(pixel.step & pixel.last),
                image_end.eq(line.step & line.last),
            ]
        m.d.sync += [wait.eq(issue & double & ~end), index.eq(Mux(pool, index + 1, 0))]
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), wait.eq(0), index.eq(0)]
        with m.Elif(end | self.abort):
            m.d.sync += self.busy.eq(0)

        tail = self._tail(m, shape, "tail")
        fresh = Signal()  # of an average or total
        m.d.sync += fresh.eq(self.start | (word.step & control.average) | (fresh & ~issue))
        m.d.comb += [
            step.read.eq(issue),
            step.fresh.eq((issue & fresh) | ~(control.average | control.total)),
            step.index.eq(index),
            step.lanes.eq(Mux(word.last, tail, self.size)),
            step.token.eq(Mux(control.route, issue, word.step & ~control.total)),
            step.end.eq(end),
        ]
        with m.If(word.step):
            m.d.sync += step.offset.eq(step.offset + 1)
        with m.If(self.start):
            m.d.sync += step.offset.eq(0)
        self._first_stream(m, *loops, index, word.step)
        self._second_stream(m, *loops, issue, done, index == 0)
        if platform is None:  # simulation and formal
            kinds = (control.add, control.total, control.average, control.spread, control.largest, control.route)
            m.d.sync += [
                Assert(~self.start | ~self.busy, "vector: start while a pass runs"),
                Assert(~self.start | (sum(kinds) == 1), "vector: wanted one operation"),
                Assert(~self.busy | (shape.stride != 0) & (shape.planes != 0), "vector: nothing to walk"),
            ]
        return m

    def _tail(self, m: Module, shape: data.View, name: str) -> Signal:
        """Lanes of a row's last word, 1 to T."""
        tail = Signal(self.step.lanes.shape(), name=name, reset_less=True)
        bits = len(tail)  # of both numbers are enough
        m.d.sync += tail.eq(shape.cols[:bits] - shape.stride[:bits] * self.size + self.size)
        return tail

    def _first_stream(self, m: Module, word: Loop, pixel: Loop, line: Loop, plane: Loop, index: Signal,
                      column_end: Signal) -> None:
        """Address of a (SUM, MAXB: of b): from the last word's, the one to come back to, or the window's right one."""
        control, addr = self.control, self.step.x_addr
        stride, line_words = Signal(WORD_BITS, reset_less=True), Signal(WORD_BITS, reset_less=True)
        m.d.sync += [
            stride.eq(Mux(control.route, self.b.stride, self.a.stride)),
            line_words.eq(Mux(control.route, self.b.line, self.a.line)),
        ]
        home, right = Signal(WORD_BITS, reset_less=True), Signal(WORD_BITS, reset_less=True)
        origin, more, following = Signal(WORD_BITS), Signal(WORD_BITS), Signal(WORD_BITS)
        settle = Signal()
        m.d.comb += [origin.eq(addr), more.eq(1), following.eq(origin + more)]
        with m.If(control.spread):  # an image's words again for each of its pixels
            m.d.comb += settle.eq(plane.step)
            with m.If(word.last & ~plane.step):
                m.d.comb += [origin.eq(home), more.eq(0)]
        with m.If(control.average):  # down the pixels, then to the next column
            m.d.comb += settle.eq(column_end)
            with m.If(~column_end):
                m.d.comb += more.eq(stride)
            with m.Elif(~word.last):
                m.d.comb += origin.eq(home)
        with m.If(control.largest | control.route):
            m.d.comb += settle.eq(index == 3)
            with m.Switch(index):
                with m.Case(0, 2):
                    m.d.comb += more.eq(stride)
                with m.Case(1):
                    m.d.comb += [origin.eq(home), more.eq(line_words)]
                with m.Case(3):
                    with m.If(~word.last):
                        m.d.comb += origin.eq(home)
                    with m.Elif(~pixel.last):
                        m.d.comb += origin.eq(right)
        with m.If(self.step.read):
            m.d.sync += addr.eq(following)
            with m.If(settle):
                m.d.sync += home.eq(following)
            with m.If(index == 1):
                m.d.sync += right.eq(addr)
        begin = Mux(control.total | control.route, self.b.base, self.a.base)
        with m.If(self.start):
            m.d.sync += [addr.eq(begin), home.eq(begin)]

    def _second_stream(self, m: Module, word: Loop, pixel: Loop, line: Loop, plane: Loop, issue: Signal, done: Signal,
                       first: Signal) -> None:
        """Address of b and how many of its lanes count; SUM, MAXB: of a, word after word."""
        control, step, b, dst = self.control, self.step, self.b, self.dst
        add = control.add & control.pair
        twice, half = Signal(), Signal()  # b's size against that of dst
        pixel_words, line_words = Signal(WORD_BITS, reset_less=True), Signal(WORD_BITS, reset_less=True)
        m.d.sync += [
            twice.eq((b.width_1 > dst.width_1) | (b.height_1 > dst.height_1)),
            half.eq((b.width_1 < dst.width_1) | (b.height_1 < dst.height_1)),
            pixel_words.eq(Mux(twice, b.stride << 1, b.stride)),
            line_words.eq(Mux(twice, b.line << 1, b.line)),
        ]

        # b may have fewer words a pixel, or more, and half of the lines and pixels of dst
        m.submodules.b_word = b_word = Loop(bits=16)
        present, odd_pixel, odd_line = Signal(), Signal(), Signal()
        tail = self._tail(m, b, "b_tail")
        m.d.comb += [b_word.count.eq(b.stride), b_word.load.eq(self.start | pixel.step), b_word.step.eq(done)]
        with m.If(b_word.load):
            m.d.sync += present.eq(1)
        with m.Elif(done & b_word.last):
            m.d.sync += present.eq(0)
        with m.If(self.start | pixel.step):
            m.d.sync += odd_pixel.eq(~(self.start | pixel.last | odd_pixel))
        with m.If(self.start | line.step):
            m.d.sync += odd_line.eq(~(self.start | line.last | odd_line))
        inside = Signal()
        m.d.comb += [
            inside.eq(issue & add & present & ~(half & (odd_pixel | odd_line))),
            step.y_lanes.eq(Mux(inside, Mux(b_word.last, tail, self.size), 0)),
            step.y_read.eq(inside | (issue & control.total & control.pair) | (issue & control.route & first)),
        ]

        # where the pixel, the line and the image begin
        of_pixel, of_line, of_image = (Signal(WORD_BITS, name=f"of_{name}", reset_less=True)
                                       for name in ("pixel", "line", "image"))
        origin, more, following = Signal(WORD_BITS), Signal(WORD_BITS), Signal(WORD_BITS)
        m.d.comb += [origin.eq(step.y_addr), more.eq(1), following.eq(origin + more)]
        with m.If(add & plane.step):
            m.d.comb += [origin.eq(of_image), more.eq(b.image)]
        with m.Elif(add & line.step):
            m.d.comb += [origin.eq(of_line), more.eq(Mux(half & ~odd_line, 0, line_words))]
        with m.Elif(add & pixel.step):
            m.d.comb += [origin.eq(of_pixel), more.eq(Mux(half & ~odd_pixel, 0, pixel_words))]
        begin = Mux(control.total | control.route, self.a.base, b.base)
        for register, load in ((step.y_addr, done), (of_pixel, pixel.step), (of_line, line.step),
                               (of_image, plane.step)):
            with m.If(self.start | load):
                m.d.sync += register.eq(Mux(self.start, begin, following))
