"""What an instruction needs, and whether its operands fit together: the checks of the ISA."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.table import Descriptor
from shiftgrad.config import Config
from shiftgrad.isa import (
    EXPONENT_MAX,
    EXPONENT_MIN,
    HISTORY,
    LEGAL_FLAGS,
    LR_MAX,
    OPERANDS,
    Flag,
    Memory,
    Opcode,
    Status,
)

__all__ = ["NAMES", "Decoder", "Instruction", "Operand", "OperandCheck"]

NAMES = ("dst", "a", "b", "c")  # the order operands are checked in
SPECIAL = {Opcode.FWD: Flag.BIAS, Opcode.BWD: Flag.MASK, Opcode.GRAD: Flag.ONES}


class Instruction(data.Struct):
    """A program word, field for field as ``isa.INSTRUCTION``."""

    opcode: unsigned(8)
    flags: unsigned(8)
    dst: unsigned(8)
    a: unsigned(8)
    b: unsigned(8)
    c: unsigned(8)
    imm: unsigned(16)


class Operand(data.Struct):
    """A checked descriptor and the first word after the tensor."""

    entry: Descriptor
    end: unsigned(17)


class Decoder(wiring.Component):
    """Combinational: which operands an instruction uses, whether they agree, M, N and K.

    Members
    -------
    word : In                      instruction
    status : Out                   ILLEGAL_OPCODE or ILLEGAL_FLAGS, else RESET (0) for none
    used : Out(4)                  operands in use, in the order of NAMES
    memories : Out                 memory each must live in
    operands : In                  checked operands
    shape_error, overlap_error : Out
    rows, cols, depth : Out        M, N, K of the product
    rate, rate_error, lr_shift     learning-rate shift n = imm + LR_SHIFT and its check
    """

    def __init__(self, *, config: Config) -> None:
        self.config = config
        super().__init__({
            "word": In(Instruction),
            "status": Out(Status),
            "used": Out(4),
            "memories": Out(data.ArrayLayout(unsigned(3), 4)),
            "operands": In(data.ArrayLayout(Operand, 4)),
            "shape_error": Out(1),
            "overlap_error": Out(1),
            "rows": Out(16),
            "cols": Out(16),
            "depth": Out(16),
            "lr_shift": In(6),
            "rate": Out(7),
            "rate_error": Out(1),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        word = self.word
        self._legality(m)
        with m.Switch(word.opcode):
            for opcode in Opcode:
                with m.Case(opcode):
                    special = SPECIAL.get(opcode, Flag(0))
                    for flags in dict.fromkeys((Flag(0), special)):
                        with m.If((word.flags & special.value) == flags.value):
                            for i, name in enumerate(NAMES):
                                if name in (needs := OPERANDS(opcode, flags)):
                                    m.d.comb += [self.used[i].eq(1), self.memories[i].eq(needs[name])]
        self._shapes(m)
        imm = Signal(17)
        rate = Signal(17)
        m.d.comb += [
            imm.eq(Cat(word.imm, word.imm[-1])),
            rate.eq(imm + self.lr_shift),
            self.rate.eq(rate),
            self.rate_error.eq((word.opcode == Opcode.GRAD) & (rate > LR_MAX)),
        ]
        return m

    def _legality(self, m: Module) -> None:
        m.d.comb += self.status.eq(Status.ILLEGAL_OPCODE)
        with m.Switch(self.word.opcode):
            for opcode, legal in LEGAL_FLAGS.items():
                with m.Case(opcode):
                    m.d.comb += self.status.eq(
                        Mux((self.word.flags & ~legal.value & 0xFF) != 0, Status.ILLEGAL_FLAGS, Status.RESET))

    def _shapes(self, m: Module) -> None:
        dst, a, b, c = (self.operands[i].entry for i in range(4))
        flags, opcode = self.word.flags, self.word.opcode

        def wrong(*pairs: tuple[object, object]) -> object:
            return Cat(x != y for x, y in pairs).any()

        m.d.comb += [self.rows.eq(a.rows), self.cols.eq(b.cols), self.depth.eq(a.cols)]
        with m.Switch(opcode):
            with m.Case(Opcode.FWD):
                bias = wrong((c.rows, 1), (c.cols, b.cols)) & ((flags & Flag.BIAS.value) != 0)
                m.d.comb += self.shape_error.eq(
                    wrong((dst.rows, a.rows), (dst.cols, b.cols), (a.cols, b.rows)) | bias)
            with m.Case(Opcode.BWD):
                mask = wrong((c.rows, dst.rows), (c.cols, dst.cols)) & ((flags & Flag.MASK.value) != 0)
                m.d.comb += [
                    self.cols.eq(b.rows),
                    self.shape_error.eq(wrong((dst.rows, a.rows), (dst.cols, b.rows), (a.cols, b.cols)) | mask),
                ]
            with m.Case(Opcode.GRAD):
                ones = (flags & Flag.ONES.value) != 0
                m.d.comb += [
                    self.rows.eq(Mux(ones, 1, a.cols)),
                    self.depth.eq(b.rows),
                    self.shape_error.eq(
                        wrong((dst.rows, self.rows), (dst.cols, b.cols), (c.rows, dst.rows), (c.cols, dst.cols))
                        | (wrong((a.rows, b.rows)) & ~ones)),
                ]
            with m.Case(Opcode.LOSS):
                m.d.comb += self.shape_error.eq(
                    wrong((dst.rows, a.rows), (dst.cols, a.cols), (b.rows, 1), (b.cols, a.rows))
                    | (a.cols > self.config.classes))
        same_memory = (opcode == Opcode.FWD) | (opcode == Opcode.BWD)
        m.d.comb += self.overlap_error.eq(
            same_memory & (dst.base < self.operands[1].end) & (a.base < self.operands[0].end))


class OperandCheck(wiring.Component):
    """Checks one descriptor in LATENCY cycles.

    Members
    -------
    entry, id, memory : In    descriptor, its index, the memory it must live in; static
    operand : Out             descriptor and end
    status : Out              first failed check, RESET (0) for none
    """

    LATENCY = 3

    def __init__(self, *, config: Config) -> None:
        self.config = config
        super().__init__({
            "entry": In(Descriptor),
            "id": In(8),
            "memory": In(3),
            "operand": Out(Operand),
            "status": Out(Status),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        entry, size = self.entry, self.config.size
        words, span, end = Signal(32), Signal(21), Signal(33)
        depth = Signal(17)
        with m.Switch(self.memory):
            for memory in Memory:
                with m.Case(memory):
                    m.d.sync += depth.eq(self.config.words(memory.name.lower()))
        m.d.sync += [
            words.eq(entry.rows * entry.stride),
            span.eq(entry.stride * size),
            end.eq(words + entry.base),
        ]
        exponent = entry.scale.exponent
        m.d.comb += [self.operand.entry.eq(entry), self.operand.end.eq(end[:17])]
        with m.If((self.id >= self.config.tensors) | (entry.memory != self.memory)):
            m.d.sync += self.status.eq(Status.BAD_TENSOR)
        with m.Elif((entry.rows == 0) | (entry.cols == 0) | (entry.cols > span) | (entry.cols + size <= span)):
            m.d.sync += self.status.eq(Status.BAD_SHAPE)
        with m.Elif(end > depth):
            m.d.sync += self.status.eq(Status.OUT_OF_RANGE)
        with m.Elif((exponent > EXPONENT_MAX) | (exponent < EXPONENT_MIN) | (entry.scale.count > HISTORY)):
            m.d.sync += self.status.eq(Status.OVERFLOW)
        with m.Else():
            m.d.sync += self.status.eq(Status.RESET)
        return m
