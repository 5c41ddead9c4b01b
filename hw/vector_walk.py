"""The order in which the vector unit reads words, and where the results belong."""

from amaranth.hdl import Assert, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.vector_address import FirstAddress, Loop, Place, SecondAddress, VectorOperand, tail_lanes
from hw.vector_lane import VectorControl
from shiftgrad.config import WORD_BITS

__all__ = ["VectorWalk", "step_layout"]


def step_layout(size: int) -> data.StructLayout:
    """What is known of a word when it is read.

    read : a word of the first stream; of the second with ``y_read``
    fresh : a new sum starts with it; 1 throughout where nothing is summed
    index : place in a 2 x 2 window
    lanes : columns inside the tensor; ``y_lanes`` of operand b in ADD and ADDB, 0 when there are none
    token : a result belongs to it (MAXB: to each word of a window; SUM: means nothing)
    offset : in the destination, of the result; not in MAXB
    end : it is the pass's last
    """
    count = unsigned(size.bit_length())
    return data.StructLayout({
        "read": 1, "x_addr": WORD_BITS, "y_read": 1, "y_addr": WORD_BITS, "fresh": 1, "index": 2, "lanes": count,
        "y_lanes": count, "token": 1, "offset": WORD_BITS, "end": 1,
    })


class VectorWalk(wiring.Component):
    """Walks images word by word: a word a cycle, one every other cycle where b is added.

    Order: planes, lines, pixels, words of a pixel; AVG: planes, words, lines, pixels; MAX and MAXB: windows instead of
    pixels, and for each word the four of its window.

    Parameters
    ----------
    size : T

    Members
    -------
    control, dst, a, b : In    static from three cycles before ``start`` to the end
    start, abort : In(1)
    step : Out(step_layout)    a cycle late; ``read``, ``token`` and ``end`` are 0 while there is no word
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
        control, step = Signal(VectorControl), self.step  # a copy of its own: the walk is the longest path
        pool = Signal()
        m.d.sync += [control.eq(self.control), pool.eq(self.control.largest | self.control.route)]
        shape, place = Signal(VectorOperand), Signal(Place)
        m.d.sync += shape.eq(Mux(control.total, self.b, Mux(control.average | control.route, self.a, self.dst)))

        wait, index = Signal(), Signal(2)  # the cycle in which b is read; place in a window
        issue, done, pair = Signal(), Signal(), Signal()
        m.d.comb += issue.eq(self.busy & ~wait)
        m.d.comb += [place.issue.eq(issue), place.index.eq(index), place.done.eq(done)]
        end = self._loops(m, shape, place, done, control.average)
        m.d.sync += [
            pair.eq(self.control.add & self.control.pair),
            wait.eq(issue & pair), index.eq(Mux(pool, index + 1, 0)),
            # in the next cycle there is a word, and it is its window's last
            done.eq(~self.abort & Mux(self.start, ~pool, self.busy & ~end & Mux(pool, index == 2, ~(issue & pair)))),
        ]
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), index.eq(0)]
        with m.Elif(end):
            m.d.sync += self.busy.eq(0)
        with m.If(self.abort):
            m.d.sync += self.busy.eq(0)

        fresh, offset = Signal(), Signal(WORD_BITS, reset_less=True)  # the next word starts a sum; where results go
        with m.If(self.start | (place.word & control.average)):
            m.d.sync += fresh.eq(1)
        with m.Elif(issue):
            m.d.sync += fresh.eq(0)
        with m.If(self.start):
            m.d.sync += offset.eq(0)
        with m.Elif(place.word):
            m.d.sync += offset.eq(offset + 1)
        quiet = self.abort
        m.d.sync += [
            step.read.eq(issue & ~quiet),
            step.fresh.eq(fresh | ~(control.average | control.total)),
            step.index.eq(index),
            step.lanes.eq(Mux(place.word_last, tail_lanes(m, shape, self.size, "tail"), self.size)),
            step.token.eq(Mux(control.route, issue, place.word) & ~quiet),
            step.offset.eq(offset),
            step.end.eq(end & ~quiet),
        ]
        self._addresses(m, place, control)
        if platform is None:  # simulation and formal
            kinds = (control.add, control.total, control.average, control.spread, control.largest, control.route)
            m.d.sync += [
                Assert(~self.start | ~self.busy, "vector: start while a pass runs"),
                Assert(~self.start | (sum(kinds) == 1), "vector: wanted one operation"),
                Assert(~self.busy | ((shape.stride != 0) & (shape.planes != 0)), "vector: nothing to walk"),
            ]
        return m

    def _loops(self, m: Module, shape: data.View, place: data.View, done: Signal,
               average: Value) -> Signal:
        """Four nested counters, in AVG the words of a pixel outside its lines and pixels; returns the pass's end."""
        counts = {"word": (16, shape.stride), "pixel": (9, shape.width_1 + 1), "line": (9, shape.height_1 + 1),
                  "plane": (16, shape.planes)}
        loops = []
        for name, (bits, count) in counts.items():
            m.submodules[name] = loop = Loop(bits=bits)
            m.d.comb += [loop.count.eq(count), loop.load.eq(self.start), place[name].eq(loop.step)]
            loops.append(loop)
        word, pixel, line, plane = loops
        end, inner = Signal(), average | word.last  # a pixel is done with
        m.d.comb += [
            word.step.eq(done & (~average | (pixel.last & line.last))),
            pixel.step.eq(done & inner),
            line.step.eq(done & inner & pixel.last),
            plane.step.eq(done & word.last & pixel.last & line.last),
            place.word_last.eq(word.last),
            place.pixel_last.eq(pixel.last),
            place.line_last.eq(line.last),
            end.eq(plane.step & plane.last),
        ]
        return end

    def _addresses(self, m: Module, place: data.View, control: data.View) -> None:
        m.submodules.first = first = FirstAddress()
        m.submodules.second = second = SecondAddress(size=self.size)
        for unit, names in ((first, ("a", "b")), (second, ("a", "b", "dst"))):
            m.d.comb += [
                unit.control.eq(control),
                unit.start.eq(self.start),
                unit.place.eq(place),
                *(getattr(unit, name).eq(getattr(self, name)) for name in names),
            ]
        quiet = Signal()
        m.d.sync += quiet.eq(self.abort)
        m.d.comb += [
            self.step.x_addr.eq(first.addr),
            self.step.y_read.eq(second.read & ~quiet),
            self.step.y_addr.eq(second.addr),
            self.step.y_lanes.eq(second.lanes),
        ]
