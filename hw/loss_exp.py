"""Base-2 exponential of the loss unit: distance from the maximum -> unnormalised probability."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from golden.numerics import EXP2, LOG2, LOG2E
from hw.logic import delayed
from hw.multiplier import Multipliers

__all__ = ["Exp2"]


class Exp2(wiring.Component):
    """w = min(floor(d * LOG2E * 2^(e - 6)), 65535), p = EXP2[w mod 256] >> (w div 256); one element a cycle.

    EXP2 and LOG2 share one ROM of 512 words with two read ports.

    Members
    -------
    shift : In(5)       8 - e clamped to [0, 25]; static
    d : In(8)           maximum minus logit
    w : Out(16)         base-2 distance, 8 fraction bits; ``w_latency`` cycles after ``d``
    p : Out(17)         2^16 * 2^(-w / 256); ``latency`` cycles after ``d``
    log_index : In(8)   index into LOG2
    log : Out(8)        LOG2[log_index], 2 cycles later
    """

    shift: In(5)
    d: In(8)
    w: Out(16)
    p: Out(17)
    log_index: In(8)
    log: Out(8)

    w_latency = 7
    latency = 11

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rom = rom = Memory(shape=17, depth=512, init=[*map(int, EXP2), *map(int, LOG2)])
        exp_port, log_port = rom.read_port(), rom.read_port()

        # A left shift of 2 and then 0 to 25 to the right: d > 0 is at least 23637, so 2^2 of it already saturates.
        m.submodules.multiplier = multiplier = Multipliers(count=1, a_bits=9, b_bits=17)
        product, coarse, fine = (Signal(width, reset_less=True) for width in (23, 25, 25))
        m.d.comb += [multiplier.a[0].eq(self.d), multiplier.b[0].eq(int(LOG2E))]
        m.d.sync += [
            product.eq(multiplier.p[0]),
            coarse.eq((product << 2) >> (self.shift & 0b11000)),
            fine.eq(coarse >> self.shift[:3]),
            self.w.eq(Mux(fine[16:].any(), 0xFFFF, fine[:16])),
        ]

        mantissa, shifted = Signal(17, reset_less=True), Signal(17, reset_less=True)
        octave = delayed(m, self.w[8:], 2, "octave_")[-1]
        octave_low = delayed(m, octave[:3], 1, "octave_low_")[-1]
        m.d.comb += exp_port.addr.eq(self.w[:8])
        m.d.sync += [
            mantissa.eq(exp_port.data),
            shifted.eq(Mux(octave[5:].any(), 0, mantissa >> (octave[:5] & 0b11000))),
            self.p.eq(shifted >> octave_low),
        ]

        m.d.comb += log_port.addr.eq(self.log_index | 0x100)
        log = Signal(8, reset_less=True)
        m.d.sync += log.eq(log_port.data)
        m.d.comb += self.log.eq(log)
        return m
