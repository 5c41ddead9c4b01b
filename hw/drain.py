"""Follows finished tiles out of the array, row by row."""

from amaranth.hdl import Assert, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DrainController"]


class DrainController(wiring.Component):
    """Turns tile boundaries into one token a drained row, with the row's offset in the destination.

    Tiles come in the issuer's order, rows of a tile from T-1 to 0; rows beyond the tensor make no token.

    Parameters
    ----------
    size : T
    delay : cycles from ``boundary`` to the token of row T-1, at least 2

    Members
    -------
    start : In(1)             a pass begins; sizes are static until ``done``
    rows, cols, stride : In   M, N and words a row of the destination
    boundary : In(1)          a tile is complete at the array's corner
    abort : In(1)             forget everything under way
    shift : Out(T)            drain shifts that bring out this row and the next ones (see SystolicArray)
    token : Out(1)            this row belongs to the tensor
    offset : Out(16)          row * stride + column tile
    tile : Out(16)            column tile
    lanes : Out               columns of this tile inside the tensor, 1 to T
    done : Out(1)             pulse with the pass's last row
    """

    def __init__(self, *, size: int, delay: int) -> None:
        self.size, self.delay = size, delay
        super().__init__({
            "start": In(1),
            "rows": In(16),
            "cols": In(16),
            "stride": In(16),
            "boundary": In(1),
            "abort": In(1),
            "shift": Out(size),
            "token": Out(1),
            "offset": Out(16),
            "tile": Out(16),
            "lanes": Out(unsigned(size.bit_length())),
            "done": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = self.size
        pipe = Signal(self.delay - 1)
        begin, active = Signal(), Signal()
        m.d.sync += pipe.eq((pipe << 1) | self.boundary)
        m.d.comb += begin.eq(pipe[-1])

        row = Signal(range(size))
        rows_left, cols_left = Signal(16), Signal(16)
        tile_base, tile_step, last_step = Signal(16), Signal(16), Signal(16)
        last_row, last_col, leave = Signal(), Signal(), Signal()
        m.d.comb += [
            last_row.eq(rows_left <= size),
            last_col.eq(cols_left <= size),
            leave.eq(active & (row == 0)),
            self.token.eq(active & (~last_row | (rows_left > row))),
            self.lanes.eq(Mux(last_col, cols_left, size)),
            self.done.eq(leave & last_row & last_col),
        ]
        m.d.comb += [self.shift[line].eq(active & (row > size - 1 - line)) for line in range(size)]
        m.d.sync += [tile_step.eq(self.stride * size), last_step.eq(self.stride * (size - 1))]
        with m.If(active):
            m.d.sync += [row.eq(row - 1), self.offset.eq(self.offset - self.stride)]
        next_base = Signal(16)
        m.d.comb += next_base.eq(tile_base)
        with m.If(leave):
            m.d.sync += [active.eq(0), rows_left.eq(Mux(last_row, self.rows, rows_left - size))]
            m.d.comb += next_base.eq(Mux(last_row, self.tile + 1, tile_base + tile_step))
            m.d.sync += tile_base.eq(next_base)
            with m.If(last_row):
                m.d.sync += [self.tile.eq(self.tile + 1), cols_left.eq(cols_left - size)]
        with m.If(begin):
            m.d.sync += [active.eq(1), row.eq(size - 1), self.offset.eq(next_base + last_step)]
        with m.If(self.start):
            m.d.sync += [
                rows_left.eq(self.rows), cols_left.eq(self.cols), tile_base.eq(0), self.tile.eq(0),
            ]
        with m.If(self.abort):
            m.d.sync += [pipe.eq(0), active.eq(0)]
        if platform is None:  # simulation and formal
            m.d.sync += [
                Assert(~begin | ~active | leave, "drain: a tile is complete before the one before has left"),
                Assert(~self.start | ~(active | pipe.any()), "drain: start while tiles are on their way"),
                Assert(~active | ((rows_left != 0) & (cols_left != 0)), "drain: more tiles than the product has"),
            ]
        return m
