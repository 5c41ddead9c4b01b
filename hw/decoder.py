"""What an instruction needs, and whether its operands fit together: the checks of the ISA."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.operand import Operand
from hw.table import Descriptor
from shiftgrad.config import Config
from shiftgrad.isa import (
    KERNEL_MAX,
    LEGAL_FLAGS,
    LR_MAX,
    OPERAND_NAMES,
    OPERANDS,
    SUM_BITS_MAX,
    TERMS_END,
    Flag,
    Memory,
    Opcode,
    Status,
)

__all__ = ["Decoder", "Instruction", "clog2"]


class Instruction(data.Struct):
    """A program word, field for field as ``isa.INSTRUCTION``."""

    opcode: unsigned(8)
    flags: unsigned(8)
    dst: unsigned(8)
    a: unsigned(8)
    b: unsigned(8)
    c: unsigned(8)
    d: unsigned(8)
    imm: unsigned(8)


def clog2(m: Module, value: Value, name: str) -> Signal:
    """ceil(log2 value) of a 16-bit ``value`` from 1, one cycle later."""
    bits = Signal(5, name=name)
    m.d.sync += bits.eq(0)
    for n in range(1, 17):
        with m.If(value > 1 << n - 1):
            m.d.sync += bits.eq(n)
    return bits


class Decoder(wiring.Component):
    """Which operands an instruction uses, and whether they agree.

    Members
    -------
    word : In                      instruction
    status : Out                   ILLEGAL_OPCODE or ILLEGAL_FLAGS, else RESET (0) for none
    used : Out(5)                  operands in use, in the order of ``isa.OPERAND_NAMES``
    memories : Out                 memory each must live in
    operands : In                  checked operands, static for LATENCY cycles before the errors are right
    shape_error, overlap_error : Out
    rate, rate_error, lr_shift     learning-rate shift n = imm + LR_SHIFT and its check
    sum_bits : Out(6)              ceil(log2 rows) + ceil(log2 cols) of operand b
    row_bits : Out(5)              ceil(log2 rows) of operand b
    """

    LATENCY = 3

    def __init__(self, *, config: Config) -> None:
        self.config = config
        count = len(OPERAND_NAMES)
        super().__init__({
            "word": In(Instruction),
            "status": Out(Status),
            "used": Out(count),
            "memories": Out(data.ArrayLayout(unsigned(3), count)),
            "operands": In(data.ArrayLayout(Operand, count)),
            "shape_error": Out(1),
            "overlap_error": Out(1),
            "lr_shift": In(6),
            "rate": Out(7),
            "rate_error": Out(1),
            "sum_bits": Out(6),
            "row_bits": Out(5),
        })

    def flag(self, name: Flag) -> Value:
        """Whether the instruction has flag ``name``."""
        return (self.word.flags & name.value) != 0

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        word = self.word
        self._legality(m)
        self._operands(m)
        self._overlap(m)
        fits = Signal()
        m.d.sync += self.shape_error.eq(~fits)
        self._shapes(m, fits)
        rate = Signal(signed(9))
        m.d.comb += [
            rate.eq(word.imm.as_signed() + self.lr_shift),
            self.rate.eq(rate),
            self.rate_error.eq(((word.opcode == Opcode.GRAD) | (word.opcode == Opcode.SUM))
                               & ((rate < 0) | (rate > LR_MAX))),
        ]
        return m

    def _legality(self, m: Module) -> None:
        m.d.comb += self.status.eq(Status.ILLEGAL_OPCODE)
        with m.Switch(self.word.opcode):
            for opcode, legal in LEGAL_FLAGS.items():
                with m.Case(opcode):
                    m.d.comb += self.status.eq(
                        Mux((self.word.flags & ~legal.value & 0xFF) != 0, Status.ILLEGAL_FLAGS, Status.RESET))

    def _operands(self, m: Module) -> None:
        """``used`` and ``memories``: each flag in turn, as ``isa.OPERANDS`` says."""
        with m.Switch(self.word.opcode):
            for opcode in Opcode:
                with m.Case(opcode):
                    for i, name in enumerate(OPERAND_NAMES):
                        self._operand(m, opcode, i, name)

    def _operand(self, m: Module, opcode: Opcode, i: int, name: str) -> None:
        every = OPERANDS(opcode, int(LEGAL_FLAGS[opcode] & ~Flag.ONES))
        ones = OPERANDS(opcode, int(LEGAL_FLAGS[opcode])) if opcode == Opcode.GRAD else every
        needs = {flag: name in OPERANDS(opcode, int(flag)) for flag in LEGAL_FLAGS[opcode] if flag != Flag.ONES}
        always = name in OPERANDS(opcode, 0)
        used = Signal(name=f"uses_{opcode.name.lower()}_{name}")
        m.d.comb += used.eq(always or Cat(self.flag(flag) for flag, yes in needs.items() if yes).any())
        memory = every.get(name, Memory.ACT)
        m.d.comb += [self.used[i].eq(used), self.memories[i].eq(memory)]
        if ones != every:
            with m.If(self.flag(Flag.ONES)):
                m.d.comb += [self.used[i].eq(name in ones), self.memories[i].eq(ones.get(name, Memory.ACT))]

    def _overlap(self, m: Module) -> None:
        """Whether dst shares a word with another operand in its memory."""
        dst = self.operands[0]
        clashes = []
        for i in range(1, len(OPERAND_NAMES)):
            other = self.operands[i]
            same = self.used[i] & (self.memories[i] == self.memories[0])
            clash = Signal(name=f"clash_{OPERAND_NAMES[i]}")
            m.d.sync += clash.eq(same & (dst.entry.base < other.end) & (other.entry.base < dst.end))
            clashes.append(clash)
        m.d.sync += self.overlap_error.eq(Cat(clashes).any())

    def _shapes(self, m: Module, fits: Signal) -> None:
        dst, a, b, c, d = (self.operands[i] for i in range(5))
        opcode = self.word.opcode

        def same(x: Operand, y: Operand, what: str) -> Signal:
            """Whether two operands agree, a cycle later."""
            equal = Signal(name=f"same_{what}")
            m.d.sync += equal.eq((x.rows == y.rows) & (x.entry.cols == y.entry.cols))
            return equal

        def one(x: Operand, what: str) -> tuple[Signal, Signal]:
            """Whether an operand has one row, and one column, a cycle later."""
            row, col = Signal(name=f"one_row_{what}"), Signal(name=f"one_col_{what}")
            m.d.sync += [row.eq(x.rows == 1), col.eq(x.entry.cols == 1)]
            return row, col

        a_dst, c_dst, a_b = same(a, dst, "a_dst"), same(c, dst, "c_dst"), same(a, b, "a_b")
        (c_row, c_col), (d_row, d_col), (dst_row, dst_col) = one(c, "c"), one(d, "d"), one(dst, "dst")
        (b_row, _) = one(b, "b")
        dst_b_cols, a_b_cols, c_b_cols, few = (Signal(name=n) for n in ("dst_b_cols", "a_b_cols", "c_b_cols", "few"))
        labels = Signal()
        m.d.sync += [
            dst_b_cols.eq(dst.entry.cols == b.entry.cols), a_b_cols.eq(a.entry.cols == b.entry.cols),
            c_b_cols.eq(c.entry.cols == b.entry.cols), few.eq(a.entry.cols <= self.config.classes),
            labels.eq(b.entry.cols == a.rows),
        ]
        rows, cols = clog2(m, b.rows, "row_bits"), clog2(m, b.entry.cols, "col_bits")
        m.d.sync += [self.sum_bits.eq(rows + cols), self.row_bits.eq(rows)]
        window = self._window(m)
        smaller = self._smaller(m)
        mask = ~self.flag(Flag.MASK) | c_dst
        scalar = ~self.flag(Flag.SCALAR) | (d_row & d_col)
        pair = ~self.flag(Flag.PAIR)
        with m.Switch(opcode):
            with m.Case(Opcode.FWD):
                m.d.comb += fits.eq(window & dst_b_cols & scalar
                                    & (~self.flag(Flag.BIAS) | (c_row & (c_col | c_b_cols))))
            with m.Case(Opcode.BWD):
                m.d.comb += fits.eq(window & a_b_cols & mask)
            with m.Case(Opcode.GRAD):
                m.d.comb += fits.eq(c_dst & dst_b_cols & Mux(self.flag(Flag.ONES), dst_row, window & scalar))
            with m.Case(Opcode.LOSS):
                m.d.comb += fits.eq(a_dst & few & b_row & labels)
            with m.Case(Opcode.ADD):
                m.d.comb += fits.eq(a_dst & scalar & (~self.flag(Flag.BIAS) | (c_row & c_col))
                                    & (pair | (smaller.planes & smaller.cols & (smaller.same | smaller.half))))
            with m.Case(Opcode.ADDB):
                m.d.comb += fits.eq(a_dst & scalar & mask
                                    & (pair | (smaller.planes & smaller.cols & (smaller.same | smaller.half))))
            with m.Case(Opcode.SUM):
                m.d.comb += fits.eq(dst_row & dst_col & c_row & c_col & (self.sum_bits <= SUM_BITS_MAX) & (pair | a_b))
            with m.Case(Opcode.AVG):
                m.d.comb += fits.eq(smaller.planes & smaller.equal & smaller.one)
            with m.Case(Opcode.AVGB):
                m.d.comb += fits.eq(smaller.planes & smaller.equal & smaller.one & mask)
            with m.Case(Opcode.MAX):
                m.d.comb += fits.eq(smaller.planes & smaller.equal & smaller.double)
            with m.Case(Opcode.MAXB):
                m.d.comb += fits.eq(smaller.planes & smaller.equal & smaller.double & smaller.image)

    def _window(self, m: Module) -> Signal:
        """Whether weights take images ``x`` to images ``y``, two cycles later."""
        dst, a, b = (self.operands[i].entry for i in range(3))
        w, x, y = (Descriptor(Signal(Descriptor, name=n)) for n in ("weights", "image_in", "image_out"))
        m.d.comb += [w.eq(b), x.eq(a), y.eq(dst)]
        with m.If(self.word.opcode == Opcode.BWD):
            m.d.comb += [x.eq(dst), y.eq(a)]
        with m.If(self.word.opcode == Opcode.GRAD):
            m.d.comb += [w.eq(dst), y.eq(b)]
        room_y, room_x = Signal(signed(11)), Signal(signed(11))  # positions of the kernel, less 1
        channels, kernel, fits = Signal(), Signal(), Signal()
        terms = Signal(22)  # of BWD; those of FWD and GRAD are rows, which 16 bits hold
        m.d.sync += [
            terms.eq(self.operands[2].pixels[:6] * b.cols),
            room_y.eq(x.height + (w.pad_y << 1) - w.height),
            room_x.eq(x.width + (w.pad_x << 1) - w.width),
            channels.eq((x.planes == y.planes) & (x.cols == w.planes)),
            kernel.eq((w.height < KERNEL_MAX) & (w.width < KERNEL_MAX) & (w.pad_y <= w.height) & (w.pad_x <= w.width)),
            fits.eq(channels & kernel & (room_y >= 0) & (room_x >= 0)
                    & ((terms < TERMS_END) | (self.word.opcode != Opcode.BWD))
                    & (y.height == room_y[:10] >> w.step_y) & (y.width == room_x[:10] >> w.step_x)),
        ]
        return fits

    def _smaller(self, m: Module) -> data.View:
        """How a small image compares with a large one, two cycles later."""
        dst, a, b = (self.operands[i].entry for i in range(3))
        small, large = (Descriptor(Signal(Descriptor, name=n)) for n in ("small", "large"))
        m.d.comb += [small.eq(dst), large.eq(a)]
        with m.Switch(self.word.opcode):
            with m.Case(Opcode.ADD):
                m.d.comb += large.eq(b)
            with m.Case(Opcode.ADDB):
                m.d.comb += [small.eq(b), large.eq(dst)]
            with m.Case(Opcode.AVGB, Opcode.MAXB):
                m.d.comb += [small.eq(a), large.eq(dst)]
        view = Signal(data.StructLayout({
            name: 1 for name in ("planes", "cols", "equal", "same", "half", "one", "double", "image")}))
        held = Signal.like(view)
        m.d.sync += [
            held.planes.eq(small.planes == large.planes),
            held.cols.eq(large.cols <= small.cols),
            held.equal.eq(large.cols == small.cols),
            held.same.eq((small.height == large.height) & (small.width == large.width)),
            held.half.eq((small.height == large.height >> 1) & (small.width == large.width >> 1)),
            held.one.eq((small.height == 0) & (small.width == 0)),
            held.double.eq((large.height == Cat(1, small.height)) & (large.width == Cat(1, small.width))),
            held.image.eq((b.planes == dst.planes) & (b.height == dst.height) & (b.width == dst.width)
                          & (b.cols == dst.cols)),
            view.eq(held),
        ]
        return view
