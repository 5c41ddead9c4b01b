"""Exponents of an instruction: every shift amount from the operands' exponents."""

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.table import Scale
from shiftgrad.isa import EXPONENT_MAX, EXPONENT_MIN, HISTORY

__all__ = ["ExponentUnit", "clamp"]


def clamp(m: Module, value: Value, low: int, high: int, name: str, *, less: int = 0) -> Signal:
    """``value`` - ``less`` limited to [low, high], two cycles later: comparisons, then a selection."""
    width = max(len(value), (high + less).bit_length() + 1) + 1
    under, over = Signal(name=f"{name}_under"), Signal(name=f"{name}_over")
    kept = Signal(signed(width), name=f"{name}_kept")
    limited = Signal(signed(max(low, high, -low).bit_length() + 1), name=f"{name}_limited")
    m.d.sync += [
        under.eq((value - Const(low + less, signed(width)))[-1]),  # signs of differences: a single carry chain
        over.eq((Const(high + less, signed(width)) - value)[-1]),
        kept.eq(value - less), limited.eq(Mux(under, low, Mux(over, high, kept))),
    ]
    return limited


class ExponentUnit(wiring.Component):
    """Dataflow from static inputs; outputs are right LATENCY cycles after the last input changed.

    Parameters
    ----------
    uint8 : results may be unsigned

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
    unsigned : In(1)           the result is unsigned; where it may be

    After a change of ``measured``, ``zero`` and ``log2`` alone all is right within RANGE_LATENCY cycles, ``new_scale``
    within STORE_LATENCY.
    """

    LATENCY = 14
    RANGE_LATENCY = 8
    STORE_LATENCY = 5

    def __init__(self, *, uint8: bool = False) -> None:
        self.uint8 = uint8
        super().__init__({
            "grad": In(1),
            "e_x": In(signed(8)),
            "e_y": In(signed(8)),
            "e_add": In(signed(8)),
            "e_dst": In(signed(8)),
            "most": In(signed(6)),
            "rate": In(7),
            "scale": In(Scale),
            "delayed": In(1),
            "measured": In(1),
            "zero": In(1),
            "log2": In(signed(7)),
            "freeze": In(1),
            "need_range": Out(1),
            "e_v": Out(signed(10)),
            "e_t": Out(signed(8)),
            "guard": Out(5),
            "drop": Out(5),
            "align": Out(signed(6)),
            "shift": Out(signed(7)),
            "step": Out(signed(7)),
            "new_scale": Out(Scale),
            **({"unsigned": In(1)} if uint8 else {}),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        self.held = held = {name: Signal.like(getattr(self, name), name=f"held_{name}")  # stage 1: the inputs
                            for name, member in self.signature.members.items() if member.flow == In}
        m.d.sync += [register.eq(getattr(self, name)) for name, register in held.items()]
        self._guard(m)
        own = self._target(m, self._recent(m))
        self._shifts(m)
        self._store(m, own)
        return m

    def _recent(self, m: Module) -> Signal:
        """Largest exponent of the history; stages 2 to 5."""
        scale, level = self.held["scale"], []
        for i in range(HISTORY):
            entry = Signal(signed(8), name=f"history{i}")
            m.d.sync += entry.eq(Mux(scale.count > i, scale.history[i], Const(EXPONENT_MIN, signed(8))))
            level.append(entry)
        while len(level) > 1:
            pairs = [Signal(signed(8), name=f"max{len(level)}_{i}") for i in range(len(level) // 2)]
            m.d.sync += [p.eq(Mux((x - y)[-1], y, x)) for p, x, y in zip(pairs, level[::2], level[1::2], strict=True)]
            level = pairs
        return level[0]

    def _guard(self, m: Module) -> None:
        """Stage 2: exponent of the accumulators; 3 to 6: guard shift; 7: exponent of v."""
        held, e_acc = self.held, Signal(signed(9))
        apart, wanted, guard = Signal(signed(10)), Signal(signed(11)), Signal(signed(6))
        largest, none = Signal(), Signal()
        most = held["most"]
        m.d.sync += [
            e_acc.eq(held["e_x"] + held["e_y"]), apart.eq(e_acc - held["e_add"]), wanted.eq(apart + 3),
            largest.eq(most[-1] | (most - wanted)[-1]), none.eq(wanted[-1]),
        ]
        with m.If(~held["grad"]):
            m.d.sync += guard.eq(0)
        with m.Elif(largest):
            m.d.sync += guard.eq(most)
        with m.Elif(none):
            m.d.sync += guard.eq(0)
        with m.Else():
            m.d.sync += guard.eq(wanted)
        m.d.sync += [
            self.e_v.eq(e_acc - guard),
            self.guard.eq(Mux(guard < 0, 0, guard)), self.drop.eq(Mux(guard < 0, -guard, 0)),
        ]

    def _target(self, m: Module, recent: Signal) -> Signal:
        """Stages 8 to 10: the tensor's own exponent, returned; stage 11: its target."""
        held, sum_log2 = self.held, Signal(signed(11))
        log2 = held["log2"] - held["unsigned"] if self.uint8 else held["log2"]
        m.d.sync += sum_log2.eq(self.e_v + log2)
        own = clamp(m, sum_log2, EXPONENT_MIN, EXPONENT_MAX, "own", less=7)
        recent = clamp(m, recent, EXPONENT_MIN, EXPONENT_MAX, "recent")
        m.d.sync += self.need_range.eq(~(held["delayed"] & (held["scale"].count != 0)))
        with m.If(~self.need_range):
            m.d.sync += self.e_t.eq(recent)
        with m.Elif(held["measured"]):
            m.d.sync += self.e_t.eq(Mux(held["zero"], held["scale"].exponent, own))
        return own

    def _shifts(self, m: Module) -> None:
        """Stage 12: differences; 13 and 14: within the shifters' reach."""
        held = self.held
        added, align, updated = Signal(signed(9)), Signal(signed(11)), Signal(signed(9))
        shift, step = Signal(signed(11)), Signal(signed(11))
        m.d.sync += [
            added.eq(held["e_add"] - Mux(held["grad"], 3, 0)), align.eq(added - self.e_v),
            updated.eq(held["e_dst"] + held["rate"]),
            shift.eq(self.e_t - self.e_v), step.eq(updated - self.e_t),
        ]
        m.d.comb += [
            self.align.eq(clamp(m, align, -31, 31, "align")),
            self.shift.eq(clamp(m, shift, -7 - self.uint8, 32, "shift")),
            self.step.eq(clamp(m, step, -15, 32, "step")),
        ]

    def _store(self, m: Module, own: Signal) -> None:
        scale, new, push = self.held["scale"], self.new_scale, Signal()
        more = Signal(4)
        m.d.sync += [
            push.eq(~self.held["zero"] & ~self.held["freeze"]),
            more.eq(Mux(scale.count < HISTORY, scale.count + 1, scale.count)),
        ]
        m.d.comb += [
            new.exponent.eq(self.e_t), new.count.eq(Mux(push, more, scale.count)), new.history.eq(scale.history),
        ]
        with m.If(push):
            m.d.comb += [new.history[0].eq(own), *(new.history[i].eq(scale.history[i - 1]) for i in range(1, HISTORY))]
