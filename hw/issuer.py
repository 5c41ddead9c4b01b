"""Walks a product's tiles and reduction steps and reads the operands."""

from amaranth.hdl import Assert, Module, Mux, Signal, Value, unsigned
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


class _Walk:
    """Where the loops stand, and what ends with this slot.

    Members
    -------
    running, closing : a slot, or the closing one, is made in this cycle
    started, fresh, full : it is not the pass's first; it is its tile's first; its tile has had T
    index : slots of the tile, modulo T
    k_left, rows_left, cols_left : terms, rows and columns to come with this slot; no terms when it only fills up
    tile : column tile
    tap_x, tap_y : tap
    wrap, k_end, tap_end, tile_end : the last of T slots, of the reduction, of a tap, of a tile
    line_end, last_tap, next_tap : the last tap of its line, of all; the tap after it comes next
    part_row, last_row, last_col : the last row tile of its tap, of all; the last column tile
    """

    def __init__(self, size: int) -> None:
        self.running, self.closing, self.started, self.fresh, self.full = (
            Signal(name=name) for name in ("running", "closing", "started", "fresh", "full"))
        self.index = Signal(range(size))
        self.k_left, self.rows_left, self.cols_left, self.tile = (
            Signal(16, name=name) for name in ("k_left", "rows_left", "cols_left", "tile"))
        self.tap_x, self.tap_y = Signal(3, name="tap_x"), Signal(3, name="tap_y")
        self.wrap, self.k_end, self.tap_end, self.tile_end = (
            Signal(name=name) for name in ("wrap", "k_end", "tap_end", "tile_end"))
        self.line_end, self.last_tap, self.next_tap = (
            Signal(name=name) for name in ("line_end", "last_tap", "next_tap"))
        self.part_row, self.last_row, self.last_col = (
            Signal(name=name) for name in ("part_row", "last_row", "last_col"))


class Issuer(wiring.Component):
    """One slot a cycle: column tiles outer, row tiles inner, the reduction innermost.

    FWD and BWD: a row tile is T pixels; the reduction takes, tap after tap, the channels rounded up to a multiple of T.
    GRAD: a row tile is T channels of a tap; the reduction takes all pixels, and never fewer than T steps (the drain of
    the tile before needs T cycles). One closing slot with ``first`` ends the pass; for the same reason the next pass's
    slots must not come within T cycles of it. Outputs are DELAY cycles late.

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
        walk = _Walk(self.size)
        slot, row = Signal(Slot(self.size)), Signal(TileRow(self.size))
        self._ends(m, walk)
        self._count(m, walk)
        self._slot(m, walk, slot, row)
        self._operand_a(m, walk)
        self._operand_b(m, walk, slot.valid)
        self._rows(m, walk, row)
        self._late(m, walk, slot)
        if platform is None:  # simulation and formal
            inside = (walk.rows_left != 0) & (walk.cols_left != 0)
            m.d.sync += [
                Assert(~self.start | ~self.busy, "issuer: start while a pass runs"),
                Assert(~walk.running | inside, "issuer: tile outside the product"),
            ]
        return m

    def _ends(self, m: Module, walk: _Walk) -> None:
        size, loops = self.size, self.loops
        m.d.comb += [
            walk.wrap.eq(walk.index == size - 1),
            walk.k_end.eq((walk.k_left <= 1) | loops.empty),
            walk.line_end.eq(walk.tap_x == loops.taps_x),
            walk.last_tap.eq(walk.line_end & (walk.tap_y == loops.taps_y)),
            walk.tap_end.eq(walk.wrap & walk.k_end & ~loops.grad),
            walk.tile_end.eq(Mux(loops.grad, (walk.full | walk.wrap) & walk.k_end, walk.tap_end & walk.last_tap)),
            walk.part_row.eq(walk.rows_left <= size),
            walk.last_row.eq(walk.part_row & (~loops.grad | walk.last_tap)),
            walk.last_col.eq(walk.cols_left <= size),
            walk.next_tap.eq(walk.running & Mux(loops.grad, walk.tile_end & walk.part_row, walk.tap_end)),
        ]

    def _count(self, m: Module, walk: _Walk) -> None:
        """From one slot to the next."""
        size, loops = self.size, self.loops
        k_left, rows_left, tile_end = walk.k_left, walk.rows_left, walk.tile_end
        m.d.sync += walk.closing.eq(0)
        with m.If(walk.running):
            m.d.sync += [
                walk.fresh.eq(tile_end), walk.started.eq(1), walk.full.eq((walk.full | walk.wrap) & ~tile_end),
                walk.index.eq(Mux(walk.wrap | tile_end, 0, walk.index + 1)),
                k_left.eq(Mux(walk.tap_end | tile_end, loops.depth, Mux(k_left == 0, 0, k_left - 1))),
            ]
            with m.If(tile_end):
                m.d.sync += rows_left.eq(Mux(walk.part_row, loops.rows, rows_left - size))
                with m.If(walk.last_row):
                    m.d.sync += [walk.cols_left.eq(walk.cols_left - size), walk.tile.eq(walk.tile + 1)]
                    with m.If(walk.last_col):
                        m.d.sync += [walk.running.eq(0), walk.closing.eq(1)]
        with m.If(walk.next_tap):
            m.d.sync += walk.tap_x.eq(Mux(walk.line_end, 0, walk.tap_x + 1))
            with m.If(walk.line_end):
                m.d.sync += walk.tap_y.eq(Mux(walk.last_tap, 0, walk.tap_y + 1))
        with m.If(self.start):
            m.d.sync += [
                *(signal.eq(1) for signal in (walk.running, walk.fresh)),
                *(signal.eq(0) for signal in (walk.started, walk.full, walk.index, walk.tap_x, walk.tap_y, walk.tile)),
                k_left.eq(loops.depth), rows_left.eq(loops.rows), walk.cols_left.eq(loops.cols),
            ]
        with m.If(self.abort):
            m.d.sync += [walk.running.eq(0), walk.closing.eq(0)]

    def _slot(self, m: Module, walk: _Walk, slot: data.View, row: data.View) -> None:
        """This cycle's slot, and the row of its tile that it names; DELAY cycles early."""
        size, running = self.size, walk.running
        m.d.comb += [
            slot.valid.eq(running & (walk.k_left != 0) & ~self.loops.empty),
            slot.first.eq(walk.closing | (running & walk.fresh)), slot.index.eq(walk.index),
            slot.rows.eq(Mux(walk.part_row, walk.rows_left, size)),
            slot.cols.eq(Mux(walk.last_col, walk.cols_left, size)),
            row.valid.eq(running & ~walk.full & (walk.index < slot.rows)), row.new.eq(running & walk.fresh),
            row.index.eq(walk.index), row.rows.eq(slot.rows), row.cols.eq(slot.cols), row.tile.eq(walk.tile),
        ]

    def _late(self, m: Module, walk: _Walk, slot: data.View) -> None:
        """The outputs but for addresses, DELAY cycles after the slot was made."""
        waiting = walk.running & (walk.k_left == 0) & self.loops.grad
        late = [(self.slot, slot), (self.read, walk.running), (self.boundary, slot.first & walk.started),
                (self.closing, walk.closing), (self.waiting, waiting)]
        for i, (output, value) in enumerate(late):
            once = Signal.like(output, name=f"late{i}")
            m.d.sync += [once.eq(value), output.eq(once)]
            with m.If(self.abort):
                m.d.sync += [once.eq(0), output.eq(0)]
        m.d.sync += self.macs.eq(Mux(self.slot.valid, self.slot.rows * self.slot.cols, 0))
        left = Signal(self.DELAY)  # the closing slot on its way out
        m.d.sync += left.eq(Mux(self.abort, 0, (left << 1) | walk.closing))
        m.d.comb += self.busy.eq(walk.running | walk.closing | left.any())

    def _operand_a(self, m: Module, walk: _Walk) -> None:
        """Pixel plus tap, and whether they fall outside the image."""
        loops, running, tile_end, last_row = self.loops, walk.running, walk.tile_end, walk.last_row
        m.submodules.pixel = pixel = PixelWalker()
        m.d.comb += [
            pixel.steps.eq(loops.a), pixel.last_x.eq(loops.last_x), pixel.last_y.eq(loops.last_y),
            pixel.x.eq(loops.x), pixel.y.eq(loops.y), pixel.step_x.eq(loops.step_x), pixel.step_y.eq(loops.step_y),
            pixel.home.eq(self.start | (running & tile_end & (loops.grad | last_row))),
            pixel.step.eq(running),
            pixel.back.eq(~loops.grad & walk.wrap & ~tile_end),
            pixel.keep.eq(self.start | tile_end),
        ]
        tap = self._tap(m, walk)
        address = Signal(WORD_BITS, name="a_address")
        x, y = Signal(11, name="tap_at_x"), Signal(11, name="tap_at_y")
        m.d.sync += [
            address.eq(pixel.place.pixel + tap), self.a_addr.eq(address),
            x.eq(pixel.place.x + walk.tap_x), y.eq(pixel.place.y + walk.tap_y),
            self.pad.eq((x > loops.wide) | (y > loops.high)),  # negative ones are large
        ]

    def _tap(self, m: Module, walk: _Walk) -> Signal:
        """Words from a pixel to its tap and channels."""
        loops, next_tap = self.loops, walk.next_tap
        tap, tap_start, tap_line, line, column = (
            Signal(WORD_BITS, name=name) for name in ("tap", "tap_start", "tap_line", "tap_next_line", "tap_next"))
        m.d.comb += [line.eq(tap_line + loops.tap_y), column.eq(tap_start + loops.tap_x)]
        with m.If(self.start | (next_tap & walk.last_tap)):
            m.d.sync += [tap.eq(0), tap_start.eq(0), tap_line.eq(0)]
        with m.Elif(next_tap & walk.line_end):
            m.d.sync += [tap.eq(line), tap_start.eq(line), tap_line.eq(line)]
        with m.Elif(next_tap):
            m.d.sync += [tap.eq(column), tap_start.eq(column)]
        with m.Elif(walk.running & Mux(loops.grad, walk.tile_end, walk.wrap)):  # the next T channels
            m.d.sync += tap.eq(tap + 1)
        return tap

    def _operand_b(self, m: Module, walk: _Walk, valid: Value) -> None:
        """Plain: rows one after the other. Rotated: taps backwards, words of T rows one after the other."""
        loops, running = self.loops, walk.running
        current, block, tap, line, first = (
            Signal(WORD_BITS, name=f"b_{name}") for name in ("current", "block", "tap", "line", "first"))
        target = Signal(WORD_BITS, name="b_target")
        m.d.comb += target.eq(Mux(walk.last_row, first + loops.b_tile, first))
        with m.If(self.start):
            m.d.sync += [signal.eq(loops.b_start) for signal in (current, block, tap, line, first)]
        with m.Elif(running & walk.tile_end):
            m.d.sync += [signal.eq(target) for signal in (current, block, tap, line, first)]
        with m.Elif(running & loops.b_rotated & walk.tap_end):
            m.d.comb += target.eq(Mux(walk.line_end, line - loops.b_tap_y, tap - loops.b_tap_x))
            m.d.sync += [signal.eq(target) for signal in (current, block, tap)]
            with m.If(walk.line_end):
                m.d.sync += line.eq(target)
        with m.Elif(running & loops.b_rotated & walk.wrap):
            m.d.sync += [current.eq(block + 1), block.eq(block + 1)]
        with m.Elif(running & (valid | loops.b_rotated)):
            m.d.sync += current.eq(current + loops.b_row)
        late = Signal(WORD_BITS, name="b_late")
        m.d.sync += [late.eq(current), self.b_addr.eq(late)]

    def _rows(self, m: Module, walk: _Walk, row: data.View) -> None:
        """Where the rows of a tile go."""
        loops = self.loops
        m.submodules.place = place = PixelWalker()
        m.d.comb += [
            place.steps.eq(loops.dst), place.flat.eq(~loops.lattice), place.last_x.eq(loops.last_x),
            place.last_y.eq(loops.last_y), place.step.eq(row.valid),
            place.home.eq(self.start | (walk.running & walk.tile_end & walk.last_row)),
        ]
        once = Signal.like(row)
        m.d.sync += [once.eq(row), once.offset.eq(place.place.pixel + row.tile), self.row.eq(once)]
        with m.If(self.abort):
            m.d.sync += [once.eq(0), self.row.eq(0)]
