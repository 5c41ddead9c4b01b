"""Performance counters."""

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.activity import Activity
from shiftgrad.isa import COUNTERS

__all__ = ["PerformanceCounters"]

WIDTH = 48


class PerformanceCounters(wiring.Component):
    """48-bit counters named by ``isa.COUNTERS``; they wrap.

    Members
    -------
    activity : In             of this cycle
    feeding, waiting : In     the issuer feeds the array, or waits for the drain's T cycles
    streaming : In            the vector unit reads
    macs : In                 multiply-accumulates issued in the cycle before
    clear : In(1)             takes three cycles, an event two: those of its own cycle and the next are not counted
    values : Out              by position in ``isa.COUNTERS``
    """

    def __init__(self, *, size: int) -> None:
        super().__init__({
            "activity": In(Activity),
            "feeding": In(1),
            "waiting": In(1),
            "streaming": In(1),
            "macs": In(unsigned((size * size).bit_length())),
            "clear": In(1),
            "values": Out(data.ArrayLayout(unsigned(WIDTH), len(COUNTERS))),
        })

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        activity, phase = Signal(Activity), self.activity.phase
        m.d.sync += activity.eq(self.activity)
        write = self.activity.write
        events = {
            "FWD_CYCLES": phase.fwd,
            "BWD_CYCLES": phase.bwd,
            "GRAD_CYCLES": phase.grad,
            "VECTOR_CYCLES": phase.vector,
            "OTHER_CYCLES": phase.other,
            "FEED_CYCLES": write & self.feeding & ~self.waiting,
            "RANGE_CYCLES": self.activity.range,
            "DRAIN_CYCLES": write & self.waiting,
            "STREAM_CYCLES": write & self.streaming,
            "TAIL_CYCLES": write & ~self.feeding & ~self.streaming,
            "SETUP_CYCLES": self.activity.setup,
            "LOSS_CYCLES": self.activity.loss,
            "FWD_MACS": Mux(activity.write & activity.phase.fwd, self.macs, 0),
            "BWD_MACS": Mux(activity.write & activity.phase.bwd, self.macs, 0),
            "GRAD_MACS": Mux(activity.write & activity.phase.grad, self.macs, 0),
        }
        clear = Signal()
        halves = [Signal(name=f"clear{half}", init=half) for half in range(2)]  # another start keeps them apart
        m.d.sync += [clear.eq(self.clear), *(half.eq(clear) for half in halves)]
        for i, name in enumerate(COUNTERS):
            event = events.pop(name)
            increment = Signal(len(event), name=f"event_{name.lower()}")
            m.d.sync += [increment.eq(event), self.values[i].eq(self.values[i] + increment)]
            with m.If(halves[2 * i // len(COUNTERS)]):
                m.d.sync += self.values[i].eq(0)
        assert not events
        return m
