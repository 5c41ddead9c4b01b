"""An operand of an instruction: its descriptor, what follows from it, and the checks it must pass alone."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.logic import times
from hw.multiplier import Multipliers
from hw.table import Descriptor
from shiftgrad.config import WORD_BITS, Config
from shiftgrad.isa import EXPONENT_MAX, EXPONENT_MIN, HISTORY, UNSIGNED, Memory, Status

__all__ = ["Operand", "OperandCheck"]


class Operand(data.Struct):
    """A checked descriptor and its products.

    Members
    -------
    entry : Descriptor
    pixels : unsigned(17)   of an image: height * width
    rows : unsigned(16)     planes * pixels
    line, image : words of a line of pixels and of an image
    end : first word behind the tensor
    """

    entry: Descriptor
    pixels: unsigned(17)
    rows: unsigned(16)
    line: unsigned(WORD_BITS)
    image: unsigned(WORD_BITS)
    end: unsigned(WORD_BITS + 1)


class OperandCheck(wiring.Component):
    """Checks one descriptor in LATENCY cycles, with one multiplier.

    Members
    -------
    start : In(1)             ``entry`` is there and stays
    entry, id, memory : In    descriptor, its index, the memory it must live in; static
    unsigned : In(1)          it may be unsigned; on machines that know that
    operand : Out(Operand)    from LATENCY cycles after ``start``
    status : Out              first failed check, RESET (0) for none; likewise
    """

    LATENCY = 15

    def __init__(self, *, config: Config) -> None:
        self.config = config
        super().__init__({
            **({"unsigned": In(1)} if config.unsigned else {}),
            "start": In(1),
            "entry": In(Descriptor),
            "id": In(8),
            "memory": In(3),
            "operand": Out(Operand),
            "status": Out(Status),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        entry, operand = self.entry, self.operand
        many, end = self._products(m)
        misfit = self._misfit(m)
        exponent, count = entry.scale.exponent, entry.scale.count
        m.d.comb += [operand.entry.eq(entry), operand.end.eq(end)]
        depth, beyond = Signal(WORD_BITS + 1), Signal()
        unknown, empty, odd = Signal(), Signal(), Signal()
        elsewhere = entry.memory != self.memory
        if self.config.unsigned:
            elsewhere &= ~(self.unsigned & (self.memory == Memory.ACT) & (entry.memory == UNSIGNED))
        with m.Switch(self.memory):
            for memory in Memory:
                with m.Case(memory):
                    m.d.sync += depth.eq(self.config.words(memory.name.lower()))
        m.d.sync += [
            beyond.eq((depth - end)[-1]),
            unknown.eq((self.id >= self.config.tensors) | elsewhere),
            empty.eq((entry.planes == 0) | (entry.cols == 0)),
            odd.eq((exponent > EXPONENT_MAX) | (exponent < EXPONENT_MIN) | (count > HISTORY)),
        ]
        with m.If(unknown):
            m.d.sync += self.status.eq(Status.BAD_TENSOR)
        with m.Elif(empty | many | misfit):
            m.d.sync += self.status.eq(Status.BAD_SHAPE)
        with m.Elif(beyond):
            m.d.sync += self.status.eq(Status.OUT_OF_RANGE)
        with m.Elif(odd):
            m.d.sync += self.status.eq(Status.OVERFLOW)
        with m.Else():
            m.d.sync += self.status.eq(Status.RESET)
        return m

    def _misfit(self, m: Module) -> Signal:
        """Whether the stride is not the number of words the columns take; three cycles."""
        span, unused = Signal(21), Signal(signed(22))  # lanes of a row; those beyond its columns
        misfit = Signal()
        m.d.sync += [
            span.eq(times(self.entry.stride, self.config.size)), unused.eq(span - self.entry.cols),
            misfit.eq(unused[-1] | ~(unused - self.config.size)[-1]),
        ]
        return misfit

    def _products(self, m: Module) -> tuple[Signal, Signal]:
        """Fills in the operand; returns whether rows need more than 16 bits, and the end.

        A multiplication a cycle; each product is there four cycles later.
        """
        entry = self.entry
        pixels, rows = Signal(17), Signal(16)
        line, image = Signal(WORD_BITS), Signal(WORD_BITS)
        m.d.comb += [getattr(self.operand, name).eq(value) for name, value in (
            ("pixels", pixels), ("rows", rows), ("line", line), ("image", image))]
        m.submodules.multiplier = multiplier = Multipliers(count=1, a_bits=18, b_bits=17)
        height, width = entry.height + 1, entry.width + 1
        left, right, product = Signal(17), Signal(16), multiplier.p[0][:33]
        m.d.sync += [multiplier.a[0].eq(left), multiplier.b[0].eq(right)]  # the multiplier is far away
        cycle = Signal(12)  # bit n: n + 1 cycles after ``start``
        m.d.sync += cycle.eq(Cat(self.start, cycle))
        at = {0: self.start, **{n + 1: cycle[n] for n in range(len(cycle))}}
        above, many, end = Signal(17), Signal(), Signal(34)
        m.d.comb += [
            left.eq(Mux(at[0] | at[1], width, 0) | Mux(at[4], product[:17], 0) | Mux(at[5], pixels, 0)
                    | Mux(at[8], product[:16], 0)),
            right.eq(Mux(at[0], height, 0) | Mux(at[4], entry.planes, 0) | Mux(at[0] | at[4], 0, entry.stride)),
        ]
        with m.If(at[4]):
            m.d.sync += pixels.eq(product)
        with m.If(at[5]):
            m.d.sync += line.eq(product)
        with m.If(at[8]):
            m.d.sync += Cat(rows, above).eq(product)
        m.d.sync += many.eq(above.any())
        with m.If(at[9]):
            m.d.sync += image.eq(product)
        with m.If(at[12]):
            m.d.sync += end.eq(product + entry.base)
        return many, end
