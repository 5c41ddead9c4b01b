"""Walks a product's tiles and reduction steps and reads the operands."""

from amaranth.hdl import Assert, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.feeder import Slot
from hw.geometry import Loops
from hw.walker import PixelWalker
from shiftgrad.config import WORD_BITS

__all__ = ["Issuer", "TileRow"]


class TileRow(data.StructLayout):
    """A row of a tile on its way to the drain: ``offset`` is its first word in the result; ``new`` starts a tile."""

    def __init__(self, size: int) -> None:
        count = unsigned(size.bit_length())
        super().__init__({
            "valid": 1,
            "new": 1,
            "index": unsigned((size - 1).bit_length()),
            "offset": unsigned(WORD_BITS),
            "rows": count,
            "cols": count,
            "tile": unsigned(16),
        })


class Issuer(wiring.Component):
    """One slot a cycle: column tiles outer, row tiles inner, the reduction innermost.

    FWD and BWD: a row tile is T pixels; the reduction takes, tap after tap, the channels rounded up to a multiple of T.
    GRAD: a row tile is T channels of a tap; the reduction takes all pixels, and never fewer than T steps (the drain of
    the tile before needs T cycles). One closing slot with ``first`` ends the pass. Outputs are DELAY cycles late.

    Members
    -------
    start : In(1)            begin a pass; ``loops`` is static from here to ``busy`` low
    loops : In(Loops)        what to walk
    abort : In(1)            stop issuing
    slot : Out(Slot)         reduction step
    read : Out(1)            memory reads are wanted
    a_addr, b_addr : Out     its read addresses
    pad : Out(1)             operand a is padding: zero
    row : Out(TileRow)       in the first T slots of a tile: where its rows go
    boundary : Out(1)        this slot's ``first`` finishes a tile
    closing : Out(1)         and it was the pass's last
    waiting : Out(1)         busy only because of the T-cycle minimum
    macs : Out               multiply-accumulates of a slot
    busy : Out(1)            from the cycle after ``start`` to the closing slot has left
    """

    DELAY = 2

    def __init__(self, *, size: int) -> None:
        self.size = size
        super().__init__({
            "start": In(1),
            "loops": In(Loops),
            "abort": In(1),
            "slot": Out(Slot(size)),
            "read": Out(1),
            "a_addr": Out(WORD_BITS),
            "b_addr": Out(WORD_BITS),
            "pad": Out(1),
            "row": Out(TileRow(size)),
            "boundary": Out(1),
            "closing": Out(1),
            "waiting": Out(1),
            "macs": Out(unsigned((size * size).bit_length())),
            "busy": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size, loops = self.size, self.loops
        running, closing, fresh, full, started = (
            Signal(name=name) for name in ("running", "closing", "fresh", "full", "started"))
        k_left, rows_left, cols_left, tile = (
            Signal(16, name=name) for name in ("k_left", "rows_left", "cols_left", "tile"))
        index = Signal(range(size))
        wrap, k_end, tap_end, tile_end, part_row, last_row, last_col = (
            Signal(name=name) for name in ("wrap", "k_end", "tap_end", "tile_end", "part_row", "last_row", "last_col"))
        tap_x, tap_y = Signal(3), Signal(3)
        line_end, last_tap, next_tap = Signal(), Signal(), Signal()
        m.d.comb += [
            wrap.eq(index == size - 1),
            k_end.eq((k_left <= 1) | loops.empty),
            line_end.eq(tap_x == loops.taps_x),
            last_tap.eq(line_end & (tap_y == loops.taps_y)),
            tap_end.eq(wrap & k_end & ~loops.grad),
            tile_end.eq(Mux(loops.grad, (full | wrap) & k_end, tap_end & last_tap)),
            part_row.eq(rows_left <= size),
            last_row.eq(part_row & (~loops.grad | last_tap)),
            last_col.eq(cols_left <= size),
            next_tap.eq(running & Mux(loops.grad, tile_end & part_row, tap_end)),
        ]

        # counters
        m.d.sync += closing.eq(0)
        with m.If(running):
            m.d.sync += [
                fresh.eq(tile_end), started.eq(1), full.eq((full | wrap) & ~tile_end),
                index.eq(Mux(wrap | tile_end, 0, index + 1)),
                k_left.eq(Mux(tap_end | tile_end, loops.depth, Mux(k_left == 0, 0, k_left - 1))),
            ]
            with m.If(tile_end):
                m.d.sync += rows_left.eq(Mux(part_row, loops.rows, rows_left - size))
                with m.If(last_row):
                    m.d.sync += [cols_left.eq(cols_left - size), tile.eq(tile + 1)]
                    with m.If(last_col):
                        m.d.sync += [running.eq(0), closing.eq(1)]
        with m.If(next_tap):
            m.d.sync += tap_x.eq(Mux(line_end, 0, tap_x + 1))
            with m.If(line_end):
                m.d.sync += tap_y.eq(Mux(last_tap, 0, tap_y + 1))
        with m.If(self.start):
            m.d.sync += [
                running.eq(1), fresh.eq(1), started.eq(0), full.eq(0), index.eq(0), tap_x.eq(0), tap_y.eq(0), tile.eq(0),
                k_left.eq(loops.depth), rows_left.eq(loops.rows), cols_left.eq(loops.cols),
            ]
        with m.If(self.abort):
            m.d.sync += [running.eq(0), closing.eq(0)]

        slot = Signal(Slot(size))
        row = Signal(TileRow(size))
        m.d.comb += [
            slot.valid.eq(running & (k_left != 0) & ~loops.empty), slot.first.eq(closing | (running & fresh)),
            slot.index.eq(index), slot.rows.eq(Mux(part_row, rows_left, size)),
            slot.cols.eq(Mux(last_col, cols_left, size)),
            row.valid.eq(running & ~full & (index < slot.rows)), row.new.eq(running & fresh), row.index.eq(index),
            row.rows.eq(slot.rows), row.cols.eq(slot.cols), row.tile.eq(tile),
        ]
        self._operand_a(m, running, wrap, tap_end, tile_end, part_row, last_row, last_tap, line_end, next_tap, tap_x, tap_y)
        self._operand_b(m, running & slot.valid, wrap, tap_end, tile_end, last_row, line_end, running)
        self._rows(m, row, running & tile_end & last_row)

        boundary, waiting = slot.first & started, running & (k_left == 0) & loops.grad
        late = [(self.slot, slot), (self.read, running), (self.boundary, boundary), (self.closing, closing),
                (self.waiting, waiting)]
        for i, (output, value) in enumerate(late):
            once = Signal.like(output, name=f"late{i}")
            m.d.sync += [once.eq(value), output.eq(once)]
            with m.If(self.abort):
                m.d.sync += [once.eq(0), output.eq(0)]
        m.d.sync += self.macs.eq(Mux(self.slot.valid, self.slot.rows * self.slot.cols, 0))
        left = Signal(self.DELAY)  # the closing slot on its way out
        m.d.sync += left.eq(Mux(self.abort, 0, (left << 1) | closing))
        m.d.comb += self.busy.eq(running | closing | left.any())
        if platform is None:  # simulation and formal
            m.d.sync += [
                Assert(~self.start | ~self.busy, "issuer: start while a pass runs"),
                Assert(~running | ((rows_left != 0) & (cols_left != 0)), "issuer: tile outside the product"),
            ]
        return m

    def _operand_a(self, m: Module, running, wrap, tap_end, tile_end, part_row, last_row, last_tap, line_end,  # noqa: ANN001
                   next_tap, tap_x, tap_y) -> None:  # noqa: ANN001
        """Pixel plus tap, and whether they fall outside the image."""
        loops = self.loops
        m.submodules.pixel = pixel = PixelWalker()
        m.d.comb += [
            pixel.steps.eq(loops.a), pixel.last_x.eq(loops.last_x), pixel.last_y.eq(loops.last_y),
            pixel.x.eq(loops.x), pixel.y.eq(loops.y), pixel.step_x.eq(loops.step_x), pixel.step_y.eq(loops.step_y),
            pixel.home.eq(self.start | (running & tile_end & (loops.grad | last_row))),
            pixel.step.eq(running),
            pixel.back.eq(~loops.grad & wrap & ~tile_end),
            pixel.keep.eq(self.start | tile_end),
        ]
        tap, tap_start, tap_line = Signal(WORD_BITS), Signal(WORD_BITS), Signal(WORD_BITS)
        line, column = Signal(WORD_BITS), Signal(WORD_BITS)
        m.d.comb += [line.eq(tap_line + loops.tap_y), column.eq(tap_start + loops.tap_x)]
        with m.If(self.start | (next_tap & last_tap)):
            m.d.sync += [tap.eq(0), tap_start.eq(0), tap_line.eq(0)]
        with m.Elif(next_tap & line_end):
            m.d.sync += [tap.eq(line), tap_start.eq(line), tap_line.eq(line)]
        with m.Elif(next_tap):
            m.d.sync += [tap.eq(column), tap_start.eq(column)]
        with m.Elif(running & Mux(loops.grad, tile_end, wrap)):  # the next T channels
            m.d.sync += tap.eq(tap + 1)

        address = Signal(WORD_BITS)
        x, y = Signal(11), Signal(11)
        m.d.sync += [
            address.eq(pixel.place.pixel + tap), self.a_addr.eq(address),
            x.eq(pixel.place.x + tap_x), y.eq(pixel.place.y + tap_y),
            self.pad.eq((x > loops.wide) | (y > loops.high)),  # negative ones are large
        ]

    def _operand_b(self, m: Module, valid, wrap, tap_end, tile_end, last_row, line_end, running) -> None:  # noqa: ANN001
        """Plain: rows one after the other. Rotated: taps backwards, words of T rows one after the other."""
        loops = self.loops
        current, block, tap, line, first = (
            Signal(WORD_BITS, name=f"b_{name}") for name in ("current", "block", "tap", "line", "first"))
        target = Signal(WORD_BITS)
        m.d.comb += target.eq(Mux(last_row, first + loops.b_tile, first))
        with m.If(self.start):
            m.d.sync += [signal.eq(loops.b_start) for signal in (current, block, tap, line, first)]
        with m.Elif(running & tile_end):
            m.d.sync += [signal.eq(target) for signal in (current, block, tap, line, first)]
        with m.Elif(running & loops.b_rotated & tap_end):
            m.d.comb += target.eq(Mux(line_end, line - loops.b_tap_y, tap - loops.b_tap_x))
            m.d.sync += [signal.eq(target) for signal in (current, block, tap)]
            with m.If(line_end):
                m.d.sync += line.eq(target)
        with m.Elif(running & loops.b_rotated & wrap):
            m.d.sync += [current.eq(block + 1), block.eq(block + 1)]
        with m.Elif(valid | (running & loops.b_rotated)):
            m.d.sync += current.eq(current + loops.b_row)
        late = Signal(WORD_BITS)
        m.d.sync += [late.eq(current), self.b_addr.eq(late)]

    def _rows(self, m: Module, row: data.View, home) -> None:  # noqa: ANN001
        """Where the rows of a tile go."""
        loops = self.loops
        m.submodules.place = place = PixelWalker()
        m.d.comb += [
            place.steps.eq(loops.dst), place.flat.eq(~loops.lattice), place.last_x.eq(loops.last_x),
            place.last_y.eq(loops.last_y), place.home.eq(self.start | home), place.step.eq(row.valid),
        ]
        once = Signal.like(row)
        m.d.sync += [once.eq(row), once.offset.eq(place.place.pixel + row.tile), self.row.eq(once)]
        with m.If(self.abort):
            m.d.sync += [once.eq(0), self.row.eq(0)]
