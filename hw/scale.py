"""The shifters: left shift into a window, and shift + round + saturate (`fixed` of the numerics contract)."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.logic import at_least, register

__all__ = ["FRACTION", "ZERO_SHIFT", "Saturate", "Scale", "Shifter", "symmetric"]

FRACTION = 24  # fraction bits of the fixed-point value that is rounded, and bits of a random word
ZERO_SHIFT = 32  # shifts from here up give zero


def symmetric(value: Value, bits: int) -> tuple[Value, int]:
    """Whether signed ``value`` is outside +-(2^(bits-1) - 1), and that bound."""
    top = value[bits - 1:]
    same = (top == 0) | top.all()
    lowest = value[-1] & (value[:bits - 1] == 0)  # the one too many of two's complement
    return ~same | lowest, (1 << bits - 1) - 1


class Shifter(wiring.Component):
    """Pipelined left shift of a signed number; bits ``low`` to ``high - 1`` of the result are kept.

    Parameters
    ----------
    width : bits of ``x``, at most ``high``
    steps : powers of two shifted by in each stage, e.g. ((16, 8), (4, 2, 1)); amounts go from 0 to their sum
    low, high : the window kept: y = floor(x * 2^n / 2^low), modulo 2^(high - low)

    Members
    -------
    x : In(signed(width))           number
    n : In                          amount; static while numbers are under way, and a cycle before
    y : Out(signed(high - low))     shifted number, ``latency`` cycles after ``x``
    overflow : Out(1)               with ``y``: x * 2^n is outside signed(high), ``y`` means nothing
    negative : Out(1)               with ``y``: x < 0

    Latency is one cycle a stage; a number enters every cycle. Growing steps suit a narrow ``x``, falling ones a wide.
    """

    def __init__(self, *, width: int, steps: tuple[tuple[int, ...], ...], low: int, high: int) -> None:
        if width > high:
            raise ValueError(f"width must be at most high, {high}, got {width}")
        self.width = width
        self.steps = steps
        self.low = low
        self.high = high
        self.reach = sum(map(sum, steps))
        super().__init__({
            "x": In(signed(width)),
            "n": In(unsigned(self.reach.bit_length())),
            "y": Out(signed(high - low)),
            "overflow": Out(1),
            "negative": Out(1),
        })

    @property
    def latency(self) -> int:
        """Cycles from ``x`` to ``y``."""
        return len(self.steps)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        value, low, remaining = self.x, 0, self.reach
        negative = self.x[-1]
        overflow = self._lost(m)
        n = register(m, self.n, "n_wide")  # one copy drives the words, the other what ``_lost`` looks at
        for index, steps in enumerate(self.steps):
            if index:
                overflow = register(m, overflow, f"overflow{index}")
            negative = register(m, negative, f"negative{index}")
            for step in steps:
                remaining -= step
                drop = max(0, self.low - remaining - low)
                high = min(low + len(value) + step, self.high)
                low += drop
                wide = Signal(signed(high - low), name=f"shift{step}")
                m.d.comb += wide.eq(Mux(n[step.bit_length() - 1], value << step, value) >> drop)
                value = wide
            value = register(m, value, f"value{index}")
        m.d.comb += [self.y.eq(value), self.overflow.eq(overflow), self.negative.eq(negative)]
        return m

    def _lost(self, m: Module) -> Value:
        """A cycle after ``x``: whether it has significant bits that are to move past ``high``."""
        least = [self.high - 1 - bit for bit in range(self.width - 1)]  # amount that moves a bit past the sign
        lost = Signal(self.width - 1, reset_less=True)
        m.d.sync += lost.eq(Cat(at_least(self.n, amount) for amount in least))
        moved = lost & (self.x[:-1] ^ self.x[-1].replicate(self.width - 1))
        return register(m, Cat(moved[bit:bit + 4].any() for bit in range(0, self.width - 1, 4)), "moved").any()


class Scale(wiring.Component):
    """q = saturate(floor((fixed(x, s) + r) / 2^24)), fixed(x, s) = floor(x * 2^(24 - s)), zero for s = 32.

    With ``even``, a fixed(x, s) halfway between two integers gives the even one: 2^23 then rounds to nearest.

    Parameters
    ----------
    width : bits of ``x``
    least : smallest ``s``
    out_width : bits of ``q``; it saturates to +-(2^(out_width-1) - 1)
    steps : as for :class:`Shifter`; they must add up to at least 32 - ``least``

    Members
    -------
    x : In(signed(width))        number
    s : In(signed(7))            scale in [least, 32]; static while numbers are under way, and a cycle before
    narrow : In(1)               saturate to +-127 whatever ``out_width``; static too
    even : In(1)                 ties go to the even integer; static too
    r : In(24)                   rounding word, ``r_delay`` cycles after its ``x``: 2^23 rounds to nearest, uniform
                                 words stochastically
    q : Out(signed(out_width))   result, ``latency`` cycles after ``x``
    clipped : Out(1)             with ``q``: it was saturated

    A number enters every cycle.
    """

    def __init__(self, *, width: int, least: int, out_width: int, steps: tuple[tuple[int, ...], ...]) -> None:
        self.width = width
        self.least = least
        self.out_width = out_width
        self.steps = steps
        self.shifter = Shifter(width=width, steps=steps, low=ZERO_SHIFT - FRACTION, high=ZERO_SHIFT + out_width)
        if self.shifter.reach < ZERO_SHIFT - least:
            raise ValueError(f"steps must add up to at least {ZERO_SHIFT - least}, got {self.shifter.reach}")
        super().__init__({
            "x": In(signed(width)),
            "s": In(signed(7)),
            "narrow": In(1),
            "even": In(1),
            "r": In(FRACTION),
            "q": Out(signed(out_width)),
            "clipped": Out(1),
        })

    @property
    def r_delay(self) -> int:
        """Cycles from ``x`` to its ``r``."""
        return self.shifter.latency

    @property
    def latency(self) -> int:
        """Cycles from ``x`` to ``q``."""
        return self.r_delay + Saturate.LATENCY + 1

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.shifter = shifter = self.shifter
        n = Signal.like(shifter.n)
        some = Signal()
        m.d.sync += [n.eq(ZERO_SHIFT - self.s), some.eq(n != 0)]
        m.d.comb += [shifter.x.eq(self.x), shifter.n.eq(n)]

        total = register(m, (shifter.y + self.r)[FRACTION:], "total")
        tie = register(m, self.even & shifter.y[FRACTION - 1] & (shifter.y[:FRACTION - 1] == 0), "tie")
        m.submodules.saturate = saturate = Saturate(width=len(total), out_width=self.out_width)
        m.d.comb += [
            saturate.x.eq(Cat(total[0] & ~tie, total[1:])),
            saturate.narrow.eq(self.narrow), saturate.keep.eq(some),
            saturate.overflow.eq(register(m, shifter.overflow, "overflow")),
            saturate.negative.eq(register(m, shifter.negative, "negative")),
            self.q.eq(saturate.y), self.clipped.eq(saturate.clipped),
        ]
        return m


class Saturate(wiring.Component):
    """A signed number limited to +-(2^(out_width-1) - 1).

    Parameters
    ----------
    width, out_width : bits of ``x`` and ``y``

    Members
    -------
    x : In(signed(width))        number
    overflow, negative : In(1)   with ``x``: it is beyond ``width`` bits, on this side
    keep : In(1)                 a cycle after ``x``: else ``y`` is 0
    narrow : In(1)               limit to +-127 whatever ``out_width``; static
    y : Out(signed(out_width))   LATENCY cycles after ``x``
    clipped : Out(1)             with ``y``: it was limited
    """

    LATENCY = 2

    def __init__(self, *, width: int, out_width: int) -> None:
        self.width, self.out_width = width, out_width
        super().__init__({
            "x": In(signed(width)),
            "overflow": In(1),
            "negative": In(1),
            "keep": In(1),
            "narrow": In(1),
            "y": Out(signed(out_width)),
            "clipped": Out(1),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        outside8, bound8 = symmetric(self.x, 8)
        outside, bound = symmetric(self.x, self.out_width)
        clipped = register(m, self.overflow | Mux(self.narrow, outside8, outside), "outside")
        negative = register(m, self.negative, "negative")
        low = register(m, self.x[:self.out_width], "low")
        limit = Signal(self.out_width)
        m.d.comb += limit.eq(Mux(self.narrow, bound8, bound))
        # limit is odd: -limit is ~limit with bit 0 set
        bounded = Mux(clipped, limit ^ negative.replicate(self.out_width) | 1, low)
        m.d.sync += [self.y.eq(Mux(self.keep, bounded, 0)), self.clipped.eq(clipped & self.keep)]
        return m
