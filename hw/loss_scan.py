"""Front of the loss unit: reads each row of logits twice and streams distances from its maximum."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.logic import delayed, one_of, register
from shiftgrad.config import WORD_BITS

__all__ = ["ELEMENT", "LogitScan"]

ELEMENT = data.StructLayout({
    "first": 1,  # first lane of the row
    "last": 1,  # last lane of the row, padding included
    "inside": 1,  # column < cols
    "hit": 1,  # column is the label
    "counted": 1,  # with last: the label is valid
    "correct": 1,  # with last: the first maximum is the label
})
"""What travels with a distance."""


class LogitScan(wiring.Component):
    """Pass 1 finds a row's maximum, pass 2 streams ``d = max - z``; rows follow without a gap.

    Parameters
    ----------
    lanes : T, lanes of the memories
    classes : most columns of a row
    read_latency : cycles from a read at the root to lane 0's data, 1 to 2 T - 2

    Members
    -------
    start : In(1)       begin, two cycles later; ignored while ``active``
    go : In(1)          a new row may begin
    active : Out(1)     rows are left to issue
    begin : Out(1)      a row begins in this cycle
    rows, cols, z_base, z_stride, y_base : In(17)   static from start to the end
    z_en, z_addr, z_data / y_en, y_addr, y_data     read roots of logits and labels
    element : Out(ELEMENT)  pass 2, lane by lane; ``first``, ``last``, ``inside`` are 0 when there is none
    d : Out(8)          max - z of that element

    Latency: element c's distance appears z_stride * T + c + read_latency + 3 cycles after the row begins.
    """

    def __init__(self, *, lanes: int, classes: int, read_latency: int) -> None:
        self.lanes, self.classes, self.read_latency = lanes, classes, read_latency
        super().__init__({
            "start": In(1),
            "go": In(1),
            "active": Out(1),
            "begin": Out(1),
            **{name: In(WORD_BITS) for name in ("rows", "cols", "z_base", "z_stride", "y_base")},
            **{name: Out(1) for name in ("z_en", "y_en")},
            **{name: Out(WORD_BITS) for name in ("z_addr", "y_addr")},
            "z_data": In(data.ArrayLayout(signed(8), lanes)),
            "y_data": In(data.ArrayLayout(signed(16), lanes)),
            "element": Out(ELEMENT),
            "d": Out(8),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tag = Signal(data.StructLayout({
            "en": 1, "first": 1, "last": 1, "second": 1, "lane": range(self.lanes),
            "col": bits_for(self.classes + self.lanes - 1),
        }))
        y_turn = Signal(self.lanes, init=1)  # bit n: the row's label is in lane n
        self._issue(m, tag, y_turn)
        arrived = delayed(m, tag, self.read_latency + 1, "arrived_", resets=True)[-1]
        self._maximum(m, arrived, y_turn)
        return m

    def _issue(self, m: Module, tag: data.View, y_turn: Signal) -> None:
        """Addresses and lane tags: twice z_stride words a row, one every T cycles."""
        lane, col, second = Signal.like(tag.lane), Signal.like(tag.col), Signal()
        words, rows, row_addr = Signal(16), Signal(16), Signal(WORD_BITS)
        fresh, within = Signal(), Signal()  # the next lane is the first of a pass; it is not the first of a row
        lane_end, row_end = Signal(), Signal()  # registers, for much hangs on them
        final = Signal()  # the pass's last word of this row, two cycles after it begins
        more = register(m, rows != 1, "more")  # rows after this one
        # a cycle late: a word takes at least four
        word_over, pass_over, row_over = Signal(), Signal(), Signal()
        m.d.sync += [
            final.eq(words == 1), word_over.eq(tag.en & lane_end), pass_over.eq(tag.en & row_end),
            row_over.eq(tag.en & row_end & second),
        ]
        m.d.comb += [
            self.begin.eq(self.active & fresh & ~second & self.go),
            tag.en.eq(self.active & (self.go | within)),
            tag.first.eq(fresh),
            tag.last.eq(row_end),
            tag.second.eq(second),
            tag.lane.eq(lane),
            tag.col.eq(col),
            self.z_en.eq(tag.en & (lane == 0)),
            self.y_en.eq(self.begin & y_turn[0]),
        ]
        with m.If(tag.en):
            m.d.sync += [fresh.eq(row_end), col.eq(Mux(row_end, 0, col + 1)), lane.eq(Mux(lane_end, 0, lane + 1)),
                         lane_end.eq(lane == self.lanes - 2), row_end.eq((lane == self.lanes - 2) & final),
                         within.eq(~row_end | ~second)]
            with m.If(lane_end):
                m.d.sync += self.z_addr.eq(self.z_addr + 1)
            with m.If(row_end):
                m.d.sync += second.eq(~second)
                with m.If(~second):
                    m.d.sync += self.z_addr.eq(row_addr)
                with m.Else():
                    m.d.sync += [self.active.eq(more), y_turn.eq(y_turn.rotate_left(1))]
        with m.If(word_over):
            m.d.sync += words.eq(words - 1)
        with m.If(pass_over):
            m.d.sync += words.eq(self.z_stride)
        with m.If(row_over):
            m.d.sync += [row_addr.eq(self.z_addr), rows.eq(rows - 1)]
        with m.If(self.y_en):
            m.d.sync += self.y_addr.eq(self.y_addr + 1)
        load = Signal()  # a cycle after ``start``, for much hangs on it
        m.d.sync += load.eq(self.start & ~self.active & ~load)
        with m.If(load):
            m.d.sync += [
                self.active.eq(1), fresh.eq(1), within.eq(0), second.eq(0), lane.eq(0), lane_end.eq(0), row_end.eq(0),
                col.eq(0), y_turn.eq(1), words.eq(self.z_stride), rows.eq(self.rows), row_addr.eq(self.z_base),
                self.z_addr.eq(self.z_base), self.y_addr.eq(self.y_base),
            ]

    def _maximum(self, m: Module, arrived: data.View, y_turn: Signal) -> None:
        """Select the lane, keep the maximum in pass 1, subtract in pass 2."""
        z, col, inside = Signal(signed(8), reset_less=True), Signal.like(arrived.col), Signal()
        first, last, one, two = Signal(), Signal(), Signal(), Signal()
        label, counted = Signal(16, reset_less=True), Signal()
        z_data, y_data = Signal.like(self.z_data, reset_less=True), Signal.like(self.y_data, reset_less=True)
        m.d.sync += [
            z_data.eq(self.z_data), y_data.eq(self.y_data),  # the lanes are far apart
            z.eq(z_data[arrived.lane]), col.eq(arrived.col), inside.eq(arrived.col < self.cols),
            first.eq(arrived.first), last.eq(arrived.last),
            one.eq(arrived.en & ~arrived.second), two.eq(arrived.en & arrived.second),
            counted.eq(label < self.cols),
        ]
        with m.If(arrived.en & arrived.first & ~arrived.second):
            m.d.sync += label.eq(one_of((y_turn[n], y_data[n].as_unsigned()) for n in range(self.lanes)))

        best, best_hit, hit = Signal(signed(8), reset_less=True), Signal(), Signal()
        m.d.comb += hit.eq(col == label[:len(col)])  # a label of more bits does not count
        with m.If(one & (first | (inside & (best - z)[-1]))):
            m.d.sync += [best.eq(z), best_hit.eq(hit)]
        m.d.sync += [
            self.d.eq(best - z),
            self.element.first.eq(two & first), self.element.last.eq(two & last), self.element.inside.eq(two & inside),
            self.element.hit.eq(hit), self.element.counted.eq(counted), self.element.correct.eq(best_hit),
        ]
