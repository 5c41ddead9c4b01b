"""Back of the loss unit: the reciprocal of a row's sum, and the error stream made with it."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.logic import delayed
from hw.memory import WRITE_DELAY
from hw.multiplier import Multipliers
from shiftgrad.config import WORD_BITS

__all__ = ["ErrorStream", "Reciprocal"]


class Reciprocal(wiring.Component):
    """r = floor((2^34 - 1) / s) for s in [2^16, 2^24], non-restoring, one bit a cycle; log2 of s on the side.

    Members
    -------
    start : In(1)     load ``s``; the 18 steps follow
    s : In(25)        divisor, with ``start``
    step : Out(5)     0 in the cycle after ``start``, counting up; stops at 18, then ``r`` is valid until ``start``
    r : Out(18)       the quotient
    octave : Out(4)   floor(log2 s) - 16, valid from step 8
    index : Out(8)    the 8 bits of s after its leading one, valid from step 8
    """

    start: In(1)
    s: In(25)
    step: Out(5, init=18)
    r: Out(18)
    octave: Out(4)
    index: Out(8)

    latency = 18

    def elaborate(self, platform: object) -> Module:
        m = Module()
        divisor, normal = Signal(25, reset_less=True), Signal(25, reset_less=True)
        remainder, trial = Signal(signed(27), reset_less=True), Signal(27)
        subtract = ~remainder[-1]  # else the divisor taken away too much comes back: one carry chain, no selection
        m.d.comb += [
            trial.eq((Cat(subtract, 1, remainder[:26]) + Cat(subtract, divisor ^ subtract.replicate(25),
                                                             subtract.replicate(2)))[1:28]),
            self.index.eq(normal[16:24]),
        ]
        with m.If(self.start):
            # (2^34 - 1) >> 18 is below any s: only the 18 low bits, all ones, are left to bring down.
            m.d.sync += [divisor.eq(self.s), remainder.eq(0xFFFF), self.step.eq(0)]
            m.d.sync += [normal.eq(self.s), self.octave.eq(8)]
        with m.Elif(self.step != self.latency):
            m.d.sync += [
                self.step.eq(self.step + 1),
                self.r.eq(Cat(~trial[-1], self.r)),
                remainder.eq(trial),
            ]
            with m.If(~normal[24]):
                m.d.sync += [normal.eq(normal << 1), self.octave.eq(self.octave - 1)]
        return m


class ErrorStream(wiring.Component):
    """error = saturate127(((p * r + 2^26) >> 27) - 128 * hit), row by row, lane by lane, zeros beyond the columns.

    Parameters
    ----------
    lanes, classes : T, lanes of the memory written; most columns of a row

    Members
    -------
    restart : In(1)         the next row goes to ``e_base``
    start : In(1)           send a row: its first column is read in the next cycle
    active : Out(1)         columns are being read
    last : Out(1)           with ``active``: the last lane of the row
    counted : In(1)         0 makes a row of zeros; holds while ``active``
    cols, e_base, e_stride : In(17)   static
    column : Out            column read; its ``p`` and ``hit`` come one cycle later
    p : In(17)              unnormalised probability, from a block RAM
    hit : In(1)             the column is the label
    r : In(18)              reciprocal, valid from 2 cycles after the first column's read to 2 after the last one's
    e_en, e_addr, e_data    write root; e_data is ``latency`` cycles after the read, WRITE_DELAY after its root
    """

    latency = 8

    def __init__(self, *, lanes: int, classes: int) -> None:
        self.lanes, self.classes = lanes, classes
        super().__init__({
            **{name: In(1) for name in ("restart", "start", "counted", "hit")},
            **{name: Out(1) for name in ("active", "last", "e_en")},
            **{name: In(WORD_BITS) for name in ("cols", "e_base", "e_stride")},
            "column": Out(bits_for(classes + lanes - 1)),
            "p": In(17),
            "r": In(18),
            "e_addr": Out(WORD_BITS),
            "e_data": Out(signed(8)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lane, words = Signal(range(self.lanes)), Signal(16)
        lane_end, word_start, live = Signal(), Signal(), Signal()
        final = Signal()  # the row's last word, a cycle after it begins
        m.d.sync += final.eq(words == 1)
        m.d.comb += [
            lane_end.eq(lane == self.lanes - 1),
            self.last.eq(lane_end & final),
            word_start.eq(self.active & (lane == 0)),
            live.eq(self.counted & (self.column < self.cols)),
        ]
        with m.If(self.active):
            m.d.sync += [self.column.eq(self.column + 1), lane.eq(Mux(lane_end, 0, lane + 1))]
            m.d.sync += [words.eq(words - lane_end), self.active.eq(~self.last)]
        with m.Elif(self.start):
            m.d.sync += [self.active.eq(1), self.column.eq(0), lane.eq(0), words.eq(self.e_stride)]

        m.d.comb += self.e_en.eq(delayed(m, word_start, self.latency - WRITE_DELAY, "word_start_", resets=True)[-1])
        with m.If(self.restart):
            m.d.sync += self.e_addr.eq(self.e_base)
        with m.Elif(self.e_en):
            m.d.sync += self.e_addr.eq(self.e_addr + 1)
        self._arithmetic(m, live)
        return m

    def _arithmetic(self, m: Module, live: Signal) -> None:
        # r - 2^17 fits 18 bits with a sign; p * 2^17 is added to the product
        m.submodules.multiplier = multiplier = Multipliers(count=1, a_bits=18, b_bits=18)
        first = delayed(m, self.p, 1, "p_read_")[-1]
        m.d.comb += [multiplier.a[0].eq(first), multiplier.b[0].eq(Cat(self.r[:17], ~self.r[17]).as_signed())]
        product, rounded = Signal(18, reset_less=True), Signal(8, reset_less=True)  # from bit 17 up
        p = delayed(m, first, 3, "p_")[-1]
        hit = delayed(m, self.hit, 6, "hit_")[-1]
        live = delayed(m, live, 7, "live_", resets=True)[-1]
        m.d.sync += [product.eq(multiplier.p[0][17:35] + p), rounded.eq(product[10:] + product[9])]
        with m.If(~live):
            m.d.sync += self.e_data.eq(0)
        with m.Elif(hit):
            m.d.sync += self.e_data.eq(Mux(rounded == 0, -127, rounded - 128))
        with m.Else():
            m.d.sync += self.e_data.eq(Mux(rounded == 128, 127, rounded))
