"""The vector unit: sums, products with a scalar, pooling and their backward sides, one memory word after the other."""

from amaranth.hdl import Module, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from shiftgrad.config import WORD_BITS

__all__ = ["VectorControl", "VectorOperand", "VectorUnit"]


class VectorControl(data.Struct):
    """What a pass computes; one of the first six is set.

    Members
    -------
    add : unsigned(1)       ADD, ADDB: a * factor + term; op2 is b with ``pair``
    total : unsigned(1)     SUM: of b * factor, or of b * a with ``pair``; ``term`` must be 0
    average : unsigned(1)   AVG: sum of a * factor over an image, ``term`` added once
    spread : unsigned(1)    AVGB: a * factor + term at every pixel
    largest : unsigned(1)   MAX: maximum of a 2 x 2 window; ``term`` must be 0
    route : unsigned(1)     MAXB: a at the first maximum of b's window, 0 elsewhere; ``term`` must be 0
    pair : unsigned(1)      operand b of ADD and ADDB, a of SUM
    mask : unsigned(1)      MAXB: only where b > 0
    factor : signed(16)     what a is multiplied with: a scalar, or 1
    term : signed(32)       added to the product; -2^30 to 2^30 - 1
    drop : unsigned(5)      SUM: arithmetic right shift of the total, which must then fit int32
    """

    add: unsigned(1)
    total: unsigned(1)
    average: unsigned(1)
    spread: unsigned(1)
    largest: unsigned(1)
    route: unsigned(1)
    pair: unsigned(1)
    mask: unsigned(1)
    factor: signed(16)
    term: signed(32)
    drop: unsigned(5)


class VectorOperand(data.Struct):
    """Where a tensor of images is and its shape, in memory words but for ``cols``; as the tensor table has them."""

    base: unsigned(WORD_BITS)
    stride: unsigned(16)
    planes: unsigned(16)
    height_1: unsigned(8)
    width_1: unsigned(8)
    cols: unsigned(16)
    line: unsigned(WORD_BITS)
    image: unsigned(WORD_BITS)


class VectorUnit(wiring.Component):
    """Streams operands word by word and presents accumulators and tokens to the post-processor as a drain would.

    A token in cycle x belongs to ``acc`` and ``op2`` of lane n in cycle x + ACC_DELAY + n.

    Parameters
    ----------
    size : T

    Members
    -------
    control, dst, a, b : In       static from two cycles before ``start`` to ``done``
    start : In(1)                 a pass begins; not before ``done`` of the pass before
    abort : In(1)                 stop reading, forget all tokens
    x_en, x_addr : Out            read root of the first stream: a; SUM and MAXB: b
    y_en, y_addr : Out            read root of the second: b of ADD and ADDB, a of SUM and MAXB. ADD and ADDB never read
                                  both streams in the same cycle
    x, y : In                     signed(8) lanes of the memories read, as skewed memories give them
    token, offset, lanes : Out    as a DrainController's
    acc : Out                     signed(32) lanes
    op2 : Out                     signed(8) lanes: b of ADD and ADDB, 0 where b has no element; 0 without ``pair``
    busy : Out(1)                 words are being read
    done : Out(1)                 pulse with the pass's last token
    """

    ACC_DELAY = 3

    def __init__(self, *, size: int) -> None:
        self.size = size

        def lanes(bits: int) -> data.ArrayLayout:
            return data.ArrayLayout(signed(bits), size)

        super().__init__({
            "control": In(VectorControl),
            "dst": In(VectorOperand),
            "a": In(VectorOperand),
            "b": In(VectorOperand),
            "start": In(1),
            "abort": In(1),
            "x_en": Out(1),
            "x_addr": Out(WORD_BITS),
            "y_en": Out(1),
            "y_addr": Out(WORD_BITS),
            "x": In(lanes(8)),
            "y": In(lanes(8)),
            "token": Out(1),
            "offset": Out(WORD_BITS),
            "lanes": Out(unsigned(size.bit_length())),
            "acc": Out(lanes(32)),
            "op2": Out(lanes(8)),
            "busy": Out(1),
            "done": Out(1),
        })

    def elaborate(self, _platform: object) -> Module:
        return Module()  # the ports only
