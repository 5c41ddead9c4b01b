"""Follows finished tiles out of the array, row by row."""

from amaranth.hdl import Assert, Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.issuer import TileRow
from shiftgrad.config import WORD_BITS

__all__ = ["DrainController"]

TILES = 8  # whose rows are remembered: a tile is at least T cycles, and leaves within 2 T + 8 after its end


class DrainController(wiring.Component):
    """Turns tile boundaries into one token a drained row, with the row's offset in the destination.

    The issuer says, while it feeds a tile, where its rows go. They leave from T-1 to 0, those it did not name silently.

    Parameters
    ----------
    size : T
    delay : cycles from ``boundary`` to the token of row T-1, at least 3

    Members
    -------
    row : In(TileRow)         a row of the tile being fed
    boundary : In(1)          a tile is complete at the array's corner; not before all of its rows were named
    last : In(1)              with ``boundary``: it is the last of the instruction
    abort : In(1)             forget everything under way
    shift : Out(T)            drain shifts that bring out this row and the next ones (see SystolicArray)
    token : Out(1)            this row belongs to the tensor
    offset : Out              word of the destination, from its base
    tile : Out(16)            column tile
    lanes : Out               columns of this tile inside the tensor, 1 to T
    done : Out(1)             pulse with the last row of the instruction's last tile
    """

    def __init__(self, *, size: int, delay: int) -> None:
        self.size, self.delay = size, delay
        super().__init__({
            "row": In(TileRow(size)),
            "boundary": In(1),
            "last": In(1),
            "abort": In(1),
            "shift": Out(size),
            "token": Out(1),
            "offset": Out(WORD_BITS),
            "tile": Out(16),
            "lanes": Out(unsigned(size.bit_length())),
            "done": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = self.size
        count = unsigned(size.bit_length())
        pipe, lasts = Signal(self.delay - 2), Signal(self.delay - 2)
        begin, active, final, leave = Signal(), Signal(), Signal(), Signal()
        row = Signal(range(size))
        m.d.sync += [pipe.eq((pipe << 1) | self.boundary), lasts.eq((lasts << 1) | self.last)]
        m.d.comb += begin.eq(pipe[-1])

        # what the issuer said, by tile
        filling, leaving = Signal(range(TILES)), Signal(range(TILES))
        place = Signal.like(filling)  # of the row being named
        m.d.comb += place.eq(filling - ~self.row.new)
        with m.If(self.row.new):
            m.d.sync += filling.eq(filling + 1)
        lines = 1 << (size - 1).bit_length()
        m.submodules.offsets = offsets = Memory(shape=WORD_BITS, depth=TILES * lines, init=[])
        shape = data.StructLayout({"rows": count, "cols": count, "tile": 16})
        m.submodules.tiles = tiles = Memory(shape=shape, depth=TILES, init=[])
        put, take = offsets.write_port(), offsets.read_port(domain="comb")
        place_out = Signal.like(take.addr)  # of its own: the memory is wide, and the rows are counted elsewhere
        put_tile, take_tile = tiles.write_port(), tiles.read_port(domain="comb")
        m.d.comb += [
            put.en.eq(self.row.valid), put.addr.eq(self.row.index + place * lines), put.data.eq(self.row.offset),
            put_tile.en.eq(self.row.valid), put_tile.addr.eq(place),
            put_tile.data.rows.eq(self.row.rows), put_tile.data.cols.eq(self.row.cols),
            put_tile.data.tile.eq(self.row.tile),
            take.addr.eq(place_out), take_tile.addr.eq(leaving),
        ]

        tile = take_tile.data
        m.d.comb += [leave.eq(active & (row == 0)), self.offset.eq(take.data)]
        m.d.sync += [  # a cycle late, and so is the offset
            place_out.eq(row + leaving * lines),
            self.token.eq(active & (tile.rows > row)), self.tile.eq(tile.tile), self.lanes.eq(tile.cols),
            self.done.eq(leave & final),
            *(self.shift[line].eq(active & (row > size - 1 - line)) for line in range(size)),
        ]
        with m.If(active):
            m.d.sync += row.eq(row - 1)
        with m.If(leave):
            m.d.sync += [active.eq(0), leaving.eq(leaving + 1)]
        with m.If(begin):
            m.d.sync += [active.eq(1), row.eq(size - 1), final.eq(lasts[-1])]
        with m.If(self.abort):
            m.d.sync += [pipe.eq(0), lasts.eq(0), active.eq(0), filling.eq(0), leaving.eq(0),
                         self.token.eq(0), self.done.eq(0), self.shift.eq(0)]
        if platform is None:  # simulation and formal
            m.d.sync += [
                Assert(~begin | ~active | leave, "drain: a tile is complete before the one before has left"),
                Assert(~active | (filling != leaving), "drain: a tile leaves that was not named"),
                Assert(~active | (tile.rows != 0), "drain: a tile without rows"),
            ]
        return m
