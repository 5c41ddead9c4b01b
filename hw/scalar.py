"""A scalar brought to another exponent, one bit a cycle: there are a few an instruction."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["ScalarUnit"]


class ScalarUnit(wiring.Component):
    """y = value * 2^d, nearest with ties up for d < 0, saturated to [-2^30, 2^30 - 1].

    Members
    -------
    start : In(1)            ``value`` and ``d`` are there
    value : In(signed 16)
    d : In(signed 6)         -31 to 31
    y : Out(signed 31)       valid while ``busy`` is low, until the next ``start``
    small : Out(signed 8)    ``y`` saturated to +-127; likewise
    busy : Out(1)            from the cycle after ``start``, for abs(d) + 1 cycles
    """

    start: In(1)
    value: In(signed(16))
    d: In(signed(6))
    y: Out(signed(31))
    small: Out(signed(8))
    busy: Out(1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        left = Signal(signed(6))
        over = Signal()  # it will not fit; ``y`` has the right sign
        with m.If(self.start):
            m.d.sync += [self.y.eq(self.value), left.eq(self.d), over.eq(0), self.busy.eq(1)]
        with m.Elif(self.busy):
            with m.If(left > 0):
                m.d.sync += left.eq(left - 1)
                with m.If(self.y[-1] != self.y[-2]):
                    m.d.sync += over.eq(1)
                with m.Elif(~over):
                    m.d.sync += self.y.eq(self.y << 1)
            with m.Elif(left < 0):
                m.d.sync += [left.eq(left + 1), self.y.eq(self.y >> 1)]
                with m.If(left == -1):
                    m.d.sync += self.y.eq((self.y + 1) >> 1)
            with m.Else():
                m.d.sync += self.busy.eq(0)
                with m.If(over):
                    m.d.sync += self.y.eq(((1 << 30) - 1) ^ self.y[-1].replicate(31))
        limit = 127
        m.d.comb += self.small.eq(self.y)
        with m.If(self.y > limit):
            m.d.comb += self.small.eq(limit)
        with m.If(self.y < -limit):
            m.d.comb += self.small.eq(-limit)
        return m
