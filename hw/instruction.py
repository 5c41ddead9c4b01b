"""What follows from the instruction that runs, and stays while it does: operation, exponents, loops, scalars."""

import math
from typing import TYPE_CHECKING

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data

from hw.logic import delayed, register
from hw.memory import READ_LATENCY
from hw.table import Descriptor
from shiftgrad.isa import UNSIGNED, VECTORS, Flag, Opcode

if TYPE_CHECKING:
    from hw.sequencer import Sequencer

__all__ = ["Operation", "decode", "exponents", "geometry", "scalars"]

LOSS_EXPONENT = -7
ONE, ONE_EXPONENT = 1 << 14, -14  # the scalar 1.0


class Operation(data.StructLayout):
    """The instruction's operation, one bit each, ``vector`` for all on the vector unit, and its flags."""

    def __init__(self) -> None:
        names = [opcode.name.lower() for opcode in Opcode if opcode != Opcode.HALT]
        super().__init__({name: 1 for name in (*names, "vector", *(flag.name.lower() for flag in Flag))})


def decode(m: Module, seq: "Sequencer") -> None:
    """Its operation and flags, a bit each; what decoder and operand check see."""
    word, decoder, check, operation = seq.word, seq.decoder, seq.check, seq.operation
    m.d.comb += [
        decoder.word.eq(word), decoder.operands.eq(seq.operands),
        check.entry.eq(seq.t_entry), check.id.eq(seq.t_id),
    ]
    m.d.sync += check.memory.eq(decoder.memories[seq.index])
    if seq.config.unsigned:
        m.d.sync += [check.unsigned.eq(word.opcode != Opcode.LOSS),
                     seq.unsigned.eq(Cat(operand.entry.memory == UNSIGNED for operand in seq.operands))]
        m.d.comb += [seq.exponents.unsigned.eq(seq.unsigned[0]), seq.scalars.unsigned.eq(seq.unsigned[1])]
    for opcode in Opcode:
        if opcode != Opcode.HALT:
            m.d.sync += operation[opcode.name.lower()].eq(word.opcode == opcode)
    m.d.sync += operation.vector.eq(Cat(word.opcode == opcode for opcode in VECTORS).any())
    for flag in Flag:
        m.d.sync += operation[flag.name.lower()].eq((word.flags & flag.value) != 0)
    with m.If((word.flags & Flag.ONES.value) != 0):  # there is no operand a
        m.d.sync += operation.scalar.eq(0)


def exponents(m: Module, seq: "Sequencer") -> None:
    """Which exponents count for which operation."""
    # for what is not near; another start keeps it apart from registers that others have behind the operation
    seq.late = Operation()(Signal(Operation(), name="operation_late", init=dict.fromkeys(Operation().members, 1)))
    m.d.sync += seq.late.eq(seq.operation)
    operation, exponents, decoder = seq.late, seq.exponents, seq.decoder
    dst, a, b, c, d = (seq.operands[i].entry.scale.exponent for i in range(5))
    pixels, average = Signal(17), Signal(5)
    bounds = [math.isqrt((1 << 2 * k - 1) - 1) + 1 for k in range(1, 17)]  # ceil(2^(k - 1/2))
    reached = Signal(17)
    m.d.sync += [
        pixels.eq(Mux(operation.avg, seq.operands[1].pixels, seq.operands[0].pixels)),
        reached.eq(Cat(1, (pixels >= bound for bound in bounds))),
        # how many: ones come first, so the last of them says it
        average.eq(Cat(Cat(reached[k] & ~reached[k + 1:k + 2].any() for k in range(17) if k >> bit & 1).any()
                       for bit in range(5))),
    ]
    seq.scaled = Signal(Descriptor)  # of the tensor whose exponent this instruction sets
    seq.gradient = gradient = Signal()
    m.d.sync += gradient.eq(operation.grad | operation["sum"])
    m.d.comb += [
        seq.scaled.eq(Mux(gradient, seq.operands[3].entry, seq.operands[0].entry)),
        exponents.e_x.eq(a), exponents.e_y.eq(b), exponents.e_add.eq(c), exponents.e_dst.eq(dst),
        exponents.grad.eq(gradient),
        exponents.most.eq(16 - Mux(operation["sum"], decoder.sum_bits, decoder.row_bits)),
        exponents.delayed.eq(operation.delayed), exponents.freeze.eq(operation.freeze),
        exponents.rate.eq(decoder.rate), exponents.scale.eq(seq.scaled.scale),
        exponents.measured.eq(seq.measured), exponents.zero.eq(seq.range_zero),
        exponents.log2.eq(seq.range_log2),
        *(getattr(seq, name).eq(getattr(exponents, name)) for name in ("guard", "drop", "align", "shift", "step")),
    ]
    m.d.sync += seq.t_scale.eq(exponents.new_scale)
    with m.If(operation.loss):
        m.d.sync += [seq.t_scale.eq(seq.scaled.scale), seq.t_scale.exponent.eq(LOSS_EXPONENT)]
    with m.If(operation.ones | (operation["sum"] & ~operation.pair)):
        m.d.comb += exponents.e_x.eq(0)
    with m.If(operation.add | operation.addb):
        m.d.comb += [exponents.e_y.eq(Mux(operation.scalar, d, ONE_EXPONENT)), exponents.e_add.eq(b)]
    with m.If(operation.avg | operation.avgb):
        m.d.comb += exponents.e_y.eq(-average)
    with m.If(operation.max | operation.maxb):
        m.d.comb += exponents.e_y.eq(0)


def geometry(m: Module, seq: "Sequencer") -> None:
    """Loops of a product; the parts of a backward one."""
    geometry, operation = seq.geometry, seq.late
    weights, image = seq.operands[2].entry, seq.operands[0].entry
    seq.odd_y, seq.odd_x = Signal(), Signal()
    more_y, more_x = Signal(), Signal()  # there are odd lines, or pixels, to be done apart
    m.d.sync += [
        more_y.eq(operation.bwd & weights.step_y & (image.height != 0)),
        more_x.eq(operation.bwd & weights.step_x & (image.width != 0)),
    ]
    seq.more_x = more_x
    m.d.comb += [
        geometry.is_bwd.eq(operation.bwd), geometry.is_grad.eq(operation.grad), geometry.ones.eq(operation.ones),
        geometry.dst.eq(seq.operands[0]), geometry.a.eq(seq.operands[1]), geometry.b.eq(seq.operands[2]),
        geometry.odd_y.eq(seq.odd_y), geometry.odd_x.eq(seq.odd_x), seq.loops.eq(geometry.loops),
    ]
    m.d.sync += seq.last_part.eq((seq.odd_y == more_y) & (seq.odd_x == more_x))


def scalars(m: Module, seq: "Sequencer") -> None:
    """What the scalars set, two cycles after the state that says so."""
    operation, scalars = seq.operation, seq.scalars
    y, small = register(m, scalars.y, "scalar_y"), register(m, scalars.small, "scalar_small")
    seq.forget, seq.take_c, seq.take_d = (Signal(name=name) for name in ("forget", "take_c", "take_d"))
    arrived = delayed(m, seq.s_en, READ_LATENCY, "arrived", first=0)
    with m.If(arrived[-1]):  # in the cycle in which ``scalars.start`` is set
        m.d.sync += scalars.value.eq(seq.s_data)
    with m.If(register(m, seq.forget, "forget_late")):
        m.d.sync += [seq.offset.eq(0), seq.factor.eq(Mux(operation.add | operation.addb, ONE, 1)),
                     seq.term.eq(0), seq.scalar_bias.eq(0)]
    with m.If(register(m, seq.take_c, "take_c_late")):
        m.d.sync += [seq.term.eq(Mux(operation.add, y, 0)),
                     seq.scalar.eq(scalars.value), seq.scalar_bias.eq(operation.fwd)]
    with m.If(register(m, seq.take_d, "take_d_late")):
        m.d.sync += seq.offset.eq(small)
        with m.If(operation.vector):
            m.d.sync += seq.factor.eq(scalars.value)
