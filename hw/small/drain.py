"""Order of the work on a finished tile: which row, which column, which memory word in which cycle."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.small.assembler import Slot
from hw.small.lane import LANES

__all__ = ["SmallDrain"]

READ_OLD, READ_SECOND, WRITE_OLD, WRITE_WORD = 0, 1, 2, 10  # cycles of a period with an address of their own
PERIOD = 4 * LANES


class SmallDrain(wiring.Component):
    """A period of sixteen cycles a row, from the last one up, and what is still under way afterwards.

    In period n the lane begins with row n; the words of row n - 1 are written, of weights those of row n - 2.

    Members
    -------
    start : In(1)
    rows, cols : In(3)      of the tile, static
    two : In(1)             a second word is written for each row: a gradient's
    d_load, c_load, address : In    pointers of the destination (of the row behind the first) and the second operand
    step : In               words of a row
    run : Out(1)
    slot, col : Out(2)      for the lane
    row : Out(2)            of the accumulators
    live, inside, old_inside : Out(1)
    word : Out              address in ``run``: of the second operand, the destination's old word, or what is written
    take_second, take_old : Out(1)   the word read has come
    final : Out(1)          the last cycle of ``run``
    write_word, write_old : Out(1)   the lane's ``q_word`` or ``w_word`` is to be written to ``word``
    """

    def __init__(self, *, bits: int) -> None:
        self.bits = bits
        super().__init__({
            "start": In(1), "rows": In(3), "cols": In(3), "two": In(1),
            "d_load": In(1), "c_load": In(1), "address": In(bits), "step": In(bits),
            "run": Out(1), "slot": Out(2), "col": Out(2), "row": Out(2),
            "live": Out(1), "inside": Out(1), "old_inside": Out(1), "word": Out(bits),
            "take_second": Out(1), "take_old": Out(1), "write_word": Out(1), "write_old": Out(1), "final": Out(1),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        count, period = Signal(range(PERIOD)), Signal(3)
        d, c, d_before, c_before = (Signal(self.bits, name=name) for name in ("d", "c", "d_before", "c_before"))
        m.d.comb += [
            self.slot.eq(count[:2]), self.col.eq(count[2:]),
            self.live.eq(period < self.rows), self.old_inside.eq(self.col < self.cols),
            self.inside.eq(self.live & self.old_inside),
            self.take_second.eq(count == READ_SECOND + 1), self.take_old.eq(count == READ_OLD + 1),
            self.write_word.eq(self.run & (count == WRITE_WORD) & (period != 0) & (period <= self.rows)),
            self.write_old.eq(self.run & (count == WRITE_OLD) & (period > 1)),
            self.word.eq(Mux(count[1], Mux(count[3], Mux(self.two, c_before, d), d_before), Mux(count[0], c, d))),
            self.final.eq(self.run & Mux(self.two, (period > self.rows) & (count == WRITE_OLD + 1),
                         (period == self.rows) & (count == WRITE_WORD + 1))),
        ]
        with m.If(self.run):
            m.d.sync += count.eq(count + 1)
            with m.If(count == PERIOD - 1):
                m.d.sync += [
                    period.eq(period + 1), self.row.eq(self.row - 1),
                    d.eq(d - self.step), c.eq(c - self.step), d_before.eq(d), c_before.eq(c),
                ]
            with m.If(self.final):
                m.d.sync += [self.run.eq(0), count.eq(0)]
        with m.Elif(self.start):
            m.d.sync += [self.run.eq(1), period.eq(0), self.row.eq(self.rows - 1)]
        with m.If(self.d_load):
            m.d.sync += d.eq(self.address)
        with m.If(self.c_load):
            m.d.sync += c.eq(self.address)
        assert READ_OLD + 2 <= Slot.GUARD and READ_SECOND + 2 <= Slot.ALIGN  # when a row's first value needs them
        return m
