"""Range of a whole tensor: the largest magnitude of all lanes, and its rounded logarithm."""

from amaranth.hdl import Assert, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.logic import register

__all__ = ["RangeUnit"]

SQRT2 = 0xB504F334  # ceil(sqrt(2) * 2^31)


class RangeUnit(wiring.Component):
    """Keeps the largest magnitude that comes out of the lanes, and normalises it in five steps.

    Parameters
    ----------
    lanes : T

    Members
    -------
    clear : In(1)               forget all; not while magnitudes are under way
    largest : In(32)            magnitudes, as the last lane hands them on
    clips : In                  how many mantissas were saturated, likewise
    start : In(1)               the last of them come within ``late(lanes)`` cycles
    done : Out(1)               for a cycle, ``latency`` after ``start``; ``log2`` and ``amax_zero`` are here until the
                                next ``done``, ``saturated`` until ``clear``
    amax_zero : Out(1)          all magnitudes were 0
    log2 : Out(signed(7))       round_log2 of the largest: k + 1 when its square >= 2^(2k+1), else k; 0 when it is 0
    saturated : Out(32)         sum of ``clips``
    """

    SETTLE = 5  # cycles from a magnitude to the largest one, which it may be

    def __init__(self, *, lanes: int) -> None:
        self.lanes = lanes
        super().__init__({
            "clear": In(1),
            "largest": In(32),
            "clips": In(unsigned(lanes.bit_length())),
            "start": In(1),
            "done": Out(1),
            "amax_zero": Out(1),
            "log2": Out(signed(7)),
            "saturated": Out(32),
        })

    @staticmethod
    def late(lanes: int) -> int:
        """Cycles that magnitudes may come after ``start``: T - 4; when negative, before it."""
        return lanes - 4

    @property
    def latency(self) -> int:
        """Cycles from ``start`` to ``done``: T + 7."""
        return self.late(self.lanes) + self.SETTLE + 6

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, shifts = self._amax(m), Cat()
        m.d.sync += self.saturated.eq(Mux(self.clear, 0, self.saturated + self.clips))
        for step in (16, 8, 4, 2, 1):
            shift = Signal(name=f"shift{step}")
            normal = Signal(32, name=f"normal{step}", reset_less=True)
            so_far = Signal(len(shifts) + 1, name=f"shifts{step}", reset_less=True)
            m.d.comb += shift.eq(value[32 - step:] == 0)
            m.d.sync += [normal.eq(Mux(shift, value << step, value)), so_far.eq(Cat(shift, shifts))]
            value, shifts = normal, so_far

        wait = [self.start]
        for cycle in range(1, self.latency + 1):
            wait.append(Signal(name=f"wait{cycle}"))
            m.d.sync += wait[-1].eq(wait[-2])
        with m.If(wait[-2]):
            m.d.sync += [self.amax_zero.eq(~value[31]), self.log2.eq(~shifts + (value >= SQRT2))]
        m.d.comb += self.done.eq(wait[-1])
        if platform is None:  # simulation and formal
            m.d.sync += Assert(~self.clear | ((self.largest == 0) & (self.clips == 0)),
                               "range: cleared with magnitudes under way")
        return m

    def _amax(self, m: Module) -> Value:
        """Every other cycle the larger of two magnitudes is compared, and in the next one perhaps taken."""
        amax = Signal(32)
        before = register(m, self.largest, "before")
        later = register(m, self.largest > before, "later")
        pair = register(m, Mux(later, before, register(m, before, "earlier")), "pair")
        turn = Signal()
        m.d.sync += turn.eq(~turn)
        larger, candidate = register(m, pair > amax, "larger"), register(m, pair, "candidate")
        with m.If(self.clear):
            m.d.sync += amax.eq(0)
        with m.Elif(turn & larger):
            m.d.sync += amax.eq(candidate)
        return amax
