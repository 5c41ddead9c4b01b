"""One shifter for all of a lane's work, and what it is followed by: rounding and saturation."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from golden.numerics import FRACTION, ZERO_SHIFT

__all__ = ["Rounder", "SharedShifter", "exceeds", "saturated"]

WIDTH = 32


def symmetric(value: Value, bits: int) -> tuple[Value, int]:
    """Whether signed ``value`` is outside +-(2^(bits-1) - 1), and that bound."""
    top = value[bits - 1:]
    lowest = value[-1] & (value[:bits - 1] == 0)  # the one too many of two's complement
    return ~((top == 0) | top.all()) | lowest, (1 << bits - 1) - 1


def saturated(value: Value, bits: int, *, beyond: Value | int = 0, negative: Value | None = None
              ) -> tuple[Value, Value]:
    """``value`` within +-(2^(bits-1) - 1), and whether it was not; ``beyond`` says that it is far outside."""
    outside, bound = symmetric(value, bits)
    over = outside | beyond
    sign = value[-1] if negative is None else negative
    low = Const(-bound, bits)
    return Mux(over, Mux(sign, low, Const(bound, bits)), value[:bits]), over


def exceeds(value: Value, limit: int) -> Value:
    """``value`` > ``limit``, in logic of its own instead of a carry chain."""
    result: Value = Const(0, 1)
    for i in range(len(value)):
        result = value[i] & result if limit >> i & 1 else value[i] | result
    return result


class SharedShifter(wiring.Component):
    """x / 2^s: integer part and fraction, by rotation and a mask; a number enters every cycle.

    Members
    -------
    x : In(signed(32))
    s : In(signed(7))       -31 to 32, with ``x``; the result is 0 from 32 up
    whole : Out(signed(32)) floor(x / 2^s), LATENCY cycles later
    fraction : Out(24)      with ``whole``: floor of the rest times 2^24
    overflow : Out(1)       with ``whole``: x / 2^s does not fit 32 bits, ``whole`` means nothing
    negative : Out(1)       with ``whole``: x < 0
    """

    LATENCY = 2

    x: In(signed(WIDTH))
    s: In(signed(7))
    whole: Out(signed(WIDTH))
    fraction: Out(FRACTION)
    overflow: Out(1)
    negative: Out(1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        turned, amount, left, none, sign = (Signal(WIDTH), Signal(5), Signal(), Signal(), Signal())
        value = self.x.as_unsigned()
        for bit in (4, 3, 2):
            value = Mux(self.s[bit], value.rotate_right(1 << bit), value)
        m.d.sync += [
            turned.eq(value), amount.eq(self.s), left.eq(self.s[-1]), sign.eq(self.x[-1]),
            none.eq(~self.s[-1] & self.s[5]),
        ]
        if ZERO_SHIFT != WIDTH:
            raise ValueError(f"wanted shifts to vanish from {WIDTH} up, got {ZERO_SHIFT}")
        value = turned
        for bit in (1, 0):
            value = Mux(amount[bit], value.rotate_right(1 << bit), value)
        # bits that came round: the upper `amount` of a right shift, the lower 32 - amount of a left one
        kept = Signal(WIDTH)
        m.d.comb += kept.eq(Cat(~exceeds(amount, WIDTH - 1 - i) for i in range(WIDTH)))
        whole = Cat(Mux(kept[i], value[i] & ~left, Mux(left, value[i], sign)) for i in range(WIDTH))
        lost = Cat((value[i] ^ sign) & kept[i] for i in range(WIDTH)).any() | (value[-1] ^ sign)
        with m.If(none):
            m.d.sync += [self.whole.eq(0), self.fraction.eq(0)]
        with m.Else():
            m.d.sync += [
                self.whole.eq(whole),
                self.fraction.eq(Cat(value[i] & ~kept[i] & ~left for i in range(WIDTH - FRACTION, WIDTH))),
            ]
        m.d.sync += [self.overflow.eq(left & lost), self.negative.eq(sign)]
        return m


class Rounder(wiring.Component):
    """From the shifter's result to a mantissa or a step: rounds, then saturates symmetrically.

    Members
    -------
    whole, fraction, overflow, negative : In   of the shifter
    random : In(24)         added to the fraction when ``stochastic``
    stochastic : In(1)      else to nearest, ties to even
    narrow : Out(signed(8))   LATENCY cycles later, combinational from there, within +-127
    wide : Out(signed(16))    within +-32767
    clipped : Out(1)          ``narrow`` was saturated
    """

    LATENCY = 2
    BITS = 18

    whole: In(signed(WIDTH))
    fraction: In(FRACTION)
    overflow: In(1)
    negative: In(1)
    random: In(FRACTION)
    stochastic: In(1)
    narrow: Out(signed(8))
    wide: Out(signed(16))
    clipped: Out(1)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        whole, up, beyond, sign = Signal(signed(self.BITS)), Signal(), Signal(), Signal()
        carry = (self.fraction + self.random)[FRACTION]
        half = self.fraction[-1] & (self.fraction[:-1].any() | self.whole[0])
        top = self.whole[self.BITS - 2:]
        m.d.sync += [
            whole.eq(self.whole), up.eq(Mux(self.stochastic, carry, half)), sign.eq(self.negative),
            beyond.eq(self.overflow | (top.any() & ~top.all())),
        ]
        rounded, far, negative = Signal(signed(self.BITS)), Signal(), Signal()
        m.d.sync += [rounded.eq(whole + up), far.eq(beyond), negative.eq(sign)]
        narrow, clipped = saturated(rounded, 8, beyond=far, negative=negative)
        wide, _ = saturated(rounded, 16, beyond=far, negative=negative)
        m.d.comb += [self.narrow.eq(narrow), self.wide.eq(wide), self.clipped.eq(clipped)]
        return m
