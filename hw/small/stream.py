"""A tile's reduction: two streams of words, transposed where need be, into sixteen accumulators."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.multiplier import LATENCY, Multipliers
from hw.small.lane import LANES, Mode

__all__ = ["AddressStream", "SmallArray", "Transposer"]

WORD = 8 * LANES


class AddressStream(wiring.Component):
    """An address that advances by ``step``, every fourth time by ``wrap`` instead.

    Members
    -------
    load, step_load, wrap_load, value : In   registers
    restart : In(1)     the next advance is the first of four
    advance : In(1)
    address : Out
    """

    def __init__(self, *, bits: int) -> None:
        self.bits = bits
        super().__init__({
            "load": In(1), "step_load": In(1), "wrap_load": In(1), "value": In(bits),
            "restart": In(1), "advance": In(1), "address": Out(bits),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        step, wrap, phase = Signal(self.bits), Signal(self.bits), Signal(range(LANES))
        with m.If(self.step_load):
            m.d.sync += step.eq(self.value)
        with m.If(self.wrap_load):
            m.d.sync += wrap.eq(self.value)
        with m.If(self.restart):
            m.d.sync += phase.eq(0)
        with m.If(self.load):
            m.d.sync += self.address.eq(self.value)
        with m.Elif(self.advance):
            m.d.sync += [phase.eq(phase + 1), self.address.eq(self.address + Mux(phase == LANES - 1, wrap, step))]
        return m


class Transposer(wiring.Component):
    """Blocks of four words of four bytes, transposed: byte i of word j comes out as byte j of word i.

    A word enters and one leaves every cycle: while a block enters along rows, the one before leaves along them, and
    the next two do so along columns.

    Members
    -------
    i : In(32)
    columns : In(1)   changes with each block
    o : Out(32)       combinational: word i of a block four cycles after its word i entered
    """

    i: In(WORD)
    columns: In(1)
    o: Out(WORD)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        last, size = LANES - 1, range(LANES)
        cell = [[Signal(8, name=f"cell{r}{c}", reset_less=True) for c in size] for r in size]
        for r in size:
            for c in size:
                above = cell[r - 1][c] if r else self.i.word_select(last - c, 8)
                before = cell[r][c - 1] if c else self.i.word_select(last - r, 8)
                m.d.sync += cell[r][c].eq(Mux(self.columns, before, above))
        m.d.comb += self.o.eq(Cat(Mux(self.columns, cell[last - n][last], cell[last][last - n]) for n in size))
        return m


class SmallArray(wiring.Component):
    """Sixteen multiply-accumulates a cycle: each of four bytes a with each of four bytes b.

    Members
    -------
    start : In(1)        clears the accumulators and begins; the addresses are loaded
    mode : In(Mode)
    terms_load, terms : In   length of the reduction
    a_data, b_data : In(32)  words read, the cycle after their addresses
    restart, a_advance, b_advance : Out(1)   for the address streams
    a, b : Out(32)       operands
    done : Out(1)        one cycle: the accumulators hold the tile from the next one on
    row, col : In(2)     of ``acc``
    acc : Out(signed)

    A tile of K terms takes K + 11 cycles from ``start`` to ``done``.
    """

    LEAD = LANES  # cycles until a first block is transposed

    def __init__(self, *, acc_bits: int, terms_bits: int) -> None:
        self.acc_bits, self.terms_bits = acc_bits, terms_bits
        super().__init__({
            "start": In(1), "mode": In(Mode), "terms_load": In(1), "terms": In(terms_bits),
            "a_data": In(WORD), "b_data": In(WORD),
            "restart": Out(1), "a_advance": Out(1), "b_advance": Out(1), "a": Out(WORD), "b": Out(WORD),
            "done": Out(1), "row": In(2), "col": In(2), "acc": Out(signed(acc_bits)),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        busy, lead, count, left = Signal(), Signal(range(self.LEAD + 1)), Signal(3), Signal(self.terms_bits)
        terms, valid = Signal(self.terms_bits), Signal()
        with m.If(self.terms_load):
            m.d.sync += terms.eq(self.terms)
        m.d.comb += [valid.eq(busy & (lead == 0)), self.restart.eq(self.start)]
        with m.If(self.start):
            m.d.sync += [busy.eq(1), lead.eq(self.LEAD), left.eq(terms), count.eq(-1)]
        with m.Elif(busy):
            m.d.sync += count.eq(count + 1)
            with m.If(lead != 0):
                m.d.sync += lead.eq(lead - 1)
            with m.Else():
                m.d.sync += left.eq(left - 1)
                with m.If(left == 1):
                    m.d.sync += busy.eq(0)
        m.d.comb += [
            self.a_advance.eq(Mux(self.mode.a_turned, busy, valid)),
            self.b_advance.eq(Mux(self.mode.b_turned, busy, valid)),
        ]
        self._operands(m, count[2])
        self._accumulate(m, valid)
        return m

    def _operands(self, m: Module, columns: Value) -> None:
        for name, word, turned in (("a", self.a_data, self.mode.a_turned), ("b", self.b_data, self.mode.b_turned)):
            m.submodules[f"turn_{name}"] = turn = Transposer()
            m.d.comb += [turn.i.eq(word), turn.columns.eq(columns)]
            m.d.sync += getattr(self, name).eq(Mux(turned, turn.o, word))
        with m.If(self.mode.a_ones):
            m.d.sync += self.a.eq(sum(1 << 8 * n for n in range(LANES)))

    def _accumulate(self, m: Module, valid: Value) -> None:
        m.submodules.multipliers = multipliers = Multipliers(count=LANES * LANES)
        for delay in range(2 + LATENCY):  # read, operand register, multiplier
            later = Signal(name=f"valid{delay}")
            m.d.sync += later.eq(valid)
            before, valid = valid, later
        m.d.comb += self.done.eq(valid & ~before)
        sums = Signal(data.ArrayLayout(signed(self.acc_bits), LANES * LANES))
        for n in range(LANES * LANES):
            row, col = divmod(n, LANES)
            m.d.comb += [
                multipliers.a[n].eq(self.a.word_select(row, 8)), multipliers.b[n].eq(self.b.word_select(col, 8)),
            ]
            acc = Signal(signed(self.acc_bits), name=f"acc{row}{col}")
            with m.If(self.start):
                m.d.sync += acc.eq(0)
            with m.Elif(valid):
                m.d.sync += acc.eq(acc + multipliers.p[n])
            m.d.comb += sums[n].eq(acc)
        m.d.comb += self.acc.eq(sums[Cat(self.col, self.row)])
