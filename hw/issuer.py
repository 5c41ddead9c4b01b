"""Walks a product's tiles and reduction steps and reads the operands."""

from amaranth.hdl import Assert, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.feeder import Slot
from hw.geometry import Loops
from hw.logic import delayed
from hw.multiplier import Multipliers
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
    """Where the loops stand, and what ends with this slot. Registers, but for the last four.

    Members
    -------
    begin : the next cycle's slot is the pass's first
    running, closing : a slot, or the closing one, is made in this cycle
    started, fresh : it is not the pass's first; it is its tile's first
    index, wrap : slots of the tile, modulo T; it is T - 1
    whole : ``wrap``, or GRAD: the tile has had T slots
    k_left, inside, k_end : terms to come with this slot while it has one; it has one; the last one was or is here
    rows_left, cols_left : rows and columns to come with this slot; ``rows`` and ``cols`` of its tile
    named : this slot names a row of its tile
    tile : column tile
    tap_x, tap_y : tap
    line_end, last_tap : the last tap of its line, of all
    tile_tap : a tile ends with its reduction: last_tap, or GRAD
    part_row, last_row, last_col : the last row tile of its tap, of all; the last column tile
    reload, tap_end, tile_end : the last slot of a reduction, of a tap, of a tile; not registers, as is
    next_tap : the tap after it comes next
    """

    def __init__(self, size: int) -> None:
        def bits(*names: str) -> list[Signal]:
            return [Signal(name=name) for name in names]

        self.begin, self.running, self.closing, self.started, self.fresh = bits(
            "begin", "running", "closing", "started", "fresh")
        self.index = Signal(range(size))
        self.wrap, self.whole, self.inside, self.k_end, self.named = bits(
            "wrap", "whole", "inside", "k_end", "named")
        self.k_left, self.rows_left, self.cols_left, self.tile = (
            Signal(16, name=name) for name in ("k_left", "rows_left", "cols_left", "tile"))
        self.rows, self.cols = (Signal(size.bit_length(), name=name) for name in ("tile_rows", "tile_cols"))
        self.tap_x, self.tap_y = Signal(3, name="tap_x"), Signal(3, name="tap_y")
        self.line_end, self.last_tap, self.tile_tap = bits("line_end", "last_tap", "tile_tap")
        self.part_row, self.last_row, self.last_col = bits("part_row", "last_row", "last_col")
        self.reload, self.tap_end, self.tile_end, self.next_tap = bits("reload", "tap_end", "tile_end", "next_tap")


class Issuer(wiring.Component):
    """One slot a cycle: column tiles outer, row tiles inner, the reduction innermost.

    FWD and BWD: a row tile is T pixels; the reduction takes, tap after tap, the channels rounded up to a multiple of T.
    GRAD: a row tile is T channels of a tap; the reduction takes all pixels, and never fewer than T steps (the drain of
    the tile before needs T cycles). One closing slot with ``first`` ends the pass; for the same reason the next pass's
    slots must not come within T cycles of it. Outputs are DELAY cycles late. Whatever changes with a tile or a tap only
    is worked out up to three cycles after the change: a tap is at least T slots long, and T at least 4.

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

    DELAY = 4

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
        m.d.sync += walk.begin.eq(self.start & ~self.abort)
        self._ends(m, walk)
        self._count(m, walk)
        self._terms(m, walk)
        self._taps(m, walk)
        self._tiles(m, walk)
        self._slot(m, walk, slot, row)
        self._operand_a(m, walk)
        self._operand_b(m, walk)
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
        """What ends with this slot, each one LUT of registers."""
        grad = self.loops.grad
        m.d.comb += [
            walk.reload.eq(walk.k_end & walk.whole),
            walk.tap_end.eq(walk.k_end & walk.wrap & ~grad),
            walk.tile_end.eq(walk.k_end & walk.whole & walk.tile_tap),
            walk.next_tap.eq(walk.running & Mux(grad, walk.tile_end & walk.part_row, walk.tap_end)),
        ]

    def _count(self, m: Module, walk: _Walk) -> None:
        """From one slot to the next."""
        size, wrap, tile_end, last = self.size, walk.wrap, walk.tile_end, Signal()
        filled, wraps = Signal(), Signal()
        m.d.comb += [
            last.eq(walk.last_row & walk.last_col),
            filled.eq(self.loops.grad & walk.whole & ~tile_end), wraps.eq(~wrap & ~tile_end & (walk.index == size - 2)),
        ]
        m.d.sync += walk.closing.eq(0)
        with m.If(walk.running):
            m.d.sync += [
                walk.fresh.eq(tile_end), walk.started.eq(1),
                walk.whole.eq(filled | wraps),
                walk.index.eq(Mux(wrap | tile_end, 0, walk.index + 1)), wrap.eq(wraps),
                walk.named.eq(tile_end | (walk.named & ~wrap & (walk.index + 1 != walk.rows))),
            ]
            with m.If(tile_end & last):
                m.d.sync += [walk.running.eq(0), walk.closing.eq(1)]
        with m.If(walk.begin):
            m.d.sync += [
                *(signal.eq(1) for signal in (walk.running, walk.fresh, walk.named)),
                *(signal.eq(0) for signal in (walk.started, walk.whole, walk.index, wrap)),
            ]
        with m.If(self.abort):
            m.d.sync += [walk.running.eq(0), walk.closing.eq(0)]

    def _terms(self, m: Module, walk: _Walk) -> None:
        """The terms of a reduction."""
        loops, short = self.loops, Signal()
        m.d.sync += short.eq((loops.depth <= 1) | loops.empty)
        with m.If(walk.begin | (walk.running & walk.reload)):
            m.d.sync += [walk.k_left.eq(loops.depth), walk.k_end.eq(short), walk.inside.eq(~loops.empty)]
        with m.Elif(walk.running):
            m.d.sync += [
                walk.k_left.eq(walk.k_left - 1), walk.k_end.eq(walk.k_end | (walk.k_left == 2)),
                walk.inside.eq(walk.inside & ~walk.k_end),
            ]

    def _taps(self, m: Module, walk: _Walk) -> None:
        """The tap, and what it is the last of; the next one's is known three cycles after a change."""
        loops, line_end = self.loops, walk.line_end
        x, y = Signal(3, name="next_x"), Signal(3, name="next_y")
        next_line_end, next_last, single = Signal(), Signal(), Signal()
        one_x, one_y = loops.taps_x == 0, loops.taps_y == 0
        m.d.sync += [
            x.eq(Mux(line_end, 0, walk.tap_x + 1)),
            y.eq(Mux(line_end, Mux(walk.last_tap, 0, walk.tap_y + 1), walk.tap_y)),
            next_line_end.eq(x == loops.taps_x), next_last.eq((x == loops.taps_x) & (y == loops.taps_y)),
            single.eq(one_x & one_y),
        ]
        with m.If(walk.next_tap):
            m.d.sync += [
                walk.tap_x.eq(x), walk.tap_y.eq(y), line_end.eq(next_line_end), walk.last_tap.eq(next_last),
                walk.tile_tap.eq(next_last | loops.grad),
            ]
        with m.If(walk.begin):
            m.d.sync += [
                walk.tap_x.eq(0), walk.tap_y.eq(0), line_end.eq(one_x), walk.last_tap.eq(single),
                walk.tile_tap.eq(single | loops.grad),
            ]

    def _tiles(self, m: Module, walk: _Walk) -> None:
        """Rows and columns of the tile; the next one's are known four cycles after a change."""
        size, loops, part_row = self.size, self.loops, walk.part_row
        few_rows, few_cols = loops.rows <= size, loops.cols <= size
        first_rows, first_cols, next_rows, next_cols = (
            Signal(size.bit_length(), name=name) for name in ("first_rows", "first_cols", "next_rows", "next_cols"))
        rows_less, cols_less = Signal(17), Signal(17)
        next_part, next_last, single_row, single_col = (
            Signal(name=name) for name in ("next_part", "next_last_col", "single_row", "single_col"))
        m.d.sync += [
            single_row.eq(few_rows), single_col.eq(few_cols),
            first_rows.eq(Mux(few_rows, loops.rows, size)), first_cols.eq(Mux(few_cols, loops.cols, size)),
            rows_less.eq(walk.rows_left - size), cols_less.eq(walk.cols_left - size),
            next_part.eq(Mux(part_row, single_row, rows_less <= size)), next_last.eq(cols_less <= size),
            next_rows.eq(Mux(part_row, first_rows, Mux(next_part, rows_less, size))),
            next_cols.eq(Mux(next_last, cols_less, size)),
            walk.last_row.eq(part_row & (~loops.grad | walk.last_tap)),
        ]
        with m.If(walk.running & walk.tile_end):
            m.d.sync += [
                walk.rows_left.eq(Mux(part_row, loops.rows, rows_less)), walk.rows.eq(next_rows),
                part_row.eq(next_part),
            ]
            with m.If(walk.last_row):
                m.d.sync += [
                    walk.cols_left.eq(cols_less), walk.cols.eq(next_cols), walk.last_col.eq(next_last),
                    walk.tile.eq(walk.tile + 1),
                ]
        with m.If(walk.begin):
            m.d.sync += [
                walk.rows_left.eq(loops.rows), walk.rows.eq(first_rows), part_row.eq(single_row),
                walk.cols_left.eq(loops.cols), walk.cols.eq(first_cols), walk.last_col.eq(single_col), walk.tile.eq(0),
            ]

    def _slot(self, m: Module, walk: _Walk, slot: data.View, row: data.View) -> None:
        """This cycle's slot, and the row of its tile that it names; three cycles early."""
        running = walk.running
        m.d.comb += [
            slot.valid.eq(running & walk.inside), slot.first.eq(walk.closing | (running & walk.fresh)),
            slot.index.eq(walk.index), slot.rows.eq(walk.rows), slot.cols.eq(walk.cols),
            row.valid.eq(running & walk.named), row.new.eq(running & walk.fresh),
            row.index.eq(walk.index), row.rows.eq(walk.rows), row.cols.eq(walk.cols), row.tile.eq(walk.tile),
        ]

    def _late(self, m: Module, walk: _Walk, slot: data.View) -> None:
        """The outputs but for addresses, three cycles after the slot was made."""
        waiting = walk.running & ~walk.inside & self.loops.grad
        flags = [(self.slot.valid, slot.valid), (self.slot.first, slot.first), (self.read, walk.running),
                 (self.boundary, slot.first & walk.started), (self.closing, walk.closing), (self.waiting, waiting)]
        for i, (output, value) in enumerate(flags):
            m.d.sync += self._later(m, value, 2, f"flag{i}_", output)
        for name in ("index", "rows", "cols"):
            late = delayed(m, getattr(slot, name), 2, f"late_{name}", resets=True, first=0)
            m.d.sync += getattr(self.slot, name).eq(late[-1])
        m.submodules.multiplier = multiplier = Multipliers(
            count=1, a_bits=len(slot.rows) + 1, b_bits=len(slot.cols) + 1)
        m.d.comb += [multiplier.a[0].eq(slot.rows), multiplier.b[0].eq(slot.cols)]
        m.d.sync += self.macs.eq(Mux(self.slot.valid, multiplier.p[0], 0))
        left = Signal(3)  # the closing slot on its way out
        m.d.sync += left.eq(Mux(self.abort, 0, (left << 1) | walk.closing))
        m.d.comb += self.busy.eq(walk.begin | walk.running | walk.closing | left.any())

    def _operand_a(self, m: Module, walk: _Walk) -> None:
        """Pixel plus tap, and whether they fall outside the image; the walker's commands come a cycle late."""
        loops, running, tile_end = self.loops, walk.running, walk.tile_end
        m.submodules.pixel = pixel = PixelWalker()
        m.d.comb += [
            pixel.steps.eq(loops.a), pixel.last_x.eq(loops.last_x), pixel.last_y.eq(loops.last_y),
            pixel.x.eq(loops.x), pixel.y.eq(loops.y), pixel.step_x.eq(loops.step_x), pixel.step_y.eq(loops.step_y),
        ]
        m.d.sync += [
            pixel.home.eq((walk.begin | (running & tile_end & (loops.grad | walk.last_row))).replicate(2)),
            pixel.step.eq(running),
            pixel.back.eq(~loops.grad & walk.wrap & ~tile_end),
            pixel.keep.eq(walk.begin | tile_end),
        ]
        tap = self._tap(m, walk)
        tap_x, tap_y = Signal(3, name="tap_x_late"), Signal(3, name="tap_y_late")
        address = Signal(WORD_BITS, name="a_address")
        x, y = Signal(11, name="tap_at_x"), Signal(11, name="tap_at_y")
        m.d.sync += [
            tap_x.eq(walk.tap_x), tap_y.eq(walk.tap_y),
            address.eq(pixel.place.pixel + tap), self.a_addr.eq(address),
            x.eq(pixel.place.x + tap_x), y.eq(pixel.place.y + tap_y),
            self.pad.eq((x > loops.wide) | (y > loops.high)),  # negative ones are large
        ]

    def _tap(self, m: Module, walk: _Walk) -> Signal:
        """Words from a pixel to its tap and channels; a cycle late."""
        loops, next_tap = self.loops, walk.next_tap
        tap, tap_start, tap_line, line, column = (
            Signal(WORD_BITS, name=name) for name in ("tap", "tap_start", "tap_line", "tap_next_line", "tap_next"))
        home, down, right, on = (Signal(name=name) for name in ("tap_home", "tap_down", "tap_right", "tap_on"))
        m.d.sync += [
            line.eq(tap_line + loops.tap_y), column.eq(tap_start + loops.tap_x),
            home.eq(walk.begin | (next_tap & walk.last_tap)), down.eq(next_tap & walk.line_end), right.eq(next_tap),
            on.eq(walk.running & Mux(loops.grad, walk.tile_end, walk.wrap)),
        ]
        with m.If(home):
            m.d.sync += [tap.eq(0), tap_start.eq(0), tap_line.eq(0)]
        with m.Elif(down):
            m.d.sync += [tap.eq(line), tap_start.eq(line), tap_line.eq(line)]
        with m.Elif(right):
            m.d.sync += [tap.eq(column), tap_start.eq(column)]
        with m.Elif(on):  # the next T channels
            m.d.sync += tap.eq(tap + 1)
        return tap

    def _operand_b(self, m: Module, walk: _Walk) -> None:
        """Plain: rows one after the other. Rotated: taps backwards, words of T rows one after the other."""
        loops, running = self.loops, walk.running
        current, block, tap, line, first = (
            Signal(WORD_BITS, name=f"b_{name}") for name in ("current", "block", "tap", "line", "first"))
        next_block, next_column, next_line, tap_target, tile_target = (
            Signal(WORD_BITS, name=f"b_{name}")
            for name in ("next_block", "next_column", "next_line", "tap_target", "tile_target"))
        begin, on_tile, on_tap, on_line, on_block, on = (
            Signal(name=f"b_{name}") for name in ("begin", "on_tile", "on_tap", "on_line", "on_block", "on"))
        further = Signal(WORD_BITS, name="b_further")
        m.d.sync += [
            next_block.eq(block + 1), next_column.eq(tap - loops.b_tap_x), next_line.eq(line - loops.b_tap_y),
            further.eq(first + loops.b_tile),
            tap_target.eq(Mux(walk.line_end, next_line, next_column)),
            tile_target.eq(Mux(walk.last_row, further, first)),
            begin.eq(walk.begin), on_tile.eq(running & walk.tile_end),
            on_tap.eq(running & loops.b_rotated & walk.tap_end),
            on_line.eq(walk.line_end), on_block.eq(running & loops.b_rotated & walk.wrap),
            on.eq(running & (walk.inside | loops.b_rotated)),
        ]
        with m.If(begin):
            m.d.sync += [signal.eq(loops.b_start) for signal in (current, block, tap, line, first)]
        with m.Elif(on_tile):
            m.d.sync += [signal.eq(tile_target) for signal in (current, block, tap, line, first)]
        with m.Elif(on_tap):
            m.d.sync += [signal.eq(tap_target) for signal in (current, block, tap)]
            with m.If(on_line):
                m.d.sync += line.eq(tap_target)
        with m.Elif(on_block):
            m.d.sync += [current.eq(next_block), block.eq(next_block)]
        with m.Elif(on):
            m.d.sync += current.eq(current + loops.b_row)
        late = Signal(WORD_BITS, name="b_late")
        m.d.sync += [late.eq(current), self.b_addr.eq(late)]

    def _rows(self, m: Module, walk: _Walk, row: data.View) -> None:
        """Where the rows of a tile go."""
        loops = self.loops
        m.submodules.place = place = PixelWalker()
        m.d.comb += [
            place.steps.eq(loops.dst), place.flat.eq(~loops.lattice), place.last_x.eq(loops.last_x),
            place.last_y.eq(loops.last_y),
        ]
        m.d.sync += [
            place.step.eq(row.valid),
            place.home.eq((walk.begin | (walk.running & walk.tile_end & walk.last_row)).replicate(2)),
        ]
        once, twice = Signal.like(row, name="row_once"), Signal.like(row, name="row_twice")
        m.d.sync += [once.eq(row), twice.eq(once), twice.offset.eq(place.place.pixel + once.tile), self.row.eq(twice)]
        with m.If(self.abort):
            m.d.sync += [flag.eq(0) for view in (once, twice, self.row) for flag in (view.valid, view.new)]

    def _later(self, m: Module, value: Value, cycles: int, name: str, output: Value) -> object:
        """``output`` takes ``value`` after so many cycles and one; an abort clears them all."""
        for stage in range(cycles):
            later = Signal(name=f"{name}{stage}")
            m.d.sync += later.eq(value & ~self.abort)
            value = later
        return output.eq(value & ~self.abort)
