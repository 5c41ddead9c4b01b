"""A scalar brought to another exponent, one bit a cycle: there are a few an instruction."""

from amaranth.hdl import Module, Mux, Signal, signed
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
    busy : Out(1)            from the cycle after ``start``, for abs(d) + 3 cycles
    """

    start: In(1)
    value: In(signed(16))
    d: In(signed(6))
    y: Out(signed(31))
    small: Out(signed(8))
    busy: Out(1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        start, running, left = Signal(), Signal(), Signal(signed(6))
        value, d = Signal(signed(16)), Signal(signed(6))  # a cycle late, near ``y``
        m.d.sync += [start.eq(self.start), value.eq(self.value), d.eq(self.d)]
        m.d.comb += self.busy.eq(start | running)
        over = Signal()  # it will not fit; ``y`` has the right sign
        settled, outside = Signal(), Signal()
        last, none = Signal(), Signal()  # a step is left, or none; registers
        down = left[-1]
        sign = self.y[-1]
        m.d.sync += outside.eq((self.y[7:] != sign.replicate(24)) | (self.y[:8] == 0x80))
        with m.If(start):
            m.d.sync += [self.y.eq(value), left.eq(d), over.eq(0), running.eq(1), settled.eq(0),
                         last.eq((d == -1) | (d == 1)), none.eq(d == 0)]
        with m.Elif(running & down):
            m.d.sync += [left.eq(left + 1), last.eq(left == -2), none.eq(last)]
            m.d.sync += self.y.eq((self.y >> 1) + (self.y[0] & last))
        with m.Elif(running & ~none):
            m.d.sync += [left.eq(left - 1), last.eq(left == 2), none.eq(last)]
            with m.If(sign != self.y[-2]):
                m.d.sync += over.eq(1)
            with m.Elif(~over):
                m.d.sync += self.y.eq(self.y << 1)
        with m.Elif(running):
            m.d.sync += [settled.eq(1), running.eq(~settled)]
            with m.If(over):
                m.d.sync += self.y.eq(((1 << 30) - 1) ^ sign.replicate(31))
        m.d.comb += self.small.eq(Mux(outside, Mux(sign, -127, 127), self.y[:8].as_signed()))
        return m
