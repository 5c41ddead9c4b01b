"""Exponents of an instruction: every shift amount from the operands' exponents."""

from amaranth.hdl import Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.table import Scale
from shiftgrad.isa import EXPONENT_MAX, EXPONENT_MIN, HISTORY

__all__ = ["ExponentUnit"]


def clamp(value: object, low: int, high: int) -> object:
    """``value`` limited to [low, high]."""
    low_c, high_c = Const(low, signed(12)), Const(high, signed(12))
    return Mux(value < low_c, low_c, Mux(value > high_c, high_c, value))  # type: ignore[operator]


class ExponentUnit(wiring.Component):
    """Dataflow from static inputs; outputs are right LATENCY cycles after the last input changed.

    Members
    -------
    grad : In(1)               gradient: a guard shift, 7 c is added
    e_x, e_y : In              their sum is the exponent of the accumulators
    e_add, e_dst : In          exponents of what is added (c; b of ADD and ADDB) and of dst
    most : In(signed 6)        largest guard shift: 16 - ceil(log2 terms)
    rate : In(7)               learning-rate shift n
    scale : In                 exponent and history of the tensor being requantised
    delayed : In(1)            use the history when there is one
    measured : In(1)           a range pass has run: use its result
    zero, log2 : In            its result: amax = 0, or round_log2(amax)
    need_range : Out(1)        a range pass must run first
    e_v, e_t : Out             exponent of v and of the result
    guard : Out(5)             g >= 0 of the lanes
    drop : Out(5)              -g of a long SUM
    align, shift, step : Out   d, s, s2 of the lanes, clamped
    new_scale : Out            entry to store, given ``zero`` and ``log2`` of the write pass, unless ``freeze``
    freeze : In(1)             leave the history alone
    """

    LATENCY = 6

    grad: In(1)
    e_x: In(signed(8))
    e_y: In(signed(8))
    e_add: In(signed(8))
    e_dst: In(signed(8))
    most: In(signed(6))
    rate: In(7)
    scale: In(Scale)
    delayed: In(1)
    measured: In(1)
    zero: In(1)
    log2: In(signed(7))
    freeze: In(1)
    need_range: Out(1)
    e_v: Out(signed(10))
    e_t: Out(signed(8))
    guard: Out(5)
    drop: Out(5)
    align: Out(signed(6))
    shift: Out(signed(7))
    step: Out(signed(7))
    new_scale: Out(Scale)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        e_acc, e_v = Signal(signed(10)), self.e_v
        own = Signal(signed(8))
        floor = Const(EXPONENT_MIN, signed(8))

        # stage 1: exponent of the accumulators, history in pairs
        m.d.sync += e_acc.eq(self.e_x + self.e_y)
        level = []
        for i in range(HISTORY):
            entry = Signal(signed(8), name=f"history{i}")
            m.d.comb += entry.eq(Mux(self.scale.count > i, self.scale.history[i], floor))
            level.append(entry)
        while len(level) > 1:  # stages 1 to 3
            pairs = [Signal(signed(8), name=f"max{len(level)}_{i}") for i in range(len(level) // 2)]
            m.d.sync += [p.eq(Mux(x > y, x, y)) for p, x, y in zip(pairs, level[::2], level[1::2], strict=True)]
            level = pairs
        (recent,) = level

        # stage 2: guard shift; stage 3: exponent of v
        wanted, guard = Signal(signed(11)), Signal(signed(6))
        zero = Const(0, signed(11))
        m.d.comb += wanted.eq(e_acc - self.e_add + 3)
        with m.If(~self.grad):
            m.d.sync += guard.eq(0)
        with m.Elif((self.most < 0) | (wanted > self.most)):
            m.d.sync += guard.eq(self.most)
        with m.Elif(wanted < zero):
            m.d.sync += guard.eq(0)
        with m.Else():
            m.d.sync += guard.eq(wanted)
        m.d.sync += [
            e_v.eq(e_acc - guard), self.guard.eq(Mux(guard < 0, 0, guard)), self.drop.eq(Mux(guard < 0, -guard, 0)),
        ]

        # stage 4: the tensor's own exponent; stage 5: target; stage 6: shifts
        m.d.sync += own.eq(clamp(e_v + self.log2 - 7, EXPONENT_MIN, EXPONENT_MAX))
        m.d.comb += self.need_range.eq(~(self.delayed & (self.scale.count != 0)))
        with m.If(~self.need_range):
            m.d.sync += self.e_t.eq(clamp(recent, EXPONENT_MIN, EXPONENT_MAX))
        with m.Elif(self.measured):
            m.d.sync += self.e_t.eq(Mux(self.zero, self.scale.exponent, own))
        added = Signal(signed(10))
        m.d.comb += added.eq(Mux(self.grad, self.e_add - 3, self.e_add))
        m.d.sync += [
            self.align.eq(clamp(added - e_v, -31, 31)),
            self.shift.eq(clamp(self.e_t - e_v, -7, 32)),
            self.step.eq(clamp(self.e_dst + self.rate - self.e_t, -15, 32)),
        ]

        push = Signal()
        m.d.comb += [
            push.eq(~self.zero & ~self.freeze),
            self.new_scale.exponent.eq(self.e_t),
            self.new_scale.count.eq(Mux(push & (self.scale.count < HISTORY), self.scale.count + 1, self.scale.count)),
            self.new_scale.history.eq(self.scale.history),
        ]
        with m.If(push):
            m.d.comb += [
                self.new_scale.history[0].eq(own),
                *(self.new_scale.history[i].eq(self.scale.history[i - 1]) for i in range(1, HISTORY)),
            ]
        return m
