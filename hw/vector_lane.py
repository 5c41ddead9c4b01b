"""One lane of the vector unit: product, sum, maximum; and the sum over all lanes."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw import multiplier
from hw.logic import delayed, greater, one_of, register
from hw.multiplier import Multipliers

__all__ = ["TotalScan", "VectorControl", "VectorLane"]


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

    add: 1
    total: 1
    average: 1
    spread: 1
    largest: 1
    route: 1
    pair: 1
    mask: 1
    factor: signed(16)
    term: signed(32)
    drop: 5


class VectorLane(wiring.Component):
    """Multiplies and sums words, or keeps the first maximum of four; a word enters every cycle.

    Cycles count from the word's ``x``, or the last ``x`` of a window.

    Parameters
    ----------
    lut_products : multiply in lookup tables
    bits : of a word of a stream; 9 where it may be unsigned

    Members
    -------
    control : In(VectorControl)    static
    x : In(signed(bits))           first stream
    y : In(signed(bits))           second: with ``x`` for SUM; for MAXB TAKE_DELAY after the window's last ``x``
    begin, index : In              in cycle RANK_DELAY: first of a window; place in it
    take : In(1)                   in cycle TAKE_DELAY, MAXB: the window is complete
    emit : In(2)                   in cycle EMIT_DELAY, MAXB: place in the window ``sum`` is wanted for
    first, use : In(1)             in cycle TAKE_DELAY: start a sum, at ``term``; the word belongs to it
    sum : Out(signed(SUM_BITS))    in cycle LATENCY (AVG, SUM: of the last word); in MAXB ROUTE_LATENCY after its ``x``
    """

    SUM_BITS = 40  # 2^24 products of two int8, or of a uint8 and an int8
    TAKE_DELAY = multiplier.LATENCY
    RANK_DELAY = TAKE_DELAY - 1
    EMIT_DELAY = TAKE_DELAY + 4  # after its own x, so that the four of a window follow the window's last
    LATENCY = TAKE_DELAY + 2
    ROUTE_LATENCY = EMIT_DELAY + 3

    def __init__(self, *, lut_products: bool = False, bits: int = 8) -> None:
        self.lut_products, self.bits = lut_products, bits
        super().__init__({
            "control": In(VectorControl),
            "x": In(signed(bits)),
            "y": In(signed(bits)),
            "begin": In(1),
            "index": In(2),
            "take": In(1),
            "emit": In(2),
            "first": In(1),
            "use": In(1),
            "sum": Out(signed(self.SUM_BITS)),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        control = self.control

        # until TAKE_DELAY: product
        m.submodules.multiplier = multiply = Multipliers(
            count=1, a_bits=self.bits, b_bits=16, fabric=self.lut_products)
        m.d.comb += [
            multiply.a[0].eq(self.x),
            multiply.b[0].eq(Mux(control.total & control.pair, self.y, control.factor)),
        ]

        # until TAKE_DELAY: the maximum so far, its place; then that of a window, while the next one is looked at
        x = delayed(m, self.x, self.RANK_DELAY, "x", first=0)[-1]
        best, place = Signal(signed(self.bits), reset_less=True), Signal(2, reset_less=True)
        lowest = 1 << self.bits - 1
        larger = greater(x.as_unsigned() ^ lowest, best.as_unsigned() ^ lowest)
        with m.If(self.begin | larger):
            m.d.sync += [best.eq(x), place.eq(self.index)]
        error, chosen = Signal(signed(8), reset_less=True), Signal(3, reset_less=True)
        with m.If(self.take):
            blocked = control.mask & (best <= 0)
            m.d.sync += [error.eq(self.y), chosen[:2].eq(place), chosen[2].eq(blocked)]

        # what is added; sum
        routed = Signal(signed(8), reset_less=True)
        m.d.sync += routed.eq(Mux(chosen == self.emit, error, 0))
        pooled, added = Signal(signed(self.bits)), Signal(signed(24))  # 255 * 2^15 < 2^23
        pools = register(m, control.largest | control.route, "pools")
        m.d.comb += [
            pooled.eq(Mux(control.largest, best, routed)),
            added.eq(Mux(pools, pooled, Mux(self.use, multiply.p[0], 0))),
        ]
        first = register(m, self.first, "first_in")
        m.d.sync += self.sum.eq(Mux(first, control.term, self.sum) + register(m, added, "added_in"))
        return m


class TotalScan(wiring.Component):
    """Adds up the lanes' sums, one a cycle, then shifts right one bit a cycle.

    Parameters
    ----------
    lanes : T

    Members
    -------
    start : In(1)              scan: lane n's sum is read n cycles later. Not before ``done``
    sums : In(ArrayLayout)     signed(SUM_BITS) of each lane
    drop : In(5)               arithmetic right shift of the total; static
    total : Out(signed(32))    with ``done`` and until the next ``start``; modulo 2^32
    done : Out(1)              for a cycle, T + 3 + drop cycles after ``start``
    """

    LOW = 22  # bits added in a cycle

    def __init__(self, *, lanes: int) -> None:
        self.lanes = lanes
        super().__init__({
            "start": In(1),
            "sums": In(data.ArrayLayout(signed(VectorLane.SUM_BITS), lanes)),
            "drop": In(5),
            "total": Out(signed(32)),
            "done": Out(1),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        turn = Signal(self.lanes, init=1)  # bit n: lane n's is picked
        scanning, fresh, shifting = Signal(), Signal(), Signal()  # fresh: a cycle after ``start``
        pick, merge = Signal(), Signal()  # one is in ``picked``, in ``late``
        late = Signal(signed(VectorLane.SUM_BITS), reset_less=True)
        # the low half is added first, then, a cycle later, ``rest`` to the high one, with the carry
        low, high = Signal(self.LOW, reset_less=True), Signal(VectorLane.SUM_BITS + 4 - self.LOW, reset_less=True)
        carry, merging = Signal(reset_less=True), Signal()
        rest = Signal(signed(VectorLane.SUM_BITS - self.LOW), reset_less=True)
        total = Cat(low, high).as_signed()
        left, over = Signal(5, reset_less=True), Signal(reset_less=True)  # over: none left
        none = register(m, self.drop == 0, "no_drop")

        with m.If(self.start | scanning):
            m.d.sync += [turn.eq(turn.rotate_left(1)), scanning.eq(~turn[-1])]
        mine = [(turn[n], self.sums[n].as_unsigned()) for n in range(self.lanes)]
        picked = [register(m, one_of(mine[n:n + 2]), f"picked{n}") for n in range(0, self.lanes, 2)]
        m.d.sync += [late.eq(reduce(or_, picked).as_signed()), pick.eq(self.start | scanning), fresh.eq(self.start),
                     merge.eq(pick), rest.eq(late[self.LOW:].as_signed()), merging.eq(merge)]
        with m.If(fresh):
            m.d.sync += [low.eq(0), high.eq(0)]
        with m.If(merge):
            m.d.sync += Cat(low, carry).eq(low + late[:self.LOW])
        with m.If(merging):
            m.d.sync += [high.eq((Cat(carry, high) + Cat(carry, rest).as_signed())[1:]), shifting.eq(~merge)]
        m.d.sync += [left.eq(self.drop), over.eq(none)]
        with m.If(shifting):  # all have been merged
            m.d.sync += [left.eq(left - 1), over.eq(left == 1), shifting.eq(~over)]
            with m.If(~over):
                m.d.sync += Cat(low, high).eq(total >> 1)
        m.d.comb += [
            self.total.eq(total[:32].as_signed()),
            self.done.eq(shifting & over),
        ]
        return m
