"""What an instruction needs, and whether its operands fit together: the checks of the ISA."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.logic import register
from hw.multiplier import Multipliers
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
    """ceil(log2 value) of a 16-bit ``value`` from 1, four cycles later: the bits of value - 1, halves first."""
    rest, found = Signal(16, name=f"{name}_less1"), Signal(1, name=f"{name}_0")
    m.d.sync += rest.eq(value - 1)
    for half in (8, 4):
        high = rest[half:].any()
        part, more = Signal(half, name=f"{name}_of{half}"), Signal(len(found) + 1, name=f"{name}_upto{half}")
        m.d.sync += [part.eq(Mux(high, rest[half:], rest[:half])), more.eq(Cat(high, found))]
        rest, found = part, more
    bits = Signal(5, name=name)
    length = Mux(rest[3], 4, Mux(rest[2], 3, Mux(rest[1], 2, rest[0])))
    m.d.sync += bits.eq((found[1] << 3) + (found[0] << 2) + length)
    return bits


def equal(m: Module, x: Value, y: Value, name: str) -> Signal:
    """Whether two values agree, a cycle later."""
    same = Signal(name=name)
    m.d.sync += same.eq(x == y)
    return same


class Decoder(wiring.Component):
    """Which operands an instruction uses, and whether they agree.

    Members
    -------
    word : In                      instruction
    status : Out                   ILLEGAL_OPCODE or ILLEGAL_FLAGS, else RESET (0) for none
    used : Out(5)                  operands in use, in the order of ``isa.OPERAND_NAMES``
    memories : Out                 memory each must live in
    rate, rate_error, lr_shift     learning-rate shift n = imm + LR_SHIFT and its check
    operands : In                  checked operands, static for LATENCY cycles before the errors are right
    shape_error, overlap_error : Out
    sum_bits : Out(6)              ceil(log2 rows) + ceil(log2 cols) of operand b, LATENCY cycles after it
    row_bits : Out(5)              ceil(log2 rows) of operand b

    What follows from the word alone is right WORD_LATENCY cycles after it.
    """

    WORD_LATENCY = 2
    LATENCY = 8

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
        self.operation = {opcode: Signal(name=f"is_{opcode.name.lower()}") for opcode in Opcode}
        m.d.sync += [signal.eq(word.opcode == opcode) for opcode, signal in self.operation.items()]
        self._legality(m)
        self._operands(m)
        self._overlap(m)
        self._shapes(m)
        rate, beyond = Signal(signed(9)), Signal()
        m.d.sync += [rate.eq(word.imm.as_signed() + self.lr_shift), self.rate.eq(rate)]
        m.d.comb += beyond.eq(rate[-1] | (rate > LR_MAX))
        m.d.sync += self.rate_error.eq((self.operation[Opcode.GRAD] | self.operation[Opcode.SUM]) & beyond)
        return m

    def _legality(self, m: Module) -> None:
        unknown = {opcode: Signal(name=f"unknown_{opcode.name.lower()}") for opcode in LEGAL_FLAGS}
        m.d.sync += [signal.eq((self.word.flags & ~LEGAL_FLAGS[opcode].value & 0xFF) != 0)
                     for opcode, signal in unknown.items()]
        legal = Cat(self.operation[opcode] for opcode in LEGAL_FLAGS).any()
        wrong = Cat(self.operation[opcode] & signal for opcode, signal in unknown.items()).any()
        m.d.sync += self.status.eq(
            Mux(legal, Mux(wrong, Status.ILLEGAL_FLAGS, Status.RESET), Status.ILLEGAL_OPCODE))

    def _operands(self, m: Module) -> None:
        """``used`` and ``memories``: each flag in turn, as ``isa.OPERANDS`` says."""
        for i, name in enumerate(OPERAND_NAMES):
            used, memory = Const(0), Const(0, 3)
            for opcode, chosen in self.operation.items():
                needed, place = self._operand(opcode, name)
                used, memory = used | (chosen & needed), memory | Mux(chosen, place, 0)
            m.d.sync += [self.used[i].eq(used), self.memories[i].eq(memory)]

    def _operand(self, opcode: Opcode, name: str) -> tuple[Value, Value]:
        """Whether ``opcode`` needs the operand with the flags there are, and in which memory."""
        every = OPERANDS(opcode, int(LEGAL_FLAGS[opcode] & ~Flag.ONES))
        needs = {flag: name in OPERANDS(opcode, int(flag)) for flag in LEGAL_FLAGS[opcode] if flag != Flag.ONES}
        always = name in OPERANDS(opcode, 0)
        used = Const(always) | Cat(self.flag(flag) for flag, yes in needs.items() if yes and not always).any()
        memory = Const(every.get(name, Memory.ACT), 3)
        if Flag.ONES in LEGAL_FLAGS[opcode]:
            ones = OPERANDS(opcode, int(LEGAL_FLAGS[opcode]))
            used = Mux(self.flag(Flag.ONES), name in ones, used)
            memory = Mux(self.flag(Flag.ONES), Const(ones.get(name, Memory.ACT), 3), memory)
        return used, memory

    def _overlap(self, m: Module) -> None:
        """Whether dst shares a word with another operand in its memory."""
        dst = self.operands[0]
        clashes = []
        for i in range(1, len(OPERAND_NAMES)):
            other, name = self.operands[i], OPERAND_NAMES[i]
            same, before, behind, clash = (Signal(name=f"{what}_{name}") for what in (
                "same", "before", "behind", "clash"))
            m.d.sync += [
                same.eq(self.used[i] & (self.memories[i] == self.memories[0])),
                before.eq(dst.entry.base < other.end), behind.eq(other.entry.base < dst.end),
                clash.eq(same & before & behind),
            ]
            clashes.append(clash)
        m.d.sync += self.overlap_error.eq(Cat(clashes).any())

    def _shapes(self, m: Module) -> None:
        """Comparisons first; then what each operation asks for, five cycles later; then the error."""
        dst, a, b, c, d = (self.operands[i] for i in range(5))

        def same(x: Operand, y: Operand, what: str) -> Value:
            return equal(m, x.rows, y.rows, f"{what}_rows") & equal(m, x.entry.cols, y.entry.cols, f"{what}_cols")

        def one(x: Operand, what: str) -> Value:
            return equal(m, x.rows, 1, f"{what}_one_row") & equal(m, x.entry.cols, 1, f"{what}_one_col")

        def row(x: Operand, what: str) -> Value:
            return equal(m, x.rows, 1, f"{what}_row")

        a_dst, c_dst, a_b = same(a, dst, "a_dst"), same(c, dst, "c_dst"), same(a, b, "a_b")
        c_one, d_one, dst_one = one(c, "c"), one(d, "d"), one(dst, "dst")
        dst_b_cols, a_b_cols, c_b_cols = (equal(m, x.entry.cols, b.entry.cols, name) for x, name in (
            (dst, "dst_b_cols"), (a, "a_b_cols"), (c, "c_b_cols")))
        few, labels = Signal(), equal(m, b.entry.cols, a.rows, "labels")
        few_sum = Signal()
        m.d.sync += [few.eq(a.entry.cols <= self.config.classes), few_sum.eq(self.sum_bits <= SUM_BITS_MAX)]
        rows, cols = clog2(m, b.rows, "rows_log2"), clog2(m, b.entry.cols, "cols_log2")
        m.d.sync += [self.sum_bits.eq(rows + cols), self.row_bits.eq(rows)]
        window, smaller = self._window(m), self._smaller(m)
        mask = ~self.flag(Flag.MASK) | c_dst
        scalar = ~self.flag(Flag.SCALAR) | d_one
        pair, ones, plain = self.flag(Flag.PAIR), self.flag(Flag.ONES), ~self.flag(Flag.BIAS)
        scale = Signal()  # of ADD and ADDB: what is added may be smaller or larger
        m.d.sync += scale.eq(~pair | (smaller.planes & smaller.cols & (smaller.same | smaller.half)))
        pooled = smaller.planes & smaller.equal
        c_line = equal(m, c.rows, 1, "c_line") & (equal(m, c.entry.cols, 1, "c_narrow") | c_b_cols)
        self._fits(m, {
            Opcode.FWD: window & dst_b_cols & scalar & (plain | c_line),
            Opcode.BWD: window & a_b_cols & mask,
            Opcode.GRAD: c_dst & dst_b_cols & Mux(ones, row(dst, "dst"), window & scalar),
            Opcode.LOSS: a_dst & few & row(b, "b") & labels,
            Opcode.ADD: a_dst & scalar & (plain | c_one) & scale,
            Opcode.ADDB: a_dst & scalar & mask & scale,
            Opcode.SUM: dst_one & c_one & few_sum & (~pair | a_b),
            Opcode.AVG: pooled & smaller.one,
            Opcode.AVGB: pooled & smaller.one & mask,
            Opcode.MAX: pooled & smaller.double,
            Opcode.MAXB: pooled & smaller.double & smaller.image,
        })

    def _fits(self, m: Module, wanted: dict[Opcode, Value]) -> None:
        wrong = []
        for opcode, fits in wanted.items():
            wrong.append(Signal(name=f"wrong_{opcode.name.lower()}"))
            m.d.sync += wrong[-1].eq(self.operation[opcode] & ~fits)
        m.d.sync += self.shape_error.eq(Cat(wrong).any())

    def _window(self, m: Module) -> Signal:
        """Whether weights take images ``x`` to images ``y``, five cycles later."""
        dst, a, b = (self.operands[i].entry for i in range(3))
        w, x, y = (Descriptor(Signal(Descriptor, name=n)) for n in ("weights", "image_in", "image_out"))
        bwd, grad = self.operation[Opcode.BWD], self.operation[Opcode.GRAD]
        m.d.sync += [w.eq(Mux(grad, dst, b)), x.eq(Mux(bwd, dst, a)), y.eq(Mux(bwd, a, Mux(grad, b, dst)))]
        terms_fit = self._terms(m, bwd)
        sides = [self._side(m, name, getattr(w, side), getattr(w, f"pad_{name}"), getattr(w, f"step_{name}"),
                            getattr(x, side), getattr(y, side)) for name, side in (("y", "height"), ("x", "width"))]
        channels = equal(m, x.planes, y.planes, "same_planes") & equal(m, x.cols, w.planes, "same_channels")
        fits = Signal()
        m.d.sync += fits.eq(channels & sides[0] & sides[1] & terms_fit)
        return fits

    def _side(self, m: Module, name: str, kernel: Value, pad: Value, step: Value, x: Value, y: Value) -> Signal:
        """Whether a kernel's side is legal and takes an image's ``x`` to ``y``, all less 1; three cycles."""
        padded, room = Signal(10, name=f"padded_{name}"), Signal(signed(11), name=f"room_{name}")
        kernel_fits, fits = Signal(name=f"kernel_{name}"), Signal(name=f"fits_{name}")
        m.d.sync += [
            padded.eq(x + (pad << 1)), room.eq(padded - kernel),  # positions of the kernel, less 1
            kernel_fits.eq((kernel < KERNEL_MAX) & (pad <= kernel[:3])),
            fits.eq(kernel_fits & ~room[-1] & (y == room[:10] >> step)),
        ]
        return fits

    def _terms(self, m: Module, bwd: Value) -> Signal:
        """Whether int32 holds a sum of BWD, four cycles later; terms of FWD and GRAD are rows, which 16 bits hold."""
        m.submodules.multiplier = multiplier = Multipliers(count=1, a_bits=7, b_bits=17)
        fits = Signal(name="terms_fit")
        m.d.comb += [
            multiplier.a[0].eq(self.operands[2].pixels[:6]), multiplier.b[0].eq(self.operands[2].entry.cols),
        ]
        m.d.sync += fits.eq(~bwd | ((multiplier.p[0][:22] >> (TERMS_END.bit_length() - 1)) == 0))
        return fits

    def _smaller(self, m: Module) -> data.View:
        """How a small image compares with a large one, two cycles later."""
        dst, a, b = (self.operands[i].entry for i in range(3))
        add, addb = self.operation[Opcode.ADD], self.operation[Opcode.ADDB]
        back = register(m, addb | self.operation[Opcode.AVGB] | self.operation[Opcode.MAXB], "back")
        add, addb = register(m, add, "add_late"), register(m, addb, "addb_late")
        small, large = (Descriptor(Signal(Descriptor, name=n)) for n in ("small", "large"))
        m.d.sync += [
            small.eq(Mux(addb, b, Mux(back, a, dst))), large.eq(Mux(add, b, Mux(back, dst, a))),
        ]

        def sides(what: str, height: Value, width: Value) -> Value:
            return equal(m, small.height, height, f"{what}_height") & equal(m, small.width, width, f"{what}_width")

        view = Signal(data.StructLayout({
            name: 1 for name in ("planes", "cols", "equal", "same", "half", "one", "double", "image")}))
        image = [equal(m, getattr(b, name), getattr(dst, name), f"image_{name}")
                 for name in ("planes", "height", "width", "cols")]
        m.d.comb += [
            view.planes.eq(equal(m, small.planes, large.planes, "planes")),
            view.equal.eq(equal(m, large.cols, small.cols, "cols")),
            view.same.eq(sides("same", large.height, large.width)),
            view.half.eq(sides("half", large.height >> 1, large.width >> 1)),
            view.one.eq(sides("one", Const(0), Const(0))),
            view.double.eq(sides("double", large.height >> 1, large.width >> 1)
                           & large.height[0] & large.width[0]),
            view.image.eq(Cat(image).all()),
        ]
        m.d.sync += view.cols.eq(large.cols <= small.cols)
        return view
