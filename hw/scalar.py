"""A scalar brought to another exponent, one bit a cycle: there are a few an instruction."""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.logic import register

__all__ = ["ScalarUnit"]


class ScalarUnit(wiring.Component):
    """y = value * 2^d, nearest with ties up for d < 0, saturated to [-2^30, 2^30 - 1].

    Parameters
    ----------
    uint8 : there is the input ``unsigned``, and ``small`` has nine bits

    Members
    -------
    start : In(1)            ``value`` and ``d`` are there
    value : In(signed 16)
    d : In(signed 6)         -31 to 31
    y : Out(signed 31)       valid while ``busy`` is low, until the next ``start``
    small : Out(signed 8)    ``y`` saturated to +-127, or +-255 when ``unsigned``; likewise
    unsigned : In(1)         static
    busy : Out(1)            from the cycle after ``start``, for abs(d) + 4 cycles
    """

    def __init__(self, *, uint8: bool = False) -> None:
        self.bits = 8 + uint8
        super().__init__({
            "start": In(1),
            "value": In(signed(16)),
            "d": In(signed(6)),
            "y": Out(signed(31)),
            "small": Out(signed(self.bits)),
            "busy": Out(1),
            **({"unsigned": In(1)} if uint8 else {}),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        start, running, left = Signal(), Signal(), Signal(signed(6))
        value, d = Signal(signed(16)), Signal(signed(6))  # a cycle late, near ``y``
        last, none = Signal(), Signal()  # a step is left, or none; registers
        load, right, down, up = Signal(), left[-1], Signal(), Signal()  # but for ``right``: done with ``shifted``, late
        m.d.sync += [
            start.eq(self.start), value.eq(self.value), d.eq(self.d),
            load.eq(start), down.eq(running & ~none & right), up.eq(running & ~none & ~right),
        ]
        with m.If(start):
            m.d.sync += [left.eq(d), running.eq(1), last.eq((d == -1) | (d == 1)), none.eq(d == 0)]
        with m.Elif(none):
            m.d.sync += running.eq(0)
        with m.Else():
            m.d.sync += [left.eq(Mux(right, left + 1, left - 1)), none.eq(last)]
            m.d.sync += last.eq(Mux(right, left == -2, left == 2))

        shifted, half = Signal(signed(31)), Signal()  # half: the bit shifted out last
        over = Signal()  # it will not fit; ``shifted`` has the right sign
        sign, value = shifted[-1], register(m, value, "value_late")
        with m.If(load):
            m.d.sync += [shifted.eq(value), half.eq(0), over.eq(0)]
        with m.Elif(down):
            m.d.sync += [shifted.eq(shifted >> 1), half.eq(shifted[0])]
        with m.Elif(up):
            with m.If(sign != shifted[-2]):
                m.d.sync += over.eq(1)
            with m.Elif(~over):
                m.d.sync += shifted.eq(shifted << 1)
        outside = Signal()
        m.d.sync += [
            self.y.eq(Mux(over, ((1 << 30) - 1) ^ sign.replicate(31), shifted + half)),
            outside.eq(Mux(self.unsigned, self._outside(9), self._outside(8)) if self.bits > 8 else self._outside(8)),
        ]
        bound = Mux(self.unsigned, 255, 127) if self.bits > 8 else 127
        m.d.comb += self.small.eq(Mux(outside, Mux(self.y[-1], -bound, bound), self.y[:self.bits].as_signed()))
        rounded = register(m, running, "rounded")
        m.d.comb += self.busy.eq(start | running | rounded | register(m, rounded, "settled"))
        return m

    def _outside(self, bits: int) -> Value:
        """Whether ``y`` is outside +-(2^(bits-1) - 1)."""
        return (self.y[bits - 1:] != self.y[-1].replicate(32 - bits)) | (self.y[:bits] == 1 << bits - 1)
