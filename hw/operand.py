"""An operand of an instruction: its descriptor, what follows from it, and the checks it must pass alone."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.table import Descriptor
from shiftgrad.config import WORD_BITS, Config
from shiftgrad.isa import EXPONENT_MAX, EXPONENT_MIN, HISTORY, Memory, Status

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
    operand : Out(Operand)    from LATENCY cycles after ``start``
    status : Out              first failed check, RESET (0) for none; likewise
    """

    LATENCY = 8

    def __init__(self, *, config: Config) -> None:
        self.config = config
        super().__init__({
            "start": In(1),
            "entry": In(Descriptor),
            "id": In(8),
            "memory": In(3),
            "operand": Out(Operand),
            "status": Out(Status),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        entry, size = self.entry, self.config.size
        height, width = Signal(9), Signal(9)
        m.d.comb += [height.eq(entry.height + 1), width.eq(entry.width + 1)]

        # a product starts every cycle and is there two cycles later
        step = Signal(range(self.LATENCY + 1))
        x, y, product = Signal(17), Signal(16), Signal(33)
        pixels, rows, line, image = Signal(17), Signal(16), Signal(WORD_BITS), Signal(WORD_BITS)
        many, end = Signal(), Signal(34)  # many: more rows than 16 bits hold
        m.d.sync += [product.eq(x * y), step.eq(Mux(self.start, 1, Mux(step == 0, 0, step + 1)))]
        with m.If(self.start):
            m.d.sync += [x.eq(width), y.eq(height)]
        with m.Switch(step):
            with m.Case(1):
                m.d.sync += [x.eq(width), y.eq(entry.stride)]
            with m.Case(2):
                m.d.sync += [pixels.eq(product), x.eq(product), y.eq(entry.planes)]
            with m.Case(3):
                m.d.sync += [line.eq(product), x.eq(pixels), y.eq(entry.stride)]
            with m.Case(4):
                m.d.sync += [rows.eq(product), many.eq(product[16:].any()), x.eq(product[:16]), y.eq(entry.stride)]
            with m.Case(5):
                m.d.sync += image.eq(product)
            with m.Case(6):
                m.d.sync += [end.eq(product + entry.base), step.eq(0)]

        depth, span = Signal(WORD_BITS + 1), Signal(21)
        with m.Switch(self.memory):
            for memory in Memory:
                with m.Case(memory):
                    m.d.sync += depth.eq(self.config.words(memory.name.lower()))
        m.d.sync += span.eq(entry.stride * size)
        exponent = entry.scale.exponent
        operand = self.operand
        m.d.comb += [
            operand.entry.eq(entry), operand.pixels.eq(pixels), operand.rows.eq(rows), operand.line.eq(line),
            operand.image.eq(image), operand.end.eq(end),
        ]
        with m.If((self.id >= self.config.tensors) | (entry.memory != self.memory)):
            m.d.sync += self.status.eq(Status.BAD_TENSOR)
        with m.Elif((entry.planes == 0) | many | (entry.cols == 0) | (entry.cols > span) | (entry.cols + size <= span)):
            m.d.sync += self.status.eq(Status.BAD_SHAPE)
        with m.Elif(end > depth):
            m.d.sync += self.status.eq(Status.OUT_OF_RANGE)
        with m.Elif((exponent > EXPONENT_MAX) | (exponent < EXPONENT_MIN) | (entry.scale.count > HISTORY)):
            m.d.sync += self.status.eq(Status.OVERFLOW)
        with m.Else():
            m.d.sync += self.status.eq(Status.RESET)
        return m
