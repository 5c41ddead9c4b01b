"""Range of a whole tensor: the largest magnitude of all lanes, and its rounded logarithm."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RangeUnit"]

SQRT2 = 0xB504F334  # ceil(sqrt(2) * 2^31)


class RangeUnit(wiring.Component):
    """Scans the lanes one a cycle, then normalises the maximum one shift a cycle.

    Parameters
    ----------
    lanes : T

    Members
    -------
    start : In(1)               take the lanes' values and scan them. Not while a scan runs.
    amax : In(ArrayLayout)      unsigned(32) of each lane
    saturated_lanes : In        unsigned(20) of each lane
    done : Out(1)               for a cycle, ``latency`` after ``start``; the results are here until the next ``start``
    amax_zero : Out(1)          all ``amax`` are 0
    log2 : Out(signed(7))       round_log2 of the largest amax: k + 1 when amax^2 >= 2^(2k+1), else k; 0 when it is 0
    saturated : Out(32)         sum over the lanes
    """

    def __init__(self, *, lanes: int) -> None:
        self.lanes = lanes
        super().__init__({
            "start": In(1),
            "amax": In(data.ArrayLayout(unsigned(32), lanes)),
            "saturated_lanes": In(data.ArrayLayout(unsigned(20), lanes)),
            "done": Out(1),
            "amax_zero": Out(1),
            "log2": Out(signed(7)),
            "saturated": Out(32),
        })

    @property
    def latency(self) -> int:
        """Cycles from ``start`` to ``done``: T + 7."""
        return self.lanes + 7

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        index = Signal(range(self.lanes))
        scanning = Signal()
        chosen, count = Signal(32), Signal(20)
        first, merge = Signal(), Signal()
        largest = Signal(32)

        with m.If(self.start | scanning):
            m.d.sync += [index.eq(index + 1), scanning.eq(1)]
            with m.If(index == self.lanes - 1):
                m.d.sync += [index.eq(0), scanning.eq(0)]
        # a shift register past the lanes: a selection among them would need all their wires in one place
        amax, saturated = Const(0, 32), Const(0, 20)
        for lane in range(self.lanes):
            amax_next, saturated_next = Signal(32, name=f"amax{lane}"), Signal(20, name=f"saturated{lane}")
            m.d.sync += [
                amax_next.eq(Mux(self.start, self.amax[lane], amax)),
                saturated_next.eq(Mux(self.start, self.saturated_lanes[lane], saturated)),
            ]
            amax, saturated = amax_next, saturated_next
        m.d.comb += [chosen.eq(amax), count.eq(saturated)]
        m.d.sync += [
            first.eq(self.start),
            merge.eq(self.start | scanning),
        ]
        with m.If(merge):
            with m.If(first | (chosen > largest)):
                m.d.sync += largest.eq(chosen)
            m.d.sync += self.saturated.eq(Mux(first, 0, self.saturated) + count)

        value, shifts = largest, Cat()
        for step in (16, 8, 4, 2, 1):
            shift = Signal(name=f"shift{step}")
            normal = Signal(32, name=f"normal{step}", reset_less=True)
            so_far = Signal(len(shifts) + 1, name=f"shifts{step}", reset_less=True)
            m.d.comb += shift.eq(value[32 - step:] == 0)
            m.d.sync += [normal.eq(Mux(shift, value << step, value)), so_far.eq(Cat(shift, shifts))]
            value, shifts = normal, so_far
        m.d.sync += [
            self.amax_zero.eq(~value[31]),
            self.log2.eq(~shifts + (value >= SQRT2)),
        ]

        wait = [self.start]
        for cycle in range(1, self.latency + 1):
            wait.append(Signal(name=f"wait{cycle}"))
            m.d.sync += wait[-1].eq(wait[-2])
        m.d.comb += self.done.eq(wait[-1])
        return m
