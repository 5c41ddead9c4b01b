"""Walks an instruction's tiles and reduction steps and reads the operands."""

from amaranth.hdl import Assert, Module, Mux, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.feeder import AddressGenerator, Slot

__all__ = ["Issuer"]


class Issuer(wiring.Component):
    """One slot a cycle: column tiles outer, row tiles inner, k innermost.

    A tile takes K steps, rounded up to a multiple of T when an operand is rotated, and never fewer than T (the drain of
    the tile before needs T cycles). One closing slot with ``first`` ends the pass.

    Members
    -------
    start : In(1)                      begin a pass; all sizes and operands are static from here to ``done``
    rows, cols, depth : In(16)         M, N, K, from 1
    a_base, a_stride, a_rotated : In   operand a; b alike
    abort : In(1)                      stop issuing
    slot, a_addr, b_addr : Out         step and its read addresses, valid while ``read``
    read : Out(1)                      memory reads are wanted
    boundary : Out(1)                  this slot's ``first`` finishes a tile
    waiting : Out(1)                   busy only because of the T-cycle minimum
    macs : Out                         multiply-accumulates of the slot before
    busy : Out(1)                      from the cycle after ``start`` to the closing slot
    """

    def __init__(self, *, size: int) -> None:
        self.size = size
        super().__init__({
            "start": In(1),
            "rows": In(16),
            "cols": In(16),
            "depth": In(16),
            "a_base": In(16),
            "a_stride": In(16),
            "a_rotated": In(1),
            "b_base": In(16),
            "b_stride": In(16),
            "b_rotated": In(1),
            "abort": In(1),
            "slot": Out(Slot(size)),
            "a_addr": Out(16),
            "b_addr": Out(16),
            "read": Out(1),
            "boundary": Out(1),
            "waiting": Out(1),
            "macs": Out(unsigned((size * size).bit_length())),
            "busy": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        size = self.size
        m.submodules.a = a = AddressGenerator(size=size)
        m.submodules.b = b = AddressGenerator(size=size)

        running, closing, fresh, full = Signal(), Signal(), Signal(), Signal()
        k_left, rows_left, cols_left = Signal(16), Signal(16), Signal(16)
        index = Signal.like(self.slot.index)
        wrap, end, last_row, last_col = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            wrap.eq(index == size - 1),
            end.eq(wrap.bool() & (k_left <= 1)),
            last_row.eq(rows_left <= size),
            last_col.eq(cols_left <= size),
            self.slot.valid.eq(running & (k_left != 0)),
            self.slot.first.eq(closing | (running & fresh)),
            self.slot.index.eq(index),
            self.slot.rows.eq(Mux(last_row, rows_left, size)),
            self.slot.cols.eq(Mux(last_col, cols_left, size)),
            self.read.eq(running),
            self.waiting.eq(running & (k_left == 0) & ~(self.a_rotated | self.b_rotated)),
            self.busy.eq(running | closing),
            a.home.eq(last_row),
            b.repeat.eq(~last_row),
            self.a_addr.eq(a.addr),
            self.b_addr.eq(b.addr),
        ]
        with m.If(~(self.a_rotated | self.b_rotated)):
            m.d.comb += end.eq((full | wrap) & (k_left <= 1))
        for name, unit in (("a", a), ("b", b)):
            m.d.comb += [
                unit.base.eq(getattr(self, f"{name}_base")),
                unit.stride.eq(getattr(self, f"{name}_stride")),
                unit.rotated.eq(getattr(self, f"{name}_rotated")),
                unit.load.eq(self.start),
                unit.step.eq(running),
                unit.wrap.eq(wrap),
                unit.end.eq(end),
            ]

        started = Signal()  # a tile has been fed: the next `first` finishes it
        m.d.comb += self.boundary.eq(self.slot.first & started)
        m.d.sync += [
            closing.eq(0),
            self.macs.eq(Mux(self.slot.valid, self.slot.rows * self.slot.cols, 0)),
        ]
        with m.If(running):
            m.d.sync += [
                fresh.eq(end),
                started.eq(1),
                full.eq((full | wrap) & ~end),
                index.eq(Mux(wrap | end, 0, index + 1)),
                k_left.eq(Mux(end, self.depth, Mux(k_left == 0, 0, k_left - 1))),
            ]
            with m.If(end):
                m.d.sync += rows_left.eq(Mux(last_row, self.rows, rows_left - size))
                with m.If(last_row):
                    m.d.sync += cols_left.eq(cols_left - size)
                    with m.If(last_col):
                        m.d.sync += [running.eq(0), closing.eq(1)]
        with m.If(self.start):
            m.d.sync += [
                running.eq(1), fresh.eq(1), started.eq(0), full.eq(0), index.eq(0),
                k_left.eq(self.depth), rows_left.eq(self.rows), cols_left.eq(self.cols),
            ]
        with m.If(self.abort):
            m.d.sync += [running.eq(0), closing.eq(0)]
        if platform is None:  # simulation and formal
            m.d.sync += [
                Assert(~self.start | ~self.busy, "issuer: start while a pass runs"),
                Assert(~running | ((rows_left != 0) & (cols_left != 0)), "issuer: tile outside the product"),
            ]
        return m
